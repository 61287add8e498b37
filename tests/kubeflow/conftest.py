import pytest

from components.ingest import tfrecord
from kubeflow import start
from pipeline.build import compile_graph
from pipeline.config import load
from tests.spans import encoded, picture, write_span


@pytest.fixture
def settings(tmp_path):
    """A pipeline with two spans, and its ML Metadata in a file."""
    records = [example(label, seed) for label in range(3) for seed in range(4)]
    for span in 1, 2:
        write_span(tmp_path / "data", span, {"train": records, "val": records, "test": records})
    flags = ["training.batch_size=4", f"data.dir={tmp_path / 'data'}", f"runs={tmp_path / 'runs'}"]
    return load("cifar10", flags, environment={})


def begin(settings, run_id, **given):
    """The first step of a run, by a package of this very code."""
    nodes = [entry.pipeline_node.node_info.id for entry in compile_graph(settings, 1).nodes]
    return start.begin(settings, run_id, nodes=nodes, **given)


def example(label, seed):
    return tfrecord.example(encoded(picture(10 * label + seed)), label, f"{label}/{seed}".encode())
