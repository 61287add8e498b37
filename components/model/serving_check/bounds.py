"""Bounds of the serving check. Imports neither TFX nor TensorFlow, because the command imports this module."""

from pydantic import Field

from trainer.settings import SettingsGroup


class ServingCheckSettings(SettingsGroup):
    """Bounds on the process that serves the model in the serving check."""

    latency_ms: float = Field(
        1000,
        gt=0,
        le=3_600_000,
        description="Largest 99th percentile of the latency of requests with one image, in milliseconds.",
    )
    memory_gib: float = Field(
        4.0, gt=0, le=2**20, description="Largest resident memory of the process, including TensorFlow, in GiB."
    )
