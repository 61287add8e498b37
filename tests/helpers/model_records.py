"""Records of pushed models."""

from datetime import UTC, datetime

from components.model.serving_folder import ModelId, ModelRecord


def record(version=1, model="/m", **changes):
    """Return a record, with `changes` instead of some of its values."""
    model = model if isinstance(model, ModelId) else ModelId(uri=model, created_ms=version)
    values = {
        "version": version,
        "pushed_at": datetime(2026, 1, 1, tzinfo=UTC),
        "run_id": f"run-{version}",
        "model": model,
        "span": 1,
        "data_digest": "d",
        "code_version": "c",
        "settings_digest": "s",
        "metrics": {"accuracy": 0.9},
        "signatures": ["serving_bytes"],
        "classes": ["a", "b"],
    }
    return ModelRecord(**(values | changes))
