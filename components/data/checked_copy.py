"""Check of the shards of spans against their manifests, and their copies, as a Beam job.

The workers write what they found into small files, which this process reads. It holds a few numbers for each shard.
"""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import apache_beam as beam

from components.data.ingest import manifest, safe_files, verify
from components.data.ingest.manifest import Shard
from components.data.ingest.verify import CheckedShard
from components.data.worker_files import MakePipeline, appearing
from components.errors import DataRefused

_MAX_NAMED = 5  # problems in a message


class _Work(NamedTuple):
    """A shard to check."""

    span: Path
    name: str
    shard: Shard
    classes: int
    copy: Path | None  # None: the shard is not copied
    result: Path  # file for the CheckedShard, as JSON


def check_and_copy(
    make_pipeline: MakePipeline, spans: Mapping[Path, str], targets: Mapping[str, Path], copy: bool, scratch: Path
) -> None:
    """Check splits of spans against the manifests, and copy their shards.

    Args:
        make_pipeline: function that makes a Beam pipeline.
        spans: for the folder of each span, what to do if it does not match its manifest.
        targets: folder of the copies, by split.
        copy: whether the shards are copied.
        scratch: empty folder for files that the workers exchange with this process.

    Raises:
        DataRefused: if a span does not match its manifest, or a shard changes while it is copied.
    """
    manifests = {folder: manifest.read(folder) for folder in spans}
    for folder, advice in spans.items():
        _refuse(verify.layout_problems(folder, manifests[folder]), advice)
    work = [
        _Work(
            folder,
            name,
            shard,
            len(found.class_names),
            targets[split] / Path(name).name if copy else None,
            scratch / f"{folder.name}-{name.replace('/', '-')}.json",
        )
        for folder, found in manifests.items()
        for name, shard in sorted(found.shards.items())
        if (split := name.partition("/")[0]) in targets
    ]
    with make_pipeline() as pipeline:
        _ = pipeline | "shards to check" >> beam.Create(work) | beam.Reshuffle() | beam.Map(_check_and_copy)
    for folder, advice in spans.items():
        checks = {each.name: CheckedShard(*json.loads(each.result.read_text())) for each in work if each.span == folder}
        _refuse(verify.shard_problems(folder, manifests[folder], [*targets], checks), advice)


def _refuse(problems: list[str], advice: str) -> None:
    if problems:
        more = len(problems) - _MAX_NAMED
        named = "; ".join(problems[:_MAX_NAMED]) + (f"; and {more:,} more" if more > 0 else "")
        raise DataRefused(f"{named}; {advice}")


def _check_and_copy(work: _Work) -> None:
    path, scratch = work.span / work.name, work.result.parent
    check = verify.check_shard(path, work.shard, work.classes)
    if work.copy and not check.problem:
        with appearing(work.copy, scratch) as partial:
            with safe_files.open_file(path) as file, partial.open("wb") as copied:
                shutil.copyfileobj(file, copied, 2**20)
            if safe_files.file_digest(partial) != work.shard.sha256:
                raise DataRefused(f"{path} changed while it was read: wait until nothing writes to it, and run again")
    with appearing(work.result, scratch) as partial:
        partial.write_text(json.dumps(check))
