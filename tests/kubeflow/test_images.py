"""Content of the images, and rules for the Dockerfile that can be checked without a container engine."""

import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from docker.utils.build import exclude_paths  # interprets .dockerignore as Docker does

ROOT = Path(__file__).resolve().parents[2]
KEPT_OUT = ("build", "data", "runs", ".git", ".venv", ".uv", ".cache", "vitpipe.egg-info")
PATTERNS = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]


def instructions() -> list[tuple[str, str]]:
    """Return the instructions as pairs such as (`RUN`, text), without comments and with continued lines joined."""
    lines = (ROOT / "kubeflow" / "images" / "Dockerfile").read_text().splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#")).replace("\\\n", " ")
    return [
        (name, " ".join(rest.split())) for name, _, rest in (line.partition(" ") for line in text.splitlines() if line)
    ]


def texts(name: str) -> list[str]:
    return [text for found, text in instructions() if found == name]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A checkout in use, which also contains data, runs, an environment and other files that must not be copied."""
    folder = tmp_path_factory.mktemp("checkout")
    caches = shutil.ignore_patterns(".*_cache", "__pycache__")

    def ignored(directory: str, names: list[str]) -> set[str]:
        return caches(directory, names) | ({*KEPT_OUT} if Path(directory) == ROOT else set())

    shutil.copytree(ROOT, folder, ignore=ignored, dirs_exist_ok=True)
    for name in KEPT_OUT:
        (folder / name).mkdir()
        (folder / name / "file").touch()
    (folder / ".env").write_text("VITPIPE_METADATA__PASSWORD=1234")
    for package in "pipeline", "components":
        (folder / package / "__pycache__").mkdir()
        (folder / package / "__pycache__" / "old.cpython-311.pyc").touch()
    return folder


@pytest.fixture(scope="module")
def context(checkout) -> set[str]:
    """The files of the checkout that .dockerignore allows."""
    return {name for name in exclude_paths(str(checkout), PATTERNS) if (checkout / name).is_file()}


@pytest.fixture
def image(checkout, context, tmp_path) -> Path:
    """A folder with the code as an image contains it."""
    for name in context:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(checkout / name, tmp_path / name)
    return tmp_path


def test_the_build_context_contains_only_the_code(checkout, context):
    folders = "components", "configs", "kubeflow", "pipeline", "requirements", "trainer", "vitpipe"
    code = {
        str(file.relative_to(checkout))
        for folder in folders
        for file in (checkout / folder).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    for_people = {name for name in code if re.match(r"kubeflow/(images|manifests|serving)/", name)}
    assert for_people
    # Docker's build reads the Dockerfile and .dockerignore in any case.
    assert context - {".dockerignore"} == code - for_people | {"setup.py", "pyproject.toml", "README.md"}


def test_digests_are_equal_in_an_image_and_a_checkout(image):
    script = (
        "from pipeline.provenance import digest, lock_digest;"
        "print(lock_digest(), *map(digest, ['trainer.preprocessing', 'components.model.trainer',"
        "'components.data.gate.component',"
        "'pipeline.report.component', 'pipeline.run']))"
    )
    found = [
        subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=True).stdout
        for folder in (ROOT, image)
    ]
    assert found[0] == found[1]
    assert len(set(found[0].split())) == 6


def test_an_image_can_build_the_package_for_beam_workers(image):
    subprocess.run([sys.executable, "setup.py", "--quiet", "sdist"], cwd=image, check=True, capture_output=True)
    (package,) = (image / "dist").glob("vitpipe-*.tar.gz")
    with tarfile.open(package) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    assert {"trainer/train.py", "kubeflow/steps/node.py", "pipeline/report/page.html", "pyproject.toml"} <= names


def test_the_base_image_is_pinned_by_tag():
    stages: list[str] = []
    for text in texts("FROM"):
        base, _, name = text.partition(" AS ")
        assert base in stages or base == "${BASE}", base
        stages.append(name)
    [default] = [text.partition("=")[2] for text in texts("ARG") if text.startswith("BASE=")]
    assert re.fullmatch(r"[a-z/.]+:[0-9][\w.-]*", default)


def test_the_image_runs_as_user_10001():
    assert texts("USER") == ["10001:10001"]
    names = [name for name, _ in instructions()]
    assert "RUN" not in names[names.index("USER") :]


def test_every_library_is_installed_with_hashes():
    installed = [
        part for text in texts("RUN") for part in text.split(" && ") if re.search(r"\bpip (install|sync)\b", part)
    ]
    assert len(installed) == 5
    for command in installed:
        ours = "--no-deps --no-build-isolation --editable ." in command
        assert ours or "--require-hashes" in command, command


def locked(name: str) -> dict[str, str]:
    """Return the lines of a lock file that name a version, by the name of the package and the condition."""
    lines = (ROOT / "requirements" / name).read_text().splitlines()
    return {line.partition("==")[0] + line.partition(";")[2]: line for line in lines if re.match(r"[\w.-]+==", line)}


def test_the_lock_of_the_cpu_image_has_the_versions_of_the_checkout_without_excluded_packages():
    all_packages, in_image = locked("base.txt"), locked("steps.txt")
    assert in_image.items() < all_packages.items()
    excluded = (ROOT / "requirements" / "steps_excludes.txt").read_text().splitlines()
    names = {line for line in excluded if line and not line.startswith("#")}
    assert names <= {line.partition("==")[0] for line in all_packages.values()}
    assert not names & {line.partition("==")[0] for line in in_image.values()}


def test_every_copied_file_is_in_the_build_context(context):
    for text in texts("COPY"):
        *sources, _ = text.split()
        if not sources[0].startswith("--from="):
            for source in (name.replace("${LOCK}", lock) for name in sources for lock in ("steps", "gpu")):
                assert source == "." or source in context, source


def test_build_tools_do_not_stay_in_the_image():
    """The last stage only copies folders from other stages."""
    last = instructions()[max(number for number, (name, _) in enumerate(instructions()) if name == "FROM") :]
    copied = [text for name, text in last if name == "COPY"]
    assert copied and all(
        text.startswith(("--from=libraries /opt/vitpipe/.venv ", "--from=sbom /sbom.cdx.json ", "--from=ours /ours "))
        for text in copied
    )
    assert "RUN" not in [name for name, _ in last]
    assert last[0] == ("FROM", "python")
