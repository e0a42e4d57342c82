"""A task of a user's own: classes never seen are named, curves and sequences go on."""

import csv
import json
import os
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


@pytest.mark.full
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


def test_unsure_predictions_are_marked(trained, folders, predicted, tmp_path):
    support, query = tmp_path / "support", tmp_path / "query"
    shutil.copytree(folders[0], support)
    shutil.copytree(support / "class-00", support / "class-00-again")  # both have probability 1/2
    for path in folders[1].iterdir():
        folder = query / path.name[: len("class-00")]
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder)
    run, out = trained("few-shot", "prototypical"), tmp_path / "named.csv"
    status, text, error = predicted(run, support, query, "--out", out, "--abstain-below", "0.6")
    assert status == 0, error
    with open(out, newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        assert row["abstains"] == ("yes" if "class-00" in row["class"] else "no")
    text = " ".join(text.split())
    assert "9 of 12 queries are answered, of which 0.0 % are wrong." in text
    results = json.loads((run / "results.json").read_text())
    curve = results["risk_coverage"]
    assert curve["thresholds"][0] == 0 and curve["coverage"][0] == 1
    assert curve["risk"][0] == pytest.approx(1 - results["accuracy"])  # all test tasks are in it
    covered, wrong = (f"{100 * curve[name][12]:.1f} %" for name in ("coverage", "risk"))
    assert curve["thresholds"][12] == 0.6
    told = f"abstaining below 0.6 answers {covered} of the queries, of which {wrong} are wrong."
    assert told in text


def test_numbers_are_never_abstained_from(trained, predicted, written):
    support, query = written("known.csv", "0,0\n1,0.8\n"), written("asked.csv", "0.5\n")
    status, _, error = predicted(trained("regression"), support, query, "--abstain-below", "0.5")
    assert (status, "--abstain-below requires classes" in error) == (1, True)


@pytest.mark.full
def test_as_many_classes_as_maml_was_trained_with(trained, folders, predicted, tmp_path):
    support, query = folders
    status, _, error = predicted(trained("few-shot"), support, query)
    assert status == 1
    assert "one output for each of the 3 classes" in error
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
        ((tmp_path / "no-run", support, query), "is not a run folder"),
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


@pytest.mark.full
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
        ("0,1,0\n1,0,0\n", "holds inputs of shape (3,); the run was trained on (5,)"),
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


# --- whose statistics, and where it goes --------------------------------------------------

BATCH = ("--query-statistics", "batch")


@pytest.fixture(scope="module")
def three(folders, tmp_path_factory):
    """As many classes to learn from as maml was trained with."""
    path = shutil.copytree(folders[0], tmp_path_factory.mktemp("three") / "support")
    shutil.rmtree(path / "class-03")
    return path


@pytest.mark.full
@pytest.mark.parametrize(
    ("learner", "options"),
    [(None, ()), pytest.param("prototypical", BATCH, marks=pytest.mark.slow)],
)
def test_the_company_of_an_image_is_told_or_does_not_matter(
    learner, options, trained, three, folders, predicted, tmp_path
):
    run = trained("few-shot", learner, *options)
    image = folders[1] / "class-02-4.png"

    def probability(query, *options):
        out = tmp_path / "one.csv"
        status, text, error = predicted(run, three, query, "--out", out, "--overwrite", *options)
        assert status == 0, error
        with open(out, newline="") as file:
            rows = list(csv.DictReader(file))
        (row,) = [row for row in rows if row["image"] == str(image)]
        return float(row["probability"]), row, " ".join(text.split())

    alone, row, text = probability(image)
    assert row["batch statistics of"] == "1 image"
    assert "Each prediction depends on all query images (here 1)" in text
    among, row, text = probability(folders[1])
    assert row["batch statistics of"] == "12 images"
    assert "with --query-statistics support, it depends on the support only" in text
    assert abs(among - alone) > 1e-4
    alone, row, text = probability(image, "--query-statistics", "support")
    assert row["support statistics of"] == "9 images" and "depends" not in text
    among, *_ = probability(folders[1], "--query-statistics", "support")
    assert among == pytest.approx(alone, abs=2e-5)


def test_statistics_that_depend_on_no_company(trained, folders, predicted, tmp_path):
    run = trained("few-shot", "prototypical")
    options = ("--query-statistics", "support", "--out", tmp_path / "one.png")
    status, _, error = predicted(run, *folders, *options)
    assert (status, list(tmp_path.iterdir())) == (1, [])
    assert "this run does not normalise by other examples" in error


def test_nothing_is_overwritten(trained, folders, predicted, tmp_path, monkeypatch):
    run, (support, query) = trained("few-shot", "prototypical"), folders
    monkeypatch.chdir(tmp_path)
    assert predicted(run, *folders, "--out", "x.csv")[0] == 0
    table, picture = (tmp_path / "x.csv").read_bytes(), (tmp_path / "x.png").read_bytes()
    assert table.startswith(b'"image",') and picture.startswith(b"\x89PNG")
    for out in ("x.csv", "x.png", "x"):  # each would take the place of one of them
        status, text, error = predicted(run, *folders, "--out", out)
        assert (status, text) == (1, "") and "or --overwrite to replace it" in error
    assert (tmp_path / "x.csv").read_bytes() == table
    assert (tmp_path / "x.png").read_bytes() == picture
    assert (
        predicted(run, support, query / "class-02-4.png", "--out", "x.png", "--overwrite")[0] == 0
    )
    assert len((tmp_path / "x.csv").read_text().splitlines()) == 2
    for number in ("", "-2", "-3"):  # where no name is given, each finds its own
        assert predicted(run, *folders)[0] == 0
        assert (tmp_path / f"predictions{number}.png").exists()
        assert (tmp_path / f"predictions{number}.csv").exists()


def test_what_is_read_is_not_overwritten(trained, predicted, written, tmp_path):
    known, asked = written("known.csv", "0,0\n1.0,0.8\n"), written("asked.csv", "0.5\n")
    for path in (known, asked):
        for out in (path, path.with_suffix(".png")):
            before = path.read_text()
            options = ("--out", out, "--overwrite")
            status, _, error = predicted(trained("regression"), known, asked, *options)
            assert status == 1
            assert f"{path} is an input and would be overwritten" in error
            assert path.read_text() == before


@pytest.mark.parametrize("out", ["absent/x.png", "."])
def test_a_place_that_cannot_be_written_is_told_before_the_work(
    out, trained, folders, predicted, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("jaxmeta.recipes.predictor.restore_as", lambda *own: pytest.fail("work"))
    status, _, error = predicted(trained("few-shot", "prototypical"), *folders, "--out", out)
    assert status == 1
    assert "create it first" in error or "name a file in it" in error


@pytest.mark.full
def test_names_of_any_kind(trained, draw_classes, predicted, tmp_path):
    support = draw_classes(tmp_path / "support", 2, 3)
    names = ["[bold]b[", 'a "quoted", one', os.fsdecode(b"caf\xe9"), "two\nlines"]
    for name in names[:2]:
        next(support.glob("class-*")).rename(support / name)
    query = tmp_path / "query"
    query.mkdir()
    for name in names:
        shutil.copy(next(support.rglob("0.png")), query / f"{name}.png")
    (query / "._a.png").write_bytes(b"no image")
    (query / ".thumbs").mkdir()
    shutil.copy(next(support.rglob("0.png")), query / ".thumbs")
    out = tmp_path / "named.png"
    run = trained("few-shot", "prototypical")
    status, text, error = predicted(run, support, query, "--out", out)
    assert status == 0, error
    assert "[bold]b[" in text
    with open(out.with_suffix(".csv"), newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    shown = {f"{name}.png" for name in [*names[:2], "caf\\xe9", names[3]]}
    assert {row["image"].removeprefix(f"{query}/") for row in rows} == shown
    assert {row["class"] for row in rows} <= {*names[:2]}
