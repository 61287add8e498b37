"""Runs of the graph on Kubeflow Pipelines."""
