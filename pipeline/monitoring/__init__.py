"""Monitoring of a model that serves: windows of logged answers, compared with the training span and the test set."""
