"""Progress of a run: one line for each node, messages of the steps as they come, a spinner on a terminal."""

import logging
from typing import TextIO

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from pipeline.console.terminal import Console, printable
from pipeline.outcome import NodeState, Outcome

_PACKAGES = ("trainer", "components", "kubeflow")
_STYLES = {
    NodeState.COMPLETE: "green",
    NodeState.CACHED: "cyan",
    NodeState.SKIPPED: "yellow",
    NodeState.FAILED: "bold red",
}


class Display:
    """Progress of a run on a stream. Log messages of our packages appear under their node.

    Args:
        stream: where the progress is printed.
    """

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream, soft_wrap=True)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
            # Rich would print the output of libraries, too, which belongs in the log file.
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._handler = _Lines(self)

    def __enter__(self) -> "Display":
        for package in _PACKAGES:
            logging.getLogger(package).addHandler(self._handler)
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()
        for package in _PACKAGES:
            logging.getLogger(package).removeHandler(self._handler)

    def line(self, text: str | Text) -> None:
        """Print a line."""
        self._console.print(text if isinstance(text, Text) else printable(text))

    def started(self, activity: str) -> None:
        """Show the name of a node or activity beside the spinner, in place of the previous name."""
        self.idle()
        self._progress.add_task(printable(activity))

    def update(self, text: str) -> None:
        """Change the text beside the spinner."""
        for task in self._progress.task_ids:
            self._progress.update(task, description=printable(text))

    def activity(self, text: str) -> None:
        """Show what is being computed: beside the spinner on a terminal, otherwise as a line."""
        if self._console.is_terminal:
            self.started(text)
        else:
            self.line(text)

    def idle(self) -> None:
        """Remove the spinner, for example before other output is printed."""
        for task in self._progress.task_ids:
            self._progress.remove_task(task)
        self._progress.refresh()

    def ended(self, outcome: Outcome) -> None:
        """Print the outcome of a node."""
        self.idle()
        state = (f"{outcome.state:<9}", _STYLES[outcome.state])
        self.line(Text.assemble(f"{outcome.node:<18}", state, f"{outcome.seconds:7.1f} s"))


class _Lines(logging.Handler):
    def __init__(self, display: Display) -> None:
        super().__init__(logging.INFO)
        self._display = display

    def emit(self, record: logging.LogRecord) -> None:
        self._display.line("  " + record.getMessage())
