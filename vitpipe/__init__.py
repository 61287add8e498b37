"""Entry point of the `vitpipe` command."""
