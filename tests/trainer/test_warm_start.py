import pytest

from trainer.warm_start import FILE, compare_classes, read


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (["cat", "dog"], ["cat", "dog"], "warm start from version 3: the same 2 classes"),
        (
            ["cat", "dog"],
            ["cat", "dog", "ship"],
            "warm start from version 3: head rebuilt, weights of 2 classes copied by name, 1 new: ship",
        ),
        (
            ["cat", "dog", "ship"],
            ["cat", "ship"],
            "warm start from version 3: head rebuilt, weights of 2 classes copied by name, 1 dropped: dog",
        ),
        (
            ["cat", "dog"],
            ["dog", "cat"],
            "warm start from version 3: head rebuilt, weights of 2 classes copied by name",
        ),
        (
            ["cat"],
            list("abcdefg"),
            "warm start from version 3: head rebuilt, weights of 0 classes copied by name, 7 new: a, b, c, d, e and 2 "
            "more, 1 dropped: cat",
        ),
    ],
)
def test_the_description_names_kept_new_and_dropped_classes(old, new, words):
    assert str(compare_classes(old, new, 3)) == words


def test_a_training_from_scratch_has_no_record(tmp_path):
    assert read(tmp_path) is None
    start = compare_classes(["cat"], ["cat", "dog"], None)
    (tmp_path / FILE).write_text(start.model_dump_json())
    assert read(tmp_path) == start
    assert str(start).startswith("warm start from the serving model: head rebuilt, weights of 1 class copied")
