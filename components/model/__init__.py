"""Nodes of the graph that train, evaluate, check and push a model."""
