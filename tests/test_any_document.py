"""Any document of ours that somebody has changed is read, or refused with the error that its reader documents."""

import io
import json
import zipfile
from pathlib import Path

import pytest
from hypothesis import event, example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from components.data.ingest import manifest, schema, tfrecord, verify
from components.errors import DataRefused, SettingsError
from components.model.serving_folder import RECORD, problems, read_record
from pipeline import warm_start
from pipeline.settings import Settings
from tests.helpers.damage import damaged
from tests.helpers.documents import any_document
from tests.helpers.spans import write_span
from trainer.warm_start import WarmStart, compare_classes

NAMES = ("cat", "caf\xe9", 'quo"te')
RECORD_DOCUMENT = {
    "version": 1,
    "pushed_at": "2026-01-01T00:00:00Z",
    "run_id": "run-1",
    "model": {"uri": "/m", "created_ms": 1},
    "span": 1,
    "data_digest": "d",
    "code_version": "c",
    "settings_digest": "s",
    "metrics": {"accuracy": 0.9},
    "signatures": ["serving_bytes"],
    "classes": [*NAMES],
    "files": {"saved_model.pb": "0" * 64},
    "override": None,
    "restored_from": None,
    "withdrawn": [{"uri": "/n", "created_ms": 2}],
}
MODEL = {"patch_size": 4, "depth": 6, "width": 256, "heads": 4, "mlp_ratio": 4, "pool": "cls", "conv_stem": False}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A data folder with one span."""
    data = tmp_path_factory.mktemp("data")
    records = {
        split: [tfrecord.example(b"png", label, f"{split}-{label}".encode()) for label in range(len(NAMES))]
        for split in ("train", "val", "test")
    }
    write_span(data, 1, records, NAMES)
    assert verify.problems(data) == []
    return data


@pytest.fixture(scope="module")
def changed_file():
    """changed_file(path, data) replaces a file's content and puts it back at the end of the module."""
    before = {}

    def change(path: Path, content: bytes) -> None:
        before.setdefault(path, path.read_bytes())
        path.write_bytes(content)

    yield change
    for path, content in before.items():
        path.write_bytes(content)


def manifest_document() -> dict:
    """A manifest as `vitpipe data prepare` writes it."""
    return {
        "kind": "images",
        "source": "s",
        "source_sha256": "0" * 64,
        "class_names": [*NAMES],
        "image_shape": [8, 8, 3],
        "recipe": {"seed": 0, "held_out": 0.1, "examples_per_shard": 2500, "max_rejected": 0.01, "classes": None},
        "counts": {split: dict.fromkeys(NAMES, 1) for split in ("train", "val", "test")},
        "shards": {
            f"{split}/part-00000-of-00001.tfrecord": {"examples": 3, "sha256": "0" * 64}
            for split in ("train", "val", "test")
        },
        "rejected": [{"reason": "cut or damaged", "count": 1, "ids": ["a"]}],
        "tool_version": "0",
    }


@given(content=any_document(manifest_document()))
def test_any_manifest(tmp_path_factory, content):
    span = tmp_path_factory.getbasetemp() / "any-manifest" / "span-1"
    span.mkdir(parents=True, exist_ok=True)
    (span / manifest.NAME).write_bytes(content)
    try:
        found = manifest.read(span)
        event("read")
        for name in found.shards:
            assert (span / name).resolve().is_relative_to(span.resolve())
        found.digest()
    except DataRefused as error:
        event("refused")
        assert str(error).startswith(f"{span / manifest.NAME}: ")
        assert len(str(error)) < 5000
    assert verify.span_problems(span)


@given(
    content=st.one_of(
        damaged(schema.text(schema.build(NAMES)).encode()),
        damaged(schema.text(schema.build(NAMES)).encode()),
        st.sampled_from([b"feature { domain_info: {" * 5000, b"string_domain { value: '" + b"\xff" * 9, b"[a.b]: 1"]),
        st.binary(max_size=60),
        st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")),
    )
)
def test_any_schema(data, changed_file, content):
    changed_file(data / schema.NAME, content)
    try:
        schema.read(data)
        event("read")
    except DataRefused as error:
        event("refused")
        assert str(error).startswith(f"{data / schema.NAME}: ")
    verify.problems(data)


@given(content=any_document(RECORD_DOCUMENT))
@example(content=json.dumps(RECORD_DOCUMENT).encode("utf-16"))
def test_any_record_of_a_pushed_model(tmp_path_factory, content):
    version = tmp_path_factory.getbasetemp() / "any-record" / "1"
    version.mkdir(parents=True, exist_ok=True)
    (version / RECORD).write_bytes(content)
    try:
        read_record(version)
        event("read")
        problems(version)
    except ValueError as error:
        event("refused")
        assert str(error).startswith(str(version / RECORD))


@given(content=any_document(compare_classes([*NAMES], ["cat", "dog"], 3).model_dump()))
def test_any_record_of_a_warm_start(content):
    try:
        str(WarmStart.model_validate_json(content))
        event("read")
    except ValidationError:
        event("refused")


def keras_file(config: str | bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", config)
    return out.getvalue()


@st.composite
def keras_files(draw: st.DrawFn) -> bytes:
    """The bytes of a `.keras` file, an archive with the architecture."""
    whole = keras_file(draw(any_document({"class_name": "ViT", "config": MODEL})))
    return draw(st.just(whole) | damaged(whole))


@given(content=keras_files())
@example(content=keras_file('{"config": NaN}'))
@example(content=keras_file("[" * 100_000))
@example(content=keras_file('{"config": {"pool": "' + "x" * 70_000 + '"}}'))
def test_any_architecture_of_a_serving_model(data, tmp_path_factory, content):
    runs = tmp_path_factory.getbasetemp() / "any-keras"
    version = runs / "vitpipe" / "serving" / "1"
    (version / "assets.extra").mkdir(parents=True, exist_ok=True)
    (version / RECORD).write_text(json.dumps(RECORD_DOCUMENT))
    (version / "assets.extra" / "vit.keras").write_bytes(content)
    settings = Settings.model_validate({"runs": runs, "data": {"dir": data}, "training": {"warm_start": True}})
    try:
        assert warm_start.plan(settings, 1).kept == [*NAMES]
        event("read")
    except SettingsError as error:
        event("refused")
        assert str(error).startswith("training.warm_start cannot start from version 1")
        assert len(str(error)) < 5000
