"""Choice of the images that are worth labelling."""

import csv
import hashlib
from collections import Counter
from dataclasses import replace

import pytest

from components.errors import UsageError
from pipeline.monitoring.measured import MeasuredAnswer
from pipeline.monitoring.sample import Choice, Sampler, check_folder, write_sample
from pipeline.monitoring.serving_log import Answer


def answers(count=200):
    """Return answers of growing confidence and distance. One of ten is of the rare class 1."""
    return [
        MeasuredAnswer(
            Answer(f"at {number}", image=b"image %d" % number),
            version=1,
            index=int(number % 10 == 0),
            confidence=number / count,
            label=None,
            distance=float(number),
        )
        for number in range(count)
    ]


def choose(measured, images=40):
    sampler = Sampler(images)
    for start in range(0, len(measured), 30):
        sampler.add(measured[start : start + 30])
    return sampler.choose()


def test_each_reason_gets_a_quarter():
    chosen = choose(answers())
    assert Counter(choice.reason for choice in chosen) == dict.fromkeys(("unsure", "far", "rare", "random"), 10)
    places = {choice.reason: set() for choice in chosen}
    for choice in chosen:
        places[choice.reason].add(int(choice.measured.answer.place.split()[1]))
    assert places["unsure"] <= set(range(15)) and places["far"] <= set(range(185, 200))
    assert all(place % 10 == 0 for place in places["rare"])
    assert [choice.measured.answer.place for choice in chosen] == [
        choice.measured.answer.place for choice in choose(answers())
    ]


def test_a_sampler_holds_few_images_of_many_classes():
    sampler = Sampler(10)
    many = [replace(one, index=number % 97) for number, one in enumerate(answers(2000))]
    rare = replace(many[0], index=97, answer=Answer("rare", image=b"rare"))
    sampler.add([*many[:1500], rare, *many[1500:]])
    held = {id(one) for kind in (sampler._unsure, sampler._far) for _, _, one in kind} | {*map(id, sampler._random)}
    assert len(held | {id(one) for of_class in sampler._rare.values() for one in of_class}) <= 4 * 10
    assert ("rare", "rare") in {(choice.reason, choice.measured.answer.place) for choice in sampler.choose()}


def test_a_class_that_is_frequent_only_at_first_is_found_as_rare():
    early = [replace(one, index=int(place >= 30)) for place, one in enumerate(answers(1000))]
    assert {choice.measured.index for choice in choose(early, 20) if choice.reason == "rare"} == {0}


def test_equal_images_are_chosen_once_and_unusable_ones_never():
    equal = [MeasuredAnswer(Answer("x", image=b"same"), 1, 0, 0.5, None, distance=1.0)] * 20
    unusable = [MeasuredAnswer(Answer("y", image=b"other"), 1, 0, 0.1, None)] * 20
    assert len(choose([*equal, *unusable])) == 1
    assert len(choose(answers(12))) == 12


@pytest.mark.parametrize("id", ["=1+1", "+1", "-1", "@x", "\x1b[2Ja", "a\tb", "a\u202eb", ""])
def test_an_id_that_a_spreadsheet_or_a_terminal_could_interpret_is_replaced_by_the_sha256(tmp_path, id):
    [item] = answers(1)
    item = replace(item, answer=replace(item.answer, id=id))
    plain = replace(item, answer=replace(item.answer, id="a-1=2"))
    write_sample(tmp_path / "new", [Choice("random", item), Choice("far", plain)], {1: ["cat", "dog"]}, {})
    with (tmp_path / "new" / "labels.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert first["id"] == hashlib.sha256(item.answer.image).hexdigest() and second["id"] == "a-1=2"


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in tmp_path / "file" / "new", tmp_path / ("x" * 300):
        with pytest.raises(UsageError, match="cannot be written"):
            check_folder(folder)
    check_folder(tmp_path / "a" / "b" / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_sample_replaces_no_folder(tmp_path):
    assert write_sample(tmp_path / "new", choose(answers(5)), {1: ["cat", "dog"]}, {}) == 5
    with pytest.raises(UsageError):
        write_sample(tmp_path / "new", [], {}, {})
    assert len([*(tmp_path / "new" / "images").iterdir()]) == 5 and len([*tmp_path.iterdir()]) == 1
