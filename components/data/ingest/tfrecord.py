"""Reader and writer of raw examples in TFRecord files. It does not import TensorFlow, which takes too long to import.

The formats are defined in tensorflow/core/lib/io/record_writer.h and tensorflow/core/example/{example,feature}.proto.
"""

import io
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import google_crc32c
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format
from google.protobuf.message import DecodeError

from components.data.ingest import safe_files
from components.errors import DataRefused
from trainer.examples import ID, IMAGE, LABEL

# tf.Example, with its map of features declared as a repeated pair of key and value. Both have the same encoding, but a
# repeated field keeps its order, so equal examples have equal bytes. The pool is separate from the default pool, in
# which TensorFlow registers messages of the same names.
_EXAMPLE_PROTO = """
    name: "example.proto" syntax: "proto3"
    message_type { name: "BytesList" field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_BYTES } }
    message_type { name: "Int64List" field { name: "value" number: 1 label: LABEL_REPEATED type: TYPE_INT64 } }
    message_type { name: "Feature"
        field { name: "bytes_list" number: 1 type: TYPE_MESSAGE type_name: ".BytesList" }
        field { name: "int64_list" number: 3 type: TYPE_MESSAGE type_name: ".Int64List" } }
    message_type { name: "Entry"
        field { name: "key" number: 1 type: TYPE_STRING }
        field { name: "value" number: 2 type: TYPE_MESSAGE type_name: ".Feature" } }
    message_type { name: "Features"
        field { name: "feature" number: 1 label: LABEL_REPEATED type: TYPE_MESSAGE type_name: ".Entry" } }
    message_type { name: "Example"
        field { name: "features" number: 1 type: TYPE_MESSAGE type_name: ".Features" } }
"""
_pool = descriptor_pool.DescriptorPool()
_pool.Add(text_format.Parse(_EXAMPLE_PROTO, descriptor_pb2.FileDescriptorProto()))
_Example = message_factory.GetMessageClass(_pool.FindMessageTypeByName("Example"))


class RawExample(NamedTuple):
    """Features of a raw example, whose names are in `trainer.examples`."""

    id: bytes
    image: bytes
    label: int


HEADER = struct.Struct("<QI")  # length of the data, and the checksum of the length
FOOTER = struct.Struct("<I")  # checksum of the data
MAX_RECORD = 80 * 2**20  # bytes, enough for an image of 64 MiB and its id


def example(image: bytes, label: int, id: bytes) -> bytes:
    """Return a serialized raw example.

    Args:
        image: PNG or JPEG bytes.
        label: index of the class.
        id: origin of the image.
    """
    message = _Example()
    add = message.features.feature.add
    add(key=ID).value.bytes_list.value.append(id)
    add(key=IMAGE).value.bytes_list.value.append(image)
    add(key=LABEL).value.int64_list.value.append(label)
    return bytes(message.SerializeToString())


def parse(data: bytes) -> RawExample:
    """Return the features of a serialized example.

    Raises:
        ValueError: unless every feature has exactly one value of its type. The message names the feature, and the
            example if it has an id.
    """
    features = _features(data)
    id, image = (_only_value(features, name, "bytes_list") for name in (ID, IMAGE))
    label = _only_value(features, LABEL, "int64_list")
    return RawExample(id, image, label)


def parse_labelled(data: bytes, image: str, label: str) -> tuple[bytes, int]:
    """Return the image and the label of a serialized example of another tool.

    Args:
        data: the example.
        image: name of the feature with the encoded image.
        label: name of the feature with the index of the class.

    Raises:
        ValueError: unless both features have exactly one value of their type.
    """
    features = _features(data)
    return _only_value(features, image, "bytes_list"), _only_value(features, label, "int64_list")


def parse_image(data: bytes) -> bytes:
    """Return the image of a serialized example, which needs no label and no id.

    Raises:
        ValueError: unless the feature has exactly one value of its type.
    """
    image: bytes = _only_value(_features(data), IMAGE, "bytes_list")
    return image


def _features(data: bytes) -> dict[str, Any]:
    try:
        return {entry.key: entry.value for entry in _Example.FromString(data).features.feature}
    except DecodeError as error:
        raise ValueError(f"not a tf.Example: {error}") from error


def _only_value(features: dict[str, Any], name: str, kind: str) -> Any:
    if name not in features:
        found = "none"
    elif len(values := getattr(features[name], kind).value) == 1:
        return values[0]
    else:
        found = f"{len(values):,} of them" if values else "another type, or no value"
    id = features[ID].bytes_list.value if ID in features and name != ID else []
    where = f"{id[0].decode('utf-8', 'backslashreplace')!r}: " if len(id) == 1 else ""
    raise ValueError(f"{where}feature {name!r}: expected one {kind.removesuffix('_list')} value, found {found}")


def frame(data: bytes) -> bytes:
    """Return data as a record of a TFRecord file, with its length and checksums."""
    length = struct.pack("<Q", len(data))
    return length + FOOTER.pack(masked_crc(length)) + data + FOOTER.pack(masked_crc(data))


def read(path: Path) -> Iterator[bytes]:
    """Yield the records of an uncompressed TFRecord file. Only one record is in memory at a time.

    Raises:
        DataRefused: if the file is cut, changed, a link or a special file.
    """
    with safe_files.open_file(path) as file:
        left = safe_files.file_size(file)
        while left:
            data = _read_record(path, file, left)
            left -= framed_size(data)
            yield data


def framed_size(data: bytes) -> int:
    """Return the bytes that a record takes in a TFRecord file."""
    return HEADER.size + len(data) + FOOTER.size


def _read_record(path: Path, file: io.BufferedReader, left: int) -> bytes:
    """Read the record that begins `left` bytes before the end of a file."""
    header = file.read(HEADER.size)
    if len(header) < HEADER.size:
        raise DataRefused(f"{path}: cut inside a record, {left} bytes before its end")
    length, length_crc = HEADER.unpack(header)
    if length_crc != masked_crc(header[:8]) or length + HEADER.size + FOOTER.size > left:
        raise DataRefused(f"{path}: no complete record, {left} bytes before its end")
    if length > MAX_RECORD:
        raise DataRefused(
            f"{path}: a record of {length:,} bytes, {left} bytes before its end; at most {MAX_RECORD:,} are allowed"
        )
    data = file.read(length)
    if file.read(FOOTER.size) != FOOTER.pack(masked_crc(data)):
        raise DataRefused(f"{path}: a record whose checksum does not match, {left} bytes before its end")
    return data


def read_example(path: Path, offset: int) -> RawExample:
    """Return one raw example of a shard.

    Args:
        path: the shard.
        offset: bytes before its record.

    Raises:
        DataRefused: if no raw example begins there.
    """
    with safe_files.open_file(path) as file:
        file.seek(offset)
        return _parse(path, _read_record(path, file, safe_files.file_size(file) - offset))


def read_examples(path: Path) -> Iterator[RawExample]:
    """Yield the raw examples of a shard. Only one example is in memory at a time.

    Raises:
        DataRefused: if the shard cannot be read, or a record is not a raw example. The message names the shard.
    """
    for _, example in read_places(path):
        yield example


def read_places(path: Path) -> Iterator[tuple[int, RawExample]]:
    """Yield the raw examples of a shard like `read_examples`, each with the offset of its record in bytes."""
    offset = 0
    for data in read(path):
        yield offset, _parse(path, data)
        offset += framed_size(data)


def _parse(path: Path, data: bytes) -> RawExample:
    try:
        return parse(data)
    except ValueError as error:
        raise DataRefused(f"{path}: {error}") from None


def read_split(folder: Path) -> Iterator[RawExample]:
    """Yield the raw examples of all shards in the folder of a split, in order.

    Raises:
        DataRefused: if a shard cannot be read, or a record is not a raw example.
    """
    for shard in sorted(folder.glob("part-*.tfrecord")):
        yield from read_examples(shard)


def masked_crc(data: bytes) -> int:
    """Return the CRC-32C of data, masked as TFRecord defines it because the data may contain checksums itself."""
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
