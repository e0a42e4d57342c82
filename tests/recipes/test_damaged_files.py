"""Whatever is done to a file that is read back: one plain line, or the same; nothing is guessed."""

import copy
import io
import json
import math
import random
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxmeta import files
from jaxmeta.commands.compare import compare
from jaxmeta.models import pack, unpack
from jaxmeta.recipes import find_domain, find_learner, from_json, start, to_json
from jaxmeta.recipes.folders import prepare_folder, read_config, read_identity
from jaxmeta.recipes.results import PerTask, read_per_task, write_per_task
from jaxmeta.training.logs import open_log, read_metrics

PAIRS = [
    *(("few-shot", "maml"), ("regression", "meta-sgd"), ("sequence", "ntm")),
    *(("optimizers", "mlp-optimizer"), ("pretrain", "supervised"), ("few-shot", "meta-transfer")),
]
DATA = {"image_shape": [28, 28, 1], "images_sha256": "of none", "ink": True}
DATA |= {"classes": {"train": 60, "validation": 20, "test": 20}}
DEEP = json.loads("[" * 200 + "]" * 200)
# In place of any value; of the words some are no choice, some misspelt.
VALUES = [None, True, False, -1, 0, 3, 2.5, 1e308, 10**30, 10**400, "", "words", "a\0b", "\ud800"]
VALUES += [[], [1, 2], [[1]], [None], {}, {"a": 1}, {"name": "maml"}, DEEP, "x" * 10_000]
# As text, in place of the mark: what `json.dumps` does not write.
TEXTS = ["NaN", "Infinity", "-Infinity", "1e999", "9" * 5000, "tru", "", "01", '"\n"', "[" * 9000]


def entries(value: Any, within: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths to all that stands in a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for name, entry in items:
        yield (*within, name)
        if isinstance(entry, dict | list):
            yield from entries(entry, (*within, name))


def variants(fields: Any, seed: int = 0) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Where a JSON text was damaged, and the text: each entry in a few of all ways."""
    chosen = random.Random(seed)
    mark = "@mark@"

    def with_value(path: tuple[Any, ...], value: Any) -> str:
        changed = copy.deepcopy(fields)
        place = changed
        for step in path[:-1]:
            place = place[step]
        if value is mark_removed:
            del place[path[-1]]
        else:
            place[path[-1]] = value
        return json.dumps(changed)

    mark_removed = object()
    for path in entries(fields):
        yield path, with_value(path, mark_removed)
        for value in chosen.sample(VALUES, 5):
            yield path, with_value(path, value)
        for text in chosen.sample(TEXTS, 2):
            yield path, with_value(path, mark).replace(f'"{mark}"', text)
    whole = json.dumps(fields)
    for _ in range(60):
        place = chosen.randrange(len(whole))
        yield (), whole[:place]
        yield (), whole[:place] + chosen.choice('{}[]",:0ax\0\n') + whole[place + 1 :]
    yield (), whole.replace("{", '{"steps": 1, "steps": 2, ', 1)
    yield (), whole[:-1] + "," + whole[1:]  # every entry twice


def refused(read: Any, path: Path) -> bool:
    """Whether `read()` refuses, in one plain line that names the file."""
    try:
        read()
    except ValueError as error:
        line = str(error)
        assert path.name in line, line
        assert "\n" not in line
        assert len(line) < 1000, line[:2000]
        return True
    return False


@pytest.fixture
def stored(tmp_path):
    """`stored(domain, learner)`: a folder with the configuration that a run of these writes."""

    def write(domain: str, learner: str) -> Path:
        experiment = start(find_domain(domain), find_learner(learner)).resolved()
        data = DATA if domain in ("few-shot", "pretrain") else {}
        prepare_folder(tmp_path, experiment, data, resume=False, overwrite=False)
        return tmp_path / "config.json"

    return write


# --- config.json --------------------------------------------------------------------------


@pytest.mark.parametrize(("domain", "learner"), PAIRS)
def test_a_damaged_configuration_is_refused_or_kept(domain, learner, stored):
    """What is taken is what stands there: `to_json` of it gives the very entries."""
    path = stored(domain, learner)
    fields = json.loads(path.read_text())
    before = read_config(path.parent)
    taken = 0
    for number, (where, text) in enumerate(variants(fields)):
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        if refused(lambda: read_config(path.parent), path):
            continue
        found, taken = read_config(path.parent), taken + 1
        assert from_json(to_json(found.experiment)) == found.experiment
        assert found.data == before.data, (number, where)
        back, there = files.plain(to_json(found.experiment)), json.loads(text)
        for entry in entries(there):
            if entry[0] not in ("data", "data_sha256"):
                same: Any = back
                for step in entry:
                    same = same[step]
                own: Any = there
                for step in entry:
                    own = own[step]
                assert isinstance(own, dict) or same == own, (entry, own, same)
    assert taken > 0


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("tasks", "image_network", "network"), "conv4-strid"),
        (("tasks", "episode", "pipeline"), ["device"]),
        (("training", "outer_schedule"), "Cosine"),
        (("training", "steps"), 10**30),
        (("training", "seed"), 2**32),  # which JAX would take for 0
        (("training", "outer_rate"), math.inf),
        (("training", "outer_rate"), DEEP),
        (("learner", "inner_rate"), {"value": 1}),
        (("learner", "truncate"), True),
    ],
)
def test_the_field_is_named(path, value, stored):
    file = stored("few-shot", "maml")
    fields = json.loads(file.read_text())
    place = fields
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    file.write_text(json.dumps(fields))
    with pytest.raises(ValueError, match=f"{path[-1]}|{path[-1].replace('_', '-')}") as caught:
        read_config(file.parent)
    assert str(caught.value).startswith(f"{file} can't be read: ")


def test_names_that_stand_twice_and_parts_that_are_missing(stored):
    file = stored("few-shot", "maml")
    whole = file.read_text()
    file.write_text(whole.replace('"steps":', '"steps": 3, "steps":'))
    with pytest.raises(ValueError, match="'steps' appears twice"):
        read_config(file.parent)
    for part in ("tasks", "training"):
        fields = json.loads(whole)
        del fields[part]
        file.write_text(json.dumps(fields))
        with pytest.raises(ValueError, match=f"it has no entry '{part}'"):
            read_config(file.parent)


def test_damaged_data_is_noticed(stored):
    file = stored("few-shot", "maml")
    whole = json.loads(file.read_text())
    for path in entries(whole["data"]):
        fields = copy.deepcopy(whole)
        place = fields["data"]
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = 7
        file.write_text(json.dumps(fields))
        with pytest.raises(ValueError, match="its data was changed after it was written"):
            read_config(file.parent)


def test_the_identity_is_of_settings_and_data_but_not_of_places(stored):
    file = stored("few-shot", "maml")
    fields = json.loads(file.read_text())
    identity = read_identity(file.parent)
    changes: list[tuple[tuple[str, ...], Any, bool]] = [
        (("tasks", "images", "dataset"), "/elsewhere", True),
        (("training", "seed"), 7, False),
        (("learner", "inner_rate"), 0.5, False),
        (("tasks", "episode", "ways"), 7, False),
    ]
    for (*path, name), value, same in changes:
        changed = copy.deepcopy(fields)
        place = changed
        for step in path:
            place = place[step]
        place[name] = value
        file.write_text(json.dumps(changed))
        assert (read_identity(file.parent) == identity) is same


# --- the other files that are read back ---------------------------------------------------


def test_a_damaged_log_is_refused_or_kept(tmp_path):
    log = open_log(tmp_path, resume_step=None, identity="0123456789abcdef")
    for step in (10, 20, 30):
        log.write(step, {"train_loss": 1 / step, "train_accuracy": None})
    log.close()
    path = tmp_path / "metrics.jsonl"
    whole = path.read_bytes().splitlines(keepends=True)
    for number, (_, text) in enumerate(variants(json.loads(whole[1]))):
        line = text.encode("utf-8", "surrogatepass").replace(b"\n", b" ") + b"\n"
        path.write_bytes(whole[0] + line + whole[2])
        if not refused(lambda: read_metrics(tmp_path), path):
            assert read_metrics(tmp_path)[1] == json.loads(line), number
            copied = path.read_bytes()
            open_log(tmp_path, resume_step=30).close()  # which draws them, too
            assert [*map(json.loads, copied.splitlines())] == read_metrics(tmp_path)


def test_the_log_of_another_run_is_not_continued(tmp_path):
    log = open_log(tmp_path, resume_step=None, identity="one")
    log.write(10, {"train_loss": 1.0})
    log.close()
    with pytest.raises(ValueError, match=r"metrics\.jsonl is the log of another run, one"):
        open_log(tmp_path, resume_step=10, identity="other")
    open_log(tmp_path, resume_step=10, identity="one").close()


def changed_archives(data: bytes) -> Iterator[bytes]:
    """An .npz file cut short, with other bytes, and with other arrays in it."""
    chosen = random.Random(0)
    for _ in range(20):
        place = chosen.randrange(len(data))
        yield data[:place]
        yield data[:place] + bytes([data[place] ^ 255]) + data[place + 1 :]
    with np.load(io.BytesIO(data)) as entries:
        arrays = dict(entries)
    others = [np.array("text"), np.zeros((2, 2)), np.array(1.0), np.zeros(9, np.float32)]
    others += [np.array([{}], object), np.zeros(3, bool)]
    for name in arrays:
        yield archive({key: value for key, value in arrays.items() if key != name})
        for other in others:
            yield archive({**arrays, name: other})
    yield archive({**arrays, "test": np.zeros(3)})
    yield archive({**arrays, "test/loss/deep": np.zeros(3)})
    plain = io.BytesIO()
    with zipfile.ZipFile(plain, "w") as file:
        file.writestr("notes.txt", "no array")
    yield plain.getvalue()


def archive(arrays: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def test_damaged_values_of_tasks_are_refused_or_kept(tmp_path):
    path = tmp_path / "per_task.npz"
    values = {"loss": np.array([1.0, 2.0, 3.0]), "accuracy": np.array([0.5, 0.5, 1.0])}
    write_per_task(path, {"test": PerTask("these", values)}, "identity")
    for data in changed_archives(path.read_bytes()):
        path.write_bytes(data)
        if not refused(lambda: read_per_task(path, "identity"), path):
            for own in read_per_task(path, "identity").values():
                sizes = {(array.dtype.name, array.shape) for array in own.values.values()}
                assert len(sizes) == 1 and min(sizes)[0] == "float32"


def test_values_of_another_run_are_refused(tmp_path):
    path = tmp_path / "per_task.npz"
    write_per_task(path, {"test": PerTask("these", {"loss": np.ones(3)})}, "one")
    assert read_per_task(path, "one").keys() == read_per_task(path).keys() == {"test"}
    with pytest.raises(ValueError, match=r"per_task\.npz holds the values of run one, but"):
        read_per_task(path, "other")


def test_damaged_results_are_refused_or_read(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_per_task(
            tmp_path / name / "per_task.npz", {"test": PerTask("these", {"loss": np.ones(3)})}
        )
        results = {"figure": "loss", "identity": "x", "learner": "maml"}
        files.write_json(tmp_path / name / "results.json", results)
    path = tmp_path / "a" / "results.json"
    for _, text in variants(results):
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        try:
            compare((tmp_path / "a", tmp_path / "b"))
        except ValueError as error:
            assert "\n" not in str(error) and len(str(error)) < 1000


def test_damaged_parameters_are_refused_or_kept(tmp_path):
    params = {"head": {"bias": np.ones(3, np.float32)}, "scale": np.ones((), np.float32)}
    data = pack(params, "identity")
    assert unpack(data).keys() == params.keys()
    for changed in [*changed_archives(data), archive({"a": np.ones(1), "a/b": np.ones(1)})]:
        try:
            unpack(changed)
        except ValueError as error:
            assert "not a file of parameters" in str(error)
