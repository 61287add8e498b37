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
from components.data.worker_code import with_same_code
from components.data.worker_files import MakePipeline, appearing
from components.errors import DataRefused, EngineError

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
        scratch: folder for files that the workers exchange with this process.

    Raises:
        DataRefused: if a span does not match its manifest, or a shard changes while it is copied.
        EngineError: if workers cannot read intact shards.
    """
    manifests = {folder: manifest.read(folder) for folder in spans}
    work = [
        _Work(
            folder,
            name,
            shard,
            len(span_manifest.class_names),
            targets[split] / Path(name).name if copy else None,
            scratch / f"{folder.name}-{name.replace('/', '-')}.json",
        )
        for folder, span_manifest in manifests.items()
        for name, shard in sorted(span_manifest.shards.items())
        if (split := name.partition("/")[0]) in targets
    ]
    with make_pipeline() as pipeline:
        _ = (
            pipeline
            | "shards to check" >> beam.Create(work)
            | beam.Reshuffle()
            | "CheckShards" >> beam.Map(with_same_code(_check_and_copy))
        )
    for folder, advice in spans.items():
        checks = {each.name: _result(each) for each in work if each.span == folder}
        problems = verify.layout_problems(folder, manifests[folder])
        _refuse(problems + verify.shard_problems(folder, manifests[folder], [*targets], checks), advice)


def _result(work: _Work) -> CheckedShard:
    """Return what a worker found, after a check of this process if the worker found a problem.

    Raises:
        EngineError: if only the worker has a problem. The data is not refused then.
    """
    check = CheckedShard(*json.loads(work.result.read_text()))
    if not check.problem:
        return check
    own = verify.check_shard(work.span / work.name, work.shard, work.classes)
    if not own.problem:
        raise EngineError(
            f"a worker of the Beam job cannot read a shard that this process can read: {check.problem}. Mount the data "
            "folder at the same path on all machines of the engine, and allow the user of the workers to read it"
        )
    return own


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
