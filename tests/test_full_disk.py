"""Commands on a full file system of their own: the message says where, how many bytes are free, and what to do."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.metadata.address import Address
from pipeline.metadata.reader import reader
from tests.helpers.command import command, states
from tests.helpers.stores import make_store

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@pytest.fixture
def unshare():
    """The command that mounts without a trace outside."""
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
        pytest.skip("unshare cannot mount here")
    return ["unshare", "-rm", "sh", "-c"]


@pytest.fixture
def run(tmp_path, sample_data, unshare):
    """A function that runs the sample with its run folders on a file system of a size."""
    (tmp_path / "data").symlink_to(sample_data / "data")
    (tmp_path / "runs").mkdir()

    def run_on(size):
        line, options = command(tmp_path, "run", "-c", "sample")
        mount = f'mount -t tmpfs -o size={size} tmpfs runs && "$@"; status=$?; cp -r runs after; exit $status'
        return subprocess.run([*unshare, mount, "sh", *line], capture_output=True, **options)

    return run_on


def explained(text, folder):
    """Check the explanation of a full disk, and return the number of free bytes in it."""
    assert "Traceback" not in text
    [free] = re.findall(re.escape(f"no space is left for {folder}: ") + r"([\d,]+) bytes are free there", text)
    assert "vitpipe gc" in text
    return int(free.replace(",", ""))


def test_no_space_for_the_store_of_a_first_run(run, tmp_path):
    done = run("128k")
    assert done.returncode == 1, done.stderr
    assert explained(done.stderr, tmp_path / "runs" / "sample") <= 128 << 10
    assert states(done) == {}


def test_no_space_for_the_files_of_a_node(run, tmp_path):
    done = run("1500k")
    assert done.returncode == 1, done.stderr
    assert explained(done.stdout, tmp_path / "runs" / "sample" / "root") <= 1500 << 10
    assert "No space left on device" in done.stdout and "Traceback" not in done.stderr
    assert list(states(done).items())[-1] == ("ImportExampleGen", "failed")
    assert (tmp_path / "after" / "sample" / "metadata.db").is_file()
    assert not [*(tmp_path / "after" / "sample" / "root").glob("ImportExampleGen/examples/*")]  # no incomplete artifact


def test_no_space_halfway_through_the_graph(run, tmp_path):
    """The failed node has filled the disk, so that its failure cannot be recorded in the store either."""
    done = run("4m")
    assert done.returncode == 1, done.stderr
    assert explained(done.stdout, tmp_path / "runs" / "sample" / "root") <= 4 << 20
    assert states(done)["ImportExampleGen"] == "complete" and [*states(done).values()][-1] == "failed"
    assert "Traceback" not in done.stderr


def test_garbage_collection_without_space_for_its_records(tmp_path, unshare):
    """The store is written before the first removal: `vitpipe gc` needs some space, and must not recommend itself."""
    file = tmp_path / "runs" / "sample" / "metadata.db"
    make_store(file, runs=10)
    with reader(Address(file=file)) as store:
        for artifact in store.artifacts():
            Path(artifact.uri).mkdir(parents=True)
    line, options = command(tmp_path, "gc", "--keep", "1")
    mount = (
        "cp -r runs before && mount -t tmpfs -o size=2m tmpfs runs && cp -r before/. runs; "
        'head -c 4M /dev/zero > runs/filling; "$@"; status=$?; '
        "diff -r before/sample/root runs/sample/root > lost; exit $status"
    )
    done = subprocess.run([*unshare, mount, "sh", *line], capture_output=True, **options)
    assert done.returncode == 1, done.stderr
    assert (tmp_path / "lost").read_text() == ""
    [message] = [text for text in done.stderr.splitlines() if text.startswith("error: ")]
    assert f"no space is left for {tmp_path / 'runs' / 'sample'}: 0 bytes are free there" in message
    assert "removing other files there" in message and "Traceback" not in done.stderr
