"""Tests of a person's decisions about images, which `data prepare` applies."""

import json

import pytest

from components.data.ingest import manifest, prepare, tfrecord
from components.data.ingest.decisions import decide, read
from components.data.ingest.source import SPLITS, Record
from components.errors import DataRefused, UsageError
from pipeline.beam_tasks import TaskRunner
from pipeline.settings.beam import BeamSettings


def labels(span):
    """Return the class of every example of a span by id."""
    names = manifest.read(span).class_names
    return {
        example.id.decode(): names[example.label] for split in SPLITS for example in tfrecord.read_split(span / split)
    }


def table(path, *lines):
    path.write_text("\n".join(lines) + "\n")
    return path


def test_labels_are_changed_and_images_dropped(folder, files, tmp_path):
    out = tmp_path / "out"
    prepare("images", out, str(folder))
    decisions = table(
        tmp_path / "decisions.csv",
        "id,verdict,label,by,at",
        "train/cat/00.png,relabel,dog,Ada,2026-07-31T09:30:00",
        "train/cat/01.png,drop,,Ada,2026-07-31T11:30:00+02:00",
        "train/dog/02.png,keep,,Grace,2026-07-31T09:31:00Z",
    )
    written = prepare("images", out, str(folder), decisions=decisions)
    before, after = labels(out / "span-1"), labels(out / "span-2")
    assert after == {
        id: "dog" if id == "train/cat/00.png" else label for id, label in before.items() if id != "train/cat/01.png"
    }
    known = manifest.read(out / "span-2").recipe.decisions
    assert known == written.recipe.decisions
    assert (known.keep, known.relabel, known.drop, known.by) == (1, 1, 1, ("Ada", "Grace"))
    assert (known.first_at, known.last_at) == ("2026-07-31T09:30:00+00:00", "2026-07-31T09:31:00+00:00")
    assert manifest.read(out / "span-1").recipe.decisions is None


def test_only_other_decisions_lead_to_another_span(folder, tmp_path):
    out, decisions = tmp_path / "out", tmp_path / "decisions.jsonl"
    rows = [{"id": "train/cat/00.png", "verdict": "drop"}, {"id": "train/fox/00.png", "verdict": "drop"}]
    for count, spans in ((1, 1), (1, 1), (2, 2)):
        table(decisions, *map(json.dumps, rows[:count]))
        prepare("images", out, str(folder), decisions=decisions)
        assert len([*out.glob("span-*")]) == spans


def test_an_image_with_a_changed_label_keeps_its_split(folder, tmp_path):
    out = tmp_path / "out"
    prepare("images", out, str(folder))
    held_out = [example.id.decode() for example in tfrecord.read_split(out / "span-1" / "val")]
    other = {"cat": "dog", "dog": "fox", "fox": "cat"}
    lines = [f"{id},relabel,{other[id.split('/')[1]]}" for id in held_out]
    prepare("images", out, str(folder), decisions=table(tmp_path / "d.csv", "id,verdict,label", *lines))
    assert [example.id.decode() for example in tfrecord.read_split(out / "span-2" / "val")] == held_out


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        (["id,verdict", "train/cat/99.png,drop"], ["line 2", "'train/cat/99.png'"]),
        (["id,verdict,label", "train/cat/00.png,relabel,dgo"], ["line 2", "'dgo'", "did you mean dog?"]),
        (["id,verdict,label", "train/cat/00.png,relabel,"], ["line 2", "no label"]),
        (["id,verdict", "train/cat/00.png,drop", "train/cat/00.png,keep"], ["line 3", "line 2", "duplicated"]),
        (["id,verdict", "train/cat/00.png,delete"], ["line 2", "'delete'", "keep, relabel or drop"]),
        (["id,verdict", ",drop"], ["line 2", "no id"]),
        (["id,verdict,given", "train/cat/00.png,drop,dog"], ["line 2", "label 'cat'", "'dog' in the column 'given'"]),
        (["id,verdict,at", "train/cat/00.png,drop,yesterday"], ["line 2", "'yesterday'"]),
        (["name,verdict", "train/cat/00.png,drop"], ["no column 'id'", "'name'"]),
        (["id,verdict"], ["no rows"]),
    ],
)
def test_wrong_decisions_are_refused_and_nothing_is_written(folder, tmp_path, lines, named):
    with pytest.raises(DataRefused) as refused:
        prepare("images", tmp_path / "out", str(folder), decisions=table(tmp_path / "decisions.csv", *lines))
    assert all(text in str(refused.value) for text in named), refused.value
    assert not [*(tmp_path / "out").glob("span-*")]


def test_unknown_classes_are_refused_before_a_source_with_known_classes_is_read(tmp_path):
    decisions = table(tmp_path / "decisions.csv", "id,verdict,label", "digits:0,relabel,ten")
    with pytest.raises(DataRefused, match="'ten'"):
        prepare("sample", tmp_path / "out", decisions=decisions, progress=lambda *_: pytest.fail("it was read"))


def test_an_id_that_is_not_text_is_refused(folder, tmp_path):
    decisions = table(tmp_path / "decisions.jsonl", '{"id": 7, "verdict": "drop"}')
    with pytest.raises(DataRefused, match="line 1: id 7 is not text"):
        prepare("images", tmp_path / "out", str(folder), decisions=decisions)


def test_the_order_of_decisions_does_not_lead_to_another_span(folder, tmp_path):
    out, decisions = tmp_path / "out", tmp_path / "decisions.csv"
    lines = ["train/cat/00.png,drop,,cat,Ada", "train/dog/00.png,relabel,fox,dog,Ada"]
    for rows in lines, reversed(lines):
        table(decisions, "id,verdict,label,given,by", *rows)
        prepare("images", out, str(folder), decisions=decisions)
    assert [path.name for path in out.glob("span-*")] == ["span-1"]


def records(*ids):
    return [Record("train", "cat", id, b"") for id in ids]


def test_two_images_with_the_same_readable_id_are_refused(tmp_path):
    decisions = read(table(tmp_path / "decisions.jsonl", json.dumps({"id": "a\\xff.png", "verdict": "drop"})))
    assert [record.dropped for record in decide(records(b"a\xff.png"), decisions, set(), set())] == [True]
    with pytest.raises(DataRefused, match="two images of the source have the id"):
        list(decide(records(b"a\xff.png", b"a\\xff.png"), decisions, set(), set()))


@pytest.mark.parametrize("name", ["missing.csv", "decisions.txt"])
def test_a_file_that_is_no_table_is_wrong_usage(folder, tmp_path, name):
    (tmp_path / "decisions.txt").write_text("id,verdict\n")
    with pytest.raises(UsageError, match=name):
        prepare("images", tmp_path / "out", str(folder), decisions=tmp_path / name)


def test_workers_of_an_engine_apply_decisions_as_a_single_process_does(folder, tmp_path):
    decisions = table(
        tmp_path / "some.csv", "id,verdict,label", "train/cat/00.png,relabel,dog", "test/fox/00.png,drop,"
    )
    runner = TaskRunner(BeamSettings())
    one = prepare("images", tmp_path / "1", str(folder), decisions=decisions)
    two = prepare("images", tmp_path / "2", str(folder), decisions=decisions, run_tasks=runner)
    assert one == two and labels(tmp_path / "1" / "span-1") == labels(tmp_path / "2" / "span-1")
    assert labels(tmp_path / "1" / "span-1")["train/cat/00.png"] == "dog"
    unknown = table(tmp_path / "unknown.csv", "id,verdict,label", "train/cat/none.png,drop,")
    with pytest.raises(DataRefused, match=r"has no image 'train/cat/none.png'"):
        prepare("images", tmp_path / "2", str(folder), decisions=unknown, run_tasks=runner)
    mismatch = table(tmp_path / "mismatch.csv", "id,verdict,given", "train/cat/00.png,drop,dog")
    with pytest.raises(DataRefused, match=r"'dog' in the column 'given'"):
        prepare("images", tmp_path / "2", str(folder), decisions=mismatch, run_tasks=runner)
