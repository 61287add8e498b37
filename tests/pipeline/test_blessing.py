"""The model card of a blessed model, from records that may be damaged or of another version."""

import pytest

from components.data.gate.component import VERDICT, find_verdict
from pipeline.blessing import _render
from pipeline.metadata.properties import UnreadableError
from tests.helpers.card_facts import SETTINGS, card_facts


@pytest.mark.parametrize(
    "settings",
    [
        {},
        SETTINGS | {"data": None},
        SETTINGS | {"data": {"dir": "d"}},
        SETTINGS | {"model": None},
        SETTINGS | {"training": [1]},
        SETTINGS | {"finetune": {"source": "x"}},
    ],
)
def test_settings_that_lack_a_value_are_unreadable(settings):
    with pytest.raises(UnreadableError, match="settings of run 20260101-000000-abcd lack a value"):
        _render(card_facts(settings=settings))


def test_a_verdict_on_the_data_that_cannot_be_read_is_none(tmp_path):
    assert find_verdict(tmp_path) is None
    verdict = card_facts().data
    (tmp_path / VERDICT).write_text(verdict.model_dump_json())
    assert find_verdict(tmp_path) == verdict
    for content in (b"{", b"{}", b"\xff"):
        (tmp_path / VERDICT).write_bytes(content)
        assert find_verdict(tmp_path) is None
