import pytest
from kfp import compiler, dsl, kubernetes

from components.data.ingest import tfrecord
from kubeflow.compile import task_name
from pipeline.settings import load
from tests.helpers import kfp_server
from tests.helpers.spans import encoded, picture, write_span


@pytest.fixture
def settings(tmp_path):
    """Settings of a pipeline with two spans, whose ML Metadata is in a file."""
    records = [example(label, seed) for label in range(3) for seed in range(4)]
    for span in 1, 2:
        write_span(tmp_path / "data", span, {"train": records, "val": records, "test": records})
    flags = ["training.batch_size=4", f"data.dir={tmp_path / 'data'}", f"runs={tmp_path / 'runs'}"]
    return load("cifar10", flags, environment={})


def example(label, seed):
    return tfrecord.example(encoded(picture(10 * label + seed)), label, f"{label}/{seed}".encode())


@pytest.fixture(scope="session")
def packages(tmp_path_factory):
    """Files with two packages of one pipeline. They resemble those of kubeflow/compile.py, but have only four steps."""

    def task(node, word):
        def step():
            return dsl.ContainerSpec(image="registry.example/vitpipe:1", command=["python"], args=[word])

        step.__name__ = task_name(node).replace("-", "_")
        made = dsl.container_component(step)().set_display_name(node).set_retry(2)
        return kubernetes.add_pod_label(made, "app.kubernetes.io/part-of", "vitpipe")

    def package(word):
        @dsl.pipeline(name="sample")
        def steps(span: int = -1, trigger: str = "manual", reason: str = "", accept: str = "", take_over: str = ""):
            with dsl.ExitHandler(task("RunReport", word), name="steps"):
                trainer = task("Trainer", word).after(task("Start", word))
                task("Verdict", word).after(trainer)

        file = tmp_path_factory.mktemp("packages") / f"{word}.yaml"
        compiler.Compiler().compile(steps, str(file))
        return file

    return [package("one"), package("other")]


@pytest.fixture
def kfp():
    return kfp_server.Kfp()


@pytest.fixture
def endpoint(kfp):
    with kfp_server.serve(kfp) as address:
        yield address
