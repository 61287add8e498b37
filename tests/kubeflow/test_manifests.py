"""Manifests of kubeflow/manifests/: valid by Kubernetes' schemas, with minimal rights, equal to package and page."""

import re
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from pipeline.metadata.address import Address
from pipeline.settings import load
from tests.helpers import kustomize, mariadb
from tests.helpers.kustomize import KUBEFLOW, KUBERNETES, one, resources

MANIFESTS = KUBEFLOW / "manifests"
PAGE = KUBEFLOW.parent / "docs" / "kubeflow.md"
IMAGES_USER = 10001
ALL = resources(MANIFESTS / "standalone")
SETTINGS = load("cifar10", environment={})
with (Path(__file__).parent / "cifar10.yaml").open() as _golden:
    PACKAGE, PLATFORM = yaml.safe_load_all(_golden)
STEPS = PLATFORM["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values()

real = pytest.mark.skipif(bool(kustomize.missing()), reason=kustomize.missing())


def pods(found: list[dict]) -> dict[str, dict]:
    """Return the pod templates of resources, by the name of the resource."""
    templates = {}
    for resource in found:
        spec = resource.get("spec", {})
        template = spec.get("jobTemplate", {}).get("spec", spec).get("template")
        if template:
            templates[resource["metadata"]["name"]] = template
    return templates


PODS = pods(ALL)
each_pod = pytest.mark.parametrize("template", PODS.values(), ids=PODS)


def containers(template: dict) -> list[dict]:
    return [*template["spec"].get("initContainers", []), *template["spec"]["containers"]]


def environment(container: dict) -> dict[str, str]:
    return {variable["name"]: variable["value"] for variable in container["env"] if "value" in variable}


def claims(template: dict) -> dict[str, str]:
    """Return the claims of a pod, by the name of the volume."""
    return {
        volume["name"]: volume["persistentVolumeClaim"]["claimName"]
        for volume in template["spec"].get("volumes", [])
        if "persistentVolumeClaim" in volume
    }


def blocks(name: str) -> list[str]:
    """Return the contents of the files with this name on the page."""
    return re.findall(rf"```yaml\n# {re.escape(name)}\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize(
    "resource",
    [*resources(MANIFESTS / "base"), *resources(MANIFESTS / "gcs"), *resources(MANIFESTS / "beam")],
    ids=lambda resource: f"{resource['kind']}-{resource['metadata']['name']}",
)
def test_manifests_are_valid_by_the_schemas_of_kubernetes(resource, version):
    kubernetes_validate.validate(resource, version, strict=True)


def test_every_manifest_belongs_to_a_kustomization():
    for kustomization in MANIFESTS.glob("*/kustomization.yaml"):
        text = kustomization.read_text()
        for file in kustomization.parent.iterdir():
            assert file == kustomization or f" {file.name}\n" in text, file


@real
def test_kustomize_builds_the_resources_that_the_tests_read():
    built = kustomize.build(MANIFESTS / "standalone")
    assert {resource["metadata"]["namespace"] for resource in built} == {SETTINGS.kubeflow.namespace}
    (subject,) = one(built, "RoleBinding")["subjects"]
    assert subject["namespace"] == SETTINGS.kubeflow.namespace
    names = {(resource["kind"], resource["metadata"]["name"].split("-serving-")[0]) for resource in built}
    assert names == {(resource["kind"], resource["metadata"]["name"].removesuffix("-serving")) for resource in ALL}


def test_names_in_the_package_exist_in_the_manifests():
    metadata = one(ALL, "Service", "vitpipe-metadata")
    address = Address.parse(SETTINGS.kubeflow.metadata, password="")
    (port,) = metadata["spec"]["ports"]
    assert (address.host, address.port) == (metadata["metadata"]["name"], port["port"])
    (server,) = PODS["vitpipe-metadata"]["spec"]["containers"]
    variables = environment(server)
    assert (address.database, address.user) == (variables["MARIADB_DATABASE"], variables["MARIADB_USER"])

    assert one(ALL, "ServiceAccount")["metadata"]["name"] == SETTINGS.kubeflow.service_account
    claim = one(ALL, "PersistentVolumeClaim")
    assert claim["metadata"]["name"] == SETTINGS.kubeflow.claim
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for step in STEPS:
        (mount,) = step["pvcMount"]
        assert (mount["pvcNameParameter"]["runtimeValue"]["constant"], mount["mountPath"]) == (
            claim["metadata"]["name"],
            SETTINGS.kubeflow.mount,
        )


@each_pod
def test_every_pod_mounts_the_claim_where_the_steps_do(template):
    for volume, claim in claims(template).items():
        assert claim == SETTINGS.kubeflow.claim
        for container in containers(template):
            (mount,) = [mount for mount in container["volumeMounts"] if mount["name"] == volume]
            assert mount["mountPath"] == SETTINGS.kubeflow.mount
            assert "subPath" not in mount


def test_data_and_models_are_in_the_folders_of_the_preset():
    (data,) = PODS["vitpipe-data"]["spec"]["containers"]
    assert data["workingDir"] == SETTINGS.kubeflow.mount
    assert data["command"][-2:] == ["--out", str(SETTINGS.data.dir)]
    serving = Path(SETTINGS.kubeflow.mount, SETTINGS.runs, SETTINGS.name, "serving")
    assert f'base_path: "{serving}"' in one(ALL, "ConfigMap")["data"]["model.config"]
    (shell,) = PODS["vitpipe-shell"]["spec"]["containers"]
    assert shell["workingDir"] == SETTINGS.kubeflow.mount
    assert environment(shell)["VITPIPE_METADATA__ADDRESS"] == SETTINGS.kubeflow.metadata


def test_the_claim_is_owned_by_the_user_of_the_images():
    owner, folders = containers(PODS["vitpipe-prepare"])
    mount = SETTINGS.kubeflow.mount
    assert owner["command"] == ["chown", f"{IMAGES_USER}:{IMAGES_USER}", mount]
    assert owner["securityContext"]["runAsUser"] == 0
    assert owner["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["CHOWN"]}
    assert folders["command"] == ["mkdir", "-p", f"{mount}/{SETTINGS.data.dir.parent}", f"{mount}/{SETTINGS.runs}"]


@each_pod
def test_pods_run_with_minimal_rights(template):
    pod = template["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False  # else the pod gets variables for each Service of the namespace
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in containers(template):
        security = {**pod["securityContext"], **container["securityContext"]}
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert security["capabilities"]["drop"] == ["ALL"]
        assert {"cpu", "memory"} == container["resources"]["limits"].keys() == container["resources"]["requests"].keys()
        if container["name"] != "owner":  # changes the owner of the claim as root, see the test above
            assert security["runAsNonRoot"] is True and security["runAsUser"] > 0
            assert "add" not in security["capabilities"]
        if container["image"] == "vitpipe":
            assert security["runAsUser"] == security["runAsGroup"] == IMAGES_USER


@each_pod
def test_no_pod_sets_a_group_on_the_claim(template):
    """With an fsGroup, the kubelet may change the group of all files on the claim."""
    assert not (claims(template) and "fsGroup" in template["spec"]["securityContext"])


def test_the_service_account_has_minimal_rights():
    rules = {
        (*rule["apiGroups"], *rule["resources"], *rule.get("resourceNames", [])): set(rule["verbs"])
        for rule in one(ALL, "Role")["rules"]
    }
    assert rules == {
        ("argoproj.io", "workflowtaskresults"): {"create", "patch"},
        ("", "configmaps", "kfp-launcher"): {"get"},
        ("", "secrets", "mlpipeline-minio-artifact"): {"get"},
    }
    binding = one(ALL, "RoleBinding")
    assert binding["roleRef"]["name"] == one(ALL, "Role")["metadata"]["name"]
    assert [subject["name"] for subject in binding["subjects"]] == [SETTINGS.kubeflow.service_account]
    assert not [resource["kind"] for resource in ALL if resource["kind"].startswith("Cluster")]


def admits(caller: dict[str, str], template: dict, port: str | int, found: list[dict] = ALL) -> bool:
    """Return whether the policies let a pod with these labels connect to a port of another pod of the namespace."""
    labels = template["metadata"]["labels"].items()
    selecting = [
        resource["spec"]
        for resource in found
        if resource["kind"] == "NetworkPolicy"
        and resource["spec"]["podSelector"]["matchLabels"].items() <= labels
        and "Ingress" in resource["spec"]["policyTypes"]
    ]
    return not selecting or any(
        {"port": port} in rule.get("ports", [{"port": port}])
        and any(peer["podSelector"].get("matchLabels", {}).items() <= caller.items() for peer in rule["from"])
        for policy in selecting
        for rule in policy.get("ingress", [])
    )


def test_only_pods_of_vitpipe_can_connect_to_the_database():
    database = PODS["vitpipe-metadata"]
    for step in STEPS:
        assert admits(step["podMetadata"]["labels"], database, "mysql")
    assert admits(PODS["vitpipe-shell"]["metadata"]["labels"], database, "mysql")
    assert not admits({"app.kubernetes.io/name": "notebook"}, database, "mysql")
    policy = one(ALL, "NetworkPolicy", "vitpipe-metadata")["spec"]
    assert "Egress" in policy["policyTypes"] and "egress" not in policy


def test_only_the_model_server_accepts_other_pods_of_the_namespace():
    anybody = {"app": "a-client"}
    for name, template in PODS.items():
        for container in containers(template):
            for port in container.get("ports", []):
                assert admits(anybody, template, port["name"]) is (name == "vit")
        assert not admits(anybody, template, "ssh")
    for step in STEPS:
        assert not admits(anybody, {"metadata": {"labels": step["podMetadata"]["labels"]}}, "any")


def test_only_steps_can_send_jobs_and_only_the_engine_can_reach_its_workers():
    policies = resources(MANIFESTS / "beam")
    worker = {"app.kubernetes.io/name": "vitpipe-beam"}
    server = worker | {"app.kubernetes.io/component": "job-service"}

    def is_admitted(caller, labels, port):
        return admits(caller, {"metadata": {"labels": labels}}, port, policies)

    for port in 8099, 8098, 50000, 8081:
        assert is_admitted(worker, server, port) and is_admitted(worker, worker, port)
        assert not is_admitted({"app": "a-client"}, server, port) and not is_admitted({"app": "a-client"}, worker, port)
        for step in STEPS:
            assert is_admitted(step["podMetadata"]["labels"], server, port) is (port in (8099, 8098))
            assert not is_admitted(step["podMetadata"]["labels"], worker, port)


def test_the_manifests_contain_no_secret():
    assert not [resource for resource in ALL if resource["kind"] == "Secret"]
    for template in PODS.values():
        for container in containers(template):
            for variable in container.get("env", []):
                secret = "PASSWORD" in variable["name"] and not variable["name"].endswith("_FILE")
                assert ("value" in variable) is not secret, variable


def test_the_secret_on_the_page_has_the_keys_that_pods_read():
    made = re.search(r"kubectl create secret generic (.*?)\n```", PAGE.read_text(), re.DOTALL)
    assert made
    assert " vitpipe-metadata " in made[1]
    keys = set(re.findall(r"--from-file=([a-z-]+)=<", made[1]))
    pod = PODS["vitpipe-metadata"]["spec"]
    (volume,) = [volume for volume in pod["volumes"] if "secret" in volume]
    (server,) = pod["containers"]
    (mount,) = [mount for mount in server["volumeMounts"] if mount["name"] == volume["name"]]
    files = [Path(value) for name, value in environment(server).items() if name.endswith("_FILE")]
    assert {path.name for path in files} == keys and {str(path.parent) for path in files} == {mount["mountPath"]}
    assert volume["secret"]["secretName"] == "vitpipe-metadata"
    (shell,) = PODS["vitpipe-shell"]["spec"]["containers"]
    (reference,) = [variable["valueFrom"]["secretKeyRef"] for variable in shell["env"] if "valueFrom" in variable]
    assert f"{reference['name']}/{reference['key']}" == SETTINGS.kubeflow.metadata_secret
    assert reference["name"] == "vitpipe-metadata" and reference["key"] in keys


@pytest.mark.mysql
@pytest.mark.skipif(bool(mariadb.missing()), reason=mariadb.missing())
def test_mariadb_accepts_its_arguments():
    (server,) = PODS["vitpipe-metadata"]["spec"]["containers"]

    def check(*arguments: str) -> int:
        command = ["mariadbd", "--no-defaults", "--user=mysql", *arguments, "--verbose", "--help"]
        return subprocess.run(command, capture_output=True, env={"PATH": "/usr/sbin:/usr/bin:/bin"}).returncode

    assert check(*server["args"]) == 0
    assert check("--ignore-db-folders=lost+found") != 0


def test_selectors_match_their_pods():
    for resource in ALL:
        if resource["kind"] == "Service":
            name = resource["metadata"]["name"]
            assert resource["spec"]["selector"].items() <= PODS[name]["metadata"]["labels"].items()
            ports = {port["name"] for container in containers(PODS[name]) for port in container["ports"]}
            assert {port["targetPort"] for port in resource["spec"]["ports"]} <= ports
        if resource["kind"] in ("StatefulSet", "Deployment"):
            selector = resource["spec"]["selector"]["matchLabels"]
            assert selector.items() <= resource["spec"]["template"]["metadata"]["labels"].items()


def test_page_and_manifests_name_one_version_of_kubeflow_pipelines():
    (resource,) = yaml.safe_load((MANIFESTS / "pipelines" / "kustomization.yaml").read_text())["resources"]
    version = resource.partition("?ref=")[2]
    assert set(re.findall(r"\?ref=([\w.]+)", PAGE.read_text())) == {version}
    assert f"Install version {version}." in PAGE.read_text()


def deployed(tmp_path: Path, block: str) -> list[dict]:
    """Build a kustomization of the page, with the checkout beside it."""
    (tmp_path / "vitpipe").symlink_to(KUBEFLOW.parent)
    (tmp_path / "deploy").mkdir()
    (tmp_path / "deploy" / "kustomization.yaml").write_text(block)
    return kustomize.build(tmp_path / "deploy")


@real
@pytest.mark.parametrize("version", KUBERNETES)
def test_the_kustomization_on_the_page_is_valid(tmp_path, version):
    on_volume, _ = blocks("deploy/kustomization.yaml")
    found = deployed(tmp_path, on_volume)
    for resource in found:
        kubernetes_validate.validate(resource, version, strict=True)
    assert one(found, "PersistentVolumeClaim")["spec"]["storageClassName"] == "nfs"
    images = {container["image"] for template in pods(found).values() for container in containers(template)}
    assert {image for image in images if "vitpipe" in image} == {"registry.example/vitpipe:1"}


@real
@pytest.mark.parametrize("version", KUBERNETES)
def test_the_kustomization_for_a_bucket_is_valid(tmp_path, version):
    _, on_bucket = blocks("deploy/kustomization.yaml")
    found = deployed(tmp_path, on_bucket)
    for resource in found:
        kubernetes_validate.validate(resource, version, strict=True)
    claim, volume = one(found, "PersistentVolumeClaim"), one(found, "PersistentVolume")
    assert claim["spec"]["volumeName"] == volume["metadata"]["name"]
    for field in ("storageClassName", "accessModes"):
        assert claim["spec"][field] == volume["spec"][field]
    assert claim["spec"]["resources"]["requests"]["storage"] == volume["spec"]["capacity"]["storage"]
    assert volume["spec"]["mountOptions"] == [f"uid={IMAGES_USER}", f"gid={IMAGES_USER}"]
    mounting = {name: template for name, template in pods(found).items() if claims(template)}
    assert mounting.keys() == {"vit", "vitpipe-data", "vitpipe-prepare", "vitpipe-shell"}
    for template in mounting.values():
        assert template["metadata"]["annotations"]["gke-gcsfuse/volumes"] == "true"
        assert template["spec"]["serviceAccountName"] == SETTINGS.kubeflow.service_account
        assert not template["spec"].get("initContainers")  # a bucket has no owner to change


def test_the_settings_on_the_page_are_valid(tmp_path):
    on_volume, on_bucket = blocks("deploy/cifar10.yaml")
    file = tmp_path / "cifar10.yaml"
    file.write_text(on_volume)
    settings = load(str(file), environment={})
    assert settings.name == "cifar10" and settings.kubeflow.gpu_image
    file.write_text(on_bucket)
    assert load(str(file), environment={}).kubeflow.pod_annotations == {"gke-gcsfuse/volumes": "true"}


def test_files_on_the_page_exist():
    for name in re.findall(r"kubeflow/(?:manifests|serving)[\w./-]*", PAGE.read_text()):
        assert (KUBEFLOW.parent / name.rstrip(".")).exists(), name
