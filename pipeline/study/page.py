"""The page of a study, its figures and its chart as a picture."""

from pathlib import Path

from pipeline.report.charts import data_regime
from pipeline.report.document import document
from pipeline.study.results import Found, Row
from trainer.disk import whole_file

PAGE, DATA = "study.html", "study.json"


def write(found: Found, out: Path) -> Path:
    """Both files, each whole or not at all. Gives the page."""
    out.mkdir(parents=True, exist_ok=True)
    for name, text in (DATA, found.model_dump_json(indent=1) + "\n"), (PAGE, render(found)):
        with whole_file(out / name) as file:
            file.write(text.encode())
    return out / PAGE


def render(found: Found) -> str:
    by_title: dict[str, list[Row]] = {}
    for row in found.rows:
        by_title.setdefault(row.title, []).append(row)
    return document("study.html", found=found, chart=data_regime(by_title))
