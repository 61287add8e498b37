"""`python -m trainer.worker JOB.json`: run one worker of a training that several processes compute together.

Every worker runs this command with the same file, see `Job`. They connect through the variable TF_CONFIG. If it is
already set, it is used; otherwise it is made from the addresses in the file and from the worker's index. The index is
`--index`, or the variable JOB_COMPLETION_INDEX, which Kubernetes sets in the pods of an indexed Job.

The log is written to standard error. The exit code is 0 if the training is complete. It is 65 if a retry would fail in
the same way: the settings or the data are invalid, or a loss is not finite. It is 2 if the job cannot be read, and 1
after any other error.
"""

import argparse
import json
import logging
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import Field, JsonValue, ValidationError

from trainer.settings import MOST_WORKERS, Group

log = logging.getLogger(__name__)

WRONG_INPUT = 65  # EX_DATAERR of BSD. Not 2, with which a shell ends if it cannot open the log

_INDEX = "JOB_COMPLETION_INDEX"

Address = Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]+:[0-9]{1,5}$")]


class Job(Group):
    """A training for several workers: their addresses, and the arguments of `trainer.run.run_fn`."""

    workers: list[Address] = Field(
        min_length=1,
        max_length=MOST_WORKERS,
        description="Addresses of the workers as HOST:PORT, in the order of their indices. The first one writes all "
        "files.",
    )
    transform_output: str = Field(description="Output folder of TFX's Transform.")
    schema_path: str = Field(description="File with the schema of the data.")
    train_files: list[str] = Field(min_length=1, description="Glob patterns of the TFRecord files to train on.")
    eval_files: list[str] = Field(min_length=1, description="Glob patterns of the TFRecord files of the split val.")
    serving_model_dir: str = Field(description="Folder to export the SavedModel to.")
    model_run_dir: str = Field(description="Folder for the history and the model of the last epoch.")
    base_model: str | None = Field(None, description="SavedModel of a warm start.")
    hyperparameters: dict[str, JsonValue] | None = Field(
        None, description="Result of a tuning, as KerasTuner writes it."
    )
    custom_config: dict[str, JsonValue] = Field(description="See `trainer.run.run_fn`.")


def read_job(path: Path) -> Job:
    """Read a job from its file.

    Raises:
        ValueError: If the file is not a valid job.
        OSError: If the file cannot be read.
    """
    try:
        return Job.model_validate_json(path.read_bytes())
    except ValidationError as error:
        problems = (
            f"{'.'.join(map(str, problem['loc'])) or 'the file'}: {problem['msg']}" for problem in error.errors()
        )
        raise ValueError(f"{path} is not a valid job. {'; '.join(problems)}") from None


def tf_config(workers: Sequence[str], index: int | None, environment: Mapping[str, str]) -> str:
    """Return the value of TF_CONFIG for this worker.

    Args:
        workers: Addresses of all workers, as HOST:PORT.
        index: Index of this worker, from 0. None: that of the indexed Job of Kubernetes.
        environment: Variables of this process. If they have a TF_CONFIG, it is returned unchanged.

    Raises:
        ValueError: If the index is unknown, or there is no worker with this index.
    """
    if "TF_CONFIG" in environment:
        return environment["TF_CONFIG"]
    if index is None:
        if _INDEX not in environment:
            raise ValueError(f"the index of this worker is unknown: pass --index, or set {_INDEX} or TF_CONFIG")
        if not environment[_INDEX].isdecimal():
            raise ValueError(f"{_INDEX} {environment[_INDEX]!r} is not a number from 0: set it to this worker's index")
        index = int(environment[_INDEX])
    if not 0 <= index < len(workers):
        raise ValueError(
            f"index {index} is not between 0 and {len(workers) - 1}: pass the index of this worker's address in the "
            "list `workers` of the job"
        )
    return json.dumps({"cluster": {"worker": list(workers)}, "task": {"type": "worker", "index": index}})


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m trainer.worker", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("job", type=Path, metavar="JOB.json", help="file with the job")
    parser.add_argument("--index", type=int, help=f"index of this worker, from 0 (default: the variable {_INDEX})")
    parser.add_argument(
        "--end-with-stdin",
        action="store_true",
        help="exit when standard input is closed, which happens when the parent process dies",
    )
    arguments = parser.parse_args()
    try:
        job = read_job(arguments.job)
        os.environ["TF_CONFIG"] = tf_config(job.workers, arguments.index, os.environ)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    if arguments.end_with_stdin:
        threading.Thread(target=_end_with_stdin, daemon=True).start()

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    from trainer.run import run_fn  # imports TensorFlow, which reads the environment

    try:
        run_fn(job)
    except Exception as error:
        log.exception("this worker failed")
        # An orderly end would wait for the other workers, which may wait for this one.
        os._exit(WRONG_INPUT if isinstance(error, ValueError | FloatingPointError) else 1)


def _end_with_stdin() -> None:
    while os.read(0, 4096):  # a read through `sys.stdin` would hold a lock that the end of Python needs
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
