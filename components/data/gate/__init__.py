"""Data gate: the checks that a span must pass before a model is trained on it."""
