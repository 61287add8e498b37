"""Layout of a data folder, which holds `schema.pbtxt` and a folder `span-<N>` for each span."""

import re
from pathlib import Path

MAX_SPAN = 2**31 - 1  # TFX keeps the number of a span in 32 bits


def spans(data: Path) -> list[int]:
    """Return the numbers of the spans in a data folder in numeric order, or an empty list if the folder is missing.

    Folders whose number is above MAX_SPAN or contains digits that are not ASCII are not spans.
    """
    if not data.is_dir():
        return []
    matches = (re.fullmatch(r"span-(0|[1-9][0-9]{0,9})", path.name) for path in data.iterdir() if path.is_dir())
    return sorted(number for match in matches if match and (number := int(match[1])) <= MAX_SPAN)


def span_folder(data: Path, number: int) -> Path:
    """Return the path of a span in its data folder.

    Args:
        data: the data folder.
        number: number of the span.
    """
    return data / f"span-{number}"
