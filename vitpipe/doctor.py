"""Checks of the machine and its libraries: whether a run would work here, and if not, what fixes it.

The checks import and use what a run does. They run one after another in a process of their own: a library that cannot
be loaded, or that takes the process down with it, is then a finding like any other.
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
from typing import NamedTuple

from components.errors import StoreError
from pipeline.metadata.address import ADDRESS, Address
from pipeline.metadata.reader import reader
from vitpipe.shadowing import shadows

LOCK = Path(__file__).resolve().parents[1] / "requirements" / "base.txt"
GIB = 1 << 30
REINSTALL = "rm -r .venv && make setup"  # make alone sees that nothing changed, and does nothing
GPU_LOCK = "make setup LOCK=gpu; in a container, the GPU image"


class Health(StrEnum):
    """Severity of a finding."""

    OK = "ok"
    WARNING = "warning"  # local runs work, something else may not
    PROBLEM = "problem"  # a run would fail


class Diagnosis(NamedTuple):
    """Outcome of one check; `fix` says what to do, and is empty if there is nothing to do."""

    verdict: Health
    found: str
    fix: str = ""


def python() -> Diagnosis:
    supported = (3, 11) <= sys.version_info[:2] <= (3, 13)
    found = f"{platform.python_version()}, {sys.executable}"
    return Diagnosis(Health.OK, found) if supported else Diagnosis(Health.PROBLEM, found, "use Python 3.11 to 3.13")


def host() -> Diagnosis:
    """The platform, and whether requirements/old_glibc.py did its work where it has to."""
    libc, version = platform.libc_ver()
    found = f"{platform.system()} {platform.machine()} {libc} {version}".rstrip()
    if (platform.system(), platform.machine(), libc) != ("Linux", "x86_64", "glibc"):
        return Diagnosis(Health.WARNING, found, "TFDV and ML Metadata have wheels for Linux x86-64 with glibc only")
    if tuple(map(int, version.split(".")[:2])) >= (2, 39):
        return Diagnosis(Health.OK, found)
    for name in ("tensorflow-data-validation", "ml-metadata"):
        extensions = [file.locate() for file in importlib.metadata.files(name) or [] if file.suffix == ".so"]
        if not all(_is_patched(str(extension)) for extension in extensions):
            return Diagnosis(Health.PROBLEM, f"{found}, and {name} is not patched for it", REINSTALL)
    return Diagnosis(Health.OK, f"{found}, TFDV and ML Metadata patched for it")


def _is_patched(extension: str) -> bool:
    """Whether it asks for some version of a library only weakly, the mark that old_glibc.py leaves."""
    import lief

    binary = lief.ELF.parse(extension)
    if not isinstance(binary, lief.ELF.Binary):
        return False
    weak = 2
    return any(aux.flags & weak for lib in binary.symbols_version_requirement for aux in lib.get_auxiliary_symbols())


def disk() -> Diagnosis:
    free = shutil.disk_usage(Path.cwd()).free / GIB
    verdict = Health.PROBLEM if free < 1 else Health.WARNING if free < 5 else Health.OK
    return Diagnosis(verdict, f"{free:.1f} GiB free here", "" if free >= 5 else "make room, or use another disk")


def memory(cgroup: Path = Path("/sys/fs/cgroup")) -> Diagnosis:
    """What is free on the machine or, where that is less, below the limit of the container."""
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return Diagnosis(Health.OK, f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / GIB:.1f} GiB in all")
    kibibytes = dict(line.split(":") for line in meminfo.read_text().splitlines())["MemAvailable"].split()[0]
    available = int(kibibytes) * 1024 / GIB
    found, fix = f"{available:.1f} GiB available", "close something: a run on many images may be killed"
    limit = cgroup / "memory.max"  # not there in the root group, which is what a machine without containers shows
    if limit.is_file() and limit.read_text().strip() != "max":
        most, used = (int((cgroup / name).read_text()) for name in ("memory.max", "memory.current"))
        cache = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())["inactive_file"]
        below = (most - used + int(cache)) / GIB
        if below < available:
            available = below
            found = f"{below:.1f} GiB available of this container's {most / GIB:.1f}"
            fix = "give the container more: a run on many images may be killed"
    return Diagnosis(Health.OK, found) if available >= 4 else Diagnosis(Health.WARNING, found, fix)


def lock() -> Diagnosis:
    """What is installed against what was tested together."""
    from packaging.requirements import Requirement

    if not LOCK.is_file():
        return Diagnosis(Health.OK, "no lock beside the code, nothing to compare with")
    pins = [Requirement(line.rstrip(" \\")) for line in LOCK.read_text().splitlines() if line[:1] not in ("", " ", "#")]
    drift = []
    for pin in pins:
        if pin.marker and not pin.marker.evaluate():
            continue
        try:
            installed = importlib.metadata.version(pin.name)
        except importlib.metadata.PackageNotFoundError:
            installed = "missing"
        if installed != str(pin.specifier).removeprefix("=="):
            drift.append(f"{pin.name} {installed} (lock {pin.specifier})")
    if not drift:
        return Diagnosis(Health.OK, f"{LOCK.parent.name}/{LOCK.name}: all as locked")
    more = f" and {len(drift) - 5} more" if len(drift) > 5 else ""
    return Diagnosis(Health.WARNING, ", ".join(drift[:5]) + more, REINSTALL)


def kubeflow_sdk() -> Diagnosis:
    """Its import package has the name of ours: whichever comes first on the path hides the other."""
    try:
        version = importlib.metadata.version("kubeflow")
    except importlib.metadata.PackageNotFoundError:
        return Diagnosis(Health.OK, "not installed, as it should be")
    fix = "uninstall the distribution kubeflow, or keep it in an environment of its own"
    return Diagnosis(Health.PROBLEM, f"{version} is installed and claims our package name", fix)


def packages() -> Diagnosis:
    """Check that no package of the same name hides one of ours."""
    if hidden := shadows():
        return Diagnosis(
            Health.PROBLEM, "; ".join(hidden), "follow this advice: Python must find all packages of vitpipe"
        )
    return Diagnosis(Health.OK, "no other package hides one of ours")


def runs() -> Diagnosis:
    """Check that a run can write below the run folders, and that what was recorded there is still there."""
    from pipeline.metadata import relocation
    from pipeline.metadata.stores import server

    folder = Path(os.environ.get("VITPIPE_RUNS", "runs"))
    try:
        away = server()
    except StoreError as error:
        return Diagnosis(Health.PROBLEM, str(error), f"correct {ADDRESS}")
    problems, warnings = _unusable(folder), []
    inside = [one for one in sorted(folder.iterdir()) if one.is_dir()] if not problems and folder.is_dir() else []
    for run_folder in inside:
        cannot = _unusable(run_folder)
        problems += cannot
        address = away or Address(file=run_folder / "metadata.db")
        if cannot:
            continue
        if address.file and address.file.exists() and address.file.stat().st_size == 0:
            warnings.append(f"{address.file} is empty")
            continue
        try:
            if address.file is None or address.file.exists():
                with reader(address):  # another program's database has no tables of ours
                    pass
            warnings += relocation.problems(address, run_folder.resolve())
        except StoreError as error:
            problems.append(str(error))
    fine = f"{len(inside)} run folder(s), each can be read and written, every artifact and pushed model is there"
    return _of_folder(folder, list(dict.fromkeys(problems)), warnings, fine)


def data() -> Diagnosis:
    """Check that data can be prepared, and that existing data can be read."""
    folder = Path(os.environ.get("VITPIPE_DATA__DIR", "data"))
    problems = _unusable(folder)
    for path in sorted(folder.iterdir()) if not problems and folder.is_dir() else []:
        if path.is_dir():
            problems += _unusable(path)
    return _of_folder(folder, problems, [], "can be read and written")


def _of_folder(folder: Path, problems: list[str], warnings: list[str], fine: str) -> Diagnosis:
    if problems:
        return Diagnosis(
            Health.PROBLEM,
            "; ".join([*problems, *warnings]),
            "give this user write permission there, or move away what is broken",
        )
    if warnings:
        advice = "start `vitpipe run`: it records what was moved, and creates missing artifacts again"
        return Diagnosis(Health.WARNING, "; ".join(warnings), advice)
    return Diagnosis(Health.OK, f"{folder.resolve()}: {fine}" if folder.exists() else f"no {folder} yet")


def _unusable(folder: Path) -> list[str]:
    """Return what keeps this user from reading, writing or creating a folder."""
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
    """Puts a type into a store in memory and gets it back."""
    from ml_metadata import version
    from ml_metadata.metadata_store.metadata_store import MetadataStore  # `import ml_metadata` hides why it fails
    from ml_metadata.proto import metadata_store_pb2 as pb

    config = pb.ConnectionConfig()
    config.fake_database.SetInParent()
    store = MetadataStore(config)
    store.put_artifact_type(pb.ArtifactType(name="probe"))
    names = [kind.name for kind in store.get_artifact_types()]
    if names != ["probe"]:
        return Diagnosis(Health.PROBLEM, f"put the type probe, got {names}", REINSTALL)
    return Diagnosis(Health.OK, f"{version.__version__}, puts and gets")


def tensorflow() -> Diagnosis:
    import tensorflow as tf

    tf.reduce_sum(tf.ones([2, 2])).numpy()
    return Diagnosis(Health.OK, tf.__version__)


def keras() -> Diagnosis:
    if os.environ.get("TF_USE_LEGACY_KERAS", "").lower() in ("1", "true"):
        return Diagnosis(Health.PROBLEM, "TF_USE_LEGACY_KERAS makes tf.keras Keras 2", "unset TF_USE_LEGACY_KERAS")
    import keras

    found = f"{keras.__version__} on {keras.backend.backend()}"
    if keras.backend.backend() != "tensorflow":
        return Diagnosis(Health.PROBLEM, found, "export KERAS_BACKEND=tensorflow")
    return Diagnosis(Health.OK, found)


def gpus() -> Diagnosis:
    import tensorflow as tf

    found = tf.config.list_physical_devices("GPU")
    if found:
        details = [tf.config.experimental.get_device_details(gpu) for gpu in found]
        return Diagnosis(Health.OK, ", ".join(detail.get("device_name", "unnamed") for detail in details))
    if Path("/dev/nvidia0").exists():
        return Diagnosis(Health.WARNING, "there is one, but TensorFlow does not see it", GPU_LOCK)
    return Diagnosis(Health.OK, "none: training runs on the CPU")


def beam() -> Diagnosis:
    import apache_beam

    return Diagnosis(Health.OK, apache_beam.__version__)


def tfdv() -> Diagnosis:
    """Statistics, a schema from them, and a validation that has something to find."""
    import pandas as pd
    import tensorflow_data_validation as tfdv

    schema = tfdv.infer_schema(tfdv.generate_statistics_from_dataframe(pd.DataFrame({"label": [0, 1]})))
    other = tfdv.generate_statistics_from_dataframe(pd.DataFrame({"label": [0, 1], "other": [0, 1]}))
    anomalies = list(tfdv.validate_statistics(other, schema).anomaly_info)
    if anomalies != ["other"]:
        return Diagnosis(Health.PROBLEM, f"expected an anomaly in the column other, got {anomalies}", REINSTALL)
    return Diagnosis(Health.OK, f"{tfdv.__version__}, measures and validates")


def tfx() -> Diagnosis:
    import tfx.components
    import tfx.orchestration.local.local_dag_runner
    import tfx.version

    return Diagnosis(Health.OK, tfx.version.__version__)


def kfp() -> Diagnosis:
    import kfp
    import kfp.kubernetes

    return Diagnosis(Health.OK, kfp.__version__)


# Light before heavy: the first findings come at once.
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
NOT_FOR_LOCAL_RUNS = {"Kubeflow Pipelines"}  # broken, they are a warning


def report(names: list[str]) -> None:
    """Runs in the checks' own process: one JSON line a check on stdout, everything the libraries print on stderr."""
    lines = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    for name in names:
        try:
            finding = CHECKS[name]()
        except Exception as error:  # whatever a broken library raises is the finding
            finding = _broken(name, f"{type(error).__name__}: {error}".splitlines()[0])
        print(json.dumps(finding), file=lines, flush=True)


def _broken(name: str, found: str) -> Diagnosis:
    return Diagnosis(Health.WARNING if name in NOT_FOR_LOCAL_RUNS else Health.PROBLEM, found, REINSTALL)


def diagnose() -> dict[str, Diagnosis]:
    """Check whether a run would work here, and return the finding of each check by its name."""
    return dict(examine(list(CHECKS)))


def examine(
    names: Sequence[str], started: Callable[[str], None] = lambda name: None
) -> Iterator[tuple[str, Diagnosis]]:
    """Yield each check's name and finding as it comes.

    The checks run in a process of their own. After a check that ended it, a new process continues with the rest.

    Args:
        names: keys of CHECKS.
        started: called with the name of each check before it begins.
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
            yield name, _broken(name, f"ended its process: {', '.join(end)}")
