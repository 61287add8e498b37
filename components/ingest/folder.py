"""A data folder: `schema.pbtxt`, and a folder `span-<N>` for each span."""

import re
from pathlib import Path


def spans(data: Path) -> list[int]:
    """The numbers of the spans in a data folder, in order (10 after 9); none when there is no such folder."""
    if not data.is_dir():
        return []
    matches = (re.fullmatch(r"span-(0|[1-9]\d*)", path.name) for path in data.iterdir() if path.is_dir())
    return sorted(int(match[1]) for match in matches if match)


def span_folder(data: Path, number: int) -> Path:
    """Where a span lies in its data folder."""
    return data / f"span-{number}"
