"""Outcome of a run, read from its artifacts."""
