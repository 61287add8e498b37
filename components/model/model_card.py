"""Model card of a pushed model: a README.md in Hugging Face's format, written from the records of its run alone.

Imports neither TensorFlow nor TFX. The card is rendered with PyYAML and Jinja, which vitpipe needs anyway:
`huggingface_hub` would bring an HTTP client into every installation, only to write a few lines of YAML.
"""

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import yaml
from markupsafe import Markup

from components.data.gate.bounds import Finding
from components.data.gate.checks import DataVerdict
from components.data.statistics.figures import Leak
from components.model.evaluator.judgement import Check, Interval, Judgement
from components.model.serving_folder import ModelId
from trainer.framing import Framing
from trainer.settings import REPLACED_IN_FINETUNING

_PUNCTUATION = re.compile(r"[\\`*_{}\[\]<>()#+!|~&:@.$^=\"'-]")
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._/:+=-]*")


@dataclass(frozen=True)
class CardFacts:
    """Facts of a run that its model's card states."""

    run_id: str
    code_version: str
    settings: Mapping[str, Any]  # resolved settings of the run
    settings_digest: str
    model: ModelId
    span: int  # that the model was trained on; the newest one of a window
    data_digest: str
    gate_data_digest: str  # digest of the span with the test images; empty if it is not recorded
    judgement: Judgement
    serving: list[Check]  # checks of the serving check
    data: DataVerdict | None  # verdict of the data gate; None if it no longer exists
    earlier_spans: tuple[int, ...] = ()  # other spans of a window
    warm_start: bool = False  # True if the training started from an earlier model
    override: str | None = None  # reason of a person who overruled the gate


def model_card(facts: CardFacts) -> str:
    """Return the card as Markdown with YAML metadata. Names from the data cannot break out of either."""
    settings = facts.settings
    figures = facts.judgement.candidate
    worst = min(figures.class_accuracy, key=lambda name: figures.class_accuracy[name])
    return _template().render(
        facts=facts,
        settings=settings,
        metadata=Markup(_yaml(_metadata(facts))),
        framing=Framing.of(settings["model"]),
        figures=figures,
        worst=worst,
        classes=_classes(facts),
        leaks=_leaks(facts),
        trained_on=", ".join(str(span) for span in (facts.span, *facts.earlier_spans)),
        findings=_findings(facts),
        trains=_trains(settings),
        training=settings.get("training") or {},
        groups=_fenced(_yaml(_groups(settings))),
    )


def _leaks(facts: CardFacts) -> list[Leak]:
    """Return the leaks of the splits that the model was trained on into the test split. Those left out do not count."""
    training = facts.settings.get("training") or {}
    splits = {"train", "val"} if training.get("use_val") else {"train"}
    leaks = facts.data.figures.leaks if facts.data else []
    return [leak for leak in leaks if leak.source in splits and leak.target == "test" and leak.exact + leak.near]


def _findings(facts: CardFacts) -> list[Finding]:
    """Return the problems that the data gate reported, without the names of files, which may be private."""
    findings = facts.data.findings if facts.data else []
    return [finding.model_copy(update={"examples": ()}) for finding in findings if finding.level != "ok"]


def _trains(settings: Mapping[str, Any]) -> bool:
    """Return whether anything was trained, and not only a backbone accepted."""
    finetune = settings.get("finetune") or {}
    return not finetune.get("source") or finetune["head_epochs"] + finetune["epochs"] > 0


def _groups(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the groups of settings that decide what is trained, without those that had no effect.

    Of the path of a backbone, only the name is returned: its folders may be private.
    """
    finetune = settings.get("finetune") or {}
    names = ("model", "augment", "training") if _trains(settings) else ("model",)
    groups = {name: settings[name] for name in names if settings.get(name)}
    if finetune.get("source"):
        if "training" in groups:
            groups["training"] = {
                name: value for name, value in groups["training"].items() if name not in REPLACED_IN_FINETUNING
            }
        groups["finetune"] = {**finetune, "source": Path(finetune["source"]).name}
    return groups


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        finalize=_escape,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "interval": _interval, "code": _code, "table": _table}
    return environment.from_string(Path(__file__).with_suffix(".md").read_text("utf-8"))


def _metadata(facts: CardFacts) -> dict[str, Any]:
    """Return the metadata that Hugging Face's hub reads. A licence is stated only if the settings name one."""
    settings, figures = facts.settings, facts.judgement.candidate
    metrics = {
        "accuracy": ("Accuracy", figures.accuracy),
        "top_3_accuracy": ("Top-3 accuracy", figures.top_3),
        "log_loss": ("Log loss", figures.log_loss),
        "expected_calibration_error": ("Expected calibration error", figures.calibration_error),
    }
    result = {
        "task": {"type": "image-classification"},
        "dataset": {
            "type": "imagefolder",
            "name": f"{Path(settings['data']['dir']).name}, span {settings['data']['gate_span']}",
            "split": "test",
        },
        "metrics": [{"type": kind, "name": name, "value": value} for kind, (name, value) in metrics.items()],
    }
    licence = {"license": settings["license"]} if settings.get("license") else {}
    return {
        **licence,
        "pipeline_tag": "image-classification",
        "tags": ["vision-transformer", "tensorflow", "vitpipe"],
        "model-index": [{"name": settings["name"], "results": [result]}],
    }


def _classes(facts: CardFacts) -> list[dict[str, Any]]:
    """Return a row for each class, in index order, with its numbers of images and its accuracy."""
    figures = facts.judgement.candidate
    counts = {split: of_split.labels for split, of_split in facts.data.figures.splits.items()} if facts.data else {}
    return [
        {
            "name": name,
            "train": counts["train"].get(name, 0) if "train" in counts else None,
            "val": counts["val"].get(name, 0) if "val" in counts else None,
            "test": sum(tested),
            "accuracy": figures.class_accuracy.get(name),
            "interval": figures.class_accuracy_interval.get(name),
        }
        for name, tested in zip(figures.classes, figures.confusion, strict=True)
    ]


def _escape(value: object) -> Markup:
    r"""Return a value as Markdown text without any markup, on one line. Markup itself is returned unchanged.

    Every character that is not printable, such as one that controls a terminal or reorders text, becomes an escape
    such as `\x1b`, and every character that Markdown or HTML gives a meaning is preceded by a backslash.
    """
    if isinstance(value, Markup):
        return value
    text = "".join(
        character if character.isprintable() else character.encode("unicode_escape", "backslashreplace").decode()
        for character in str(value)
    )
    return Markup(_PUNCTUATION.sub(r"\\\g<0>", text))


def _code(value: object) -> Markup:
    """Return an id as a code span, or as escaped text if it has unusual characters: a code span has no escapes."""
    return Markup(f"`{value}`") if _PLAIN.fullmatch(str(value)) else _escape(value)


def _number(value: float | None) -> Markup:
    """Return a figure with four decimals, or a count; an empty text for None."""
    if value is None:
        return Markup("")
    return Markup(f"{value:,}" if isinstance(value, int) else f"{value:.4f}")


def _interval(interval: Interval | None) -> Markup:
    return Markup(f"{interval[0]:.4f} to {interval[1]:.4f}" if interval else "")


def _table(checks: list[Check]) -> Markup:
    """Return the rows of a table of checks."""
    rows = []
    for check in checks:
        verdict = "passed" if check.satisfied else "passed, because it may be chance" if check.noise else "missed"
        cells = [check.name, check.detail, _number(check.value), _interval(check.interval), check.sense]
        rows.append(f"| {' | '.join(map(_escape, cells))} {_number(check.bound)} | {verdict} |")
    return Markup("\n".join(rows))


def _fenced(text: str) -> Markup:
    """Return a text as a code block whose fence is longer than any run of backticks in the text."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return Markup(f"{fence}yaml\n{text}{fence}")


def _yaml(value: object) -> str:
    return yaml.safe_dump(value, sort_keys=False, width=120)
