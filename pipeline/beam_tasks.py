"""Tasks as jobs of Beam, on the engine that the settings name."""

import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from components.data.worker_code import with_same_code
from components.errors import EngineError
from pipeline.beam import arguments, explain
from pipeline.settings.beam import BeamSettings


class TaskRunner(NamedTuple):
    """Function that runs tasks on the workers of an engine, see `components.data.ingest.engine_work.RunTasks`.

    Args:
        settings: settings of the engine.
        repeated: called with a message before tasks are run again.
    """

    settings: BeamSettings
    repeated: Callable[[str], None] = lambda _message: None

    def __call__(self, name: str, tasks: Sequence[Any], function: Callable[[Any], None]) -> None:
        """Call a function with each task in a Beam job, and run the job again if the engine fails.

        Args:
            name: name of the job.
            tasks: the tasks.
            function: the function, which leaves the result of a finished task alone.

        Raises:
            DataRefused: if the function raised it.
            EngineError: if the engine failed in all attempts.
        """
        argv = arguments(self.settings)
        for attempt in range(1, self.settings.attempts + 1):
            try:
                _run(name, tasks, function, argv)
                return
            except Exception as error:
                explained = explain(error, argv)
                if not isinstance(explained, EngineError) or attempt == self.settings.attempts:
                    raise explained from error
                self.repeated(f"attempt {attempt} of {self.settings.attempts} failed: {explained}. Trying again")


def _run(name: str, tasks: Sequence[Any], function: Callable[[Any], None], argv: list[str]) -> None:
    import apache_beam as beam  # takes long

    logging.disable()  # Beam logs pages of text about an exception of a worker, which it raises as well
    try:
        with beam.Pipeline(argv=argv) as pipeline:
            _ = pipeline | beam.Create(tasks) | beam.Reshuffle() | name >> beam.Map(with_same_code(function))
    finally:
        logging.disable(logging.NOTSET)
