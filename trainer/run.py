"""Entry point of a training for TFX's Trainer: decodes the examples, trains, and exports a SavedModel."""

import hashlib
import json
import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tensorflow as tf
import tensorflow_transform as tft
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from trainer import devices, serving
from trainer.backbone import digest
from trainer.checkpoint import Checkpoints
from trainer.examples import class_names
from trainer.finetune import accept, fine_tune, rebuild_head
from trainer.history import FILE as HISTORY
from trainer.history import best_row
from trainer.input import Split, check_room, decode_by_framing, decode_by_graph, load
from trainer.saved_model import open_saved_model
from trainer.search_space import TrialSettings, apply
from trainer.settings import AugmentSettings, FinetuneSettings, ModelSettings, TrainingSettings
from trainer.teacher import train_teacher
from trainer.train import Trained, build_vit, train
from trainer.warm_start import FILE, compare_classes

if TYPE_CHECKING:
    from tfx.components.trainer.fn_args_utils import FnArgs

log = logging.getLogger(__name__)

_WARMUP_IMAGES = 32  # images in the larger warm-up request of a model server

# Settings that do not change the trained weights.
WITHOUT_EFFECT = {"require_gpu", "checkpoint_seconds", "workers", "tuned"}


def run_fn(fn_args: "FnArgs") -> None:
    """Train on the `train` split, select the best epoch on `val`, and export its model.

    With `training.use_val`, the training also uses `val`, and the model of the last epoch is exported. A backbone is
    exported without training if `finetune` has no epochs.

    The model is exported to `fn_args.serving_model_dir`. The history and the model of the last epoch are written to
    `fn_args.model_run_dir`, after a warm start with a `WarmStart` record.

    Args:
        fn_args: The arguments of TFX's Trainer. `base_model` is the SavedModel of a warm start, if any.
            `hyperparameters` has the values of a tuning, if any, which replace those of the settings.
            `custom_config` has these entries:

            - `model`, `augment`, `training`: settings, as JSON.
            - `checkpoints`: folder below which the checkpoints are written.
            - `mean`, `std`: mean and standard deviation of each channel of the training images, from 0 to 255.
            - `code`: digest of this package's sources.
            - `leave_out` (optional): file with a JSON list of the ids of examples to leave out. Bytes that are not
              UTF-8 are written as surrogates.
            - `backbone` (optional): `.keras` file of the backbone to fine-tune.
            - `accepted_classes`: class names of a backbone that is not trained, as for `trainer.finetune.accept`.
            - `finetune`: settings of the fine-tuning, as JSON. Only read with `backbone`.
            - `base_version` (optional): version of `base_model`.

    Raises:
        FloatingPointError: If a loss is not finite.
        ValueError: If the settings do not fit the data, the devices or the model that training starts from, or
            `training.require_gpu` is set and there is no GPU.
    """
    config = fn_args.custom_config
    model_settings = ModelSettings.model_validate_json(config["model"])
    augmentation = AugmentSettings.model_validate_json(config["augment"])
    training = TrainingSettings.model_validate_json(config["training"])
    if fn_args.hyperparameters:
        log.info("tuned values: %s", json.dumps(fn_args.hyperparameters["values"]))
        model_settings, augmentation, training = apply(
            fn_args.hyperparameters["values"], TrialSettings(model_settings, augmentation, training)
        )
    finetune = FinetuneSettings.model_validate_json(config["finetune"]) if "backbone" in config else None
    trains = finetune is None or finetune.trains
    if trains:
        check_gpu(training)
    strategy = devices.choose_strategy()
    names, train_split, val_split = read_inputs(
        config,
        model_settings,
        augmentation,
        fn_args.schema_path,
        fn_args.transform_output,
        fn_args.train_files + fn_args.eval_files * training.use_val if trains else [],
        fn_args.eval_files,
    )
    mean, std = config["mean"], config["std"]
    backbone = serving.read_vit(config["backbone"]) if finetune else None
    if train_split is None:
        assert backbone
        log.info("exporting the weights of the backbone, without training")
        accepted = accept(backbone, config["accepted_classes"], names, model_settings.flip_average)
        _export(fn_args, accepted, names, val_split, strategy)
        return

    inputs = [  # values that affect the result of every training
        model_settings.model_dump_json(exclude={"flip_average"}),
        augmentation.model_dump_json(),
        training.model_dump_json(exclude=WITHOUT_EFFECT),
        config["code"],
        train_split.digest(),
        val_split.digest(),
        str(fn_args.base_model),
    ]
    # Not among these values: a training may continue on another device, because its weights are float32 in any case.
    width = backbone.config["width"] if backbone else model_settings.width
    precision = devices.agree_on_precision(strategy, devices.resolve_precision(training.precision, width))
    training = training.model_copy(update={"precision": precision})
    run_dir = Path(fn_args.model_run_dir)
    if finetune and backbone:
        trained = fine_tune(
            backbone,
            model_settings,
            finetune,
            training,
            classes=len(names),
            augmentation=augmentation,
            train_split=train_split,
            val_split=val_split,
            log_dir=run_dir,
            checkpoints=Path(config["checkpoints"], _digest(*inputs, config["finetune"], digest(backbone))),
            strategy=strategy,
        )
    else:
        start = None
        if fn_args.base_model:
            start = serving.load_vit(fn_args.base_model)
            base_model = open_saved_model(fn_args.base_model, serving_default="examples")
            old_names = serving.class_names(base_model.signatures["serving_default"])
            warm_start = compare_classes(old_names, names, config.get("base_version"))
            log.info(str(warm_start))
            if warm_start.rebuilt:
                start = rebuild_head(start, model_settings, old_names, names)
            mean, std = start.config["mean"], start.config["std"]  # the weights expect pixels normalised like this
            if devices.is_chief(strategy):
                run_dir.mkdir(parents=True, exist_ok=True)
                (run_dir / FILE).write_text(warm_start.model_dump_json() + "\n", "utf-8")
        teacher = None
        if training.teacher_epochs:
            checkpoints = Checkpoints(Path(config["checkpoints"], f"{_digest(*inputs)}-teacher"))
            learn = partial(
                train_teacher,
                len(names),
                model_settings.image_size,
                config["mean"],
                config["std"],
                augmentation,
                training,
            )
            if devices.is_chief(strategy):
                teacher = learn(train_split, val_split, run_dir / "teacher", checkpoints)
            devices.wait_for_all(strategy)
            if not devices.is_chief(strategy):  # loads the teacher from the checkpoint of the chief
                teacher = learn(train_split, val_split, None, checkpoints)
        trained = train(
            partial(build_vit, model_settings, len(names), mean, std),
            classes=len(names),
            augmentation=augmentation,
            training=training,
            train_split=train_split,
            val_split=val_split,
            log_dir=run_dir,
            checkpoints=Checkpoints(Path(config["checkpoints"], _digest(*inputs))),
            strategy=strategy,
            start=start,
            teacher=teacher,
        )
    best = best_row(trained.rows)
    log.info(
        "exporting the %s of epoch %d, %s",
        "averaged weights" if training.ema_epochs else "weights",
        best["epoch"],
        "the last" if training.use_val else f"the best on val, with accuracy {best['val_accuracy']:.4f}",
    )
    _export(fn_args, trained, names, val_split, strategy)


def check_gpu(training: TrainingSettings) -> None:
    """Raise ValueError if the training requires a GPU and there is none."""
    if training.require_gpu and not tf.config.list_physical_devices("GPU"):
        raise ValueError(
            "training.require_gpu is set, but TensorFlow sees no GPU: run on a machine with a GPU (`vitpipe doctor` "
            "shows what TensorFlow sees), use the preset cifar10-cpu, or --set training.require_gpu=false"
        )


def read_inputs(
    config: Mapping[str, Any],
    model: ModelSettings,
    augmentation: AugmentSettings,
    schema_path: str,
    transform_graph: str,
    train_files: list[str],
    val_files: list[str],
) -> tuple[list[str], Split | None, Split]:
    """Decode the images of a training.

    Args:
        config: Entry `leave_out` of the custom config, see `run_fn`. Other entries are ignored.
        model: Settings of the model.
        augmentation: Settings of the augmentation.
        schema_path: File of the schema, which holds the class names.
        transform_graph: Folder of Transform's graph.
        train_files: Glob patterns of the files with training images; empty if nothing is trained.
        val_files: Glob patterns of the files with the images of val.

    Returns:
        The class names, the training images (None without `train_files`) and the images of val.
    """
    schema = schema_pb2.Schema()
    with tf.io.gfile.GFile(schema_path) as file:
        names = class_names(text_format.Parse(file.read(), schema))
    leave_out: set[bytes] = set()
    if "leave_out" in config:
        ids = json.loads(Path(config["leave_out"]).read_text("utf-8"))
        leave_out = {id.encode("utf-8", "surrogateescape") for id in ids}
        log.info(f"{len(leave_out):,} examples that leak between splits are left out")
    size = model.image_size
    stored_size = augmentation.stored_size or size
    by_graph = decode_by_graph(tft.TFTransformOutput(transform_graph))
    check_room([(train_files, stored_size)] * bool(train_files) + [(val_files, size)])
    decode = by_graph if stored_size == size else decode_by_framing(model.framing)
    val_split = load(val_files, decode, size, leave_out)
    train_split = load(train_files, by_graph, stored_size, leave_out) if train_files else None
    return names, train_split, val_split


def _export(
    fn_args: "FnArgs", trained: Trained, names: list[str], val_split: Split, strategy: tf.distribute.Strategy
) -> None:
    if devices.is_chief(strategy):
        run_dir = Path(fn_args.model_run_dir)
        run_dir.mkdir(parents=True, exist_ok=True)
        (run_dir / HISTORY).touch()  # a training without epochs writes none, but readers expect it
        trained.last.save(run_dir / "last.keras")
        serving.export(trained.best, names, fn_args.serving_model_dir, warmup=val_split.images[:_WARMUP_IMAGES])
    devices.wait_for_all(strategy)  # TFX reads the export as soon as this function returns


def _digest(*inputs: str) -> str:
    return hashlib.sha256("\0".join(inputs).encode()).hexdigest()[:16]
