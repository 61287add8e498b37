"""Names of the features of an example, and limits on its image, for every reader and writer of examples."""

from tensorflow_metadata.proto.v0 import schema_pb2

IMAGE = "image"  # PNG or JPEG bytes
LABEL = "label"  # int64, 0 to classes - 1
ID = "id"  # bytes: origin of the example

# Both are checked in the header of an image, before it is decoded.
MAX_PIXELS = 4096 * 4096  # decoded pixels; they take 48 MiB as RGB
MAX_JPEG_PIXELS = 2**27  # pixels of a JPEG, which is decoded at a reduced scale if it has more than MAX_PIXELS
MAX_PROGRESSIVE_PIXELS = 2**26  # pixels of a progressive JPEG, whose decoder keeps up to 6 bytes for each
MAX_SCANS = 100  # passes over a JPEG; a progressive one usually has ten, and each takes time for all pixels
MAX_SIDE = 1_000_000  # pixels on a side of an image, the limit of libpng; that of JPEG is 65,500

CLASS_NAMES_DOMAIN = "class_names"  # string domain of the schema, which lists the classes in index order


def class_names(schema: schema_pb2.Schema) -> list[str]:
    """Return the class names of a schema, in index order.

    Raises:
        ValueError: If the schema does not contain class names.
    """
    for domain in schema.string_domain:
        if domain.name == CLASS_NAMES_DOMAIN:
            return list(domain.value)
    raise ValueError(
        f"the schema has no string_domain named {CLASS_NAMES_DOMAIN!r}: "
        "use the schema.pbtxt that `vitpipe data prepare` wrote"
    )
