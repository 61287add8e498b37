"""The `vitpipe` command starts here."""
