"""Evaluator, which measures a candidate and decides whether it may serve."""
