"""TFX's InfraValidator without Docker. It rejects a model that cannot answer the requests of its clients."""

import io
import json
import struct
import subprocess
import sys
import tempfile
import zlib
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf
from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.utils import io_utils, path_utils

from components.data.ingest import tfrecord
from components.data.ingest.images import open_image, to_eight_bits
from components.model.evaluator.judgement import Check
from components.model.serving_check import client
from components.model.serving_check.bounds import ServingCheckSettings
from trainer.examples import class_names
from trainer.preprocessing import decode_batch
from trainer.serving import load_vit

SIGNATURES = ("explain", "serving_bytes", "serving_default", "serving_images")

_IMAGES = 32
_CLOSE = 1e-4  # between probabilities that are to be equal: batches of other sizes are summed in another order
_TIME_OUT = 600  # seconds for the whole probe
_OURS = {"components", "pipeline", "trainer", "tfx"}


class Executor(base_executor.BaseExecutor):
    """Completes with `blessed` 0 when the model fails: see `components.model.evaluator.component`."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        settings = ServingCheckSettings.model_validate_json(exec_properties["settings"])
        model = path_utils.serving_model_path(artifact_utils.get_single_uri(input_dict["model"]))
        [examples] = input_dict["examples"]
        shards = sorted(Path(artifact_utils.get_split_uri([examples], "test")).iterdir())
        records = list(islice((record for shard in shards for record in tfrecord.read(shard)), _IMAGES))
        schema_file = io_utils.get_only_uri_in_dir(artifact_utils.get_single_uri(input_dict["schema"]))
        names = class_names(io_utils.SchemaReader().read(schema_file))
        checks = check(model, records, names, settings)
        blessing = artifact_utils.get_single_instance(output_dict["blessing"])
        blessed = all(one.passed for one in checks)
        blessing.set_int_custom_property("blessed", int(blessed))
        blessing.set_string_custom_property("signatures", json.dumps(SIGNATURES))
        blessing.set_string_custom_property("checks", json.dumps([one.model_dump() for one in checks]))
        Path(blessing.uri, "INFRA_BLESSED" if blessed else "INFRA_NOT_BLESSED").touch()


def check(model: str, records: list[bytes], names: list[str], settings: ServingCheckSettings) -> list[Check]:
    """What came of asking the SavedModel folder `model`, with serialized raw examples, in a process of its own.

    names: of the classes, in index order.
    """
    records = records if len(records) > 1 else records * 2
    keras_model = load_vit(model)
    size = keras_model.get_config()["image_size"]
    encoded = [_resized(tfrecord.parse(record).image, number) for number, record in enumerate(records)]
    examples = [tfrecord.example(image, 0, b"") for image in encoded]
    pixels = decode_batch(tf.constant(encoded), size)[0].numpy()
    wanted = tf.nn.softmax(keras_model(pixels, training=False)).numpy()
    hostile = [b"", b"<html>not an image</html>", encoded[0][:20], bytes(100_000_000), _bomb(), _bomb(b"abCd")]

    with tempfile.TemporaryDirectory() as folder:
        strings = {"encoded": encoded, "examples": examples, "hostile": hostile}
        arrays: dict[str, Any] = {"images": pixels, **_joined(strings)}
        np.savez(Path(folder, "requests.npz"), **arrays)
        command = [sys.executable, "-I", client.__file__, model, folder]
        try:
            # TensorFlow tells of a hostile request by its bytes, which are no text.
            probe = subprocess.run(
                command, capture_output=True, text=True, errors="backslashreplace", timeout=_TIME_OUT, cwd=folder
            )
        except subprocess.TimeoutExpired:
            return [_failed("answers in time", f"the process was stopped after {_TIME_OUT} s")]
        if probe.returncode:
            last = (probe.stderr.strip().splitlines() or ["it said nothing"])[-1]
            return [_failed("loads and answers", f"exit code {probe.returncode}: {last}")]
        figures = json.loads(Path(folder, "figures.json").read_text())
        with np.load(Path(folder, "answers.npz")) as loaded:
            answers = {name: loaded[name] for name in loaded.files}

    def of(output: str, hostile: bool = False) -> dict[str, np.ndarray]:
        """Answers of one output, by signature and batch."""
        return {
            name.rpartition("/")[0]: values
            for name, values in answers.items()
            if name.endswith(f"/{output}") and name.startswith("hostile/") == hostile
        }

    differences = {name: _difference(found, wanted[: len(found)]) for name, found in of("probabilities").items()}
    spoilt = max((_difference(mixed[[0, -1]], wanted[:2]) for mixed in of("probabilities", True).values()), default=0.0)
    labels = np.array([names[label].encode() if label < len(names) else b"" for label in wanted.argmax(axis=1)])
    misnamed = sum(int((found != labels[: len(found)]).sum()) for found in of("class").values())
    misnamed += abs(wanted.shape[1] - len(names))
    not_finite = sum(int((~np.isfinite(found)).any(axis=1).sum()) for found in of("probabilities").values())
    refused = sum(int((~found).sum()) for found in of("valid").values())
    accepted = sum(int(found[1:-1].sum()) for found in of("valid", True).values())
    worst = max(differences, key=lambda name: differences[name], default="")
    missing = sorted(set(SIGNATURES) - set(figures["signatures"]))
    ours = sorted(_OURS & set(figures["modules"]))
    latency = figures["latency_ms"]
    return [
        Check(name="signatures missing", value=len(missing), bound=0, sense="at most", detail=", ".join(missing)),
        Check(name="modules of ours it needs", value=len(ours), bound=0, sense="at most", detail=", ".join(ours)),
        Check(
            name="difference from the trained model",
            value=differences.get(worst, 0),
            bound=_CLOSE,
            sense="at most",
            detail=f"largest in {worst}",
        ),
        Check(name="answers that are no finite numbers", value=not_finite, bound=0, sense="at most"),
        Check(name="classes misnamed", value=misnamed, bound=0, sense="at most"),
        Check(name="good images called invalid", value=refused, bound=0, sense="at most"),
        Check(
            name="hostile requests called valid",
            value=accepted,
            bound=0,
            sense="at most",
            detail="nothing, HTML, a cut image, 100 MB, 30,000 x 30,000 pixels",
        ),
        Check(name="difference that hostile requests make to others", value=spoilt, bound=_CLOSE, sense="at most"),
        Check(
            name="latency in ms",
            value=latency[1],
            bound=settings.latency_ms,
            sense="at most",
            detail=f"99 of 100 requests; half take {latency[0]:.1f}",
        ),
        Check(name="memory in GiB", value=figures["memory_gib"], bound=settings.memory_gib, sense="at most"),
    ]


class ServingCheckSpec(ComponentSpec):
    PARAMETERS: ClassVar = {"settings": ExecutionParameter(type=str)}
    INPUTS: ClassVar = {
        "model": ChannelParameter(type=standard_artifacts.Model),
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        "schema": ChannelParameter(type=standard_artifacts.Schema),
    }
    OUTPUTS: ClassVar = {"blessing": ChannelParameter(type=standard_artifacts.InfraBlessing)}


class ServingCheck(base_component.BaseComponent):
    """Asks the candidate in a fresh process, and issues the InfraBlessing.

    Args:
        model: the candidate.
        examples: raw examples with a `test` split, which it is asked about.
        schema: carries the class names.
        settings: the bounds.
    """

    SPEC_CLASS = ServingCheckSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        model: types.BaseChannel,
        examples: types.BaseChannel,
        schema: types.BaseChannel,
        settings: ServingCheckSettings,
    ):
        super().__init__(
            ServingCheckSpec(
                model=model,
                examples=examples,
                schema=schema,
                settings=settings.model_dump_json(),
                blessing=types.Channel(type=standard_artifacts.InfraBlessing),
            )
        )


def _difference(found: np.ndarray, wanted: np.ndarray) -> float:
    """The largest; 1, the most that probabilities can differ by, where something is no finite number."""
    return float(np.nan_to_num(np.abs(found - wanted), nan=1, posinf=1).max())


def _failed(name: str, detail: str) -> Check:
    return Check(name=name, value=0, bound=1, detail=detail)


def _resized(image: bytes, number: int) -> bytes:
    """Every other image in an odd size, as clients send them."""
    if number % 2 == 0:
        return image
    picture = to_eight_bits(open_image(image)).convert("RGB")
    out = io.BytesIO()
    picture.thumbnail((200, 200))  # never larger than what serving takes
    picture.resize((picture.width + 7 * number, picture.height + 3)).save(out, "JPEG" if number % 4 == 1 else "PNG")
    return out.getvalue()


def _bomb(before: bytes = b"", side: int = 30_000) -> bytes:
    """A PNG that promises side x side pixels in a few bytes; `before`: the kind of a chunk that hides its header."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    row = zlib.compress(bytes(1 + side // 8))
    hiding = chunk(before, struct.pack(">IIBBBBB", 1, 1, 1, 0, 0, 0, 0)) if before else b""
    return b"\x89PNG\r\n\x1a\n" + hiding + chunk(b"IHDR", header) + chunk(b"IDAT", row) + chunk(b"IEND", b"")


def _joined(strings: dict[str, list[bytes]]) -> dict[str, np.ndarray]:
    """Byte strings as arrays, which need no pickle: joined, and where each ends."""
    arrays = {}
    for name, rows in strings.items():
        arrays[name] = np.frombuffer(b"".join(rows), np.uint8)
        arrays[f"{name}_ends"] = np.cumsum([len(row) for row in rows])
    return arrays
