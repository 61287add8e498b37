"""The doctor in working and in broken environments. Broken libraries are placed first on PYTHONPATH."""

import contextlib
import importlib.metadata
import json
import sqlite3
import sys

import pytest
import typer
from typer.testing import CliRunner

from pipeline.metadata.address import ADDRESS
from tests.helpers.stores import make_store
from vitpipe import doctor
from vitpipe.cli import doctor as command
from vitpipe.doctor import CHECKS, Diagnosis, Health

app = typer.Typer()
app.command()(command.doctor)


@pytest.fixture
def first_on_path(tmp_path, monkeypatch):
    """Folder that the processes of the doctor search before all installed packages."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


def examine(*names: str) -> dict[str, Diagnosis]:
    return dict(doctor.examine(names))


def add_distribution(folder, name: str, version: str) -> None:
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def test_a_working_environment_has_no_problem():
    result = CliRunner().invoke(app, ["--json"], env={"TF_USE_LEGACY_KERAS": None})
    findings = json.loads(result.stdout)
    assert set(findings[0]) == {"check", "verdict", "found", "fix"}
    assert [finding["check"] for finding in findings] == list(CHECKS)
    assert [finding for finding in findings if finding["verdict"] == "problem"] == []
    assert result.exit_code == 0
    by_check = {finding["check"]: finding["found"] for finding in findings}
    assert by_check["TensorFlow"].startswith("2.21.")
    assert by_check["Keras"].endswith("on tensorflow")
    assert by_check["ML Metadata"].endswith("writes and reads")
    assert by_check["TFDV"].endswith("measures and validates")


def test_broken_libraries_are_problems_with_a_fix(first_on_path):
    (first_on_path / "tensorflow.py").write_text("raise ImportError('libcudart.so.99: cannot open')")
    (first_on_path / "ml_metadata.py").write_text("raise RuntimeError('half an installation')")
    result = CliRunner().invoke(app, env={"COLUMNS": "200"})
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    lines = {name: line for name in CHECKS for line in result.stdout.splitlines() if line.strip().startswith(name)}
    assert all(
        word in lines["ML Metadata"] for word in ("problem", "RuntimeError: half an installation", doctor.REINSTALL)
    )
    assert all(word in lines["TensorFlow"] for word in ("problem", "ImportError: libcudart.so.99: cannot open"))
    assert "Traceback" not in result.output


def test_checks_continue_after_a_library_crashes_the_process(first_on_path):
    (first_on_path / "ml_metadata.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    (first_on_path / "apache_beam.py").write_text("import sys; sys.exit('no coders here')")
    findings = examine("Python", "ML Metadata", "Beam", "Disk")
    assert list(findings) == ["Python", "ML Metadata", "Beam", "Disk"]
    assert findings["ML Metadata"] == Diagnosis(
        Health.PROBLEM, "the process of this check ended: killed by SIGSEGV", doctor.REINSTALL
    )
    assert findings["Beam"].found == "the process of this check ended: exit status 1, no coders here"
    assert findings["Disk"].found.endswith("free here")


def test_output_of_a_library_does_not_mix_with_the_findings(first_on_path):
    (first_on_path / "apache_beam.py").write_text("__version__ = '9.9'; print('{not json', flush=True)")
    assert examine("Beam") == {"Beam": Diagnosis(Health.OK, "9.9")}


def test_without_kfp_local_runs_still_work(first_on_path):
    (first_on_path / "kfp.py").write_text("raise ImportError('gone')")
    assert examine("Kubeflow Pipelines")["Kubeflow Pipelines"].verdict == Health.WARNING


@pytest.mark.parametrize("value", ["1", "true", "True"])
def test_legacy_keras_is_a_problem(monkeypatch, value):
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", value)
    finding = examine("Keras")["Keras"]
    assert (finding.verdict, finding.fix) == (Health.PROBLEM, "unset TF_USE_LEGACY_KERAS")


def test_an_installed_kubeflow_sdk_is_a_problem(first_on_path):
    assert examine("Kubeflow SDK")["Kubeflow SDK"].verdict == Health.OK
    add_distribution(first_on_path, "kubeflow", "0.3.0")
    finding = examine("Kubeflow SDK")["Kubeflow SDK"]
    assert finding.verdict == Health.PROBLEM
    assert finding.found == "0.3.0 is installed: its package kubeflow hides that of vitpipe"


def test_a_version_that_differs_from_the_lock_is_a_warning(first_on_path):
    add_distribution(first_on_path, "rich", "0.0.1")
    finding = examine("Lock")["Lock"]
    assert finding.verdict == Health.WARNING
    assert "rich 0.0.1 (lock ==" in finding.found


@pytest.mark.parametrize(("name", "health"), [("libclang", Health.OK), ("rich", Health.WARNING)])
def test_only_packages_that_the_cpu_image_leaves_out_may_be_missing(monkeypatch, name, health):
    version = importlib.metadata.version

    def without(package):
        if package == name:
            raise importlib.metadata.PackageNotFoundError(package)
        return version(package)

    monkeypatch.setattr(importlib.metadata, "version", without)
    finding = doctor.lock()
    assert finding.verdict == health, finding
    assert (f"{name} missing" in finding.found) == (health is Health.WARNING)


def test_the_memory_limit_of_a_container_is_respected(tmp_path):
    gib = 1 << 30
    (tmp_path / "memory.current").write_text(f"{gib}\n")
    (tmp_path / "memory.stat").write_text(f"anon 1\ninactive_file {gib // 2}\nactive_file 1\n")
    (tmp_path / "memory.max").write_text(f"{gib * 3 // 2}\n")
    finding = doctor.memory(tmp_path)
    assert finding.verdict == Health.WARNING
    assert finding.found == "1.0 GiB available of this container's 1.5 GiB"  # inactive file cache counts as available
    assert "container" in finding.fix

    machine = doctor.memory(tmp_path / "no-such-group").found
    (tmp_path / "memory.max").write_text("max\n")
    assert "container" not in doctor.memory(tmp_path).found
    (tmp_path / "memory.max").write_text(f"{1 << 50}\n")
    assert "container" not in machine + doctor.memory(tmp_path).found


def test_a_moved_run_folder_is_reported(tmp_path, monkeypatch):
    make_store(tmp_path / "before" / "runs" / "sample" / "metadata.db", runs=2)
    for artifact in ("ImportExampleGen/0/examples", "Trainer/0/model"):
        (tmp_path / "before" / "runs" / "sample" / "root" / artifact).mkdir(parents=True)
    (tmp_path / "before").rename(tmp_path / "after")
    monkeypatch.setenv("VITPIPE_RUNS", str(tmp_path / "after" / "runs"))
    finding = doctor.runs()
    assert finding.verdict is Health.WARNING and "vitpipe run" in finding.fix
    assert f"was moved or copied from {tmp_path}/before/runs/sample" in finding.found and "are gone" in finding.found


def test_an_invalid_store_address_is_a_problem(monkeypatch):
    monkeypatch.setenv(ADDRESS, "mysql://nobody")
    finding = doctor.runs()
    assert finding.verdict is Health.PROBLEM and ADDRESS in finding.fix


def test_unusable_run_folders_are_a_problem(tmp_path, monkeypatch):
    monkeypatch.setenv("VITPIPE_RUNS", str(tmp_path / "runs"))
    assert doctor.runs().verdict is Health.OK  # the first run creates it
    (tmp_path / "runs" / "sample" / ".lock").mkdir(parents=True)
    finding = doctor.runs()
    assert finding.verdict is Health.PROBLEM and "sample/.lock is not a file" in finding.found
    (tmp_path / "runs" / "sample" / ".lock").rmdir()
    (tmp_path / "runs" / "sample" / "metadata.db").write_bytes(b"")
    assert doctor.runs().verdict is Health.WARNING
    (tmp_path / "runs" / "sample" / "metadata.db").write_bytes(b"no database " * 999)
    finding = doctor.runs()
    assert finding.verdict is Health.PROBLEM and "metadata.db is damaged" in finding.found
    (tmp_path / "runs" / "sample" / "metadata.db").unlink()
    with contextlib.closing(sqlite3.connect(tmp_path / "runs" / "sample" / "metadata.db")) as other:
        other.execute("CREATE TABLE cookies (name TEXT)")
    finding = doctor.runs()
    assert finding.verdict is Health.PROBLEM and "is not a store of ML Metadata" in finding.found
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("VITPIPE_RUNS", str(tmp_path / "file"))
    monkeypatch.setenv("VITPIPE_DATA__DIR", str(tmp_path / "file"))
    for finding in doctor.runs(), doctor.data():
        assert finding.verdict is Health.PROBLEM and "Not a directory" in finding.found


def test_a_package_that_hides_ours_is_a_problem(tmp_path, monkeypatch):
    assert doctor.packages().verdict is Health.OK
    (tmp_path / "kubeflow").mkdir()
    (tmp_path / "kubeflow" / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "kubeflow", raising=False)
    finding = doctor.packages()
    assert finding.verdict is Health.PROBLEM and f"{tmp_path / 'kubeflow' / '__init__.py'} shadows" in finding.found
