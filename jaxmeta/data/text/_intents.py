"""Three sets of intents in short sentences, with the five class splits that papers report."""

import json
from collections.abc import Iterator
from pathlib import Path

from jaxmeta.data.cache import data_folder
from jaxmeta.data.text._corpus import PARTS, Corpus, corpus, read_sentences
from jaxmeta.files import shown

_SOURCE = "https://github.com/tdopierre/ProtAugment"
SPLITS = ("1", "2", "3", "4", "5")
INTENTS = {  # the folder and the licence of each set
    "banking77": ("BANKING77", "CC BY 4.0"),
    "hwu64": ("HWU64", "CC BY 4.0"),
    "clinc150": ("OOS", "CC BY 3.0"),
}


def intents(name: str, *, split: str | None = None, data_dir: str | Path | None = None) -> Corpus:
    """BANKING77, HWU64 or CLINC150 with one of the five class splits of ProtAugment.

    Args:
      name: `banking77`: 77 requests to a bank; `hwu64`: 64 requests to a home assistant;
        `clinc150`: 150 requests to assistants of ten domains, without the out-of-scope class.
      split: the number of the split, 1 to 5. Defaults to 1.
      data_dir: the folder `data` of the published repository, or one of the same sets as
        `SET/sentences.tsv` and `SET/split_01.tsv`. Defaults to `intents` in `JAXMETA_DATA_DIR`,
        or in the cache folder.

    Raises:
      FileNotFoundError: the files are missing; the message says where to get them.
      ValueError: an unknown split, or damaged files.

    Sources: Casanueva et al. 2020, "Efficient intent detection with dual sentence encoders"; Liu
    et al. 2019, "Benchmarking natural language understanding services"; Larson et al. 2019, "An
    evaluation dataset for intent classification and out-of-scope prediction"; the splits: Dopierre
    et al. 2021, "ProtAugment".

    >>> intents("hwu64", data_dir="nowhere")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    FileNotFoundError: nowhere/HWU64 has no sentences; get ...
    """
    folder_name, licence = INTENTS[name]
    split = SPLITS[0] if split is None else split
    if split not in SPLITS:
        raise ValueError(f"{name} has no split {split!r}; choose from {', '.join(SPLITS)}")
    folder = data_folder("intents", data_dir) / folder_name
    condensed, published = folder / "sentences.tsv", folder / "full.jsonl"
    if condensed.exists():
        labelled = read_sentences(condensed)
        parts: dict[str, list[str]] = {part: [] for part in PARTS}
        for part, label in read_sentences(folder / f"split_{split.zfill(2)}.tsv"):
            parts["validation" if part == "valid" else part].append(label)
    elif published.exists():
        labelled = list(_jsonl(published))
        parts = {}
        for part in PARTS:
            file = folder / "few_shot" / split.zfill(2) / f"labels.{part.removesuffix('ation')}.txt"
            parts[part] = file.read_text(encoding="utf-8").split("\n")
            parts[part] = [label for label in map(str.strip, parts[part]) if label]
    else:
        raise FileNotFoundError(
            f"{shown(folder)} has no sentences; get the folder data of {_SOURCE} and copy its "
            f"{folder_name} there, or set JAXMETA_DATA_DIR to a folder with intents/{folder_name}"
        )
    protocol = {"split": f"ProtAugment {split}"}
    return corpus(name, labelled, parts, protocol=protocol, licence=licence, source=_SOURCE)


def _jsonl(path: Path) -> Iterator[tuple[str, str]]:
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                entry = json.loads(line)
                yield str(entry["label"]), str(entry["sentence"])
            except (ValueError, TypeError, KeyError) as error:
                raise ValueError(
                    f"{shown(path)}, line {number} has no label and sentence; get the file again "
                    f"from {_SOURCE}"
                ) from error
