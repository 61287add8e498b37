"""Compiled graphs of a pipeline."""


def nodes(ir):
    """Return the nodes of a compiled graph, by their ids."""
    return {node.pipeline_node.node_info.id: node.pipeline_node for node in ir.nodes}
