"""Stores of several pipelines, one of which cannot be read."""

import sys

import pytest

from components.errors import StoreError
from pipeline.metadata.stores import ask_all, check_store, stores
from tests.helpers.stores import make_store
from vitpipe.cli import main


@pytest.fixture(params=["empty", "cut", "junk", "folder"])
def runs(request, tmp_path):
    """Create a store that can be read, and one that cannot."""
    make_store(tmp_path / "sample" / "metadata.db", runs=1)
    bad = tmp_path / "bad" / "metadata.db"
    bad.parent.mkdir()
    if request.param == "folder":
        bad.mkdir()
    else:
        whole = (tmp_path / "sample" / "metadata.db").read_bytes()
        bad.write_bytes({"empty": b"", "cut": whole[: len(whole) // 2], "junk": b"no database " * 999}[request.param])
    return tmp_path


@pytest.fixture
def vitpipe(runs, monkeypatch, capsys):
    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["vitpipe", *arguments, "--runs", str(runs)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, *capsys.readouterr()

    return command


def test_good_stores_are_shown_and_the_bad_one_is_named(vitpipe):
    for command in ["runs", "list"], ["runs", "list", "--json"], ["runs", "export"], ["runs", "show", "last"]:
        code, out, err = vitpipe(*command)
        assert code == 0 and "sample-run-000" in out
        assert err.startswith("warning: ") and "bad/metadata.db" in err and err.count("\n") == 1


def test_a_run_in_a_good_store_is_found(vitpipe):
    code, out, err = vitpipe("why", "sample-run-000")
    assert (code, err) == (0, "") and "sample-run-000" in out
    code, out, err = vitpipe("why", "no-such-run")
    assert code == 2 and "bad/metadata.db" in err and "no run no-such-run" in err


def test_a_command_on_the_bad_store_fails_with_the_reason(vitpipe):
    code, _, err = vitpipe("artifacts", "list", "--pipeline", "bad")
    assert code == 1 and err.startswith("error: ") and "bad/metadata.db" in err


def test_it_is_an_error_if_no_store_can_be_read(tmp_path):
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "metadata.db").write_bytes(b"no database " * 999)
    with pytest.raises(StoreError, match=r"bad/metadata\.db"):
        ask_all(tmp_path, lambda store: store.run_names())


def test_a_run_accepts_an_empty_store_file_and_rejects_a_damaged_one(runs):
    address, empty = stores(runs)["bad"], (runs / "bad" / "metadata.db")
    if empty.is_file() and empty.stat().st_size == 0:
        check_store(address)
    else:
        with pytest.raises(StoreError, match=r"bad/metadata\.db is (damaged|not a SQLite file, but a folder)"):
            check_store(address)
