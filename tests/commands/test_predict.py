"""A task of a user's own: classes never seen are named, curves and sequences go on."""

import csv
import shutil
from pathlib import Path

import pytest
from PIL import Image


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
def predicted(status, capsys):
    """`predicted(run, support, query, *options)`: status, output, errors."""

    def run(folder, support, query, *options):
        capsys.readouterr()
        found = status("predict", folder, "--support", support, "--query", query, *options)
        captured = capsys.readouterr()
        return found, captured.out, captured.err

    return run


@pytest.fixture
def written(tmp_path):
    """`written(name, text)` writes a file; its path."""

    def write(name, text):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


# --- images -------------------------------------------------------------------------------


def test_every_image_is_named(trained, folders, predicted, tmp_path):
    out = tmp_path / "named.png"
    run = trained("few-shot", "prototypical")
    status, text, error = predicted(run, *folders, "--out", out)
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
    run, image = trained("few-shot", "prototypical"), query / "class-02-4.png"
    status, _, error = predicted(run, support, image, "--out", tmp_path / "one.png")
    assert status == 0, error
    header, row = (tmp_path / "one.csv").read_text().splitlines()
    assert header == '"image","class","probability"'
    assert row.startswith(f'"{image}","class-02",')


def test_as_many_classes_as_maml_was_trained_with(trained, folders, predicted, tmp_path):
    support, query = folders
    status, _, error = predicted(trained("few-shot"), support, query)
    assert status == 1
    assert "an output for each of the 3 classes" in error
    assert len(error.splitlines()) == 1

    three = tmp_path / "three"
    shutil.copytree(support, three)
    shutil.rmtree(three / "class-03")
    out = tmp_path / "named.png"
    status, _, error = predicted(trained("few-shot"), three, query, "--out", out)
    assert status == 0, error
    rows = out.with_suffix(".csv").read_text().splitlines()[1:]
    assert len(rows) == 12
    assert all('"class-03",' not in row for row in rows)


def test_what_cannot_be_predicted(trained, folders, predicted, tmp_path):
    support, query = folders
    empty = tmp_path / "empty"
    empty.mkdir()
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    run, out = trained("few-shot", "prototypical"), tmp_path / "named.png"
    for arguments, told in (
        ((tmp_path / "no-run", support, query), "is no run folder"),
        ((run, tmp_path / "absent", query), str(tmp_path / "absent")),
        ((run, empty, query), f"{empty} holds no class"),
        ((run, support, tmp_path / "absent"), "does not exist; give a folder or an image"),
        ((run, support, empty), f"{empty} holds no image"),
        ((run, support, broken), str(broken)),
    ):
        status, text, error = predicted(*arguments, "--out", out)
        assert (status, text) == (1, "")
        (line,) = error.splitlines()
        assert line.startswith("error: ")
        assert told in line
        assert not out.exists()


# --- tables of numbers --------------------------------------------------------------------


def test_a_curve_goes_on(trained, predicted, written, tmp_path):
    known = written("known.csv", "0,0\n1.0,0.8\n\n2,0.9\n")
    asked = written("asked.csv", "0.5\n-1e-1\n")
    out = tmp_path / "curve.png"
    status, text, error = predicted(trained("regression"), known, asked, "--out", out)
    assert status == 0, error
    with open(out.with_suffix(".csv"), newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["input", "output"]
    assert [float(row[0]) for row in rows] == pytest.approx([0.5, -0.1])
    assert all(len(row) == 2 and float(row[1]) == float(row[1]) for row in rows)
    assert f"table: {out.with_suffix('.csv')}" in " ".join(text.split())
    assert not out.exists()  # there is no picture of a curve


@pytest.mark.slow
def test_a_process_says_how_sure_it_is(trained, predicted, written, tmp_path):
    run = trained("regression", "conditional-neural-process", "--task", "gp", "--points", "2", "4")
    known, asked = written("known.csv", "0,0\n1,0.8\n"), written("asked.csv", "0.5\n")
    out = tmp_path / "curve.png"
    status, _, error = predicted(run, known, asked, "--out", out)
    assert status == 0, error
    header, row = (line.split(",") for line in out.with_suffix(".csv").read_text().splitlines())
    assert header == ['"input"', '"mean"', '"std"']
    assert float(row[2]) > 0


@pytest.mark.slow
def test_a_sequence_is_read(trained, predicted, written, tmp_path):
    # Copy: start, two vectors of three bits, end, and time to answer.
    asked = written("asked.csv", "0,0,0,1,0\n0,1,0,0,0\n1,1,1,0,0\n0,0,0,0,1\n0,0,0,0,0\n")
    support = written("none.csv", "")  # a sequence has no support
    out = tmp_path / "sequence.png"
    status, _, error = predicted(trained("sequence"), support, asked, "--out", out)
    assert status == 0, error
    header, *rows = out.with_suffix(".csv").read_text().splitlines()
    assert header == '"input","output 0","output 1","output 2"'
    assert [row.split(",")[0] for row in rows] == [f'"step {number}"' for number in range(5)]

    for table, told in (
        ("0,1,0\n1,0,0\n", "holds inputs of the shape (3,); the run was trained on (5,)"),
        ("a,b\n", "is not a table of numbers"),
        ("0,1\n0\n", "give rows of 2 numbers, separated by commas"),
    ):
        asked = written("asked.csv", table)
        status, text, error = predicted(trained("sequence"), support, asked, "--out", out)
        assert (status, text) == (1, "")
        (line,) = error.splitlines()
        assert told in line


@pytest.mark.parametrize(
    ("known", "asked", "told"),
    [
        ("0,0\n", "0,1\n", "asked.csv: give rows of 1 numbers, separated by commas"),
        ("0\n1\n", "0\n", "known.csv: give rows of 2 numbers, separated by commas"),
        ("", "0\n", "known.csv: give rows of 2 numbers, separated by commas"),
        ("a,b\n", "0\n", "known.csv is not a table of numbers"),
        ("0,0\n", "\x89PNG\n", "asked.csv is not a table of numbers"),
    ],
)
def test_tables_that_are_no_curve(known, asked, told, trained, predicted, written, tmp_path):
    files = written("known.csv", known), written("asked.csv", asked)
    status, text, error = predicted(trained("regression"), *files, "--out", tmp_path / "no.png")
    assert (status, text) == (1, "")
    (line,) = error.splitlines()
    assert told in line
    absent = tmp_path / "absent.csv"
    status, _, error = predicted(trained("regression"), absent, files[1])
    assert status == 1
    assert str(absent) in error


@pytest.mark.slow
@pytest.mark.parametrize("domain", ["optimizers", "pretrain"])
def test_runs_that_predict_nothing(domain, trained, predicted, tmp_path):
    status, text, error = predicted(trained(domain), tmp_path, tmp_path)
    assert (status, text) == (1, "")
    assert error == f"error: predict does not support runs of {domain}.\n"
