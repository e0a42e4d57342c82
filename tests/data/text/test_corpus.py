"""Labelled sentences: reading, splitting, what a run has seen."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from jaxmeta.data.identity import Seen
from jaxmeta.data.text import (
    INTENTS,
    corpus,
    intents,
    load_text,
    read_corpus,
    read_sentences,
    text_classes,
    unseen_text,
)

PAIRS = [(f"class {row % 6}", f"sentence {row}") for row in range(18)]


def written(path: Path, content: str) -> Path:
    path.write_text(content, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.tsv", "sad\tit rains, again\nglad\tit snows\n"),
        ("a.txt", "sad\tit rains, again\r\n\r\nglad\tit snows\r\n"),
        ("a.csv", 'sad,"it rains, again"\nglad,it snows\n'),
        ("a.csv", 'Text,Category\n"it rains, again",sad\nit snows,glad\n'),
        ("a.tsv", "\ufeffnumber\tsentence\tlabel\n1\tit rains, again\tsad\n2\tit snows\tglad\n"),
    ],
)
def test_tables_are_read_in_every_form(tmp_path, name, content):
    found = read_sentences(written(tmp_path / name, content))
    assert found == [("sad", "it rains, again"), ("glad", "it snows")]


def test_quotes_in_a_file_of_tabs_are_part_of_the_sentence(tmp_path):
    path = written(tmp_path / "a.tsv", 'sad\t"it rains" they say\n')
    assert read_sentences(path) == [("sad", '"it rains" they say')]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("sad it rains\n", "line 1: give a label and a sentence, separated by a tab"),
        ("sad\tit rains\nglad\t \n", "line 2: give a label"),
        ("label\tsentence\n", "no labelled sentences"),
        ("", "no labelled sentences"),
    ],
)
def test_damaged_tables_are_refused(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        read_sentences(written(tmp_path / "a.tsv", content))


def test_other_encodings_are_refused(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_bytes("traurig\tes stürmt\n".encode("latin-1"))
    with pytest.raises(ValueError, match="not a text file in UTF-8"):
        read_sentences(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.tsv"):
        load_text(tmp_path / "nothing.tsv")


def test_a_file_is_split_by_class(tmp_path):
    path = written(tmp_path / "a.tsv", "".join(f"{label}\t{text}\n" for label, text in PAIRS))
    found = read_corpus(path, split="2/2/2", seed=4)
    assert found.protocol["split"] == "2/2/2"
    assert sorted(np.concatenate([*found.parts.values()])) == [*range(6)]
    assert [*map(len, found.parts.values())] == [2, 2, 2]
    for row, name in enumerate(found.names):
        assert found.of_class(row) == tuple(text for label, text in PAIRS if label == name)
    same = load_text(path, split="2/2/2", seed=4)
    assert same.protocol == found.protocol
    other = load_text(path, split="2/2/2", seed=5)
    assert other.protocol["sentences_sha256"] != found.protocol["sentences_sha256"]


def test_too_few_classes_are_refused_with_the_file(tmp_path):
    path = written(tmp_path / "few.tsv", "a\tone\nb\ttwo\n")
    with pytest.raises(ValueError, match=r"few\.tsv.*2 classes are too few"):
        read_corpus(path)


def test_a_sentence_is_kept_once_in_a_class():
    parts = {"train": ["a"], "validation": ["b"], "test": []}
    found = corpus("x", [("a", "one"), ("a", "one"), ("b", "one")], parts, protocol={})
    assert found.sentences == ("one", "one") and found.counts.tolist() == [1, 1]


def test_a_class_is_in_one_part_and_has_sentences():
    with pytest.raises(ValueError, match="'a' is in two parts"):
        corpus("x", [("a", "one")], {"train": ["a"], "test": ["a"]}, protocol={})
    with pytest.raises(ValueError, match="'b' has no sentence"):
        corpus("x", [("a", "one")], {"train": ["a"], "test": ["b"]}, protocol={})


def parts_of(train: str, validation: str, test: str):
    return {"train": [*train], "validation": [*validation], "test": [*test]}


def pairs_of(names: str, prefix: str = ""):
    return [(name, f"{prefix}{name} {number}") for name in names for number in range(3)]


def test_classes_that_a_run_has_seen_are_not_tested():
    first = corpus("x", pairs_of("abcdef"), parts_of("ab", "cd", "ef"), protocol={})
    seen = Seen("other", (text_classes(first, "train"), text_classes(first, "validation")))
    # The same set under another split, and another set with copied sentences.
    other = corpus("x", pairs_of("abcdef"), parts_of("ef", "ab", "cd"), protocol={})
    left = unseen_text(other, seen)
    assert [left.names[row] for row in left.parts["test"]] == ["e", "f"]
    assert "4 that were trained" in left.protocol["split"]
    copied = corpus(
        "y", [("z", "a 1"), ("new", "w"), ("old", "v")], parts_of("", "", ""), protocol={}
    )
    assert copied.names == ()
    copied = corpus(
        "y",
        [("z", "a 1"), ("new", "w")],
        {"train": [], "validation": [], "test": ["z", "new"]},
        protocol={},
        origin="y",
    )
    left = unseen_text(copied, seen)
    assert [left.names[row] for row in left.parts["test"]] == ["new"]


def test_the_data_of_the_run_itself_are_unchanged():
    own = corpus("x", pairs_of("abcdef"), parts_of("ab", "cd", "ef"), protocol={})
    seen = Seen(own.protocol["sentences_sha256"], (text_classes(own, "train"),))
    assert unseen_text(own, seen) is own


def test_a_set_without_unseen_classes_is_refused():
    own = corpus("x", pairs_of("abcdef"), parts_of("abc", "def", ""), protocol={})
    seen = Seen("other", (text_classes(own, "train"), text_classes(own, "validation")))
    with pytest.raises(ValueError, match="trained or validated on all of its classes"):
        unseen_text(own, seen)


# --- the published sets ---------------------------------------------------------------------


def published(folder: Path) -> Path:
    """A folder in the form of the published repository, with two classes in each part."""
    own = folder / "HWU64"
    (own / "few_shot" / "02").mkdir(parents=True)
    lines = [json.dumps({"sentence": text, "label": label}) for label, text in PAIRS]
    (own / "full.jsonl").write_text("\n".join(lines))
    for number, part in enumerate(("train", "valid", "test")):
        names = f"class {2 * number}\nclass {2 * number + 1}\n"
        (own / "few_shot" / "02" / f"labels.{part}.txt").write_text(names)
    return folder


def test_the_published_form_is_read(tmp_path):
    found = intents("hwu64", split="2", data_dir=published(tmp_path))
    assert {part: rows.tolist() for part, rows in found.parts.items()} == {
        "train": [0, 1],
        "validation": [2, 3],
        "test": [4, 5],
    }
    assert found.of_class(5) == ("sentence 5", "sentence 11", "sentence 17")
    assert found.protocol["split"] == "ProtAugment 2" and found.licence == "CC BY 4.0"


def test_a_damaged_line_is_named(tmp_path):
    folder = published(tmp_path)
    with open(folder / "HWU64" / "full.jsonl", "a") as file:
        file.write('\n{"label": "class 1"}')
    with pytest.raises(ValueError, match=r"full\.jsonl, line 19 has no label and sentence"):
        intents("hwu64", split="2", data_dir=folder)


def test_unknown_splits_are_refused():
    with pytest.raises(ValueError, match="no split '6'; choose from 1, 2, 3, 4, 5"):
        load_text("hwu64", split="6")


@pytest.mark.skipif("JAXMETA_DATA_DIR" not in os.environ, reason="JAXMETA_DATA_DIR is not set")
@pytest.mark.parametrize(("name", "classes"), [("banking77", 77), ("hwu64", 64), ("clinc150", 150)])
def test_the_real_sets_have_their_classes_in_all_five_splits(name, classes):
    assert name in INTENTS
    digests = set()
    for split in "12345":
        found = load_text(name, split=split)
        assert len(found.names) == classes
        rows = np.concatenate([*found.parts.values()])
        assert sorted(rows) == [*range(classes)]  # no class in two parts
        digests.add(found.protocol["sentences_sha256"])
    assert len(digests) == 5
