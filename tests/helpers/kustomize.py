"""What kustomize makes of the folders below kubeflow/, as far as the tests need it.

`resources` reads the files here, and knows of kustomize what it needs for that: resources, and a ConfigMap from files.
`build` asks the real one, where there is one.
"""

import shutil
import subprocess
from pathlib import Path

import yaml

KUBEFLOW = Path(__file__).resolve().parents[2] / "kubeflow"
KUBERNETES = ["1.30", "1.37"]  # whose schemas the manifests are held against


def resources(folder: Path) -> list[dict]:
    """What `kubectl apply -k folder` would send, without a namespace and the digest in the ConfigMap's name."""
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
    """The only resource of a kind, or the one of that name."""
    (match,) = [
        resource for resource in found if resource["kind"] == kind and name in (None, resource["metadata"]["name"])
    ]
    return match


def missing() -> str:
    """Why `build` cannot work here; empty where it can."""
    return "" if _program() else "no kubectl and no kustomize"


def build(folder: Path) -> list[dict]:
    """What kustomize itself makes of a folder."""
    done = subprocess.run([*_program(), str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def _program() -> list[str]:
    for name, command in ("kubectl", "kustomize"), ("kustomize", "build"):
        if shutil.which(name):
            return [name, command]
    return []
