"""ARSC: which tasks are trained on and which are for the test."""

import pytest

from jaxmeta.data.text.arsc import Reviews, load_arsc, read_reviews


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "workspace.filtered.list").write_text("apparel\nbooks\nmusic\n")
    (tmp_path / "workspace.target.list").write_text("books\n")
    for product in ("apparel", "books", "music", "tools"):
        for threshold in ("t2", "t4", "t5"):
            for part in ("train", "dev", "test"):
                text = f"good {product} {threshold} {part}\t1\nbad one\t-1\n"
                (tmp_path / f"{product}.{threshold}.{part}").write_text(text)
    return tmp_path


def test_three_tasks_of_each_product(folder):
    train, test = load_arsc(folder)
    assert [task.name for task in test] == ["books.t2", "books.t4", "books.t5"]
    assert {task.product for task in train} == {"apparel", "music"} and len(train) == 6
    assert test[1].train == Reviews(("good books t4 train", "bad one"), (1, 0))
    assert test[1].test.texts[0] == "good books t4 test"


def test_products_whose_files_are_missing_are_left_out_by_name(folder):
    (folder / "music.t4.train").unlink()
    with pytest.raises(FileNotFoundError, match="music.t4.train"):
        load_arsc(folder)
    assert {task.product for task in load_arsc(folder, missing=["music"]).train} == {"apparel"}
    with pytest.raises(ValueError, match="'books' is no kind of product of the training tasks"):
        load_arsc(folder, missing=["books"])


def test_without_the_files_the_repository_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="https://github.com/Gorov/DiverseFewShot_Amazon"):
        load_arsc(tmp_path)


@pytest.mark.parametrize("line", ["no tab 1", "zero\t0", "\t1"])
def test_a_line_of_another_form(tmp_path, line):
    path = tmp_path / "books.t2.dev"
    path.write_text(f"fine\t1\n{line}\n")
    with pytest.raises(ValueError, match="line 2: give a review, a tab, and 1 or -1"):
        read_reviews(path)


def test_an_empty_file(tmp_path):
    path = tmp_path / "books.t2.dev"
    path.write_text("\n")
    with pytest.raises(ValueError, match="has no reviews"):
        read_reviews(path)
