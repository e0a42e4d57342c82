"""Files of tagged words: their forms, and errors with the line."""

import pytest

from jaxmeta.data.text.conll import Tagged, read_conll, spans, types

TEXT = "-DOCSTART- O\n\nAda\tB-person\nKing\tI-person\n,\tO\n\n\nParis\tB-place\nRome\tB-place\n"


@pytest.fixture
def write(tmp_path):
    def write(text, **options):
        path = tmp_path / "file.conll"
        path.write_text(text, **options)
        return path

    return write


def test_sentences_of_a_file(write):
    found = read_conll(write(TEXT))
    assert found == [
        Tagged(("Ada", "King", ","), ("B-person", "I-person", "O")),
        Tagged(("Paris", "Rome"), ("B-place", "B-place")),
    ]
    assert types(found) == ("person", "place")
    assert spans(found[0].tags) == {(0, 2, "person")}
    assert spans(found[1].tags) == {(0, 1, "place"), (1, 2, "place")}


def test_columns_between_word_and_tag_and_spaces(write):
    found = read_conll(write("U.N. NNP I-NP I-ORG\nofficial NN I-NP O\nhere RB I-NP I-LOC"))
    assert found == [Tagged(("U.N.", "official", "here"), ("B-ORG", "O", "B-LOC"))]


def test_a_word_may_contain_spaces_where_tabs_separate(write):
    assert read_conll(write("New York\tB-place\r\n\r\n"))[0].words == ("New York",)


def test_a_change_of_type_begins_an_entity(write):
    (found,) = read_conll(write("a I-x\nb I-x\nc I-y\nd O\ne I-y\nf B-y\ng I-y\n"))
    assert found.tags == ("B-x", "I-x", "B-y", "O", "B-y", "B-y", "I-y")
    assert spans(found.tags) == {(0, 2, "x"), (2, 3, "y"), (4, 5, "y"), (5, 7, "y")}


@pytest.mark.parametrize("line", ["word", "word\tX-person", "word\tB-", "\tO"])
def test_a_line_of_another_form(write, line):
    with pytest.raises(ValueError, match="line 3: .*give a word and one of the tags"):
        read_conll(write(f"a\tO\nb\tO\n{line}\n"))


def test_files_without_sentences(write):
    with pytest.raises(ValueError, match="has no sentences"):
        read_conll(write("\n\n"))
    with pytest.raises(ValueError, match="not a text file in UTF-8"):
        read_conll(write("é\tO", encoding="latin-1"))
