"""DataGate: the checks that a span passes before anything is trained on it."""
