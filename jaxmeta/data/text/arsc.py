"""ARSC: sentiment of Amazon reviews, in 69 tasks of 23 kinds of products."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jaxmeta.data.cache import data_folder
from jaxmeta.data.reading import regular

THRESHOLDS = ("t2", "t4", "t5")
"""Each kind of product has three tasks, which tell reviews of more than 1, 3 and 4 stars from
others (t2, t4, t5)."""
_PARTS = ("train", "dev", "test")
_LABELS = {"-1": 0, "1": 1}


class Reviews(NamedTuple):
    """Reviews with their sentiment.

    Attributes:
      texts: the reviews.
      labels: 1 where the review has at least as many stars as its task asks for, otherwise 0.
    """

    texts: tuple[str, ...]
    labels: tuple[int, ...]


class ReviewTask(NamedTuple):
    """A task of ARSC: reviews of one kind of product, told apart at one number of stars.

    Attributes:
      name: such as `books.t2`.
      train: the support set of a test task, ten reviews; in a training task, all its reviews.
      dev: reviews for validation; not to be used in a test task.
      test: the query set of a test task.
    """

    name: str
    train: Reviews
    dev: Reviews
    test: Reviews

    @property
    def product(self) -> str:
        """The kind of product."""
        return self.name.rpartition(".")[0]


class Arsc(NamedTuple):
    """The tasks of ARSC.

    Attributes:
      train: 57 tasks of 19 kinds of products.
      test: 12 tasks of 4 other kinds.
    """

    train: tuple[ReviewTask, ...]
    test: tuple[ReviewTask, ...]


def load_arsc(folder: str | Path | None = None, *, missing: Sequence[str] = ()) -> Arsc:
    """Reads ARSC from the folder `Amazon_few_shot` of its repository.

    Files are named `PRODUCT.t2.train`, with `t4`, `t5` and `dev`, `test`; each line is a review, a
    tab, and 1 or -1. `workspace.filtered.list` names all kinds of products, and
    `workspace.target.list` those of the test tasks.

    Args:
      folder: the folder. Defaults to `arsc` in `JAXMETA_DATA_DIR`, or in the cache folder.
      missing: kinds of products to leave out of training, where their files are not at hand; a
        result must name them.

    Raises:
      OSError: a file is missing.
      ValueError: a line of another form, or a test task is to be left out.

    Source: Yu, Guo, Yi et al. 2018, "Diverse few-shot text classification with multiple metrics",
    section 5.1; https://github.com/Gorov/DiverseFewShot_Amazon.
    """
    place = data_folder("arsc", folder)
    if not (place / "workspace.filtered.list").is_file():
        raise FileNotFoundError(
            f"{place} has no workspace.filtered.list; put the folder Amazon_few_shot of "
            "https://github.com/Gorov/DiverseFewShot_Amazon there."
        )
    products = _names(place / "workspace.filtered.list")
    held_out = _names(place / "workspace.target.list")
    if unknown := sorted(set(missing) - (set(products) - set(held_out))):
        raise ValueError(f"arsc: {unknown[0]!r} is no kind of product of the training tasks.")

    def read(names: Sequence[str]) -> tuple[ReviewTask, ...]:
        return tuple(
            ReviewTask(task, *(read_reviews(place / f"{task}.{part}") for part in _PARTS))
            for name in names
            for task in (f"{name}.{threshold}" for threshold in THRESHOLDS)
        )

    trained = [name for name in products if name not in held_out and name not in missing]
    return Arsc(read(trained), read(held_out))


def read_reviews(path: str | Path) -> Reviews:
    """The reviews of one file; each line is a review, a tab, and 1 or -1.

    Raises:
      OSError: the file can't be read.
      ValueError: a line of another form, or no lines.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "books.t2.train"
    >>> _ = path.write_text("a good read\\t1\\nfell asleep\\t-1\\n")
    >>> read_reviews(path)
    Reviews(texts=('a good read', 'fell asleep'), labels=(1, 0))
    """
    path = Path(path)
    regular(path)
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text file in UTF-8 ({error}).") from error
    pairs = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        text, tab, label = line.rpartition("\t")
        if not tab or not text.strip() or label.strip() not in _LABELS:
            raise ValueError(f"{path}, line {number}: give a review, a tab, and 1 or -1.")
        pairs.append((text.strip(), _LABELS[label.strip()]))
    if not pairs:
        raise ValueError(f"{path} has no reviews.")
    texts, labels = zip(*pairs)
    return Reviews(texts, labels)


def _names(path: Path) -> list[str]:
    regular(path)
    return path.read_text(encoding="utf-8").split()
