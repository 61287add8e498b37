"""Output of commands and steps: safe text, log files, progress."""
