r"""Training pipeline for Vision Transformers: the Python interface.

    import vitpipe

    settings = vitpipe.load("cifar10-cpu", ["training.epochs=20"])
    result = vitpipe.run(settings)
    print(*vitpipe.verdict(result).lines, sep="\n")

Each function does the work of one command and returns the result that the command prints. Where the command would
print an error message, the function raises a subclass of `VitpipeError`. A name is imported when it is first used, so
that `import vitpipe` is quick and does not import TensorFlow.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from components.data.ingest import prepare as prepare
    from components.errors import VitpipeError as VitpipeError
    from pipeline.blessing import bless as bless
    from pipeline.export import export as export
    from pipeline.garbage_collection import collect_garbage as collect_garbage
    from pipeline.monitoring.monitor import monitor as monitor
    from pipeline.pushed_models import list_models as list_models
    from pipeline.pushed_models import verify_models as verify_models
    from pipeline.result.listing import list_runs as list_runs
    from pipeline.result.listing import read_run as read_run
    from pipeline.result.run_result import RunResult as RunResult
    from pipeline.result.verdict import verdict as verdict
    from pipeline.rollback import roll_back as roll_back
    from pipeline.run import plan as plan
    from pipeline.run import run as run
    from pipeline.run import tune as tune
    from pipeline.settings import Settings as Settings
    from pipeline.settings import load as load
    from vitpipe.doctor import diagnose as diagnose
    from vitpipe.explanation import explain as explain
    from vitpipe.explanation import explain_model as explain_model
    from vitpipe.prediction import predict as predict
    from vitpipe.study.run import run_study as run_study

_MODULES = {
    "RunResult": "pipeline.result.run_result",
    "Settings": "pipeline.settings",
    "VitpipeError": "components.errors",
    "bless": "pipeline.blessing",
    "collect_garbage": "pipeline.garbage_collection",
    "diagnose": "vitpipe.doctor",
    "explain": "vitpipe.explanation",
    "explain_model": "vitpipe.explanation",
    "export": "pipeline.export",
    "list_models": "pipeline.pushed_models",
    "list_runs": "pipeline.result.listing",
    "load": "pipeline.settings",
    "monitor": "pipeline.monitoring.monitor",
    "plan": "pipeline.run",
    "predict": "vitpipe.prediction",
    "prepare": "components.data.ingest",
    "read_run": "pipeline.result.listing",
    "roll_back": "pipeline.rollback",
    "run": "pipeline.run",
    "run_study": "vitpipe.study.run",
    "tune": "pipeline.run",
    "verdict": "pipeline.result.verdict",
    "verify_models": "pipeline.pushed_models",
}

__all__ = [*_MODULES]


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
