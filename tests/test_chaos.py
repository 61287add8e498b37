"""Kills of a real pipeline at random moments: nothing is left half done, and a repeated command ends well."""

import pytest

from tests.helpers.chaos import Chaos

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(3600)]

KILLS = {"run": 3, "rollback": 3, "bless": 3, "gc": 3}


@pytest.fixture(scope="module")
def chaos(tmp_path_factory):
    return Chaos(tmp_path_factory.mktemp("chaos") / "pipeline", seed=0)


@pytest.mark.parametrize("command", KILLS)
def test_a_killed_command_leaves_nothing_half_and_ends_well_when_repeated(chaos, command):
    moments = chaos.rehearse(command)
    before = len(chaos.counts.faults)
    for _ in range(KILLS[command]):
        chaos.kill(command, moments)
    assert not chaos.counts.faults[before:], chaos.counts.table()
    assert sum(chaos.counts.kills.values()) > sum(chaos.counts.late.values())
