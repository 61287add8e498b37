"""Checks whether a run would work on this machine with its libraries, and how to fix each problem.

The checks import and use the libraries that a run uses. They run one after another in a separate process, so that a
library that cannot be loaded, or that crashes the process, becomes a finding like any other.
"""

import importlib.metadata
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from components.errors import StoreError
from pipeline.metadata.address import ADDRESS, Address
from pipeline.metadata.reader import reader
from vitpipe.shadowing import shadows

if TYPE_CHECKING:
    from packaging.requirements import Requirement

LOCK = Path(__file__).resolve().parents[1] / "requirements" / "base.txt"
GIB = 1 << 30
REINSTALL = "rm -r .venv && make setup"  # without the rm, make considers .venv up to date and does nothing
GPU_LOCK = "run `make setup LOCK=gpu`, or use the GPU image in a container"


class Health(StrEnum):
    """Severity of a finding."""

    OK = "ok"
    WARNING = "warning"  # local runs work, something else may not
    PROBLEM = "problem"  # a run would fail


class Diagnosis(NamedTuple):
    """Finding of one check.

    Attributes:
        verdict: the severity of the finding.
        found: what the check found, in words.
        fix: what to do about it; empty if there is nothing to do.
    """

    verdict: Health
    found: str
    fix: str = ""


def python() -> Diagnosis:
    """Check that this version of Python is supported."""
    supported = (3, 11) <= sys.version_info[:2] <= (3, 13)
    found = f"{platform.python_version()}, {sys.executable}"
    return Diagnosis(Health.OK, found) if supported else Diagnosis(Health.PROBLEM, found, "use Python 3.11 to 3.13")


def host() -> Diagnosis:
    """Check the platform and, with a glibc below 2.39, that requirements/old_glibc.py has patched the wheels."""
    libc, version = platform.libc_ver()
    found = f"{platform.system()} {platform.machine()} {libc} {version}".rstrip()
    if (platform.system(), platform.machine(), libc) != ("Linux", "x86_64", "glibc"):
        return Diagnosis(
            Health.WARNING,
            found,
            "use Linux x86-64 with glibc: TFDV and ML Metadata have no wheels for other platforms",
        )
    if tuple(map(int, version.split(".")[:2])) >= (2, 39):
        return Diagnosis(Health.OK, found)
    for name in ("tensorflow-data-validation", "ml-metadata"):
        extensions = [file.locate() for file in importlib.metadata.files(name) or [] if file.suffix == ".so"]
        if not all(_is_patched(str(extension)) for extension in extensions):
            return Diagnosis(Health.PROBLEM, f"{found}, and {name} is not patched for it", REINSTALL)
    return Diagnosis(Health.OK, f"{found}, TFDV and ML Metadata patched for it")


def _is_patched(extension: str) -> bool:
    """Return whether the extension has a weak version requirement, which only old_glibc.py writes."""
    import lief

    binary = lief.ELF.parse(extension)
    if not isinstance(binary, lief.ELF.Binary):
        return False
    weak = 2
    return any(aux.flags & weak for lib in binary.symbols_version_requirement for aux in lib.get_auxiliary_symbols())


def disk() -> Diagnosis:
    """Check the free space of the disk that holds the current folder."""
    free = shutil.disk_usage(Path.cwd()).free / GIB
    verdict = Health.PROBLEM if free < 1 else Health.WARNING if free < 5 else Health.OK
    return Diagnosis(verdict, f"{free:.1f} GiB free here", "" if free >= 5 else "free some space, or use another disk")


def memory(cgroup: Path = Path("/sys/fs/cgroup")) -> Diagnosis:
    """Check the available memory of the machine, or of its container if that is less.

    Args:
        cgroup: the folder of the container's control group.
    """
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return Diagnosis(
            Health.OK, f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / GIB:.1f} GiB in total"
        )
    kibibytes = dict(line.split(":") for line in meminfo.read_text().splitlines())["MemAvailable"].split()[0]
    available = int(kibibytes) * 1024 / GIB
    found, fix = f"{available:.1f} GiB available", "close other programs: a run on many images may be killed"
    limit = cgroup / "memory.max"  # absent outside containers, because the root group has no limit
    if limit.is_file() and limit.read_text().strip() != "max":
        maximum, used = (int((cgroup / name).read_text()) for name in ("memory.max", "memory.current"))
        cache = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())["inactive_file"]
        container = (maximum - used + int(cache)) / GIB
        if container < available:
            available = container
            found = f"{container:.1f} GiB available of this container's {maximum / GIB:.1f} GiB"
            fix = "give the container more memory: a run on many images may be killed"
    return Diagnosis(Health.OK, found) if available >= 4 else Diagnosis(Health.WARNING, found, fix)


def lock() -> Diagnosis:
    """Compare the installed packages with the lock file, whose versions were tested together."""
    if not LOCK.is_file():
        return Diagnosis(Health.OK, f"no {LOCK.parent.name}/{LOCK.name} beside the code, so nothing to compare with")
    pins = _pins(LOCK)
    # The CPU image leaves out packages that no command imports.
    lock_of_image = LOCK.with_name("steps.txt")
    in_image = {pin.name for pin in (_pins(lock_of_image) if lock_of_image.is_file() else pins)}
    drift = []
    for pin in pins:
        if pin.marker and not pin.marker.evaluate():
            continue
        try:
            installed = importlib.metadata.version(pin.name)
        except importlib.metadata.PackageNotFoundError:
            if pin.name not in in_image:
                continue
            installed = "missing"
        if installed != str(pin.specifier).removeprefix("=="):
            drift.append(f"{pin.name} {installed} (lock {pin.specifier})")
    if not drift:
        return Diagnosis(Health.OK, f"all packages have the versions of {LOCK.parent.name}/{LOCK.name}")
    more = f" and {len(drift) - 5} more" if len(drift) > 5 else ""
    return Diagnosis(Health.WARNING, ", ".join(drift[:5]) + more, REINSTALL)


def _pins(lock_file: Path) -> "list[Requirement]":
    from packaging.requirements import Requirement

    lines = lock_file.read_text().splitlines()
    return [Requirement(line.rstrip(" \\")) for line in lines if line[:1] not in ("", " ", "#")]


def kubeflow_sdk() -> Diagnosis:
    """Check that the Kubeflow SDK is absent: its package `kubeflow` and ours would hide each other."""
    try:
        version = importlib.metadata.version("kubeflow")
    except importlib.metadata.PackageNotFoundError:
        return Diagnosis(Health.OK, "not installed, which is right: its package has the name of one of vitpipe's")
    fix = "uninstall the distribution kubeflow, or keep it in a separate environment"
    return Diagnosis(Health.PROBLEM, f"{version} is installed: its package kubeflow hides that of vitpipe", fix)


def packages() -> Diagnosis:
    """Check that no other package hides one of ours by having its name."""
    if hidden := shadows():
        return Diagnosis(
            Health.PROBLEM,
            "; ".join(hidden),
            "follow the advice of the message: Python must find all packages of vitpipe",
        )
    return Diagnosis(Health.OK, "no other package hides one of vitpipe's")


def runs() -> Diagnosis:
    """Check that a run can write below the run folders, and that all recorded artifacts and models still exist."""
    from pipeline.metadata import relocation
    from pipeline.metadata.stores import server

    folder = Path(os.environ.get("VITPIPE_RUNS", "runs"))
    try:
        server_address = server()
    except StoreError as error:
        return Diagnosis(Health.PROBLEM, str(error), f"correct {ADDRESS}")
    problems, warnings = _folder_problems(folder), []
    readable = not problems and folder.is_dir()
    run_folders = [path for path in sorted(folder.iterdir()) if path.is_dir()] if readable else []
    for run_folder in run_folders:
        own_problems = _folder_problems(run_folder)
        problems += own_problems
        address = server_address or Address(file=run_folder / "metadata.db")
        if own_problems:
            continue
        if address.file and address.file.exists() and address.file.stat().st_size == 0:
            warnings.append(f"{address.file} is empty")
            continue
        try:
            if address.file is None or address.file.exists():
                with reader(address):  # raises if the file is the database of another program
                    pass
            warnings += relocation.problems(address, run_folder.resolve())
        except StoreError as error:
            problems.append(str(error))
    fine = f"{len(run_folders)} run folder(s), all readable and writable; every artifact and pushed model exists"
    return _diagnose_folder(folder, list(dict.fromkeys(problems)), warnings, fine)


def data() -> Diagnosis:
    """Check that data can be prepared, and that existing data can be read."""
    folder = Path(os.environ.get("VITPIPE_DATA__DIR", "data"))
    problems = _folder_problems(folder)
    for path in sorted(folder.iterdir()) if not problems and folder.is_dir() else []:
        if path.is_dir():
            problems += _folder_problems(path)
    return _diagnose_folder(folder, problems, [], "readable and writable")


def _diagnose_folder(folder: Path, problems: list[str], warnings: list[str], fine: str) -> Diagnosis:
    if problems:
        return Diagnosis(
            Health.PROBLEM,
            "; ".join([*problems, *warnings]),
            "give this user write permission there, or move the broken files away",
        )
    if warnings:
        advice = "start `vitpipe run`: it records new locations, and creates missing artifacts again"
        return Diagnosis(Health.WARNING, "; ".join(warnings), advice)
    return Diagnosis(Health.OK, f"{folder.resolve()}: {fine}" if folder.exists() else f"no {folder} yet")


def _folder_problems(folder: Path) -> list[str]:
    """Return the problems that keep this user from reading, writing or creating a folder."""
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if os.path.lexists(path))
    try:
        next(existing.iterdir(), None)
        with tempfile.TemporaryFile(dir=existing) as file:
            file.write(b"a full file system accepts no bytes")
    except OSError as error:
        return [f"{existing}: {error.strerror}"]
    lock_file = folder / ".lock"
    return [f"{lock_file} is not a file"] if lock_file.exists() and not lock_file.is_file() else []


def mlmd() -> Diagnosis:
    """Check that ML Metadata can write a type to a store in memory and read it back."""
    from ml_metadata import version
    from ml_metadata.metadata_store.metadata_store import MetadataStore  # `import ml_metadata` would hide an error
    from ml_metadata.proto import metadata_store_pb2 as pb

    config = pb.ConnectionConfig()
    config.fake_database.SetInParent()
    store = MetadataStore(config)
    store.put_artifact_type(pb.ArtifactType(name="probe"))
    names = [kind.name for kind in store.get_artifact_types()]
    if names != ["probe"]:
        return Diagnosis(Health.PROBLEM, f"wrote the type probe, but read {names}", REINSTALL)
    return Diagnosis(Health.OK, f"{version.__version__}, writes and reads")


def tensorflow() -> Diagnosis:
    """Check that TensorFlow can add numbers."""
    import tensorflow as tf

    tf.reduce_sum(tf.ones([2, 2])).numpy()
    return Diagnosis(Health.OK, tf.__version__)


def keras() -> Diagnosis:
    """Check that tf.keras is Keras 3, and that Keras uses TensorFlow."""
    if os.environ.get("TF_USE_LEGACY_KERAS", "").lower() in ("1", "true"):
        return Diagnosis(Health.PROBLEM, "TF_USE_LEGACY_KERAS makes tf.keras Keras 2", "unset TF_USE_LEGACY_KERAS")
    import keras

    found = f"{keras.__version__} on {keras.backend.backend()}"
    if keras.backend.backend() != "tensorflow":
        return Diagnosis(Health.PROBLEM, found, "export KERAS_BACKEND=tensorflow")
    return Diagnosis(Health.OK, found)


def gpus() -> Diagnosis:
    """Check that TensorFlow sees the GPUs, if the machine has any."""
    import tensorflow as tf

    found = tf.config.list_physical_devices("GPU")
    if found:
        details = [tf.config.experimental.get_device_details(gpu) for gpu in found]
        return Diagnosis(Health.OK, ", ".join(detail.get("device_name", "unnamed") for detail in details))
    if Path("/dev/nvidia0").exists():
        return Diagnosis(Health.WARNING, "the machine has a GPU, but TensorFlow does not see it", GPU_LOCK)
    return Diagnosis(Health.OK, "none: training runs on the CPU")


def beam() -> Diagnosis:
    """Check that Apache Beam can be imported."""
    import apache_beam

    return Diagnosis(Health.OK, apache_beam.__version__)


def tfdv() -> Diagnosis:
    """Check that TFDV can compute statistics, infer a schema, and find an anomaly."""
    import pandas as pd
    import tensorflow_data_validation as tfdv

    schema = tfdv.infer_schema(tfdv.generate_statistics_from_dataframe(pd.DataFrame({"label": [0, 1]})))
    other = tfdv.generate_statistics_from_dataframe(pd.DataFrame({"label": [0, 1], "other": [0, 1]}))
    anomalies = list(tfdv.validate_statistics(other, schema).anomaly_info)
    if anomalies != ["other"]:
        return Diagnosis(Health.PROBLEM, f"expected an anomaly in the column other, got {anomalies}", REINSTALL)
    return Diagnosis(Health.OK, f"{tfdv.__version__}, measures and validates")


def tfx() -> Diagnosis:
    """Check that TFX can be imported."""
    import tfx.components
    import tfx.orchestration.local.local_dag_runner
    import tfx.version

    return Diagnosis(Health.OK, tfx.version.__version__)


def kfp() -> Diagnosis:
    """Check that the SDK of Kubeflow Pipelines can be imported."""
    import kfp
    import kfp.kubernetes

    return Diagnosis(Health.OK, kfp.__version__)


# Quick checks come first, so that the first findings appear at once.
CHECKS: dict[str, Callable[[], Diagnosis]] = {
    "Python": python,
    "Host": host,
    "Disk": disk,
    "Memory": memory,
    "Lock": lock,
    "Kubeflow SDK": kubeflow_sdk,
    "Packages": packages,
    "Runs": runs,
    "Data": data,
    "ML Metadata": mlmd,
    "TensorFlow": tensorflow,
    "Keras": keras,
    "GPUs": gpus,
    "Beam": beam,
    "TFDV": tfdv,
    "TFX": tfx,
    "Kubeflow Pipelines": kfp,
}
NOT_FOR_LOCAL_RUNS = {"Kubeflow Pipelines"}  # a failure of these is a warning only


def report(names: list[str]) -> None:
    """Run checks, and print each finding as a line of JSON to stdout. Everything else that is printed goes to stderr.

    This is the main function of the separate process.

    Args:
        names: keys of `CHECKS`.
    """
    lines = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    for name in names:
        try:
            finding = CHECKS[name]()
        except Exception as error:  # any error of a broken library is a finding
            finding = _failure(name, f"{type(error).__name__}: {error}".splitlines()[0])
        print(json.dumps(finding), file=lines, flush=True)


def _failure(name: str, found: str) -> Diagnosis:
    return Diagnosis(Health.WARNING if name in NOT_FOR_LOCAL_RUNS else Health.PROBLEM, found, REINSTALL)


def diagnose() -> dict[str, Diagnosis]:
    """Check whether a run would work on this machine.

    Returns:
        The finding of each check, by the name of the check.
    """
    return dict(examine(list(CHECKS)))


def examine(
    names: Sequence[str], started: Callable[[str], None] = lambda name: None
) -> Iterator[tuple[str, Diagnosis]]:
    """Run checks in a separate process. If a check crashes that process, a new one continues with the next check.

    Args:
        names: keys of `CHECKS`.
        started: called with the name of each check before it begins.

    Yields:
        The name and the finding of each check, as soon as it has ended.
    """
    rest = list(names)
    call = "import sys; from vitpipe import doctor; doctor.report(sys.argv[1:])"
    while rest:
        started(rest[0])
        with tempfile.TemporaryFile("w+") as noise:
            command = [sys.executable, "-c", call, *rest]
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=noise, text=True) as process:
                for line in process.stdout or ():
                    verdict, found, fix = json.loads(line)
                    yield rest.pop(0), Diagnosis(Health(verdict), found, fix)
                    if rest:
                        started(rest[0])
            noise.seek(0)
            last_words = noise.read().strip().splitlines()[-1:]
        if rest:
            status = process.returncode
            end = (
                [f"killed by {signal.Signals(-status).name}"] if status < 0 else [f"exit status {status}", *last_words]
            )
            name = rest.pop(0)
            yield name, _failure(name, f"the process of this check ended: {', '.join(end)}")
