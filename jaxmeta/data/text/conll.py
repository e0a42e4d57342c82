"""Sentences with a tag for every word, from files in the form of CoNLL's shared tasks."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from jaxmeta.data.reading import regular


class Tagged(NamedTuple):
    """A sentence with a tag for every word.

    Attributes:
      words: the words.
      tags: `O` for a word outside of every entity, `B-type` for the first word of an entity, and
        `I-type` for its other words.
    """

    words: tuple[str, ...]
    tags: tuple[str, ...]


def read_conll(path: str | Path) -> list[Tagged]:
    """The tagged sentences of a file with one word per line and empty lines between sentences.

    The columns are separated by tabs, or by spaces in a file without tabs. The first column is the
    word and the last one its tag. Lines that begin with `-DOCSTART-` are skipped. An `I-type` that
    follows no word of its type begins an entity, as in the older form of such files, and becomes
    `B-type`.

    Raises:
      OSError: the file can't be read.
      ValueError: a line without a tag, or with a tag of another form; no sentences; a file that is
        not UTF-8.

    Source: Tjong Kim Sang, De Meulder 2003, "Introduction to the CoNLL-2003 shared task:
    language-independent named entity recognition", section 2.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "entities.conll"
    >>> _ = path.write_text("Ada\\tB-person\\nwrote\\tO\\n\\nParis\\tI-place\\n")
    >>> read_conll(path)[1]
    Tagged(words=('Paris',), tags=('B-place',))
    """
    path = Path(path)
    regular(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text file in UTF-8 ({error}).") from error
    separator = "\t" if any("\t" in line for line in lines) else None
    sentences, rows = [], []
    for number, line in enumerate([*lines, ""], 1):
        if line.startswith("-DOCSTART-"):
            continue
        if line.strip():
            rows.append(_row(path, number, line.rstrip("\r").split(separator)))
        elif rows:
            words, tags = zip(*rows)
            sentences.append(Tagged(words, _with_beginnings(tags)))
            rows = []
    if not sentences:
        raise ValueError(f"{path} has no sentences; give one word with its tag per line.")
    return sentences


def _row(path: Path, number: int, columns: list[str]) -> tuple[str, str]:
    word, tag = columns[0].strip(), columns[-1].strip()
    named = tag[:2] in ("B-", "I-") and len(tag) > 2
    if len(columns) < 2 or not word or not (tag == "O" or named):
        raise ValueError(
            f"{path}, line {number}: {' '.join(columns)!r}; give a word and one of the tags O, "
            "B-type, I-type."
        )
    return word, tag


def _with_beginnings(tags: Sequence[str]) -> tuple[str, ...]:
    before, found = "O", []
    for tag in tags:
        begins = tag.startswith("I-") and before[2:] != tag[2:]
        found.append(f"B-{tag[2:]}" if begins else tag)
        before = tag
    return tuple(found)


def spans(tags: Iterable[str]) -> set[tuple[int, int, str]]:
    """The entities of a sentence as `(first word, word after the last, type)`.

    >>> sorted(spans(["B-person", "I-person", "O", "B-place", "B-place"]))
    [(0, 2, 'person'), (3, 4, 'place'), (4, 5, 'place')]
    """
    found: set[tuple[int, int, str]] = set()
    start, kind = 0, ""
    for place, tag in enumerate([*tags, "O"]):
        if kind and tag != f"I-{kind}":
            found.add((start, place, kind))
            kind = ""
        if tag.startswith("B-") or (tag.startswith("I-") and not kind):
            start, kind = place, tag[2:]
    return found


def types(sentences: Iterable[Tagged]) -> tuple[str, ...]:
    """The types of the entities, sorted.

    >>> types([Tagged(("Ada", "wrote"), ("B-person", "O"))])
    ('person',)
    """
    return tuple(sorted({tag[2:] for sentence in sentences for tag in sentence.tags} - {""}))
