"""Results of the reader for stores of 3 and of 60 runs, and the number of queries that it needs."""

import sys
from pathlib import Path

import pytest

from pipeline.metadata.address import Address
from pipeline.metadata.reader import reader
from pipeline.result.run_result import RunResult, RunState
from pipeline.result.summary import summarise
from tests.helpers.mariadb import PASSWORD

sys.path.append(str(Path(__file__).parents[3] / "benchmarks"))

import metadata

SPAN = metadata.SPAN  # number of runs on each span; every model is compared with the previous one


@pytest.fixture(scope="module", params=["file", pytest.param("server", marks=pytest.mark.mysql)])
def stores(request, tmp_path_factory):
    """Addresses of two stores, by their number of runs."""
    addresses = {}
    for runs in (3, 60):
        if request.param == "server":
            server = request.getfixturevalue("mariadb")
            addresses[runs] = Address.parse(server.database(f"reader_{runs}"), PASSWORD)
        else:
            addresses[runs] = Address(file=tmp_path_factory.mktemp("stores") / "metadata.db")
        metadata.generate(addresses[runs].connection_config(), runs)
    return addresses


@pytest.fixture
def sixty(stores):
    with reader(stores[60]) as store:
        yield store


def model_of(run):
    return run.output("Trainer", "model").id


QUESTIONS = {
    "runs": lambda store: store.runs(),
    "runs of a pipeline": lambda store: store.runs("cifar10", limit=20),
    "a run": lambda store: store.run("run-00002"),
    "names": lambda store: store.run_names(),
    "artifacts": lambda store: store.artifacts(),
    "blessed": lambda store: store.artifacts("ModelBlessing", "live", properties=[("blessed", "1")]),
    "artifact": lambda store: store.artifact(1),
    "types": lambda store: store.artifact_types(),
    "up": lambda store: store.lineage(store.artifacts("PushedModel")[0].id),
    "down": lambda store: store.lineage(store.artifacts("Examples")[-1].id, "down"),
}


@pytest.mark.parametrize("question", QUESTIONS.values(), ids=QUESTIONS)
def test_sixty_runs_take_no_more_queries_than_three(question, stores):
    calls = {}
    for runs, address in stores.items():
        with reader(address) as store:
            assert question(store)
            calls[runs] = store._connection.calls
    assert calls[3] == calls[60] <= 12


def test_the_newest_runs_come_first_page_by_page(sixty):
    names = [f"run-{number:05}" for number in reversed(range(60))]
    assert sixty.run_names() == names
    assert [run.name for run in sixty.runs(limit=5)] == names[:5]
    assert [run.name for run in sixty.runs(limit=5, offset=5)] == names[5:10]
    assert [run.name for run in sixty.runs("cifar10")] == names and sixty.runs("other") == []
    middle = sixty.run(names[30]).started_ms
    assert {run.name for run in sixty.runs(since_ms=middle)} >= set(names[:31])


def test_a_run_is_read_with_its_nodes_facts_and_figures(sixty):
    run = sixty.run("run-00031")
    assert [one.node for one in run.executions] == [name for name, *_ in metadata.NODES]
    assert {one.node for one in run.executions if one.state == "cached"} == set(metadata.CACHED)
    assert run.node("Transform").outputs.keys() == {"transform_graph"}
    summary = summarise(RunResult(run))
    assert (summary.state, summary.pipeline, summary.span, summary.pushed) == (RunState.DONE, "cifar10", 4, "32")
    assert summary.accuracy == pytest.approx(0.5031) and summary.blessed


def test_inputs_of_conditions_are_left_out(sixty):
    inputs = sixty.run("run-00031").node("Trainer").inputs
    assert set(inputs) == {"transform_graph", "examples", "image_statistics", "schema"}


def test_the_lineage_of_a_model_ends_at_the_model_that_it_was_compared_with(sixty):
    newest, before = sixty.runs(limit=2)
    found = sixty.lineage(newest.output("Pusher", "pushed_model").id)
    made = {(one.type, one.uri.rpartition("/")[2]) for one in found.artifacts.values()}
    # Run 59 took results of run 50, the first run on its span, from the cache.
    assert {("Examples", "50"), ("Model", "59"), ("PushedModel", "59"), ("Examples", "0"), ("Schema", "0")} <= made
    assert {number for kind, number in made if kind == "Model"} == {"59", "58"}
    [compared] = [edge for edge in found.edges if edge.artifact == model_of(before)]
    assert compared.compared and compared.name == "baseline_model"
    # Only a condition reads the verdict of the data gate, so its inputs are not part of the lineage.
    assert "anomalies" not in {edge.name for edge in found.edges}


def test_a_lineage_has_the_execution_that_ran_instead_of_cached_ones(sixty):
    newest = sixty.runs(limit=1)[0]
    found = sixty.lineage(newest.output("Pusher", "pushed_model").id)
    assert {one.state for one in found.executions.values()} == {"complete"}
    run_of = {one.node: found.runs[one.id] for one in found.executions.values()}
    assert run_of["Trainer"] == run_of["Pusher"] == "run-00059"
    assert run_of["ImportExampleGen"] == run_of["Transform"] == "run-00050"
    assert run_of["ImportSchemaGen"] == run_of["TestExampleGen"] == "run-00000"


def test_a_span_leads_to_every_model_that_was_trained_on_it(sixty):
    examples = sixty.run("run-00020").output("ImportExampleGen", "examples")
    assert examples.properties["span"] == 3
    found = sixty.lineage(examples.id, "down")
    models = {one.uri.rpartition("/")[2] for one in found.artifacts.values() if one.type == "Model"}
    assert models == {str(number) for number in range(20, 30)}
    pushed = {one.uri.rpartition("/")[2] for one in found.artifacts.values() if one.type == "PushedModel"}
    assert pushed == models


def test_a_property_is_found_by_its_text_however_it_is_stored(sixty):
    [found] = sixty.artifacts("PushedModel", properties=[("pushed_version", "31"), ("pushed", "1")])
    assert found == sixty.run("run-00030").output("Pusher", "pushed_model")
    assert len(sixty.artifacts(properties=[("span", "2")])) == 2  # the examples, and the verdict on them
    assert sixty.artifacts("Examples", properties=[("span", "2.5")]) == []
    assert sixty.artifacts("Model", state="deleted") == []


def test_an_unknown_artifact_has_no_lineage(sixty):
    assert sixty.artifact(10**6) is None and sixty.run("run-9") is None
    with pytest.raises(ValueError, match="no artifact 1000000"):
        sixty.lineage(10**6)
