"""Answers that a model server or its client logged: TensorFlow Serving's PredictionLog, or JSON Lines."""

import base64
import binascii
import hashlib
import io
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from components.data.ingest import tfrecord
from components.data.ingest.files import read_image
from components.data.ingest.images import MAX_BYTES
from components.errors import DataRefused
from pipeline.monitoring.log_files import LogRecord, Problems, valid_text

_MAX_VALUES = 2**26  # of a tensor, because a short record may claim any shape
_VALUE_FIELDS = (  # of a TensorProto with numbers
    "half_val",
    "float_val",
    "double_val",
    "int_val",
    "int64_val",
    "bool_val",
    "uint32_val",
    "uint64_val",
)
_MAX_PROBABILITIES = 100_000  # of an answer; a model has fewer classes
_MAX_IMAGES = 100_000  # of a request
_MAX_JSON_VALUES = 2**20  # of a line, because each takes much more memory than its text
_MAX_TEXT = 1024  # characters of an id or a class name
_MAX_SECONDS = 2**36  # since 1970; a larger time is not in seconds
_MAX_FUTURE = 86_400  # seconds by which a server's clock may be ahead: it may have a wrong time zone

_TOO_LARGE = f"an image of more than {MAX_BYTES:,} bytes: log smaller images"
_NOT_BASE64 = "image bytes that are not base64: encode the bytes of the PNG or JPEG file"


@dataclass(frozen=True)
class Answer:
    """Logged answer for one image. Everything that the log does not contain is None."""

    place: str  # in the log, for a person
    file: Path | None = None  # of the log
    offset: int = 0  # of its record in the file
    version: int | None = None  # of the model
    time: float | None = None  # seconds since 1970
    image: bytes | None = None  # PNG or JPEG as it was sent
    is_pixels: bool = False  # true if pixels at the model's size were sent, which `image` encodes
    probabilities: np.ndarray | None = None  # float32 [classes]
    class_name: str | None = None
    confidence: float | None = None  # of the class, if the log has no probabilities
    valid: bool | None = None
    latency_ms: float | None = None
    failed: bool = False  # the request got an error in place of an answer
    id: str = ""  # by which a true label is found; if empty, the sha256 of the image
    label: str | None = None  # the true class

    @property
    def key(self) -> str:
        """The id, or the sha256 of the image; empty without both."""
        return self.id or ("" if self.image is None else hashlib.sha256(self.image).hexdigest())


class _BadRecord(Exception):
    """A record cannot be used. The message is one of a few fixed reasons."""


def parse(record: LogRecord, problems: Problems) -> Iterator[Answer]:
    """Yield the answers in a record of a log. Those that cannot be used are counted.

    Args:
        record: the record.
        problems: counts what cannot be used.
    """
    try:
        if record.is_json:
            yield _parse_json(record, problems)
        else:
            yield from _parse_prediction_log(record)
    except _BadRecord as error:
        problems.add(str(error), record.place)


def _parse_json(record: LogRecord, problems: Problems) -> Answer:
    if sum(map(record.data.count, (b",", b"[", b"{"))) > _MAX_JSON_VALUES:
        raise _BadRecord(f"a line of more than {_MAX_JSON_VALUES:,} values: log images as base64 or as paths")
    try:
        row = json.loads(record.data)
    except (ValueError, RecursionError):
        raise _BadRecord("a line that is not JSON: write one JSON object on each line") from None
    if not isinstance(row, dict):
        raise _BadRecord("a line that is not a JSON object: write one JSON object on each line")
    image = None
    try:
        image = _json_image(row, record.file.parent)
    except _BadRecord as error:  # the answer still counts
        problems.add(str(error), record.place)
    return Answer(
        place=record.place,
        file=record.file,
        offset=record.offset,
        version=_whole(row, "version"),
        time=_time(row.get("time")),
        image=image,
        probabilities=_json_probabilities(row.get("probabilities")),
        class_name=_text(row, "class"),
        confidence=_number(row, "probability"),
        valid=row["valid"] if isinstance(row.get("valid"), bool) else None,
        latency_ms=_number(row, "latency_ms"),
        failed=bool(row.get("error")),
        id=_text(row, "id") or "",
        label=(_text(row, "label") or "").strip() or None,
    )


def _json_probabilities(values: object) -> np.ndarray | None:
    if values is None:
        return None
    reason = f"probabilities that are not a list of at most {_MAX_PROBABILITIES:,} numbers: log one for each class"
    if not isinstance(values, list) or len(values) > _MAX_PROBABILITIES:
        raise _BadRecord(reason)
    try:
        probabilities = np.array(values, np.float32)
    except (ValueError, TypeError, OverflowError):
        raise _BadRecord(reason) from None
    if probabilities.ndim != 1:
        raise _BadRecord(reason)
    return probabilities


def _json_image(row: dict[str, Any], folder: Path) -> bytes | None:
    encoded, name = row.get("image_bytes"), row.get("image")
    if isinstance(encoded, dict):  # as TensorFlow Serving's REST protocol writes bytes
        encoded = encoded.get("b64")
    if encoded is not None:
        if not isinstance(encoded, str):
            raise _BadRecord(_NOT_BASE64)
        if len(encoded) > MAX_BYTES * 4 // 3 + 4:
            raise _BadRecord(_TOO_LARGE)
        try:
            return base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            raise _BadRecord(_NOT_BASE64) from None
    if name is None:
        return None
    if not isinstance(name, str):
        raise _BadRecord("an image that is not a path: write a path below the log's folder as text")
    path = PurePosixPath(name)
    outside = (
        "an image whose path leads out of the log's folder: use a relative path, and copy the image to that folder"
    )
    try:
        resolved = (folder / path).resolve()
        if path.is_absolute() or ".." in path.parts or not resolved.is_relative_to(folder.resolve()):
            raise _BadRecord(outside)
        data = read_image(resolved)
    except (OSError, DataRefused, ValueError, RuntimeError):  # ValueError: a null character; RuntimeError: a loop
        raise _BadRecord(
            "an image file that is missing or cannot be read: images are regular files below the log's folder. Copy "
            "them there, or log them as base64"
        ) from None
    if data is None:
        raise _BadRecord(_TOO_LARGE)
    return data


def _text(row: dict[str, Any], key: str) -> str | None:
    value = row.get(key)
    if value is None:
        return None
    if not isinstance(value, str | int) or len(text := str(value)) > _MAX_TEXT:
        raise _BadRecord(
            f"a value of {key} that is not a text of at most {_MAX_TEXT:,} characters: shorten it, or leave it out"
        )
    return valid_text(text)


def _number(row: dict[str, Any], key: str) -> float | None:
    value = row.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**63:
        raise _BadRecord(f"a value of {key} that is not a number of at least 0: correct it, or leave it out")
    return float(value)


def _whole(row: dict[str, Any], key: str) -> int | None:
    number = _number(row, key)
    if number is not None and not number.is_integer():
        raise _BadRecord(f"a value of {key} that is not a whole number: write the number of the version's folder")
    return None if number is None else int(number)


def _time(value: object) -> float | None:
    if value is None:
        return None
    seconds = math.nan
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
            seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            pass
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(min(value, _MAX_SECONDS))
    if not 0 <= seconds < _MAX_SECONDS:
        raise _BadRecord(
            "a time that is neither ISO 8601 nor seconds since 1970: write for example 2026-01-31T12:00:00Z"
        )
    # One answer from the future would make all later answers late.
    if seconds > datetime.now(UTC).timestamp() + _MAX_FUTURE:
        raise _BadRecord("a time in the future: at most one day after now is allowed. Set the clock of the server")
    return seconds


def _parse_prediction_log(record: LogRecord) -> Iterator[Answer]:
    from google.protobuf.message import DecodeError
    from tensorflow_serving.apis import prediction_log_pb2

    try:
        log = prediction_log_pb2.PredictionLog.FromString(record.data)
    except DecodeError:
        raise _BadRecord(
            "a record that is not a PredictionLog: log requests with TensorFlow Serving, or write JSON Lines"
        ) from None
    if log.WhichOneof("log_type") != "predict_log":
        raise _BadRecord("a PredictionLog of another request than Predict: log Predict requests only")
    request, response = log.predict_log.request, log.predict_log.response
    spec = next(
        (
            spec
            for spec in (response.model_spec, log.log_metadata.model_spec, request.model_spec)
            if spec.HasField("version")
        ),
        None,
    )
    time = _time(log.log_metadata.timestamp_secs or None)
    images, is_pixels = _images(request.inputs)
    outputs = response.outputs
    probabilities = _tensor(outputs["probabilities"]) if "probabilities" in outputs else None
    names = [name.decode("utf-8", "backslashreplace") for name in _strings(outputs, "class")]
    valid = _tensor(outputs["valid"]).ravel() if "valid" in outputs else np.empty(0)
    answers = max(len(names), len(valid), 0 if probabilities is None else np.atleast_1d(probabilities).shape[0])
    rows = max(len(images), answers)
    if any(size not in (0, rows) for size in (len(images), len(names), len(valid))) or (
        probabilities is not None
        and (probabilities.ndim != 2 or len(probabilities) != rows or probabilities.shape[1] > _MAX_PROBABILITIES)
    ):
        raise _BadRecord("a PredictionLog whose answers do not match its images: log requests and responses unmodified")
    if rows > _MAX_IMAGES:
        raise _BadRecord(f"a PredictionLog of more than {_MAX_IMAGES:,} images: send fewer images in each request")
    if not rows:
        raise _BadRecord(
            "a PredictionLog without images and answers of a vitpipe model: log the requests to that model only"
        )
    for row in range(rows):
        yield Answer(
            place=f"{record.place} image {row + 1}" if rows > 1 else record.place,
            file=record.file,
            offset=record.offset,
            version=spec.version.value if spec else None,
            time=time,
            image=images[row] if images else None,
            is_pixels=is_pixels,
            probabilities=None if probabilities is None else probabilities[row].astype(np.float32),
            class_name=names[row] or None if names else None,
            valid=bool(valid[row]) if len(valid) else None,
        )


def _images(inputs: Any) -> tuple[list[bytes], bool]:
    """Return the images of a request to any of the model's signatures, and whether they were sent as pixels."""
    if "image_bytes" in inputs:
        return _strings(inputs, "image_bytes"), False
    if "examples" in inputs:
        try:
            return [tfrecord.parse_image(example) for example in _strings(inputs, "examples")], False
        except ValueError:
            raise _BadRecord("a tf.Example without an image: send examples with one image each") from None
    if "images" in inputs:
        pixels = _tensor(inputs["images"])
        if pixels.ndim != 4 or pixels.shape[3] != 3 or pixels.dtype != np.uint8 or 0 in pixels.shape:
            raise _BadRecord("images that are not uint8 [N, H, W, 3]: send pixels as the signature `images` describes")
        return [_as_png(image) for image in pixels], True
    return [], False


def _as_png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", compress_level=1)
    return out.getvalue()


def _strings(tensors: Any, name: str) -> list[bytes]:
    return list(tensors[name].string_val) if name in tensors else []


def _tensor(tensor: Any) -> np.ndarray:
    """Return the values of a tensor of numbers."""
    import tensorflow as tf

    sizes = [dimension.size for dimension in tensor.tensor_shape.dim]
    if min(sizes, default=1) < 0 or math.prod(sizes) > _MAX_VALUES:
        raise _BadRecord(f"a tensor of more than {_MAX_VALUES:,} values: send fewer images in each request")
    # TensorFlow repeats the last value of a tensor with too few, so a few bytes could claim millions of values.
    count = sum(len(getattr(tensor, values)) for values in _VALUE_FIELDS)
    try:
        if not tensor.tensor_content and count != math.prod(sizes):
            raise ValueError
        values: np.ndarray = tf.make_ndarray(tensor)
    except (TypeError, ValueError, IndexError):
        raise _BadRecord("a tensor whose values do not fit its shape: log every value of the tensor") from None
    if values.dtype.kind not in "biuf":
        raise _BadRecord("a tensor that does not hold numbers: log the outputs of a vitpipe model unmodified")
    return values
