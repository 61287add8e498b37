"""What a person may set about running the graph on Kubeflow Pipelines."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, SecretStr

from trainer.settings import SettingsGroup

_BYTES = r"^([0-9]{1,15}|[0-9]{1,6}[KMGT]i?)$"

Folder = Annotated[str, Field(pattern=r"^/[^/]")]
SecretKey = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*/[A-Za-z0-9._-]+$")]  # a Secret and a key in it


class Toleration(SettingsGroup):
    """As in Kubernetes: a taint of a node that a step bears."""

    key: str = ""
    operator: Literal["Equal", "Exists"] = "Exists"
    value: str = ""
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = ""


class StepSettings(SettingsGroup):
    """The container of a step. Quantities as Kubernetes writes them."""

    model_config = ConfigDict(coerce_numbers_to_str=True)  # cpu: 4

    image: str = ""  # kubeflow.gpu_image where gpus are asked for, else kubeflow.image
    cpu: str = Field("1", pattern=r"^[0-9]{1,6}(\.[0-9]{1,3})?m?$")  # asked for; more where a machine has it idle
    memory: str = Field("4Gi", pattern=_BYTES)  # asked for, and the most
    gpus: int = Field(0, ge=0, le=1_024)
    gpu_type: str = "nvidia.com/gpu"
    shared_memory: str = Field("", pattern=f"^$|{_BYTES}")  # of /dev/shm, a part of memory; 64 MiB when not given
    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: list[Toleration] = Field(default_factory=list)
    volumes: dict[Folder, str] = Field(default_factory=dict)  # claims, beside kubeflow.claim
    secrets: dict[str, SecretKey] = Field(default_factory=dict)  # environment variables


class KubeflowSettings(SettingsGroup):
    """Where the graph runs. None of it changes a model, so a run does not record it."""

    endpoint: str = "http://localhost:8080"  # of Kubeflow Pipelines, as seen from here: its page's, or its API's
    token: SecretStr = SecretStr("")  # for the endpoint; from the environment, and in no record of the settings
    api: str = "http://ml-pipeline.kubeflow:8888"  # the same as seen from a step
    namespace: str = "kubeflow"  # of the runs
    image: str = ""
    gpu_image: str = ""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    image_pull_secrets: list[str] = Field(default_factory=list)
    service_account: str = "vitpipe-steps"
    claim: str = "vitpipe"  # a ReadWriteMany volume: data and runs lie in it
    mount: Folder = "/vitpipe"  # the folder of every step that relative paths start from
    metadata: str = "mysql://vitpipe@vitpipe-metadata/vitpipe"  # address of ML Metadata, as seen from a step
    metadata_secret: SecretKey = "vitpipe-metadata/password"
    pod_annotations: dict[str, str] = Field(default_factory=dict)
    retries: int = Field(2, ge=0, le=100)
    backoff_seconds: int = Field(60, ge=1, le=86_400)  # before the first retry; doubles
    step: StepSettings = StepSettings()  # of every step
    steps: dict[str, StepSettings] = Field(default_factory=dict)  # what is different in one, by the name of its node

    def step_of(self, node: str) -> StepSettings:
        """The settings of one step."""
        own = self.steps.get(node, StepSettings())
        return self.step.model_copy(update={name: getattr(own, name) for name in own.model_fields_set})
