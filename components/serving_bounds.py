"""The bounds of the serving check. Imported by the command: it knows neither TFX nor TensorFlow."""

from pydantic import Field

from trainer.settings import Group


class ServingCheckSettings(Group):
    """Bounds on the probe's process."""

    latency_ms: float = Field(1000, gt=0)  # of a request with one image: 99 of 100 take at most this
    memory_gib: float = Field(4.0, gt=0)  # resident, TensorFlow in it
