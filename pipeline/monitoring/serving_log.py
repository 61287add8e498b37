"""Answers that a model server or its client logged: TensorFlow Serving's PredictionLog, or JSON Lines."""

import base64
import binascii
import functools
import hashlib
import io
import json
import math
import re
import reprlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeVar

import numpy as np
from PIL import Image

from components.data.ingest import rows, tfrecord
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
MAX_ID = 1024  # characters
_MAX_TEXT = 100  # characters of a class in a message
_MAX_DIGITS = 18  # of a version
_MAX_SECONDS = 2**36  # since 1970; a larger time is not in seconds
_MAX_FUTURE = 86_400  # seconds by which a server's clock may be ahead: it may have a wrong time zone

_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_KEYS = ("image", "image_bytes", "probabilities", "class", "error", "valid")  # an answer has one of them

_TOO_LARGE = f"an image of more than {MAX_BYTES:,} bytes: log smaller images"
_NOT_BASE64 = "image bytes that are not base64: encode the bytes of the PNG or JPEG file"

_T = TypeVar("_T")


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
    lost_image: bool = False  # the log names an image that cannot be read
    probabilities: np.ndarray | None = None  # float32 [classes]; empty if the log has something else in their place
    class_name: str | None = None
    confidence: float | None = None  # of the class, if the log has no probabilities
    valid: bool | None = None
    latency_ms: float | None = None
    failed: bool = False  # the request got an error in place of an answer
    id: str = ""  # by which a true label is found; if empty, the sha256 of the image
    label: str | None = None  # the true class

    @property
    def digest(self) -> str:
        """The sha256 of the image; empty without an image."""
        return "" if self.image is None else hashlib.sha256(self.image).hexdigest()


class _BadRecord(Exception):
    """A record, or a value of it, cannot be used. The message is one of a few fixed reasons."""


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
            yield from _parse_prediction_log(record, problems)
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
    if row.keys().isdisjoint(_KEYS):
        raise _BadRecord(f"a line with none of the keys {', '.join(_KEYS)}: log each answer under these keys")
    # A column of pandas has NaN in place of missing values.
    row = {key: value for key, value in row.items() if not (isinstance(value, float) and math.isnan(value))}

    def usable(read: Callable[[], _T]) -> _T | None:
        return _usable(read, problems, record.place)

    image = usable(lambda: _json_image(row, record.file.parent))
    return Answer(
        place=record.place,
        file=record.file,
        offset=record.offset,
        version=_version(row.get("version")),
        time=usable(lambda: _time(row.get("time"))),
        image=image,
        lost_image=image is None and (row.get("image") is not None or row.get("image_bytes") is not None),
        probabilities=_json_probabilities(row.get("probabilities")),
        class_name=_class(row.get("class")),
        confidence=usable(lambda: _number(row, "probability")),
        valid=row["valid"] if isinstance(row.get("valid"), bool) else None,
        latency_ms=usable(lambda: _number(row, "latency_ms")),
        failed=bool(row.get("error")),
        id=usable(lambda: _id(row.get("id"))) or "",
        label=usable(lambda: _label(row.get("label"))),
    )


def _usable(read: Callable[[], _T], problems: Problems, place: str) -> _T | None:
    """Return a value of an answer. If it cannot be used, count a problem and return None.

    Args:
        read: function that returns the value.
        problems: counts a value that cannot be used.
        place: place of the answer in the log.
    """
    try:
        return read()
    except _BadRecord as error:
        problems.add(str(error), place)
        return None


def _json_probabilities(values: object) -> np.ndarray | None:
    """Return probabilities, or an empty array, which matches no model, if they are not a list of numbers."""
    if values is None:
        return None
    if not isinstance(values, list) or len(values) > _MAX_PROBABILITIES:
        return np.empty(0, np.float32)
    try:
        probabilities = np.array(values, np.float32)
    except (ValueError, TypeError, OverflowError):
        return np.empty(0, np.float32)
    return probabilities if probabilities.ndim == 1 else np.empty(0, np.float32)


def _json_image(row: dict[str, Any], folder: Path) -> bytes | None:
    encoded, name = row.get("image_bytes"), row.get("image")
    if encoded is not None:
        if isinstance(encoded, dict):  # as TensorFlow Serving's REST protocol writes bytes
            encoded = encoded.get("b64")
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


def answer_id(value: object) -> str:
    """Return an id as it is compared in a log and in a table of labels; empty if the value is not an id.

    Spaces around it are removed, whole numbers have no `.0`, and a sha256 is in lower case.
    """
    id = valid_text(rows.cell_text(value))
    return id.lower() if _SHA256.fullmatch(id) else id


def _id(value: object) -> str:
    id = answer_id(value)
    if len(id) > MAX_ID or (not id and not _is_blank(value)):
        raise _BadRecord(f"an id that is not a text of at most {MAX_ID:,} characters: shorten it, or leave it out")
    return id


def _label(value: object) -> str | None:
    label = rows.class_name(value)
    if label is None and not _is_blank(value):
        raise _BadRecord("a label that is not a text of at most 255 bytes: write the name of a class, or leave it out")
    return label


def _class(value: object) -> str | None:
    """Return the predicted class. A value that is not a name becomes a text that no class has."""
    if _is_blank(value):
        return None
    text = value if isinstance(value, str) else reprlib.repr(value)
    return rows.class_name(value) or valid_text(text[:_MAX_TEXT])


def _is_blank(value: object) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def _number(row: dict[str, Any], key: str) -> float | None:
    value = row.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**63:
        raise _BadRecord(f"a value of {key} that is not a number of at least 0: correct it, or leave it out")
    return float(value)


def _version(value: object) -> int | None:
    if value is None:
        return None
    digits = rows.class_name(value) or ""  # accepts the text "2" and the float 2.0, which pandas writes
    if not digits.isascii() or not digits.isdigit() or len(digits) > _MAX_DIGITS:
        raise _BadRecord("a version that is not a whole number: write the number of the version's folder")
    return int(digits)


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
    # A time that is certainly wrong would become the start or end of a window, or begin a window of its own.
    if seconds > datetime.now(UTC).timestamp() + _MAX_FUTURE:
        raise _BadRecord("a time in the future: at most one day after now is allowed. Set the clock of the server")
    return seconds


def _parse_prediction_log(record: LogRecord, problems: Problems) -> Iterator[Answer]:
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

    def usable(read: Callable[[], _T]) -> _T | None:
        return _usable(read, problems, record.place)

    request, response = log.predict_log.request, log.predict_log.response
    spec = next(
        (
            spec
            for spec in (response.model_spec, log.log_metadata.model_spec, request.model_spec)
            if spec.HasField("version")
        ),
        None,
    )
    time = usable(lambda: _time(log.log_metadata.timestamp_secs or None))
    sent = usable(lambda: _images(request.inputs, usable))
    images = [] if sent is None else sent.images
    outputs = response.outputs
    names = [name.decode("utf-8", "backslashreplace") for name in _strings(outputs, "class")]
    valid = usable(lambda: _tensor(outputs["valid"]).ravel()) if "valid" in outputs else None
    probabilities = usable(lambda: _probabilities(outputs["probabilities"])) if "probabilities" in outputs else None
    sizes = {len(values) for values in (images, names, valid) if values is not None and len(values)}
    if probabilities is not None:
        sizes.add(len(probabilities))
    if len(sizes) > 1:
        raise _BadRecord("a PredictionLog whose answers do not match its images: log requests and responses unmodified")
    # If the request or its probabilities cannot be read, the record still has at least one image.
    is_malformed = "probabilities" in outputs and probabilities is None
    count = sizes.pop() if sizes else int(sent is None or is_malformed)
    if count > _MAX_IMAGES:
        raise _BadRecord(f"a PredictionLog of more than {_MAX_IMAGES:,} images: send fewer images in each request")
    if not count:
        raise _BadRecord(
            "a PredictionLog without images and answers of a vitpipe model: log the requests to that model only"
        )
    if is_malformed:
        probabilities = np.empty((count, 0), np.float32)
    for row in range(count):
        yield Answer(
            place=f"{record.place} image {row + 1}" if count > 1 else record.place,
            file=record.file,
            offset=record.offset,
            version=spec.version.value if spec else None,
            time=time,
            image=images[row] if images else None,
            lost_image=sent is None or (bool(images) and images[row] is None),
            is_pixels=sent is not None and sent.are_pixels,
            probabilities=None if probabilities is None else probabilities[row].astype(np.float32),
            class_name=names[row] or None if names else None,
            valid=bool(valid[row]) if valid is not None and len(valid) else None,
        )


class _Images(NamedTuple):
    """Images of a request."""

    images: Sequence[bytes | None]  # None for an example without an image
    are_pixels: bool


def _images(inputs: Any, usable: Callable[[Callable[[], bytes]], bytes | None]) -> _Images:
    """Return the images of a request to any of the model's signatures.

    Args:
        inputs: tensors of the request by name.
        usable: function that returns the result of a function, or counts a problem and returns None.
    """
    if "image_bytes" in inputs:
        return _Images(_strings(inputs, "image_bytes"), False)
    if "examples" in inputs:
        examples = _strings(inputs, "examples")
        return _Images([usable(functools.partial(_example_image, example)) for example in examples], False)
    if "images" in inputs:
        pixels = _tensor(inputs["images"])
        if pixels.ndim != 4 or pixels.shape[3] != 3 or pixels.dtype != np.uint8 or 0 in pixels.shape:
            raise _BadRecord("images that are not uint8 [N, H, W, 3]: send pixels as the signature `images` describes")
        return _Images([_as_png(image) for image in pixels], True)
    return _Images([], False)


def _example_image(example: bytes) -> bytes:
    try:
        return tfrecord.parse_image(example)
    except ValueError:
        raise _BadRecord("a tf.Example without an image: send examples with one image each") from None


def _probabilities(tensor: Any) -> np.ndarray:
    probabilities = _tensor(tensor)
    if probabilities.ndim != 2 or probabilities.shape[1] > _MAX_PROBABILITIES:
        raise _BadRecord(
            f"probabilities that are not [N, classes] with at most {_MAX_PROBABILITIES:,} classes: log the outputs of "
            "a vitpipe model unmodified"
        )
    return probabilities


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
