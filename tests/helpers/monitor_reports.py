"""Reports of a monitor, written as `vitpipe monitor` records them."""

import base64
from pathlib import Path

from pipeline.metadata.address import Address
from pipeline.metadata.standalone_record import MONITOR, StandaloneRecorder
from pipeline.monitoring.report import REPORT, MonitorReport
from tests.helpers.spans import encoded, picture

FIXES = {"drift_brightness": "check the cameras, or train on these images", "errors": "read the log of the server"}


def finding(check: str, value: float) -> dict:
    """Return a finding that is a warning past 0.1, and an alert past 0.2."""
    bound = {"warn": 0.1, "stop": 0.2}
    text = f"{check} is {value:g}"
    values = {"check": check, "value": value, "bound": bound, "sense": "at most", "text": text, "cure": FIXES[check]}
    return {**values, "chance": 0.01}


def window(number: int, brightness: float = 0.0, errors: float = 0.0, version: int = 1, pictures: int = 8) -> dict:
    """Return a window.

    Args:
        number: number of the window, whose first answer is at this hour.
        brightness: value of the check `drift_brightness`.
        errors: value of the check `errors`.
        version: version of the model.
        pictures: number of pictures.
    """
    data = base64.b64encode(encoded(picture(number))).decode()
    return {
        "number": number,
        "version": version,
        "start": f"2026-01-01T{number:02}:00:00Z",
        "end": f"2026-01-01T{number:02}:59:59Z",
        "answers": 1000,
        "failed": 2,
        "invalid": 1,
        "latency_ms": {"p50": 10.0, "p95": 20.0, "p99": 30.0},
        "figures": None,
        "predicted": {"cat": 600, "dog": 400},
        "confidences": [0] * 9 + [1000],
        "expected_accuracy": 0.9,
        "expected_accuracy_interval": [0.85, 0.95],
        "labelled": 0,
        "accuracy": None,
        "accuracy_interval": None,
        "findings": [finding("drift_brightness", brightness), finding("errors", errors)],
        "unchecked": [{"check": "accuracy_loss", "reason": "no answer has a true class: name a table with --labels"}],
        "farthest": [
            {
                "place": f"day.jsonl:{1000 * number + rank}",
                "distance": 9.5 - rank,
                "answer": "cat",
                "picture": f"data:image/png;base64,{data}",
            }
            for rank in range(pictures)
        ],
    }


def record_report(runs: Path, windows: list[dict], problems: list[dict], pipeline: str = "sample") -> int:
    """Record a report in the store of a pipeline, and return the id of its artifact."""
    report = MonitorReport.model_validate(
        {
            "pipeline": pipeline,
            "created": "2026-01-02T00:00:00Z",
            "logs": "day.jsonl",
            "false_alerts": 0.001,
            "windows": windows,
            "problems": problems,
        }
    )
    folder = runs.resolve() / pipeline
    recorder = StandaloneRecorder(Address(file=folder / "metadata.db"), pipeline, folder / "root", MONITOR)
    with recorder.recorded([]) as output:
        output.folder.mkdir(parents=True)
        (output.folder / REPORT).write_text(report.model_dump_json())
        versions = sorted({one["version"] for one in windows})
        output.properties |= {
            "versions": ", ".join(map(str, versions)),
            "windows": len(windows),
            "alerts": report.alerts,
        }
    return output.artifact
