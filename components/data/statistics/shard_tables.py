"""Tables of the images of a shard, which are kept so that several runs measure the shard only once."""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet

from components.data.ingest import safe_files
from trainer import disk

Measure = Callable[[tuple[str, str]], Iterable[pa.Table]]


def write_table(source: tuple[str, str], measure: Measure, schema: pa.Schema, key: str, kept: str, folder: str) -> None:
    """Write the table of a shard to a folder, from the kept tables if an earlier run measured the same shard.

    If the file system supports it, the copies are hard links to the kept table.

    Args:
        source: the split and the path of the shard.
        measure: function that measures the images of a shard.
        schema: schema of the tables that `measure` returns.
        key: everything besides the shard that the table depends on, such as settings and code.
        kept: folder of the kept tables.
        folder: the folder to write to.
    """
    split, path = source
    parts = [safe_files.file_digest(Path(path)), split, Path(path).name, key]
    table = Path(kept, hashlib.sha256("\0".join(parts).encode()).hexdigest() + ".parquet")
    if not table.is_file():
        partial = table.with_name(uuid4().hex)  # unique, because an engine may run the same work twice
        try:
            with pa.parquet.ParquetWriter(partial, schema) as writer:
                for rows in measure(source):
                    writer.write_table(rows)
            disk.sync(partial)
            partial.replace(table)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    copy = Path(folder, f"part-{split}-{Path(path).stem}.parquet")
    try:
        os.link(table, copy)
    except FileExistsError:  # from another attempt at the same work
        return
    except OSError:
        partial = copy.with_name(f".{uuid4().hex}")
        shutil.copyfile(table, partial)
        partial.replace(copy)
