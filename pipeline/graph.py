"""Definition of the whole graph, in this one place."""

import hashlib
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType

from tensorflow_data_validation import StatsOptions
from tfx.components import ExampleValidator, StatisticsGen, Transform
from tfx.components.schema_gen.import_schema_gen.component import ImportSchemaGen
from tfx.dsl.compiler.compiler import Compiler
from tfx.dsl.components.base.base_component import BaseComponent
from tfx.dsl.components.base.base_node import BaseNode
from tfx.dsl.components.base.executor_spec import ExecutorClassSpec
from tfx.dsl.components.common.resolver import Resolver
from tfx.dsl.experimental.conditionals.conditional import Cond
from tfx.orchestration.pipeline import Pipeline
from tfx.proto import trainer_pb2, transform_pb2
from tfx.proto.orchestration import pipeline_pb2
from tfx.types.channel import BaseChannel, Channel
from tfx.types.standard_artifacts import HyperParameters, Model

from components.artifacts import DataVerdictArtifact
from components.data.example_gen import SpanExampleGen
from components.data.gate.component import DataGate
from components.data.ingest.schema import read_bytes as schema_bytes
from components.data.labels.component import LabelCheck
from components.data.previous_span import PreviousSpan
from components.data.statistics.component import ImageStatistics
from components.model.backbone import Backbone
from components.model.baseline import Baseline
from components.model.evaluator.component import Evaluator
from components.model.newest_tuning import NewestTuning
from components.model.pusher import Pusher
from components.model.serving_check.component import ServingCheck
from components.model.serving_folder import serving_now
from components.model.trainer import Trainer
from components.model.tuner import Tuner
from components.model.tuning_record import space_text
from pipeline import beam, provenance
from pipeline.backbone import content
from pipeline.outcome import REPORT
from pipeline.report.component import RunReport
from pipeline.settings import Settings
from trainer.framing import FRAMING

DIGEST = "digest"  # property of a step: the digest of its code


def create_pipeline(
    settings: Settings, span: int, accepted: Mapping[str, str] = MappingProxyType({}), tune: bool = False
) -> Pipeline:
    """Return the graph, which trains on a span of the data and tests the model on the gate span.

    Args:
        settings: the settings of the run.
        span: the span to train on.
        accepted: checks of the data gate that do not stop this run, each with a person's reason.
        tune: search for better settings after the data gate, in place of training and testing a model.
    """
    data = str(settings.data.dir.resolve())
    schema_file = settings.data.dir.resolve() / "schema.pbtxt"
    framing = settings.model.model_dump_json(include=FRAMING)

    examples = SpanExampleGen(data, span, ["train", "val"], settings.data.window, settings.data.earlier_images).with_id(
        "ImportExampleGen"
    )
    test_examples = SpanExampleGen(data, settings.data.gate_span, ["test"]).with_id("TestExampleGen")

    schema = ImportSchemaGen(schema_file=str(schema_file))
    statistics = StatisticsGen(
        examples=examples.outputs["examples"],
        schema=schema.outputs["schema"],
        # The exact count of different values would need more Beam stages and keep every id in memory.
        stats_options=StatsOptions(use_sketch_based_topk_uniques=True),
    )
    validator = ExampleValidator(statistics=statistics.outputs["statistics"], schema=schema.outputs["schema"])
    image_statistics = ImageStatistics(
        examples=examples.outputs["examples"],
        test_examples=test_examples.outputs["examples"],
        schema=schema.outputs["schema"],
        framing=framing,
        measured=str(settings.folder / "measured"),
    )
    previous = Resolver(
        strategy_class=PreviousSpan,
        config={"data": data, "span": span},
        verdict=Channel(type=DataVerdictArtifact),
    ).with_id("PreviousSpan")
    label_check = None
    if settings.label_check.epochs:
        label_check = LabelCheck(
            examples=examples.outputs["examples"],
            test_examples=test_examples.outputs["examples"],
            statistics=image_statistics.outputs["statistics"],
            settings=settings.label_check,
            model=settings.model.model_dump_json(include={*FRAMING, "patch_size"}),
            augment=settings.augment.model_dump_json(include={"flip"}),
            training=settings.training.model_dump_json(include={"precision", "seed"}),
            checkpoints=str(checkpoints_folder(settings)),
        )
    data_gate = DataGate(
        examples=examples.outputs["examples"],
        test_examples=test_examples.outputs["examples"],
        statistics=image_statistics.outputs["statistics"],
        anomalies=validator.outputs["anomalies"],
        previous=previous.outputs["verdict"],
        # Without a bound the gate does not read the suspects. As an input, each new label check would change the cache
        # keys of the gate and of all later steps, so that the model would be trained again.
        suspects=label_check.outputs["suspects"] if label_check and settings.data_gate.wrong_labels.is_set else None,
        settings=settings.data_gate,
        accepted=dict(accepted),
    )
    baseline = Resolver(
        strategy_class=Baseline, config={"serving": str(settings.folder / "serving")}, model=Channel(type=Model)
    ).with_id("Baseline")
    tuning = Resolver(
        strategy_class=NewestTuning,
        config={"space": space_text(settings.tune)},
        hyperparameters=Channel(type=HyperParameters),
    ).with_id("NewestTuning")

    verdict = data_gate.outputs["verdict"]
    with Cond(verdict.future()[0].property("passed") == 1):
        transform = Transform(
            examples=examples.outputs["examples"],
            schema=schema.outputs["schema"],
            preprocessing_fn="trainer.preprocessing.preprocessing_fn",
            splits_config=transform_pb2.SplitsConfig(analyze=["train"]),
            custom_config={
                "framing": framing,
                "stored_size": settings.augment.stored_size or settings.model.image_size,
            },
            # The Trainer applies the graph. Encoded images take less room than pixels, and statistics of pixels would
            # take a minute and tell nothing about the images.
            materialize=False,
            disable_statistics=True,
            disable_analyzer_cache=True,  # there are no analyzers, and an empty folder would remain
        )
        inputs = (settings, examples, schema, image_statistics, transform, verdict)
        model_steps = [_tuner(*inputs)] if tune else _training(*inputs, span, test_examples, baseline, tuning)

    steps = [
        examples,
        test_examples,
        schema,
        statistics,
        validator,
        image_statistics,
        previous,
        *([label_check] if label_check else []),
        data_gate,
        transform,
        *model_steps,
    ]
    # The report comes after all other steps and has no inputs, so that it is written even if steps were skipped.
    report = RunReport(store=str(settings.store), reports=str(settings.folder / "reports"))
    report.add_upstream_nodes(steps)

    components = [*steps, report]
    for component in components:
        _stamp_code(component)
    # TFX only knows the path of the schema, so its content must be part of the cache key. The file is missing if the
    # graph is compiled for a cluster and the data is not on this machine.
    schema.spec.exec_properties[DIGEST] = (
        hashlib.sha256(schema_bytes(settings.data.dir)).hexdigest() if schema_file.exists() else ""
    )

    return Pipeline(
        pipeline_name=settings.name,
        pipeline_root=str(settings.folder / "root"),
        components=components,
        enable_cache=True,
        beam_pipeline_args=beam.arguments(settings.beam),
    )


def _training(
    settings: Settings,
    examples: BaseNode,
    schema: BaseNode,
    image_statistics: BaseNode,
    transform: BaseNode,
    verdict: BaseChannel,
    span: int,
    test_examples: BaseNode,
    baseline: BaseNode,
    tuning: BaseNode,
) -> list[BaseNode]:
    """Return the steps that train, check and push a model."""
    serving = str(settings.folder / "serving")
    backbone = None
    if source := settings.finetune.source:
        backbone = Backbone(source, content(source), settings.model, settings.finetune)
    trainer = Trainer(
        run_fn="components.model.trainer.run_fn",
        examples=examples.outputs["examples"],
        transform_graph=transform.outputs["transform_graph"],
        schema=schema.outputs["schema"],
        # These inputs are passed only if they are used. Otherwise a push would change the cache key of the next
        # training, which would run again for nothing.
        base_model=baseline.outputs["model"] if settings.training.warm_start else None,
        image_statistics=image_statistics.outputs["statistics"],
        verdict=verdict if settings.data_gate.leave_out_leaks else None,
        backbone=backbone.outputs["backbone"] if backbone else None,
        hyperparameters=tuning.outputs["hyperparameters"] if settings.training.tuned else None,
        train_args=trainer_pb2.TrainArgs(splits=["train"]),
        eval_args=trainer_pb2.EvalArgs(splits=["val"]),
        custom_config={
            "model": settings.model.model_dump_json(),
            "augment": settings.augment.model_dump_json(),
            "training": settings.training.model_dump_json(),
            "checkpoints": str(checkpoints_folder(settings)),
            "code": provenance.digest("trainer.run"),
            # Workers write their own logs, in a folder of the run.
            **({"logs": str(settings.folder / "logs")} if settings.training.workers > 1 else {}),
            # A warm start records which version it starts from.
            **({"serving": serving} if settings.training.warm_start else {}),
            # The source is left out, because the same backbone in another place leads to the same model.
            **({"finetune": settings.finetune.model_dump_json(exclude={"source"})} if backbone else {}),
        },
    )
    evaluator = Evaluator(
        examples=test_examples.outputs["examples"],
        statistics=image_statistics.outputs["statistics"],
        model=trainer.outputs["model"],
        baseline_model=baseline.outputs["model"],
        schema=schema.outputs["schema"],
        gate=settings.gate,
        serving=_without_baseline(settings.folder / "serving"),
    )
    # A model that is not blessed is checked, too: a person may bless it later, and it is then pushed only if it can
    # be served.
    serving_check = ServingCheck(
        model=trainer.outputs["model"],
        examples=test_examples.outputs["examples"],
        schema=schema.outputs["schema"],
        settings=settings.serving_check,
    )
    with (
        Cond(evaluator.outputs["blessing"].future()[0].custom_property("blessed") == 1),
        Cond(serving_check.outputs["blessing"].future()[0].custom_property("blessed") == 1),
    ):
        pusher = Pusher(
            model=trainer.outputs["model"],
            model_blessing=evaluator.outputs["blessing"],
            infra_blessing=serving_check.outputs["blessing"],
            examples=examples.outputs["examples"],
            test_examples=test_examples.outputs["examples"],
            verdict=verdict,
            serving=serving,
            keep=settings.keep_versions,
            code_version=provenance.code_version(),
            settings=settings.resolved(span),
        )
    steps = [baseline, trainer, evaluator, serving_check, pusher]
    if backbone:
        steps.append(backbone)
    if settings.training.tuned:
        steps.append(tuning)
    return steps


def _tuner(
    settings: Settings,
    examples: BaseNode,
    schema: BaseNode,
    image_statistics: BaseNode,
    transform: BaseNode,
    verdict: BaseChannel,
) -> BaseNode:
    """Return the step that searches for better settings. It gets the same data as the Trainer, and no test data."""
    return Tuner(
        examples=examples.outputs["examples"],
        schema=schema.outputs["schema"],
        transform_graph=transform.outputs["transform_graph"],
        image_statistics=image_statistics.outputs["statistics"],
        verdict=verdict if settings.data_gate.leave_out_leaks else None,
        custom_config={
            "model": settings.model.model_dump_json(),
            "augment": settings.augment.model_dump_json(),
            "training": settings.training.model_dump_json(),
            "tune": settings.tune.model_dump_json(),
            "studies": str(studies_folder(settings)),
            "code": provenance.digest("trainer.trial_worker"),
        },
    )


def _without_baseline(serving: Path) -> str:
    """Return the gate's message for a serving model that has no artifact; empty if no model serves."""
    try:
        record = serving_now(serving)
    except ValueError:  # the step Baseline fails for the same reason, and reports it
        return ""
    if record is None:
        return ""
    return (
        "there is nothing to compare with, because the Model artifact of the serving version, "
        f"{record.model.place}, is gone or unknown to ML Metadata"
    )


def checkpoints_folder(settings: Settings) -> Path:
    """Return the folder of the checkpoints. It is not an output of a step: TFX deletes the outputs of a failed one."""
    return settings.folder / "checkpoints"


def studies_folder(settings: Settings) -> Path:
    """Return the folder of the studies of tunings. It is not an output of a step, like `checkpoints_folder`."""
    return settings.folder / "tuning"


def compile_graph(
    settings: Settings,
    span: int,
    uncached: Collection[str] = (),
    accepted: Mapping[str, str] = MappingProxyType({}),
    tune: bool = False,
) -> pipeline_pb2.Pipeline:
    """Return the graph in TFX's intermediate representation.

    Args:
        settings: the settings of the run.
        span: the span to train on.
        uncached: ids of nodes that run even if their outputs are cached.
        accepted: checks of the data gate that do not stop this run, each with a person's reason.
        tune: search for better settings, see `create_pipeline`.
    """
    ir = Compiler().compile(create_pipeline(settings, span, accepted, tune))
    for node in ir.nodes:
        # A push depends on the model that serves at that moment, and the report on the whole run. No cache key holds
        # either of them.
        if node.pipeline_node.node_info.id in ("Pusher", REPORT, *uncached):
            node.pipeline_node.execution_options.caching_options.enable_cache = False
    return ir


def _stamp_code(component: BaseNode) -> None:
    """Make a digest of our code that a step runs part of its cache key, and of its record in ML Metadata.

    That code is the module of the executor, and the modules of functions that the step names by import path, such as
    a `run_fn`. A step of TFX's code alone gets no digest. A resolver gets none either, because it is never cached.
    """
    if not isinstance(component, BaseComponent):
        return
    executor = component.executor_spec
    assert isinstance(executor, ExecutorClassSpec), (
        f"{component.id} has no Python executor, so its code cannot be hashed"
    )
    texts = [value for value in component.spec.exec_properties.values() if isinstance(value, str)]
    named = {executor.executor_class.__module__, *(text.rpartition(".")[0] for text in texts)}
    if ours := named & provenance.modules():
        component.spec.exec_properties[DIGEST] = provenance.digest(*sorted(ours))
