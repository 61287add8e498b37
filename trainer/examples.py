"""The names that every reader and writer of examples agrees on."""

from tensorflow_metadata.proto.v0 import schema_pb2

IMAGE = "image"  # raw: PNG or JPEG bytes; transformed: uint8 pixels, height x width x 3, row by row
LABEL = "label"  # int64, 0 to classes - 1
ID = "id"  # bytes: where the example came from

MAX_PIXELS = 4096 * 4096  # of an image: 48 MiB as RGB. Read from its header, so that no more is ever decoded
MAX_SIDE = 1_000_000  # pixels, of an image: libpng's own limit; a JPEG's is 65,500

CLASS_NAMES_DOMAIN = "class_names"  # the schema's string domain that lists the classes in index order


def class_names(schema: schema_pb2.Schema) -> list[str]:
    """Class names in index order, as the schema carries them.

    Raises ValueError when the schema has no such domain.
    """
    for domain in schema.string_domain:
        if domain.name == CLASS_NAMES_DOMAIN:
            return list(domain.value)
    raise ValueError(
        f"the schema has no string_domain named {CLASS_NAMES_DOMAIN!r}: "
        "use the schema.pbtxt that `vitpipe data prepare` wrote"
    )
