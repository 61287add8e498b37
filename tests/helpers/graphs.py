"""Compiled graphs of a pipeline."""


def nodes(ir):
    return {node.pipeline_node.node_info.id: node.pipeline_node for node in ir.nodes}
