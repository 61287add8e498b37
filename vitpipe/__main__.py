"""Run the `vitpipe` command: `python -m vitpipe`."""

from vitpipe.cli import main

main()
