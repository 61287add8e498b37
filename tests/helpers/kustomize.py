"""Resources that kustomize builds from the folders below kubeflow/.

`resources` reads the files in Python, and supports only lists of resources and ConfigMaps from files. `build` calls
kustomize, if it is installed.
"""

import shutil
import subprocess
from pathlib import Path

import yaml

KUBEFLOW = Path(__file__).resolve().parents[2] / "kubeflow"
KUBERNETES = ["1.30", "1.37"]  # the manifests are validated by the schemas of these versions


def resources(folder: Path) -> list[dict]:
    """Return what `kubectl apply -k` would send, without a namespace and the digest in the ConfigMap's name."""
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    found = []
    for name in kustomization.get("resources", []):
        path = folder / name
        found += resources(path) if path.is_dir() else list(yaml.safe_load_all(path.read_text()))
    for generated in kustomization.get("configMapGenerator", []):
        data = {name: (folder / name).read_text() for name in generated["files"]}
        metadata = {"name": generated["name"]}
        found.append({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data})
    return found


def one(found: list[dict], kind: str, name: str | None = None) -> dict:
    """Return the only resource of a kind, or the resource of that kind and name."""
    (match,) = [
        resource for resource in found if resource["kind"] == kind and name in (None, resource["metadata"]["name"])
    ]
    return match


def missing() -> str:
    """Return why `build` cannot work here; empty if it can."""
    return "" if _program() else "no kubectl and no kustomize"


def build(folder: Path) -> list[dict]:
    """Build a folder with kustomize."""
    done = subprocess.run([*_program(), str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def _program() -> list[str]:
    for name, command in ("kubectl", "kustomize"), ("kustomize", "build"):
        if shutil.which(name):
            return [name, command]
    return []
