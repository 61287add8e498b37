import pytest

from components.data.ingest import rows


@pytest.mark.parametrize(
    "cell, name",
    [(" cat ", "cat"), (3, "3"), (3.0, "3"), (-1, "-1"), ("é" * 127, "é" * 127), (0.5, None), ("é" * 128, None)]
    + [("0.0", "0"), (" -1.0", "-1"), ("1.5", "1.5"), ("1.0.0", "1.0.0"), ("v1.0", "v1.0")]
    + [
        (cell, None) for cell in ("\ud800", "a\udc80", "", " ", None, float("nan"), float("inf"), b"cat", [1], {"a": 1})
    ],
)
def test_class_name(cell, name):
    assert rows.class_name(cell) == name


def test_only_the_cells_of_the_header_are_stripped(tmp_path):
    (tmp_path / "x.csv").write_text(" path , label\n a.jpg ,cat\n")
    assert rows.columns(tmp_path / "x.csv") == ["path", "label"]
    assert list(rows.rows(tmp_path / "x.csv", ["path"])) == [("line 2", {"path": " a.jpg ", "label": "cat"})]


def test_line_numbers_are_those_of_the_file(tmp_path):
    (tmp_path / "x.csv").write_text('path,label\n"a\nb",cat\n\nc,dog\n')
    assert [row.where for row in rows.rows(tmp_path / "x.csv", [])] == ["line 3", "line 5"]


def test_blank_lines_before_the_header(tmp_path):
    (tmp_path / "x.csv").write_text("\ufeff\n \r\n path;label\na.jpg;cat\n")
    assert rows.columns(tmp_path / "x.csv") == ["path", "label"]
    assert list(rows.rows(tmp_path / "x.csv", [])) == [("line 4", {"path": "a.jpg", "label": "cat"})]
    (tmp_path / "x.csv").write_text("\n\n")
    assert rows.columns(tmp_path / "x.csv") == []
