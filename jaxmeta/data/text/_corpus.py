"""Labelled sentences: the three parts of a set, its description, and sets from files."""

import csv
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxmeta.data.classes import split_sizes
from jaxmeta.data.identity import Classes, Seen, classes_by, names_seen
from jaxmeta.data.reading import regular
from jaxmeta.files import shown

PARTS = ("train", "validation", "test")
_LABELS = ("label", "category", "class", "intent")  # names of the columns of a file, in any case
_SENTENCES = ("sentence", "text", "utterance", "query")


class Corpus(NamedTuple):
    """Sentences sorted by class, with classes for training, validation and test.

    Attributes:
      name: the name that was passed to `load_text`.
      sentences: all sentences, sorted by class.
      starts: int32 `[classes]`, the index of the first sentence of each class.
      counts: int32 `[classes]`, the number of sentences of each class.
      names: one name per class.
      parts: the classes of `train`, `validation` and `test`, int32 indices into `names`.
      protocol: the description of the data that is stored with every result.
      licence: of the sentences; None if unknown.
      source: where the sentences come from, a URL or a path; None if unknown.
      origin: identifies the set, so that classes of equal name are recognised as the same class.
    """

    name: str
    sentences: tuple[str, ...]
    starts: np.ndarray
    counts: np.ndarray
    names: tuple[str, ...]
    parts: Mapping[str, np.ndarray]
    protocol: dict[str, Any]
    licence: str | None = None
    source: str | None = None
    origin: str = ""

    def of_class(self, index: int) -> tuple[str, ...]:
        """The sentences of a class."""
        start = int(self.starts[index])
        return self.sentences[start : start + int(self.counts[index])]

    def rows(self, part: str) -> np.ndarray:
        """The indices of the sentences of a part, int `[N]`."""
        class_of = np.repeat(np.arange(len(self.names)), self.counts)
        return np.flatnonzero(np.isin(class_of, self.parts[part]))


def corpus(
    name: str,
    labelled: Iterable[tuple[str, str]],
    parts: Mapping[str, Sequence[str]],
    *,
    protocol: Mapping[str, Any],
    licence: str | None = None,
    source: str | None = None,
    origin: str = "",
) -> Corpus:
    """Sorts labelled sentences by class; the sentences of a class stay in their order.

    Args:
      name: the name of the set.
      labelled: pairs of label and sentence. A sentence that a class has twice is kept once.
      parts: the labels of `train`, `validation` and `test`; sentences with other labels are left
        out.
      protocol, licence, source, origin: see `Corpus`.

    Raises:
      ValueError: a label is in two parts, or has no sentence.

    >>> pairs = [("sad", "it rains"), ("glad", "it snows"), ("sad", "it hails")]
    >>> parts = {"train": ["glad"], "validation": [], "test": ["sad"]}
    >>> found = corpus("weather", pairs, parts, protocol={})
    >>> found.names, found.sentences, found.parts["test"].tolist()
    (('glad', 'sad'), ('it snows', 'it rains', 'it hails'), [1])
    """
    names = sorted(label for labels in parts.values() for label in labels)
    twice = [label for label, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"{name}: the class {twice[0]!r} is in two parts; give it to one")
    of_class: dict[str, dict[str, None]] = {label: {} for label in names}
    for label, sentence in labelled:
        if label in of_class:
            of_class[label][sentence] = None
    empty = [label for label, own in of_class.items() if not own]
    if empty:
        raise ValueError(f"{name}: the class {empty[0]!r} has no sentence; leave it out")
    counts = np.array([*map(len, of_class.values())], np.int32)
    sentences = tuple(sentence for own in of_class.values() for sentence in own)
    rows = {label: row for row, label in enumerate(names)}
    indices = {
        part: np.array(sorted(rows[label] for label in labels), np.int32)
        for part, labels in parts.items()
    }
    described = {
        "dataset": name,
        "classes": {part: len(own) for part, own in indices.items()},
        "sentences_sha256": _digest(sentences, counts, names, indices),
        **protocol,
    }
    starts = (np.cumsum(counts) - counts).astype(np.int32)
    return Corpus(
        *(name, sentences, starts, counts, tuple(names), indices),
        *(described, licence, source, origin or name),
    )


def read_corpus(path: str | Path, *, split: str | None = None, seed: int = 0) -> Corpus:
    """The labelled sentences of a TSV or CSV file, with classes split at random.

    Args:
      path: the file, see `read_sentences`.
      split: numbers of training, validation and test classes, such as `40/10/14`. Defaults to
        64, 16 and 20 %.
      seed: of the split.

    Raises:
      OSError: the file can't be read.
      ValueError: it has no labelled sentences, or too few classes for the split.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "moods.tsv"
    >>> _ = path.write_text("".join(f"mood {row % 6}\\tsentence {row}\\n" for row in range(12)))
    >>> moods = read_corpus(path)
    >>> moods.protocol["split"], moods.counts.tolist()
    ('2/2/2', [2, 2, 2, 2, 2, 2])
    """
    path = Path(os.path.expanduser(path))
    labelled = read_sentences(path)
    names = sorted({label for label, _ in labelled})
    try:
        sizes = split_sizes(split, len(names))
    except ValueError as error:
        raise ValueError(f"{shown(path)}: {error}") from error
    order = np.random.default_rng(seed).permutation(len(names))
    parts = dict(zip(PARTS, np.split(order, np.cumsum(sizes))))
    place = os.fsencode(os.path.realpath(path))
    return corpus(
        str(path),
        labelled,
        {part: [names[row] for row in rows] for part, rows in parts.items()},
        protocol={"split": "/".join(map(str, sizes)), "split_seed": seed},
        source=str(path),
        # A digest, since results, which may be published, shouldn't contain the path.
        origin=f"file {hashlib.sha256(place).hexdigest()[:16]}",
    )


def read_sentences(path: str | Path) -> list[tuple[str, str]]:
    """The pairs of label and sentence in a file of two or more columns.

    The columns of a `.csv` file are separated by commas, those of any other file by tabs. A header
    may name them: `label` (or `category`, `class`, `intent`) and `sentence` (or `text`,
    `utterance`, `query`). Without a header, the first column is the label and the second one the
    sentence.

    Raises:
      OSError: the file can't be read.
      ValueError: a row has fewer columns, or an empty label or sentence; there are no rows; the
        file is not UTF-8.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "moods.csv"
    >>> _ = path.write_text('text,category\\n"it rains, again",sad\\n')
    >>> read_sentences(path)
    [('sad', 'it rains, again')]
    """
    path = Path(path)
    return _pairs(path, read_rows(path))


def _pairs(path: Path, rows: list[tuple[int, list[str]]]) -> list[tuple[str, str]]:
    label, sentence = 0, 1
    if named := labelled_columns(rows):
        (label, sentence), rows = named, rows[1:]
    pairs = []
    for number, row in rows:
        cells = [row[at].strip() if at < len(row) else "" for at in (label, sentence)]
        if not all(cells):
            raise ValueError(
                f"{shown(path)}, line {number}: give a label and a sentence, separated by a "
                f"{'comma' if _is_csv(path) else 'tab'}."
            )
        pairs.append((cells[0], cells[1]))
    if not pairs:
        raise ValueError(f"{shown(path)} has no labelled sentences.")
    return pairs


def labelled_columns(rows: Sequence[tuple[int, list[str]]]) -> tuple[int, int] | None:
    """The columns of labels and of sentences that a header names; None without a header.

    >>> labelled_columns([(1, ["Text", "Label"]), (2, ["it rains", "sad"])])
    (1, 0)
    """
    header = [cell.strip().lower() for cell in rows[0][1]] if rows else []
    found = [[header.index(name) for name in names if name in header] for names in _COLUMNS]
    return (found[0][0], found[1][0]) if all(found) else None


def read_rows(path: str | Path) -> list[tuple[int, list[str]]]:
    """The rows of a text file that are not empty, each with the number of its last line.

    Raises:
      OSError: the file can't be read.
      ValueError: it is not a regular file, not UTF-8, or not a table.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "queries.txt"
    >>> _ = path.write_text("it rains\\n\\nit snows\\n")
    >>> read_rows(path)
    [(1, ['it rains']), (3, ['it snows'])]
    """
    path = Path(path)
    regular(path)
    form: Any = {} if _is_csv(path) else {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, **form)
            return [(reader.line_num, row) for row in reader if any(map(str.strip, row))]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{shown(path)} is not a text file in UTF-8 ({error}).") from error


def read_queries(path: str | Path, names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The sentences of a file, and their labels, of these names, if it has labels.

    Labels are in a column that a header names, or in the first one if each is one of the names.
    Otherwise every line is a sentence.

    Raises:
      OSError: the file can't be read.
      ValueError: there are no sentences; below a header, a label is not one of the names.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "queries.tsv"
    >>> _ = path.write_text("sad\\tit rains\\nglad\\tit snows\\n")
    >>> read_queries(path, ["glad", "sad"])
    (['it rains', 'it snows'], ['sad', 'glad'])
    """
    path = Path(path)
    rows = read_rows(path)
    if not rows:
        raise ValueError(f"--query {shown(path)} has no sentences; give one per line.")
    if labelled_columns(rows) or all(len(row) >= 2 and row[0] in names for _, row in rows):
        pairs = _pairs(path, rows)
        if unknown := sorted({label for label, _ in pairs} - {*names}):
            raise ValueError(
                f"--query {shown(path)} has the label {shown(unknown[0])}, which the support does "
                f"not have; it has {', '.join(map(shown, names))}."
            )
        return [sentence for _, sentence in pairs], [label for label, _ in pairs]
    # A comma or a tab is part of a sentence.
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    return [line.strip() for line in lines if line.strip()], []


_COLUMNS = (_LABELS, _SENTENCES)


def _is_csv(path: Path) -> bool:
    return path.suffix.lower() == ".csv"


def _digest(
    sentences: Sequence[str],
    counts: np.ndarray,
    names: Sequence[str],
    parts: Mapping[str, np.ndarray],
) -> str:
    indices = {part: rows.tolist() for part, rows in parts.items()}
    content = json.dumps([[*sentences], counts.tolist(), [*names], indices])
    return hashlib.sha256(content.encode()).hexdigest()


def text_classes(given: Corpus, part: str) -> Classes:
    """The classes of a part, with the digests that identify them; see `jaxmeta.data.identity`."""
    groups = {
        given.names[index]: [np.array(sentence) for sentence in given.of_class(index)]
        for index in given.parts[part].tolist()
    }
    return classes_by(given.origin, groups)


def unseen_text(given: Corpus, seen: Seen) -> Corpus:
    """The set with a test part that contains no class that a run was trained or validated on.

    A set is unchanged if it is the data of the run itself, or has no class that the run has seen.
    Otherwise its test part becomes all classes that the run has not seen, from all three parts.

    Raises:
      ValueError: the run has seen all classes.

    See `jaxmeta.data.identity`.
    """
    if given.protocol["sentences_sha256"] == seen.data:
        return given
    known = {name for part in PARTS for name in names_seen(text_classes(given, part), seen.classes)}
    if not known:
        return given
    free = [row for row, name in enumerate(given.names) if name not in known]
    if not free:
        raise ValueError(
            f"{given.name}: the run was trained or validated on all of its classes; give a set "
            "with other classes"
        )
    parts = {**given.parts, "test": np.array(free, np.int32)}
    protocol = {
        **given.protocol,
        "classes": {part: len(rows) for part, rows in parts.items()},
        "sentences_sha256": _digest(given.sentences, given.counts, given.names, parts),
        "split": f"test on all classes but the {len(known)} that were trained or validated on",
    }
    return given._replace(parts=parts, protocol=protocol)
