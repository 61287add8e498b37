"""First step of a run on Kubeflow Pipelines, in this process."""

from kubeflow.steps import start
from pipeline.graph import compile_graph


def begin(settings, run_id, tune=False, **parameters):
    """Run the first step as a package that was compiled from this code does."""
    nodes = [entry.pipeline_node.node_info.id for entry in compile_graph(settings, 1, tune=tune).nodes]
    return start.begin(settings, run_id, nodes=nodes, tune=tune, **parameters)
