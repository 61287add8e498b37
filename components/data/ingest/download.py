"""Downloads that resume where they stopped and are verified by digest.

No library does this with requests: pooch 1.9 checks digests but does not resume, and requests-toolbelt 1.0 only streams
into a file. pypdl 1.5 resumes, but needs aiohttp, a second HTTP client.
"""

import os
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit, urlunsplit

from components.data.ingest import safe_files
from components.data.ingest.locks import folder_lock
from components.data.ingest.source import Progress, no_progress
from components.errors import DataRefused, UsageError

_CHUNK = 2**18
_MB = 1_000_000
_TIMEOUT_S = (10, 60)  # seconds to connect, and seconds for each read


def locate(source: str, cache: Path, progress: Progress) -> tuple[Path, str]:
    """Find the file or folder of a source, and download it if the source is a URL.

    Args:
        source: a path, or a URL that begins with http:// or https://.
        cache: folder for downloads.
        progress: called with the progress of the download.

    Returns:
        The local path, and the name of the source in the manifest, without credentials.

    Raises:
        UsageError: if the path does not exist.
        DataRefused: if the download fails.
    """
    if urlsplit(source).scheme in ("http", "https"):
        return download(source, cache, progress=progress), _public(source)
    path = Path(source)
    if not path.exists():
        raise UsageError(f"--source {source!r}: no such file or folder (a URL begins with http:// or https://)")
    return path, os.fsencode(source).decode("utf-8", "backslashreplace")


def download(
    url: str, folder: Path, *, size: int | None = None, sha256: str | None = None, progress: Progress = no_progress
) -> Path:
    """Download a file into a folder.

    With `sha256`, a complete file is not downloaded again, and a download that stopped resumes from its `.part` file.
    Without `sha256`, a mixture of two versions of the file could not be detected, so the download starts over.

    Args:
        url: address of the file.
        folder: the folder, which is created if missing.
        size: expected size in bytes, if known.
        sha256: expected digest, if known.
        progress: called with the number of downloaded megabytes.

    Returns:
        The path of the file.

    Raises:
        DataRefused: if the download stops early, or the size or digest is not the expected one.
        UsageError: if another process is downloading the file.
    """
    name = PurePosixPath(urlsplit(url).path).name.lstrip(".") or "download"
    target, part = folder / name, folder / f"{name}.part"
    with folder_lock(folder, f"{name}.lock"):
        if os.path.lexists(part):
            safe_files.open_file(part).close()  # appending to a link would change its target
        if sha256 is None:
            part.unlink(missing_ok=True)
        elif target.exists() and safe_files.file_digest(target, follow_link=True) == sha256:
            return target
        _fetch(url, part, size, progress)
        length = part.stat().st_size
        if size is not None and length < size:
            raise DataRefused(_stopped(url, length))
        if sha256 is not None and (found := safe_files.file_digest(part)) != sha256:
            part.unlink()
            raise DataRefused(
                f"{_public(url)}: sha256 expected {sha256} ({size or 0:,} bytes), found {found} ({length:,} bytes): "
                "the download was deleted; run the command again, or name an intact copy with --source"
            )
        part.replace(target)
    return target


def _fetch(url: str, part: Path, size: int | None, progress: Progress) -> None:
    """Download the missing bytes of a file and append them to `part`."""
    import requests  # takes long to import, and most sources are on the disk
    import urllib3

    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"}  # no compression in transit
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT_S) as response:
            if response.status_code == 416:
                return  # the server has no more than `have` bytes; the digest tells whether they are right
            if not response.ok:
                raise DataRefused(f"{_public(url)}: the server answered {response.status_code} {response.reason}")
            resumed = response.status_code == 206
            done = have if resumed else 0
            length = response.headers.get("Content-Length", "")
            total = size or (done + int(length) if length.isdecimal() else None)
            with part.open("ab" if resumed else "wb") as file:
                for chunk in response.raw.stream(_CHUNK, decode_content=False):
                    file.write(chunk)
                    done += len(chunk)
                    progress("MB downloaded", done // _MB, total and total // _MB)
                    if size is not None and done > size:
                        return  # more bytes than expected, so the digest will not match
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        have = part.stat().st_size if part.exists() else 0
        raise DataRefused(_stopped(url, have, f" ({type(error).__name__})")) from error


def _stopped(url: str, have: int, why: str = "") -> str:
    return (
        f"{_public(url)}: the download stopped after {have:,} bytes{why}: "
        "run the command again, or name a copy with --source"
    )


def _public(url: str) -> str:
    """Return a URL without its user, password and query, which may be secret."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
