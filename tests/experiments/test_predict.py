"""Images of classes never seen are named from a few examples in a folder."""

import csv
import shutil
from pathlib import Path

import pytest
from PIL import Image

from experiments.command_line import guarded
from experiments.predict import Predict, predict


@pytest.fixture(scope="module")
def folders(draw_classes, tmp_path_factory) -> tuple[Path, Path]:
    """Four new classes: three images of each to learn from, three to be named."""
    support = draw_classes(tmp_path_factory.mktemp("support"), 4, 6, seed=99)
    query = tmp_path_factory.mktemp("query")
    for folder in support.iterdir():
        for number in (3, 4, 5):
            shutil.move(folder / f"{number}.png", query / f"{folder.name}-{number}.png")
    return support, query


@pytest.fixture
def predicted(capsys):
    """`predicted(run, support, query)`: status, output, errors."""

    def run(folder, support, query, **options):
        capsys.readouterr()
        status = guarded(lambda: predict(Predict(folder, support, query, **options)))
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def test_every_image_is_named(trained, folders, predicted, tmp_path):
    out = tmp_path / "named.png"
    status, text, error = predicted(trained("prototypical"), *folders, out=out)
    assert status == 0, error
    with open(out.with_suffix(".csv"), newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    for row in rows:
        assert Path(row["image"]).name.startswith(row["class"])
        assert 0.25 < float(row["probability"]) <= 1
    assert "class-03" in text
    assert f"picture: {out}, table: {out.with_suffix('.csv')}" in " ".join(text.split())
    with Image.open(out) as picture:
        assert min(picture.size) >= 200


def test_one_image_alone(trained, folders, predicted, tmp_path):
    support, query = folders
    image = query / "class-02-4.png"
    status, _, error = predicted(trained("prototypical"), support, image, out=tmp_path / "one.png")
    assert status == 0, error
    header, row = (tmp_path / "one.csv").read_text().splitlines()
    assert header == "image,class,probability"
    assert row.startswith(f'"{image}","class-02",')


def test_as_many_classes_as_maml_was_trained_with(trained, folders, predicted, tmp_path):
    support, query = folders
    status, _, error = predicted(trained("maml"), support, query)
    assert status == 1
    assert error.startswith("error: maml has an output for each of the 3 classes")
    assert len(error.splitlines()) == 1

    three = tmp_path / "three"
    shutil.copytree(support, three)
    shutil.rmtree(three / "class-03")
    status, _, error = predicted(trained("maml"), three, query, out=tmp_path / "named.png")
    assert status == 0, error
    rows = (tmp_path / "named.csv").read_text().splitlines()[1:]
    assert len(rows) == 12
    assert all('"class-03",' not in row for row in rows)


def test_what_cannot_be_predicted(trained, trained_curves, folders, predicted, tmp_path):
    support, query = folders
    empty = tmp_path / "empty"
    empty.mkdir()
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    run, out = trained("prototypical"), tmp_path / "named.png"
    for arguments, told in (
        ((trained_curves("maml"), support, query), "is no run on images"),
        ((run, tmp_path / "absent", query), str(tmp_path / "absent")),
        ((run, empty, query), f"{empty} holds no class"),
        ((run, support, tmp_path / "absent"), "does not exist; give a folder or an image"),
        ((run, support, empty), f"{empty} holds no image"),
        ((run, support, broken), str(broken)),
    ):
        status, text, error = predicted(*arguments, out=out)
        assert (status, text) == (1, "")
        (line,) = error.splitlines()
        assert line.startswith("error: ")
        assert told in line
        assert not out.exists()
