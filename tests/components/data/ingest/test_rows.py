import pytest

from components.data.ingest import rows


@pytest.mark.parametrize(
    "cell, name",
    [(" cat ", "cat"), (3, "3"), (3.0, "3"), (-1, "-1"), ("é" * 127, "é" * 127), (0.5, None), ("é" * 128, None)]
    + [(cell, None) for cell in ("", " ", None, float("nan"), float("inf"), b"cat", [1], {"a": 1})],
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
