import pytest

from components.artifacts import DataVerdictArtifact
from components.data.gate.bounds import DATA_FOLDER
from components.data.previous_span import PreviousSpan


def verdict(span, passed, created=0, data="/data"):
    artifact = DataVerdictArtifact()
    artifact.span, artifact.passed = span, passed
    artifact.set_string_custom_property(DATA_FOLDER, data)
    artifact.mlmd_artifact.create_time_since_epoch = created
    return artifact


VERDICTS = [
    verdict(1, 1),
    verdict(2, 1, created=5),
    verdict(2, 1, created=9),
    verdict(3, 0),
    verdict(10, 1),
    verdict(9, 1, data="/other"),
]


@pytest.mark.parametrize(
    "span, expected",
    [
        (1, None),  # nothing is earlier
        (2, VERDICTS[0]),
        (4, VERDICTS[2]),  # 3 was refused; the newer of two verdicts on 2
        (10, VERDICTS[2]),
        (11, VERDICTS[4]),  # 10 comes after 2
    ],
)
def test_the_highest_earlier_span_that_passed_is_selected(span, expected):
    resolved = PreviousSpan("/data", span).resolve_artifacts(None, {"verdict": VERDICTS})
    assert resolved == {"verdict": [expected] if expected else []}


def test_a_verdict_whose_files_are_gone_is_skipped(tmp_path):
    gone, there = verdict(3, 1), verdict(2, 1)
    gone.uri, there.uri = str(tmp_path / "gone"), str(tmp_path)
    assert PreviousSpan("/data", 4).resolve_artifacts(None, {"verdict": [gone, there]}) == {"verdict": [there]}
