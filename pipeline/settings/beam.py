"""Settings of the engine that runs the Beam jobs of a run."""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from trainer.settings import SettingsGroup

# Beam options that the other settings of the group decide.
_OWN = {
    "runner": "beam.runner",
    "job_endpoint": "beam.job_service",
    "artifact_endpoint": "beam.artifact_service",
    "environment_type": "beam.worker_pool",
    "environment_config": "beam.worker_pool",
    "parallelism": "beam.parallelism",
    "sdk_worker_parallelism": "beam.workers",
}


def _checked_address(address: str) -> str:
    host, _, port = address.rpartition(":")
    if address and not (
        re.fullmatch(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]", host)
        and re.fullmatch(r"[1-9][0-9]{0,4}", port)
        and int(port) < 2**16
    ):
        raise ValueError("it is not an address: write HOST:PORT with a port from 1 to 65535, or leave it empty")
    return address


HostPort = Annotated[str, AfterValidator(_checked_address)]


class BeamSettings(SettingsGroup):
    """Settings of the engine. None of them changes an artifact's content, so no cache key depends on them."""

    model_config = ConfigDict(coerce_numbers_to_str=True)  # a user may write `options: {NAME: 4}` without quotes

    runner: Literal["local", "flink", "spark", "portable"] = Field(
        "local",
        description="Engine of the Beam jobs. local: the process of the step. flink, spark, portable: the job "
        "service of Flink, of Spark, or of another engine, see beam.job_service.",
    )
    job_service: HostPort = Field(
        "", description="HOST:PORT of the engine's job service. Required by every engine, and unused by local."
    )
    artifact_service: HostPort = Field(
        "", description="HOST:PORT of the job service's artifact service. Empty: the address that the service reports."
    )
    worker_pool: HostPort = Field(
        "",
        description="HOST:PORT of the pool that starts worker processes, as seen from the machines of the engine. "
        "Required by every engine, and unused by local.",
    )
    workers: int = Field(
        1, ge=1, le=1_024, description="Number of worker processes that each machine of the engine starts in its pool."
    )
    parallelism: int | None = Field(
        None, ge=1, le=100_000, description="Number of parallel tasks of a Flink job. null: the default of the cluster."
    )
    attempts: int = Field(
        3,
        ge=1,
        le=100,
        description="Number of times that a step is started if the engine fails, for example because a worker was "
        "killed. Other errors are not repeated. On Kubeflow, kubeflow.retries decides.",
    )
    options: dict[str, str] = Field(
        default_factory=dict,
        description="More options of Beam or the engine, by their name without dashes. An empty value is a flag. Runs "
        "record them, so do not put passwords there. They must not change the code or environment of workers, because "
        "the cache would not notice it.",
    )

    @model_validator(mode="after")
    def check_engine(self) -> Self:
        """Check that the settings belong to the engine, and that an engine has a job service."""
        if self.runner == "local":
            for name, field in type(self).model_fields.items():
                if name != "runner" and (value := getattr(self, name)) != field.get_default(call_default_factory=True):
                    raise ValueError(
                        f"beam.{name} {value} has no effect with beam.runner local: set beam.runner to flink, spark or "
                        f"portable, or remove beam.{name}"
                    )
        else:
            for name, what in ("job_service", "job service"), ("worker_pool", "pool of workers"):
                if not getattr(self, name):
                    raise ValueError(
                        f"beam.runner {self.runner} requires beam.{name}, which is empty: set it to the HOST:PORT of "
                        f"the {what}, or set beam.runner to local"
                    )
        if self.parallelism and self.runner != "flink":
            raise ValueError(
                f"beam.parallelism {self.parallelism} has no effect with beam.runner {self.runner}: remove it; only "
                "flink has it"
            )
        return self

    @model_validator(mode="after")
    def check_options(self) -> Self:
        """Check that options are names, and do not contradict the other settings."""
        for name in self.options:
            if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
                raise ValueError(f"beam.options: {name!r} is not the name of an option: write it without dashes")
            if name in _OWN:
                raise ValueError(f"beam.options.{name} {self.options[name]!r}: use the setting {_OWN[name]} instead")
        return self
