"""The packages that the CPU image leaves out are not imported by any step or command."""

import json
import os
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution

from tests.helpers.walk import ROOT

# Imports every module of ours, while the files of some packages cannot be imported. Modules of a namespace such as
# `google.cloud` belong to several packages, so the files are compared, not the names.
PROGRAM = """
import importlib, importlib.machinery, json, os, pkgutil, sys

left_out = set(json.load(sys.stdin))

class WithoutPackages(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        spec = super().find_spec(name, path, target)
        if spec and spec.origin and os.path.realpath(spec.origin) in left_out:
            raise ModuleNotFoundError(f"{name} is not in the image: {spec.origin}", name=name)
        return spec

sys.meta_path[sys.meta_path.index(importlib.machinery.PathFinder)] = WithoutPackages

for name in sys.argv[1:]:
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, f"{name}."):
        if module.name.rpartition(".")[2] != "__main__":
            importlib.import_module(module.name)
"""


def locked(name: str) -> set[str]:
    lines = (ROOT / "requirements" / name).read_text().splitlines()
    return {line.partition("==")[0] for line in lines if re.match(r"[\w.-]+==", line)}


def files(packages: set[str]) -> list[str]:
    """Return the files of the packages that are installed here. Some are for other systems only."""
    found = []
    for package in packages:
        try:
            installed = distribution(package)
        except PackageNotFoundError:
            continue
        found += [os.path.realpath(installed.locate_file(file)) for file in installed.files or []]
    return found


def import_modules(left_out: list[str], *packages: str) -> subprocess.CompletedProcess:
    line = [sys.executable, "-W", "ignore", "-c", PROGRAM, *packages]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(line, input=json.dumps(left_out), capture_output=True, text=True, env=environment)


def test_no_module_imports_a_package_that_the_cpu_image_leaves_out():
    left_out = files(locked("base.txt") - locked("steps.txt"))
    assert any("aiplatform" in file for file in left_out)
    done = import_modules(left_out, "vitpipe", "kubeflow", "pipeline", "components", "trainer")
    assert done.returncode == 0, done.stderr[-2000:]


def test_an_import_of_a_package_that_is_left_out_would_fail():
    done = import_modules(files({"pyyaml"}), "pipeline")
    assert done.returncode == 1 and "yaml is not in the image" in done.stderr
