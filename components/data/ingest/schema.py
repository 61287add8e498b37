"""Schema of a data folder, the file schema.pbtxt, against which TFX checks every example."""

from collections.abc import Sequence
from pathlib import Path

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from components.data.ingest import safe_files
from components.errors import DataRefused
from trainer.examples import CLASS_NAMES_DOMAIN, ID, IMAGE, LABEL, class_names

NAME = "schema.pbtxt"
_MAX_BYTES = 8 * 2**20  # a schema of 10,000 classes has 0.3 MB


def build(names: Sequence[str]) -> schema_pb2.Schema:
    """Build the schema of raw examples, in which every example has one value of each feature.

    Args:
        names: class names in index order.
    """
    schema = schema_pb2.Schema()
    schema.string_domain.add(name=CLASS_NAMES_DOMAIN, value=names)
    image = schema.feature.add(name=IMAGE, type=schema_pb2.BYTES)
    image.image_domain.SetInParent()  # otherwise TFDV counts the bytes as words
    image.annotation.comment.append("PNG or JPEG, as received")
    label = schema.feature.add(name=LABEL, type=schema_pb2.INT)
    label.int_domain.min = 0
    label.int_domain.max = len(names) - 1
    label.int_domain.is_categorical = True
    label.annotation.comment.append(f"index into {CLASS_NAMES_DOMAIN}")
    id = schema.feature.add(name=ID, type=schema_pb2.BYTES)
    id.annotation.comment.append("where the example came from, unique within the span")
    for feature in schema.feature:
        feature.presence.min_fraction = 1
        feature.presence.min_count = 1
        feature.shape.dim.add(size=1)  # as SchemaGen writes it, so that Transform reads a dense tensor
    return schema


def read(data: Path) -> schema_pb2.Schema:
    """Return the schema of a data folder.

    Raises:
        DataRefused: if schema.pbtxt is missing, invalid, a link or a special file, or names no classes.
    """
    path = data / NAME
    try:
        schema = text_format.Parse(read_bytes(data).decode("utf-8"), schema_pb2.Schema())
        class_names(schema)
    except FileNotFoundError:
        raise DataRefused(f"{path}: missing; copy it back, or prepare into a new folder with --out") from None
    except OSError as error:
        raise DataRefused(f"{path}: {error.strerror}") from error
    except (text_format.ParseError, ValueError, RecursionError) as error:
        raise DataRefused(f"{path}: {error}") from error
    return schema


def read_bytes(data: Path) -> bytes:
    """Return the bytes of schema.pbtxt.

    Raises:
        DataRefused: if the file is a link, a special file or too large.
        OSError: if it cannot be read.
    """
    return safe_files.read_bytes(data / NAME, _MAX_BYTES)


def text(schema: schema_pb2.Schema) -> str:
    """Return the schema in the text format of schema.pbtxt."""
    return str(text_format.MessageToString(schema, as_utf8=True))
