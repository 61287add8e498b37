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
from pipeline.monitoring.log_files import LogRecord, Problems

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
_MAX_TEXT = 1024  # characters of an id or a class name
_MAX_SECONDS = 2**36  # since 1970; a larger time is not in seconds


@dataclass(frozen=True)
class Answer:
    """Logged answer for one image. Everything that the log does not contain is None."""

    place: str  # in the log, for a person
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
    try:
        row = json.loads(record.data)
    except (ValueError, RecursionError):
        raise _BadRecord("a line that is not JSON") from None
    if not isinstance(row, dict):
        raise _BadRecord("a line that is not a JSON object")
    image = None
    try:
        image = _json_image(row, record.folder)
    except _BadRecord as error:  # the answer still counts
        problems.add(str(error), record.place)
    probabilities = row.get("probabilities")
    if probabilities is not None:
        try:
            probabilities = np.array(probabilities, np.float32)
        except (ValueError, TypeError, OverflowError):
            raise _BadRecord("probabilities that are not a list of numbers") from None
    return Answer(
        place=record.place,
        version=_whole(row, "version"),
        time=_time(row.get("time")),
        image=image,
        probabilities=probabilities,
        class_name=_text(row, "class"),
        confidence=_number(row, "probability"),
        valid=row["valid"] if isinstance(row.get("valid"), bool) else None,
        latency_ms=_number(row, "latency_ms"),
        failed=bool(row.get("error")),
        id=_text(row, "id") or "",
        label=_text(row, "label"),
    )


def _json_image(row: dict[str, Any], folder: Path) -> bytes | None:
    encoded, name = row.get("image_bytes"), row.get("image")
    if isinstance(encoded, dict):  # as TensorFlow Serving's REST protocol writes bytes
        encoded = encoded.get("b64")
    if encoded is not None:
        if not isinstance(encoded, str):
            raise _BadRecord("image bytes that are not base64")
        if len(encoded) > MAX_BYTES * 4 // 3 + 4:
            raise _BadRecord(f"an image of more than {MAX_BYTES:,} bytes")
        try:
            return base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            raise _BadRecord("image bytes that are not base64") from None
    if name is None:
        return None
    if not isinstance(name, str):
        raise _BadRecord("an image that is not a path")
    path = PurePosixPath(name)
    outside = "an image whose path leads out of the log's folder"
    try:
        resolved = (folder / path).resolve()
        if path.is_absolute() or ".." in path.parts or not resolved.is_relative_to(folder.resolve()):
            raise _BadRecord(outside)
        data = read_image(resolved)
    except (OSError, DataRefused, ValueError, RuntimeError):  # ValueError: a null character; RuntimeError: a loop
        raise _BadRecord("an image file that is missing or cannot be read") from None
    if data is None:
        raise _BadRecord(f"an image of more than {MAX_BYTES:,} bytes")
    return data


def _text(row: dict[str, Any], key: str) -> str | None:
    value = row.get(key)
    if value is None:
        return None
    if not isinstance(value, str | int) or len(text := str(value)) > _MAX_TEXT:
        raise _BadRecord(f"a value of {key} that is not a text of at most {_MAX_TEXT:,} characters")
    return text


def _number(row: dict[str, Any], key: str) -> float | None:
    value = row.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**63:
        raise _BadRecord(f"a value of {key} that is not a number")
    return float(value)


def _whole(row: dict[str, Any], key: str) -> int | None:
    number = _number(row, key)
    if number is not None and not number.is_integer():
        raise _BadRecord(f"a value of {key} that is not a whole number")
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
        raise _BadRecord("a time that is neither ISO 8601 nor seconds since 1970")
    return seconds


def _parse_prediction_log(record: LogRecord) -> Iterator[Answer]:
    from google.protobuf.message import DecodeError
    from tensorflow_serving.apis import prediction_log_pb2

    try:
        log = prediction_log_pb2.PredictionLog.FromString(record.data)
    except DecodeError:
        raise _BadRecord("a record that is not a PredictionLog") from None
    if log.WhichOneof("log_type") != "predict_log":
        raise _BadRecord("a PredictionLog of another request than Predict")
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
    valid = _tensor(outputs["valid"]).tolist() if "valid" in outputs else []
    answers = max(len(names), len(valid), 0 if probabilities is None else len(probabilities))
    rows = max(len(images), answers)
    if any(size not in (0, rows) for size in (len(images), len(names), len(valid))) or (
        probabilities is not None and (probabilities.ndim != 2 or len(probabilities) != rows)
    ):
        raise _BadRecord("a PredictionLog whose answers do not match its images")
    if not rows:
        raise _BadRecord("a PredictionLog without images and answers of a vitpipe model")
    for row in range(rows):
        yield Answer(
            place=f"{record.place} image {row + 1}" if rows > 1 else record.place,
            version=spec.version.value if spec else None,
            time=time,
            image=images[row] if images else None,
            is_pixels=is_pixels,
            probabilities=None if probabilities is None else probabilities[row].astype(np.float32),
            class_name=names[row] or None if names else None,
            valid=bool(valid[row]) if valid else None,
        )


def _images(inputs: Any) -> tuple[list[bytes], bool]:
    """Return the images of a request to any of the model's signatures, and whether they were sent as pixels."""
    if "image_bytes" in inputs:
        return _strings(inputs, "image_bytes"), False
    if "examples" in inputs:
        try:
            return [tfrecord.parse_image(example) for example in _strings(inputs, "examples")], False
        except ValueError:
            raise _BadRecord("a tf.Example without an image") from None
    if "images" in inputs:
        pixels = _tensor(inputs["images"])
        if pixels.ndim != 4 or pixels.shape[3] != 3 or pixels.dtype != np.uint8 or 0 in pixels.shape:
            raise _BadRecord("images that are not uint8 [N, H, W, 3]")
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
        raise _BadRecord(f"a tensor of more than {_MAX_VALUES:,} values")
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
