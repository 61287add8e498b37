"""Settings for running the graph on Kubeflow Pipelines."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field, SecretStr

from trainer.settings import SettingsGroup

_BYTES = r"^([0-9]{1,15}|[0-9]{1,6}[KMGT]i?)$"

Folder = Annotated[str, Field(pattern=r"^/[^/]")]
SecretKey = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*/[A-Za-z0-9._-]+$")]  # a Secret and a key in it


class Toleration(SettingsGroup):
    """Toleration of a node's taint, as in Kubernetes."""

    key: str = Field("", description="Key of the taint. Empty: every key.")
    operator: Literal["Equal", "Exists"] = Field(
        "Exists",
        description="Equal: tolerates only taints with the same value. Exists: tolerates any value.",
    )
    value: str = Field("", description="Value of the taint, for the operator Equal.")
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = Field(
        "", description="Effect of the taint. Empty: every effect."
    )


class StepSettings(SettingsGroup):
    """Settings of a step's container. Quantities are written as in Kubernetes."""

    model_config = ConfigDict(coerce_numbers_to_str=True)  # a user may write `cpu: 4` without quotes

    image: str = Field(
        "", description="Container image. Empty: kubeflow.gpu_image if the step asks for GPUs, else kubeflow.image."
    )
    cpu: str = Field(
        "1",
        pattern=r"^[0-9]{1,6}(\.[0-9]{1,3})?m?$",
        description="CPU cores that are reserved. The step may use more if the machine has idle ones.",
    )
    memory: str = Field("4Gi", pattern=_BYTES, description="Memory that is reserved, which is also the limit.")
    gpus: int = Field(0, ge=0, le=1_024, description="Number of GPUs.")
    gpu_type: str = Field("nvidia.com/gpu", description="Resource name of the GPUs in the cluster.")
    shared_memory: str = Field(
        "", pattern=f"^$|{_BYTES}", description="Size of /dev/shm, which counts as memory. Empty: 64 MiB."
    )
    node_selector: dict[str, str] = Field(
        default_factory=dict, description="Labels that a cluster node must have to run the step."
    )
    tolerations: list[Toleration] = Field(
        default_factory=list, description="Taints of cluster nodes that the step tolerates."
    )
    volumes: dict[Folder, str] = Field(
        default_factory=dict,
        description="Volume claims to mount in addition to kubeflow.claim, by the folder in the container.",
    )
    secrets: dict[str, SecretKey] = Field(
        default_factory=dict, description="Environment variables from Kubernetes secrets, each SECRET/KEY."
    )


class KubeflowSettings(SettingsGroup):
    """Settings of the cluster. None of them changes a model, so a run does not record them."""

    endpoint: str = Field(
        "http://localhost:8080",
        description="Address of Kubeflow Pipelines, either its page or its API, as seen from this machine.",
    )
    token: SecretStr = Field(
        SecretStr(""),
        description="Token for the endpoint. Only an environment variable can set it. It is never recorded.",
    )
    api: str = Field(
        "http://ml-pipeline.kubeflow:8888", description="Address of Kubeflow Pipelines' API as seen from a step."
    )
    namespace: str = Field("kubeflow", description="Kubernetes namespace of the runs.")
    image: str = Field("", description="Container image of the steps.")
    gpu_image: str = Field("", description="Container image of the steps that ask for GPUs.")
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field(
        "IfNotPresent", description="When a node pulls the image, as in Kubernetes."
    )
    image_pull_secrets: list[str] = Field(
        default_factory=list, description="Names of the Kubernetes secrets that images are pulled with."
    )
    service_account: str = Field("vitpipe-steps", description="Kubernetes service account of the steps.")
    claim: str = Field("vitpipe", description="ReadWriteMany volume claim that holds the data and the runs.")
    mount: Folder = Field(
        "/vitpipe", description="Folder in the containers where the claim is mounted. Relative paths start there."
    )
    metadata: str = Field(
        "mysql://vitpipe@vitpipe-metadata/vitpipe", description="Address of ML Metadata as seen from a step."
    )
    metadata_secret: SecretKey = Field(
        "vitpipe-metadata/password", description="Kubernetes secret, SECRET/KEY, with the password of ML Metadata."
    )
    pod_annotations: dict[str, str] = Field(default_factory=dict, description="Annotations of every step's pod.")
    retries: int = Field(2, ge=0, le=100, description="Number of retries of a failed step.")
    backoff_seconds: int = Field(
        60, ge=1, le=86_400, description="Seconds before the first retry. The time doubles with each further retry."
    )
    step: StepSettings = Field(StepSettings(), description="Settings of every step's container.")
    steps: dict[str, StepSettings] = Field(
        default_factory=dict,
        description="Settings of single steps that differ from kubeflow.step, by the id of the node. Without their own "
        "settings, the Tuner and LabelCheck have those of the Trainer.",
    )

    def step_of(self, node: str) -> StepSettings:
        """Return the settings of the step of one node. By default, all steps that train have those of the Trainer."""
        trains = node in ("Tuner", "LabelCheck")
        own = self.steps.get(node, self.steps.get("Trainer") if trains else None) or StepSettings()
        return self.step.model_copy(update={name: getattr(own, name) for name in own.model_fields_set})
