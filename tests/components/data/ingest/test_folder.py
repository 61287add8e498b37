from components.data.ingest import MAX_SPAN, span_folder, spans


def test_spans_are_in_numeric_order(tmp_path):
    for number in (10, 9, 1):
        span_folder(tmp_path, number).mkdir()
    for name in ("span-", "span-x", "span-01", "span-2.tmp", ".tmp-span-3-ab", "span-4"):
        (tmp_path / name).mkdir() if name != "span-4" else (tmp_path / name).write_text("no folder")
    assert spans(tmp_path) == [1, 9, 10]


def test_a_folder_whose_number_tfx_cannot_use_is_not_a_span(tmp_path):
    for name in ("2147483647", "2147483648", "9" * 20, "\N{ARABIC-INDIC DIGIT SEVEN}", "1\N{ARABIC-INDIC DIGIT SEVEN}"):
        (tmp_path / f"span-{name}").mkdir()
    assert spans(tmp_path) == [MAX_SPAN] == [2147483647]


def test_missing_folder(tmp_path):
    assert spans(tmp_path / "none") == []
