"""The bounds of the serving check. Imported by the command: it knows neither TFX nor TensorFlow."""

from pydantic import Field

from trainer.settings import SettingsGroup


class ServingCheckSettings(SettingsGroup):
    """Bounds on the probe's process."""

    latency_ms: float = Field(1000, gt=0, le=3_600_000)  # of a request with one image: 99 of 100 take at most this
    memory_gib: float = Field(4.0, gt=0, le=2**20)  # resident, TensorFlow in it
