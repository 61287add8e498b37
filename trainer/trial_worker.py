"""Process that trains the trials of a tuning, one after the other: `python -m trainer.trial_worker DESCRIPTOR`.

The descriptor is that of a connection to `trainer.tune`, with the messages of `trainer.trial_messages`.
"""

import gc
import logging
import os
import sys
import threading
from functools import partial
from multiprocessing.connection import Connection

import keras

from trainer import devices
from trainer.checkpoint import Checkpoints
from trainer.history import Row
from trainer.run import check_gpu, read_inputs
from trainer.train import build_vit, train
from trainer.trial_messages import Ending, Job, Progress, Task

log = logging.getLogger(__name__)


class _Pruned(Exception):
    """The study decided to end the trial early."""


def main() -> None:
    """Train trials until the connection is closed."""
    # A killed study must not leave a process behind that trains for hours: the kernel closes the input at its death.
    threading.Thread(target=_end_with_parent, daemon=True).start()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    with Connection(int(sys.argv[1])) as connection:
        try:
            serve(connection)
        except (EOFError, BrokenPipeError):
            log.info("the study ended")


def serve(connection: Connection) -> None:
    """Answer the messages of a study.

    Raises:
        EOFError: When the study closes the connection.
    """
    job: Job = connection.recv()
    model, augment, training = job.settings
    check_gpu(training)
    strategy = devices.choose_strategy()
    names, train_split, val_split = read_inputs(
        job.config, model, augment, job.schema, job.transform_graph, job.train_files, job.val_files
    )
    assert train_split is not None
    connection.send(None)

    def report(rows: list[Row]) -> None:
        connection.send(Progress(rows))
        if connection.recv():
            raise _Pruned

    while True:
        task: Task = connection.recv()
        model, augment, training = task.settings
        training = training.model_copy(update={"precision": devices.resolve_precision(training.precision, model.width)})
        try:
            trained = train(
                partial(build_vit, model, len(names), job.config["mean"], job.config["std"]),
                classes=len(names),
                augmentation=augment,
                training=training,
                train_split=train_split,
                val_split=val_split,
                log_dir=task.folder / "log",
                # The study removes the folder of a trial when it has ended, so the siblings belong to trials that run.
                checkpoints=Checkpoints(task.folder, others=sys.maxsize),
                strategy=strategy,
                after_epoch=report,
            )
            ending = Ending("complete", rows=trained.rows)
        except _Pruned:
            ending = Ending("pruned")
        except (FloatingPointError, ValueError) as error:
            ending = Ending("failed", str(error).splitlines()[0])
        connection.send(ending)
        keras.backend.clear_session()  # else the process grows with each trial
        gc.collect()


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    main()
