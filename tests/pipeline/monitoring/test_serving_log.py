"""Logs are read completely or with their damage counted, and never beyond their own folder."""

import base64
import json
import os
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from components.data.ingest import tfrecord
from components.errors import UsageError
from pipeline.monitoring import log_files
from pipeline.monitoring.log_files import LogFiles, Problems
from pipeline.monitoring.serving_log import answer_id, parse
from tests.helpers.spans import encoded, picture
from tests.helpers.traffic import json_line, prediction_log, write_records

IMAGE = encoded(picture(1))
ANSWER = [0.25, 0.75]


def read(path, final=True):
    problems = Problems()
    return [answer for record in LogFiles(path, problems).read(final) for answer in parse(record, problems)], problems


def test_json_lines(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "one.png").write_bytes(IMAGE)
    lines = [
        json_line(IMAGE, ANSWER, time="2026-01-02T00:00:00Z", version=3, latency_ms=1.5, label="cat", valid=True),
        json_line(**{"image": "images/one.png", "class": "dog", "probability": 0.5, "time": 86400}),
        json.dumps({"image_bytes": {"b64": base64.b64encode(IMAGE).decode()}, "id": "a"}) + "\n",
        json_line(error="overloaded") + "\n",
    ]
    (tmp_path / "log.jsonl").write_text("".join(lines))
    (first, second, third, fourth), problems = read(tmp_path)
    assert not problems.counts
    assert (first.image, first.version, first.time, first.latency_ms) == (IMAGE, 3, 1767312000, 1.5)
    assert first.probabilities.tolist() == ANSWER and first.label == "cat" and first.valid is True
    assert (second.image, second.class_name, second.confidence, second.time) == (IMAGE, "dog", 0.5, 86400)
    assert third.image == IMAGE and third.id == "a" and first.digest == third.digest != ""
    assert fourth.failed and fourth.id == fourth.digest == ""


def test_prediction_logs_of_each_signature(tmp_path):
    example = tfrecord.example(IMAGE, 0, b"x")
    pixels = np.stack([picture(1), picture(2)])
    logs = [
        prediction_log([IMAGE, b"no image"], [ANSWER, [0, 0]], version=7, seconds=5, names=["cat", "dog"]),
        prediction_log([example], [ANSWER], signature="examples"),
        prediction_log(pixels, [ANSWER, ANSWER], signature="images"),
    ]
    answers, problems = read(write_records(tmp_path / "log.tfrecord-00000-of-00001", logs))
    assert not problems.counts
    assert [answer.version for answer in answers] == [7, 7, 1, 1, 1]
    assert [answer.valid for answer in answers] == [True, False, True, True, True]
    assert [answer.is_pixels for answer in answers] == [False] * 3 + [True] * 2
    assert [answer.time for answer in answers] == [5, 5, None, None, None]
    assert answers[0].image == answers[2].image == IMAGE and answers[0].class_name == "dog"
    assert np.array_equal(answers[0].probabilities, np.float32(ANSWER))


@pytest.mark.parametrize(
    "line",
    [
        b"not JSON\n",
        b"[1]\n",
        b"[" * 100_000 + b"\n",
        b'{"x": [' + b"[]," * 1_000_000 + b"0]}\n",
        b'{"version": true, "valid": true}\n',
        b'{"version": 1.5, "valid": true}\n',
        b'{"version": "v1", "valid": true}\n',
        b'{"version": -1, "valid": true}\n',
        b'{"version": [1], "valid": true}\n',
        b'{"ts": 1, "level": "info", "msg": "GET /"}\n',
        b'{"probs": [0.25, 0.75], "img": "a.png", "version": 1}\n',
    ],
)
def test_a_bad_line_is_counted_and_the_next_one_is_read(tmp_path, line):
    (tmp_path / "log.jsonl").write_bytes(line + json_line(IMAGE, ANSWER).encode())
    [answer], problems = read(tmp_path)
    assert answer.place == "log.jsonl:2"
    assert problems.counts.total() == 1 and [*problems.places.values()] == [["log.jsonl:1"]]


@pytest.mark.parametrize(
    "values",
    [
        {"time": "yesterday"},
        {"time": "1767312000"},
        {"time": 1e300},
        {"time": "2969-01-01"},
        {"latency_ms": -1},
        {"latency_ms": "5"},
        {"probability": "high"},
        {"id": "x" * 2000},
        {"id": ["a"]},
        {"label": 3.5},
        {"label": ["cat"]},
    ],
)
def test_an_answer_is_used_without_a_value_that_is_wrong(tmp_path, values):
    (tmp_path / "log.jsonl").write_text(json_line(IMAGE, ANSWER, **values))
    [answer], problems = read(tmp_path)
    assert answer.image == IMAGE and answer.probabilities.tolist() == ANSWER
    assert problems.counts.total() == 1 and [*problems.places.values()] == [["log.jsonl:1"]]
    assert (answer.time, answer.latency_ms, answer.confidence, answer.id, answer.label) == (None, None, None, "", None)


@pytest.mark.parametrize("absent", [None, float("nan")])
def test_null_and_nan_are_absent_values(tmp_path, absent):
    keys = ("time", "latency_ms", "probability", "id", "label", "version", "image", "class", "error", "valid")
    (tmp_path / "log.jsonl").write_text(json_line(IMAGE, ANSWER, **dict.fromkeys(keys, absent)))
    [answer], problems = read(tmp_path)
    assert answer.image == IMAGE and not answer.failed and not answer.lost_image and not problems.counts
    assert answer.version is answer.time is answer.label is answer.class_name is None and answer.id == ""


def test_numbers_that_pandas_writes_as_floats(tmp_path):
    lines = [json_line(None, ANSWER, version=version) for version in (1, 1.0, "1", "1.0")]
    lines.append(json_line(**{"class": 3.0, "label": 3.0, "id": 5.0}))
    (tmp_path / "log.jsonl").write_text("".join(lines))
    (*versions, last), problems = read(tmp_path)
    assert [answer.version for answer in versions] == [1] * 4 and not problems.counts
    assert (last.class_name, last.label, last.id) == ("3", "3", "5")


@pytest.mark.parametrize(
    "probabilities",
    ["x", 1, [[0.25, 0.75]], [[1, 2], [3]], ["a"], {"cat": 1}, [0] * 100_001],
    ids=["text", "number", "nested", "ragged", "texts", "object", "long"],
)
def test_malformed_probabilities_become_an_empty_array(tmp_path, probabilities):
    (tmp_path / "log.jsonl").write_text(json_line(IMAGE, probabilities=probabilities))
    [answer], _ = read(tmp_path)
    assert answer.image == IMAGE and answer.probabilities.shape == (0,)


def test_a_class_that_is_not_a_name_becomes_a_short_text(tmp_path):
    (tmp_path / "log.jsonl").write_text(json_line(**{"class": ["cat"]}) + json_line(**{"class": "x" * 1_000_000}))
    (first, second), problems = read(tmp_path)
    assert first.class_name == "['cat']" and len(second.class_name) == 100 and not problems.counts


def test_an_id_is_compared_without_spaces_and_a_sha256_in_lower_case():
    assert [*map(answer_id, (" 5 ", 5, 5.0, "5.0", "A" * 64, "A", "a.0"))] == ["5"] * 4 + ["a" * 64, "A", "a.0"]


def test_a_time_in_the_future_is_reported_and_a_clock_may_be_a_little_ahead(tmp_path):
    now = datetime.now(UTC)
    times = [now + timedelta(hours=1), now + timedelta(days=30)]
    (tmp_path / "log.jsonl").write_text("".join(json_line(None, ANSWER, time=time.isoformat()) for time in times))
    (answer, later), problems = read(tmp_path)
    assert answer.time == times[0].timestamp() and later.time is None
    [reason] = problems.counts
    assert reason.startswith("a time in the future") and problems.places[reason] == ["log.jsonl:2"]


@pytest.mark.parametrize(("label", "expected"), [("", None), (" \t", None), ("cat", "cat"), (" cat", "cat"), (7, "7")])
def test_a_blank_label_is_unknown(tmp_path, label, expected):
    (tmp_path / "log.jsonl").write_text(json_line(None, ANSWER, label=label))
    [answer], problems = read(tmp_path)
    assert answer.label == expected and not problems.counts


def test_texts_are_valid(tmp_path):
    (tmp_path / "log.jsonl").write_text(json_line(None, ANSWER, id="\ud800") + json_line(**{"class": "\udfff"}))
    (first, second), problems = read(tmp_path)
    assert first.id == r"\ud800" and second.class_name == r"\udfff" and not problems.counts


@pytest.mark.parametrize("image", ["../secret.png", "/etc/hostname", "out/secret.png", "link.png", "", ".", "a\0b", 7])
def test_no_path_leads_out_of_the_folder_of_the_log(tmp_path, image):
    folder = tmp_path / "log"
    folder.mkdir()
    (tmp_path / "secret.png").write_bytes(IMAGE)
    (folder / "out").symlink_to(tmp_path)
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "log.jsonl").write_text(json_line(None, ANSWER, image=image))
    [answer], problems = read(folder)
    assert answer.image is None and answer.lost_image and problems.counts.total() == 1
    assert answer.probabilities is not None  # the answer still counts


def test_images_that_are_too_large_or_not_base64(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.monitoring.serving_log.MAX_BYTES", 1000)
    monkeypatch.setattr(log_files, "MAX_LINE", 5000)
    lines = [json_line(bytes(2000)), '{"image_bytes": "%%"}\n', json_line(bytes(9000)), json_line(b"small")]
    lines.append(json_line(image_bytes={"b64": None}))
    (tmp_path / "log.jsonl").write_text("".join(lines))
    answers, problems = read(tmp_path)
    assert [answer.image for answer in answers] == [None, None, b"small", None]
    assert [answer.lost_image for answer in answers] == [True, True, False, True]
    assert sorted(problems.counts.values()) == [1, 1, 2]


def test_damaged_records(tmp_path):
    good = prediction_log([IMAGE], [ANSWER])
    frames = [bytearray(tfrecord.frame(good)) for _ in range(4)]
    frames[1][40] ^= 1  # its checksum does not match
    (tmp_path / "a.tfrecord").write_bytes(b"".join(frames[:3]))
    frames[1][3] ^= 1  # its length is wrong, so the next record cannot be found
    (tmp_path / "b.tfrecord").write_bytes(b"".join(frames))
    (tmp_path / "c.tfrecord").write_bytes(frames[0] + frames[0][:-1])  # cut
    write_records(tmp_path / "d.tfrecord", [b"\xff" * 9, good])
    (tmp_path / "e.tfrecord").symlink_to(tmp_path / "a.tfrecord")
    answers, problems = read(tmp_path)
    assert [answer.place for answer in answers] == [
        "a.tfrecord record 1",
        "a.tfrecord record 3",
        "b.tfrecord record 1",
        "c.tfrecord record 1",
        "d.tfrecord record 2",
    ]
    assert [places[0].split(" (")[0] for places in problems.places.values()] == [
        "a.tfrecord record 2",
        "b.tfrecord record 2",
        "c.tfrecord record 2",
        "d.tfrecord record 1",
        "e.tfrecord",
    ]


def test_a_tensor_cannot_claim_more_memory_than_it_has_values(tmp_path):
    log = log_with_shape(prediction_log([IMAGE], [ANSWER]), [2**20, 2**20])
    [answer], problems = read(write_records(tmp_path / "log.tfrecord", [log]))
    assert answer.image == IMAGE and answer.probabilities.shape == (0,) and problems.counts.total() == 1


def log_with_shape(data, shape):
    from tensorflow_serving.apis import prediction_log_pb2

    log = prediction_log_pb2.PredictionLog.FromString(data)
    tensor = log.predict_log.response.outputs["probabilities"]
    for dimension, size in zip(tensor.tensor_shape.dim, shape, strict=True):
        dimension.size = size
    return log.SerializeToString()


@pytest.mark.parametrize("signature", ["probabilities", "images"])
def test_a_value_is_not_repeated_over_the_shape_of_its_tensor(tmp_path, signature):
    from tensorflow_serving.apis import prediction_log_pb2

    log = prediction_log_pb2.PredictionLog()
    if signature == "images":
        tensor, sizes = log.predict_log.request.inputs["images"], [1000, 64, 64, 3]
        tensor.dtype, tensor.int_val[:] = 4, [7]
    else:
        tensor, sizes = log.predict_log.response.outputs["probabilities"], [2**25, 2]
        tensor.dtype, tensor.float_val[:] = 1, [0.5]
    for size in sizes:
        tensor.tensor_shape.dim.add(size=size)
    data = log.SerializeToString()
    assert len(data) < 60
    [answer], problems = read(write_records(tmp_path / "log.tfrecord", [data]))
    [reason] = problems.counts
    assert "do not fit its shape" in reason
    assert answer.lost_image == (signature == "images") and answer.image is None
    assert (answer.probabilities is None) == answer.lost_image


def response(**outputs):
    """Return a serialized PredictionLog without a request."""
    import tensorflow as tf
    from tensorflow_serving.apis import prediction_log_pb2

    log = prediction_log_pb2.PredictionLog()
    for name, values in outputs.items():
        log.predict_log.response.outputs[name].CopyFrom(tf.make_tensor_proto(values))
    return log.SerializeToString()


def test_records_whose_outputs_do_not_match_their_images(tmp_path):
    logs = [
        response(valid=np.ones(100_001, bool)),
        response(probabilities=np.zeros([2, 3], np.float32), valid=np.bool_(True)),
        response(probabilities=np.zeros([0, 3], np.float32), valid=[True]),
        prediction_log([IMAGE], [ANSWER]),
    ]
    answers, problems = read(write_records(tmp_path / "log.tfrecord", logs))
    assert [answer.place for answer in answers] == ["log.tfrecord record 4"] and problems.counts.total() == 3


def test_malformed_probabilities_in_records_become_empty_arrays(tmp_path):
    logs = [
        response(probabilities=np.float32(0.5)),
        response(probabilities=np.zeros([1, 100_001], np.float32)),
        response(probabilities=np.zeros([2, 2, 2], np.float32), valid=[True, True]),
        response(probabilities=["0.5"], valid=[True]),
    ]
    answers, problems = read(write_records(tmp_path / "log.tfrecord", logs))
    assert [answer.probabilities.shape for answer in answers] == [(0,)] * 5 and problems.counts.total() == 4


def test_a_record_is_used_without_a_value_that_is_wrong(tmp_path):
    examples = [tfrecord.example(IMAGE, 0, b"x"), b"no example"]
    logs = [
        prediction_log(examples, [ANSWER, ANSWER], signature="examples"),
        prediction_log(np.zeros([1, 8, 8, 4], np.uint8), [ANSWER], signature="images"),
        prediction_log([IMAGE], [ANSWER], seconds=2**35),  # in the future
    ]
    answers, problems = read(write_records(tmp_path / "log.tfrecord", logs))
    assert [answer.lost_image for answer in answers] == [False, True, True, False]
    assert [answer.image for answer in answers] == [IMAGE, None, None, IMAGE]
    assert all(np.array_equal(answer.probabilities, np.float32(ANSWER)) for answer in answers)
    assert answers[3].time is None and problems.counts.total() == 3


def test_answers_that_do_not_match_the_images(tmp_path):
    logs = [prediction_log([IMAGE, IMAGE], [ANSWER]), prediction_log([IMAGE], [ANSWER], signature="other")]
    answers, problems = read(write_records(tmp_path / "log.tfrecord", logs))
    assert len(answers) == 1 and answers[0].image is None and problems.counts.total() == 1


@pytest.mark.parametrize("name", ["log.jsonl", "log.tfrecord"])
def test_a_growing_file_is_read_once(tmp_path, name):
    file = tmp_path / name
    one = json_line(IMAGE, ANSWER).encode() if name.endswith("l") else tfrecord.frame(prediction_log([IMAGE], [ANSWER]))
    file.write_bytes(one + one[:50])
    problems = Problems()
    files = LogFiles(tmp_path, problems)
    assert len([*files.read(final=False)]) == 1
    with file.open("ab") as opened:
        opened.write(one[50:] + one)
    assert len([*files.read(final=False)]) == 2
    assert not [*files.read()] and not problems.counts


def line(number):
    return json_line(None, ANSWER, id=number)


def lines(*numbers):
    return "".join(map(line, numbers))


def new_ids(files, final=False):
    return [answer.id for record in files.read(final) for answer in parse(record, Problems())]


@pytest.mark.parametrize("is_folder", [True, False])
def test_a_followed_log_is_read_across_rotation(tmp_path, is_folder):
    log, problems = tmp_path / "log.jsonl", Problems()
    log.write_text(lines("a", "b"))
    files = LogFiles(tmp_path if is_folder else log, problems)
    assert new_ids(files) == ["a", "b"]
    log.rename(tmp_path / "log.jsonl.1")
    assert new_ids(files) == []  # no file has the name for a moment
    log.write_text(lines("c", "d", "e"))
    assert new_ids(files) == ["c", "d", "e"]
    log.write_text(lines("f"))  # truncated
    assert new_ids(files) == ["f"]
    log.unlink()
    assert new_ids(files) == []
    log.write_text(lines("0", "1"))  # longer, and often with the same inode
    assert new_ids(files) == ["0", "1"]
    assert new_ids(files, final=True) == [] and not problems.counts


def copytruncate(log, copy):
    copy.write_bytes(log.read_bytes())
    os.truncate(log, 0)


@pytest.mark.parametrize("copy", ["log.jsonl.1", "log.jsonl-20260102", "log-20260102.jsonl"])
def test_a_log_that_is_copied_and_truncated_is_read_once(tmp_path, copy):
    log, problems = tmp_path / "log.jsonl", Problems()
    log.write_text(lines(*range(50)))
    files = LogFiles(tmp_path, problems)
    assert len(new_ids(files)) == 50
    with log.open("a") as file:
        file.write(lines("a"))
    assert new_ids(files) == ["a"]
    with log.open("a") as file:
        file.write(lines("b", "c"))  # written after the last reading
    copytruncate(log, tmp_path / copy)
    with log.open("a") as file:
        file.write(lines("d"))
    read = [id for _ in range(3) for id in new_ids(files)]  # a copy that sorts first is read after its original
    assert sorted(read) == ["b", "c", "d"]
    (tmp_path / copy).rename(tmp_path / "log.jsonl.2")
    copytruncate(log, tmp_path / copy)
    log.write_text(lines("e"))
    assert [*new_ids(files), *new_ids(files), *new_ids(files, final=True)] == ["e"] and not problems.counts


@pytest.mark.parametrize("after", [1, 20, 50])
def test_a_log_that_is_truncated_while_it_is_read_is_read_once(tmp_path, after):
    log, problems = tmp_path / "log.jsonl", Problems()
    log.write_text(lines(*range(50)))
    files, read = LogFiles(tmp_path, problems), []
    for record in files.read(final=False):
        read += [answer.id for answer in parse(record, Problems())]
        if len(read) == after:
            copytruncate(log, tmp_path / "log.jsonl.1")
            log.write_text(lines("a"))
    read += [id for _ in range(3) for id in new_ids(files)]
    assert sorted(read) == sorted([*map(str, range(50)), "a"]) and not problems.counts


def test_a_truncated_log_that_begins_alike_and_is_longer_again_is_read_from_its_beginning(tmp_path):
    probe, log = json_line(os.urandom(3000), ANSWER, id="probe"), tmp_path / "log.jsonl"
    log.write_text(probe + lines("a"))
    files = LogFiles(log, Problems())
    assert new_ids(files) == ["probe", "a"]
    log.write_text(probe + lines("b", "c", "d"))
    assert new_ids(files) == ["probe", "b", "c", "d"]


def test_a_line_that_is_too_long_is_read_once(tmp_path, monkeypatch):
    monkeypatch.setattr(log_files, "MAX_LINE", 3000)
    monkeypatch.setattr(log_files, "_CHUNK", 1000)
    log, problems = tmp_path / "log.jsonl", Problems()
    log.write_text(lines("a") + json_line(os.urandom(2500), ANSWER))
    files = LogFiles(log, problems)
    assert [new_ids(files) for _ in range(3)] == [["a"], [], []] and problems.counts.total() == 1


def test_a_copied_log_of_records_is_read_once(tmp_path):
    log, problems = tmp_path / "s.tfrecord", Problems()
    records = [prediction_log([IMAGE], [ANSWER], version=version) for version in range(1, 5)]
    write_records(log, records[:2])
    files = LogFiles(tmp_path, problems)
    assert len([*files.read(final=False)]) == 2
    with log.open("ab") as opened:
        opened.write(tfrecord.frame(records[2]))
    copytruncate(log, tmp_path / "s.tfrecord.1")
    write_records(log, records[3:])
    assert sorted(record.place for record in files.read()) == ["s.tfrecord record 1", "s.tfrecord.1 record 3"]
    assert not problems.counts


def test_a_copy_waits_until_it_is_complete_and_its_original_truncated(tmp_path):
    log, copy = tmp_path / "log.jsonl", tmp_path / "log.jsonl.1"
    log.write_text(lines("a", "b"))
    files = LogFiles(tmp_path, Problems())
    assert new_ids(files) == ["a", "b"]
    copy.write_text(lines("a", "b")[:30])
    assert new_ids(files) == []
    copy.write_text(lines("a", "b", "c"))
    with log.open("a") as file:
        file.write(lines("c", "d"))  # "d" was written after the end of the copy
    assert new_ids(files) == ["c", "d"]
    log.write_text(lines("e"))
    assert new_ids(files) == ["e"]
    assert new_ids(files) == [] and new_ids(files, final=True) == []


def test_a_copy_without_a_later_reading_is_read_once(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text(lines("a", "b"))
    files = LogFiles(tmp_path, Problems())
    assert new_ids(files) == ["a", "b"]
    (tmp_path / "log.jsonl.1").write_text(lines("a", "b", "c"))
    assert new_ids(files, final=True) == ["c"]


def test_files_that_begin_alike_are_both_read(tmp_path):
    same = json_line(os.urandom(3000), ANSWER, id="same")
    (tmp_path / "log.jsonl").write_text(same + lines("a"))
    (tmp_path / "log-2.jsonl").write_text(same + lines("a"))  # as complete logs of two servers may be
    files = LogFiles(tmp_path, Problems())
    assert new_ids(files) == ["same", "a"] * 2
    (tmp_path / "log-3.jsonl").write_text(same + lines("b", "c"))
    (tmp_path / "log-4.jsonl").write_text(same)
    assert [*new_ids(files), *new_ids(files, final=True)] == ["same", "b", "c", "same"]


def test_a_renamed_file_of_records_is_read_once(tmp_path):
    log, problems = tmp_path / "s.tfrecord", Problems()
    record, other = (prediction_log([IMAGE], [ANSWER], version=version) for version in (1, 2))
    write_records(log, [record])
    files = LogFiles(tmp_path, problems)
    assert len([*files.read(final=False)]) == 1
    with log.open("ab") as opened:
        opened.write(tfrecord.frame(record))  # written after the last reading
    log.rename(tmp_path / "s.tfrecord.1")
    write_records(log, [other])
    assert sorted(record.place for record in files.read()) == ["s.tfrecord record 1", "s.tfrecord.1 record 2"]
    assert not problems.counts


def test_a_missing_log_is_a_problem_only_at_the_end(tmp_path):
    log, problems = tmp_path / "log.jsonl", Problems()
    log.write_text(lines("a"))
    files = LogFiles(log, problems)
    log.unlink()
    assert new_ids(files) == [] and not problems.counts
    assert new_ids(files, final=True) == [] and [*problems.places.values()] == [["log.jsonl (FileNotFoundError)"]]


@pytest.mark.parametrize("name", ["LOG.JSONL", "log.JsonL.1", "LOG.TFRECORD", "log.TFRecord-00000-of-00001"])
def test_the_ending_of_a_log_may_have_upper_case(tmp_path, name):
    if "jsonl" in name.lower():
        (tmp_path / name).write_text(lines("a"))
    else:
        write_records(tmp_path / name, [prediction_log([IMAGE], [ANSWER])])
    for path in tmp_path, tmp_path / name:
        answers, problems = read(path)
        assert len(answers) == 1 and not problems.counts


@pytest.mark.parametrize("name", ["access.log", "log.jsonl.gz", "log.json", "tfrecord"])
def test_a_named_file_that_is_not_a_log(tmp_path, name):
    (tmp_path / name).write_text(lines("a"))
    with pytest.raises(UsageError, match=r"\.jsonl or \.tfrecord"):
        LogFiles(tmp_path / name, Problems())


def test_other_files_in_a_folder_are_counted_once(tmp_path):
    for name in ("access.log", "log.jsonl.2.gz", ".hidden.txt", "image.PNG"):
        (tmp_path / name).write_text("x\n")
    for name in ("a.jsonl", "b.jsonl.1", "c.jsonl-20260102", "d.2026.jsonl"):
        (tmp_path / name).write_text(lines(name))
    write_records(tmp_path / "e.tfrecord-00000-of-00001", [prediction_log([IMAGE], [ANSWER])])
    problems = Problems()
    files = LogFiles(tmp_path, problems)
    assert new_ids(files) == ["a.jsonl", "b.jsonl.1", "c.jsonl-20260102", "d.2026.jsonl", ""]
    assert new_ids(files, final=True) == []
    assert [*problems.places.values()] == [["access.log", "log.jsonl.2.gz"]]


def test_places_are_valid_text(tmp_path):
    file = tmp_path / os.fsdecode(b"caf\xe9.jsonl")
    file.write_text("no JSON\n" + lines("a"))
    [answer], problems = read(tmp_path)
    assert answer.place == r"caf\udce9.jsonl:2"
    assert json.dumps([*problems.places.values()], ensure_ascii=False).encode()


def test_special_files_do_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe.jsonl")
    answers, problems = read(tmp_path)
    assert not answers and problems.counts.total() == 1
    with pytest.raises(UsageError):
        LogFiles(tmp_path / "missing", Problems())
