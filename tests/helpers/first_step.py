"""The first step of a run on Kubeflow Pipelines, in this process."""

from kubeflow.steps import start
from pipeline.graph import compile_graph


def begin(settings, run_id, **given):
    """The first step of a run, by a package of this very code."""
    nodes = [entry.pipeline_node.node_info.id for entry in compile_graph(settings, 1).nodes]
    return start.begin(settings, run_id, nodes=nodes, **given)
