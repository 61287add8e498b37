"""Node that rejects a model that cannot answer its clients' requests: TFX's InfraValidator without Docker."""

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
from PIL import Image
from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter
from tfx.utils import io_utils, path_utils

from components.data.ingest import tfrecord
from components.data.ingest.images import as_seen, open_image
from components.model.evaluator.judgement import Check
from components.model.serving_check import client
from components.model.serving_check.bounds import ServingCheckSettings
from trainer.examples import class_names
from trainer.framing import Framing
from trainer.preprocessing import decode_batch
from trainer.serving import load_vit

SIGNATURES = ("explain", "serving_bytes", "serving_default", "serving_images")

_IMAGES = 32
_TOLERANCE = 1e-4  # for probabilities, because batches of other sizes add numbers in another order
_TIMEOUT = 600  # seconds for all requests
_FORBIDDEN = {"components", "pipeline", "trainer", "tfx"}  # modules that a client does not have


class Executor(base_executor.BaseExecutor):
    """Executor of the serving check.

    It completes even if the model does not pass, and sets `blessed` to 0, as `components.model.evaluator.component`
    does.
    """

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Check the model, and write the blessing.

        Args:
            input_dict: The inputs of `ServingCheckSpec`.
            output_dict: `blessing`. Its property `checks` holds a list of `Check`, as JSON.
            exec_properties: The parameters of `ServingCheckSpec`.

        Raises:
            FileNotFoundError: If the SavedModel has no Keras model.
            ValueError: If the Keras model cannot be read.
        """
        settings = ServingCheckSettings.model_validate_json(exec_properties["settings"])
        model = path_utils.serving_model_path(artifact_utils.get_single_uri(input_dict["model"]))
        [examples] = input_dict["examples"]
        shards = sorted(Path(artifact_utils.get_split_uri([examples], "test")).iterdir())
        records = list(islice((record for shard in shards for record in tfrecord.read(shard)), _IMAGES))
        schema_file = io_utils.get_only_uri_in_dir(artifact_utils.get_single_uri(input_dict["schema"]))
        names = class_names(io_utils.SchemaReader().read(schema_file))
        checks = check(model, records, names, settings)
        blessing = artifact_utils.get_single_instance(output_dict["blessing"])
        blessed = all(result.passed for result in checks)
        blessing.set_int_custom_property("blessed", int(blessed))
        blessing.set_string_custom_property("signatures", json.dumps(SIGNATURES))
        blessing.set_string_custom_property("checks", json.dumps([result.model_dump() for result in checks]))
        Path(blessing.uri, "INFRA_BLESSED" if blessed else "INFRA_NOT_BLESSED").touch()


def check(model: str, records: list[bytes], names: list[str], settings: ServingCheckSettings) -> list[Check]:
    """Send requests to a SavedModel in a separate process, and compare its answers with those of the Keras model.

    Args:
        model: Folder of the SavedModel.
        records: Serialized raw examples, at least one, whose images are sent.
        names: Class names of the data, in index order.
        settings: The bounds.

    Returns:
        The checks.

    Raises:
        FileNotFoundError: If the SavedModel has no Keras model.
        ValueError: If the Keras model cannot be read.
    """
    records = records if len(records) > 1 else records * 2
    keras_model = load_vit(model)
    framing = Framing.of(keras_model.config)
    encoded = [_vary_size(tfrecord.parse(record).image, number) for number, record in enumerate(records)]
    examples = [tfrecord.example(image, 0, b"") for image in encoded]
    pixels = decode_batch(tf.constant(encoded), framing)[0].numpy()
    expected = tf.nn.softmax(keras_model.answer(pixels)).numpy()
    hostile = [b"", b"<html>not an image</html>", encoded[0][:20], bytes(100_000_000)]
    hostile += [_bomb(), _bomb(b"abCd"), _jpeg_of_many_scans()]

    with tempfile.TemporaryDirectory() as folder:
        strings = {"encoded": encoded, "examples": examples, "hostile": hostile}
        arrays: dict[str, Any] = {"images": pixels, **_join(strings)}
        np.savez(Path(folder, "requests.npz"), **arrays)
        command = [sys.executable, "-I", client.__file__, model, folder]
        try:
            # TensorFlow's messages quote the bytes of hostile requests, which are not always UTF-8.
            process = subprocess.run(
                command, capture_output=True, text=True, errors="backslashreplace", timeout=_TIMEOUT, cwd=folder
            )
        except subprocess.TimeoutExpired:
            return [_failure("answers in time", f"the process was stopped after {_TIMEOUT} s")]
        if process.returncode:
            last_line = (process.stderr.strip().splitlines() or ["it printed no message"])[-1]
            return [_failure("loads and answers", f"exit code {process.returncode}: {last_line}")]
        figures = json.loads(Path(folder, "figures.json").read_text())
        with np.load(Path(folder, "answers.npz")) as archive:
            answers = {name: archive[name] for name in archive.files}

    def answers_of(output: str, hostile: bool = False) -> dict[str, np.ndarray]:
        """Return the answers of one output, by signature and batch."""
        return {
            name.rpartition("/")[0]: values
            for name, values in answers.items()
            if name.endswith(f"/{output}") and name.startswith("hostile/") == hostile
        }

    probabilities, hostile_probabilities = answers_of("probabilities"), answers_of("probabilities", hostile=True)
    differences = {name: _difference(rows, expected[: len(rows)]) for name, rows in probabilities.items()}
    hostile_effect = max(
        (_difference(rows[[0, -1]], expected[:2]) for rows in hostile_probabilities.values()), default=0.0
    )
    labels = np.array([names[label].encode() if label < len(names) else b"" for label in expected.argmax(axis=1)])
    misnamed = sum(int((classes != labels[: len(classes)]).sum()) for classes in answers_of("class").values())
    misnamed += abs(expected.shape[1] - len(names))
    not_finite = sum(int((~np.isfinite(rows)).any(axis=1).sum()) for rows in probabilities.values())
    rejected = sum(int((~valid).sum()) for valid in answers_of("valid").values())
    accepted = sum(int(valid[1:-1].sum()) for valid in answers_of("valid", hostile=True).values())
    worst = max(differences, key=lambda name: differences[name], default="")
    missing = sorted(set(SIGNATURES) - set(figures["signatures"]))
    forbidden = sorted(_FORBIDDEN & set(figures["modules"]))
    latency = figures["latency_ms"]
    return [
        Check(name="signatures missing", value=len(missing), bound=0, sense="at most", detail=", ".join(missing)),
        Check(
            name="modules of the project needed",
            value=len(forbidden),
            bound=0,
            sense="at most",
            detail=", ".join(forbidden),
        ),
        Check(
            name="difference from the trained model",
            value=differences.get(worst, 0),
            bound=_TOLERANCE,
            sense="at most",
            detail=f"largest in {worst}",
        ),
        Check(name="answers that are not finite", value=not_finite, bound=0, sense="at most"),
        Check(name="misnamed classes", value=misnamed, bound=0, sense="at most"),
        Check(name="valid images rejected", value=rejected, bound=0, sense="at most"),
        Check(
            name="hostile requests accepted",
            value=accepted,
            bound=0,
            sense="at most",
            detail="an empty string, HTML, a truncated image, 100 MB of zeros, 30,000 x 30,000 pixels, 1,000 scans",
        ),
        Check(
            name="effect of hostile requests on other answers",
            value=hostile_effect,
            bound=_TOLERANCE,
            sense="at most",
        ),
        Check(
            name="latency in ms",
            value=latency[1],
            bound=settings.latency_ms,
            sense="at most",
            detail=f"99th percentile; the median is {latency[0]:.1f}",
        ),
        Check(name="memory in GiB", value=figures["memory_gib"], bound=settings.memory_gib, sense="at most"),
    ]


class ServingCheckSpec(ComponentSpec):
    """Specification of `ServingCheck`."""

    PARAMETERS: ClassVar = {"settings": ExecutionParameter(type=str)}
    INPUTS: ClassVar = {
        "model": ChannelParameter(type=standard_artifacts.Model),
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        "schema": ChannelParameter(type=standard_artifacts.Schema),
    }
    OUTPUTS: ClassVar = {"blessing": ChannelParameter(type=standard_artifacts.InfraBlessing)}


class ServingCheck(base_component.BaseComponent):
    """Component that sends requests to the candidate in a new process, and issues the InfraBlessing.

    Args:
        model: The candidate.
        examples: Raw examples with a `test` split, whose images are sent.
        schema: Schema with the class names.
        settings: The bounds.
    """

    SPEC_CLASS = ServingCheckSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        model: types.BaseChannel,
        examples: types.BaseChannel,
        schema: types.BaseChannel,
        settings: ServingCheckSettings,
    ) -> None:
        super().__init__(
            ServingCheckSpec(
                model=model,
                examples=examples,
                schema=schema,
                settings=settings.model_dump_json(),
                blessing=types.Channel(type=standard_artifacts.InfraBlessing),
            )
        )


def _difference(actual: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest difference of probabilities; 1, the largest possible one, if any is not finite."""
    return float(np.nan_to_num(np.abs(actual - expected), nan=1, posinf=1).max())


def _failure(name: str, detail: str) -> Check:
    return Check(name=name, value=0, bound=1, detail=detail)


def _vary_size(image: bytes, number: int) -> bytes:
    """Return every other image in another size and format, because clients send images of any size."""
    if number % 2 == 0:
        return image
    picture = as_seen(open_image(image))
    out = io.BytesIO()
    picture.thumbnail((200, 200))  # so that the result is never larger than serving accepts
    picture.resize((picture.width + 7 * number, picture.height + 3)).save(out, "JPEG" if number % 4 == 1 else "PNG")
    return out.getvalue()


def _bomb(before: bytes = b"", side: int = 30_000) -> bytes:
    """Make a PNG of few bytes that decodes to side x side pixels.

    If `before` is the name of a chunk, such a chunk precedes the header and hides it from readers of the first chunk.
    """

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    row = zlib.compress(bytes(1 + side // 8))
    decoy = chunk(before, struct.pack(">IIBBBBB", 1, 1, 1, 0, 0, 0, 0)) if before else b""
    return b"\x89PNG\r\n\x1a\n" + decoy + chunk(b"IHDR", header) + chunk(b"IDAT", row) + chunk(b"IEND", b"")


def _jpeg_of_many_scans() -> bytes:
    """Make a small progressive JPEG that repeats its last scan. Each scan takes time for every pixel."""
    out = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(out, "JPEG", progressive=True)
    jpeg = out.getvalue()
    last = jpeg.rindex(b"\xff\xda")
    return jpeg[:last] + jpeg[last:-2] * 1_000 + jpeg[-2:]


def _join(strings: dict[str, list[bytes]]) -> dict[str, np.ndarray]:
    """Store lists of byte strings as arrays, without pickle: the joined strings, and the offsets of their ends."""
    arrays = {}
    for name, rows in strings.items():
        arrays[name] = np.frombuffer(b"".join(rows), np.uint8)
        arrays[f"{name}_ends"] = np.cumsum([len(row) for row in rows])
    return arrays
