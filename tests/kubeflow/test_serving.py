"""Manifests of kubeflow/serving/: valid by Kubernetes' schemas and TensorFlow Serving's messages, and consistent."""

from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2
from tensorflow_serving.config import model_server_config_pb2

from tests.helpers import kustomize
from tests.helpers.kustomize import KUBERNETES, resources

SERVING = kustomize.KUBEFLOW / "serving"
CONFIG = SERVING / "config"
MODEL = "vit"
SERVES = f"/v1/models/{MODEL}/metadata"  # answers 200 only while a version is served
ANSWERS = f"/v1/models/{MODEL}"

# Messages that tensorflow-serving-api does not contain. The fields are those of TensorFlow Serving's files
# servables/tensorflow/session_bundle_config.proto and config/monitoring_config.proto.
MESSAGES = {
    "BatchingParameters": {
        "max_batch_size": (1, ".google.protobuf.Int64Value"),
        "batch_timeout_micros": (2, ".google.protobuf.Int64Value"),
        "max_enqueued_batches": (3, ".google.protobuf.Int64Value"),
        "num_batch_threads": (4, ".google.protobuf.Int64Value"),
        "thread_pool_name": (5, ".google.protobuf.StringValue"),
        "allowed_batch_sizes": (6, "repeated INT64"),
        "pad_variable_length_inputs": (7, "BOOL"),
        "enable_large_batch_splitting": (8, ".google.protobuf.BoolValue"),
        "max_execution_batch_size": (9, ".google.protobuf.Int64Value"),
    },
    "PrometheusConfig": {"enable": (1, "BOOL"), "path": (2, "STRING")},
    "MonitoringConfig": {"prometheus_config": (1, ".tensorflow.serving.PrometheusConfig")},
}


def one(folder: str, kind: str) -> dict:
    return kustomize.one(resources(SERVING / folder), kind)


def plain_pod() -> tuple[dict, dict]:
    pod = one("deployment", "Deployment")["spec"]["template"]["spec"]
    return pod, pod["containers"][0]


def kserve_pod() -> tuple[dict, dict]:
    pod = one("kserve", "InferenceService")["spec"]["predictor"]
    return pod, pod["model"]


both = pytest.mark.parametrize("pod_and_container", [plain_pod, kserve_pod])


def flags(container: dict) -> dict[str, str]:
    return dict(arg.removeprefix("--").split("=", 1) for arg in container["args"])


def message(name: str):
    file = descriptor_pb2.FileDescriptorProto(name="serving.proto", package="tensorflow.serving", syntax="proto3")
    file.dependency.append(wrappers_pb2.DESCRIPTOR.name)
    for message_name, fields in MESSAGES.items():
        described = file.message_type.add(name=message_name)
        for field_name, (number, kind) in fields.items():
            repeated = kind.startswith("repeated ")
            kind = kind.removeprefix("repeated ")
            field = described.field.add(name=field_name, number=number)
            field.label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
            if kind.startswith("."):
                field.type, field.type_name = field.TYPE_MESSAGE, kind
            else:
                field.type = getattr(field, f"TYPE_{kind}")
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"tensorflow.serving.{name}"))()


def batching():
    return text_format.Parse((CONFIG / "batching.config").read_text(), message("BatchingParameters"))


def monitoring():
    return text_format.Parse((CONFIG / "monitoring.config").read_text(), message("MonitoringConfig"))


def model():
    config = text_format.Parse(
        (CONFIG / "model.config").read_text(), model_server_config_pb2.ModelServerConfig()
    ).model_config_list.config
    assert len(config) == 1
    return config[0]


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("resource", resources(SERVING / "deployment"), ids=lambda resource: resource["kind"])
def test_the_deployment_is_valid_by_the_schemas_of_kubernetes(resource, version):
    kubernetes_validate.validate(resource, version, strict=True)


@pytest.mark.parametrize("version", KUBERNETES)
def test_an_unknown_field_fails_validation(version):
    deployment = one("deployment", "Deployment")
    deployment["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readinesProbe"):
        kubernetes_validate.validate(deployment, version, strict=True)


@pytest.mark.parametrize("version", KUBERNETES)
def test_the_pod_of_the_inference_service_is_valid(version):
    """The pod is validated. KServe's own fields are only compared with the structure in its documentation."""
    service = one("kserve", "InferenceService")
    assert service["apiVersion"] == "serving.kserve.io/v1beta1"
    assert service["spec"].keys() == {"predictor"}
    predictor = service["spec"]["predictor"]
    model = predictor.pop("model")
    assert {predictor.pop("minReplicas"), predictor.pop("maxReplicas")} == {2}
    assert model.pop("modelFormat") == {"name": "tensorflow", "version": "2"}
    assert model.pop("runtime") == "kserve-tensorflow-serving"
    assert model.pop("protocolVersion") == "v1"
    assert model.pop("runtimeVersion") == plain_pod()[1]["image"].partition(":")[2]
    assert model.pop("storageUri").startswith("pvc://")
    container = {"name": "kserve-container", "image": "the-runtime's", **model}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "vit"},
        "spec": {**predictor, "containers": [container]},
    }
    kubernetes_validate.validate(pod, version, strict=True)


def test_every_manifest_belongs_to_a_kustomization():
    for folder in ("config", "deployment", "kserve"):
        kustomization = yaml.safe_load((SERVING / folder / "kustomization.yaml").read_text())
        generated = [name for entry in kustomization.get("configMapGenerator", []) for name in entry["files"]]
        named = {*kustomization.get("resources", []), *kustomization.get("configurations", []), *generated}
        assert named - {"../config"} == {path.name for path in (SERVING / folder).iterdir()} - {"kustomization.yaml"}


def test_kustomize_finds_the_config_map_of_the_inference_service():
    (reference,) = yaml.safe_load((SERVING / "kserve" / "names.yaml").read_text())["nameReference"]
    (field,) = reference["fieldSpecs"]
    assert (reference["kind"], field["kind"]) == ("ConfigMap", "InferenceService")
    found = [one("kserve", "InferenceService")]
    for part in field["path"].split("/"):
        found = [inner for outer in found for inner in (outer if isinstance(outer, list) else [outer]) if part in inner]
        found = [outer[part] for outer in found]
    assert found == [one("kserve", "ConfigMap")["metadata"]["name"]]


def test_the_model_server_watches_the_serving_folder():
    assert model().model_platform == "tensorflow"
    assert model().model_version_policy.latest.num_versions == 1
    pod, container = plain_pod()
    (claim,) = [volume for volume in pod["volumes"] if "persistentVolumeClaim" in volume]
    (mount,) = [mount for mount in container["volumeMounts"] if mount["name"] == claim["name"]]
    assert mount["readOnly"] is True
    below = Path(model().base_path).relative_to(mount["mountPath"])
    assert below.name == "serving"
    uri = one("kserve", "InferenceService")["spec"]["predictor"]["model"]["storageUri"]
    assert uri == f"pvc://{claim['persistentVolumeClaim']['claimName']}/{below}"


def test_all_configurations_use_one_model_name():
    assert model().name == MODEL
    assert one("kserve", "InferenceService")["metadata"]["name"] == MODEL
    assert "model_name" not in flags(plain_pod()[1])  # model.config names it
    assert "model_name" not in flags(kserve_pod()[1])  # the runtime sets it to the name of the InferenceService


@both
def test_probes_request_the_model(pod_and_container):
    _, container = pod_and_container()
    asked = {kind: container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")}
    assert asked == {"startup": SERVES, "readiness": SERVES, "liveness": ANSWERS}
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    rest = int(flags(container).get("rest_api_port", 8080))  # KServe's runtime sets 8080
    for kind in asked:
        port = container[f"{kind}Probe"]["httpGet"]["port"]
        assert ports.get(port, port) == rest
    startup = container["startupProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] > 6 * 60, "shorter than the server's own six tries"


@both
def test_pods_run_with_minimal_rights(pod_and_container):
    pod, container = pod_and_container()
    assert pod["automountServiceAccountToken"] is False
    security = pod["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] > 0
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert "fsGroup" not in security
    security = container["securityContext"]
    assert security["allowPrivilegeEscalation"] is False
    assert security["readOnlyRootFilesystem"] is True
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert not security.get("privileged")
    writable = [mount["name"] for mount in container["volumeMounts"] if not mount.get("readOnly")]
    assert writable == ["tmp"]
    assert [volume["name"] for volume in pod["volumes"] if "emptyDir" in volume] == writable
    assert {"cpu", "memory"} == container["resources"]["limits"].keys() == container["resources"]["requests"].keys()


def test_the_image_is_pinned_by_tag():
    name, _, tag = plain_pod()[1]["image"].partition(":")
    assert name == "tensorflow/serving"
    assert tag.count(".") == 2 and tag.replace(".", "").isdecimal()


@both
def test_the_server_reads_files_of_its_config_map(pod_and_container):
    pod, container = pod_and_container()
    folder = "deployment" if pod_and_container is plain_pod else "kserve"
    config_map = one(folder, "ConfigMap")
    (volume,) = [volume for volume in pod["volumes"] if "configMap" in volume]
    assert volume["configMap"]["name"] == config_map["metadata"]["name"]
    (mount,) = [mount for mount in container["volumeMounts"] if mount["name"] == volume["name"]]
    read = {flag: Path(value) for flag, value in flags(container).items() if flag.endswith("_file")}
    assert all(path.parent == Path(mount["mountPath"]) and path.name in config_map["data"] for path in read.values())
    unread = config_map["data"].keys() - {path.name for path in read.values()}
    assert unread == (set() if folder == "deployment" else {"model.config"})  # KServe sets model and folder itself


def test_deployment_and_kserve_use_the_same_flags():
    theirs = flags(kserve_pod()[1])
    ours = flags(plain_pod()[1])
    assert {flag: value for flag, value in ours.items() if flag in theirs} == theirs
    assert ours.keys() - theirs.keys() == {"port", "rest_api_port", "model_config_file"}
    for field in ("resources", "lifecycle"):
        assert kserve_pod()[1][field] == plain_pod()[1][field]


def test_threads_fit_cpu_limit_and_batch_size():
    limit = plain_pod()[1]["resources"]["limits"]["cpu"]
    given = flags(plain_pod()[1])
    assert limit == given["tensorflow_intra_op_parallelism"] == given["tensorflow_inter_op_parallelism"]
    parameters = batching()
    assert parameters.num_batch_threads.value == int(limit)
    for flag in ("rest_api_num_threads", "grpc_max_threads"):
        assert int(given[flag]) == 2 * parameters.max_batch_size.value
    assert not parameters.allowed_batch_sizes or parameters.allowed_batch_sizes[-1] == parameters.max_batch_size.value


def test_an_unknown_field_of_tensorflow_serving_fails_to_parse():
    with pytest.raises(text_format.ParseError, match="max_batch"):
        text_format.Parse("max_batch { value: 1 }", message("BatchingParameters"))


@pytest.mark.parametrize("annotated", [("deployment", "Deployment"), ("kserve", "InferenceService")])
def test_prometheus_scrapes_the_path_of_the_metrics(annotated):
    assert monitoring().prometheus_config.enable
    resource = one(*annotated)
    metadata = resource["spec"]["template"]["metadata"] if annotated[1] == "Deployment" else resource["metadata"]
    assert metadata["annotations"]["prometheus.io/path"] == monitoring().prometheus_config.path
    container = (plain_pod if annotated[1] == "Deployment" else kserve_pod)()[1]
    rest = flags(container).get("rest_api_port", "8080")
    assert metadata["annotations"]["prometheus.io/port"] == rest


def test_selectors_match_the_pods():
    deployment = one("deployment", "Deployment")["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    service = one("deployment", "Service")["spec"]
    budget = one("deployment", "PodDisruptionBudget")["spec"]
    for selector in (service["selector"], deployment["selector"]["matchLabels"], budget["selector"]["matchLabels"]):
        assert selector.items() <= labels.items()
    ports = {port["name"] for port in plain_pod()[1]["ports"]}
    assert {port["targetPort"] for port in service["ports"]} == ports
    assert service.get("type", "ClusterIP") == "ClusterIP"  # TensorFlow Serving does not authenticate clients
