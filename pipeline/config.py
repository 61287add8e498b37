"""Settings of a run: typed, frozen, from a preset, a file, the environment and flags."""

import difflib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, Field, SecretStr, ValidationError, field_validator, model_validator

from components import ingest
from components.data_bounds import DataGateSettings
from components.gate import GateSettings
from components.serving_bounds import ServingCheckSettings
from pipeline.cluster_settings import KubeflowSettings
from pipeline.metadata.address import PASSWORD, Address, StoreError
from trainer.settings import AugmentSettings, FinetuneSettings, Group, ModelSettings, TrainingSettings

PRESETS = Path(__file__).resolve().parent.parent / "configs"
_PREFIX = "VITPIPE_"
TOKEN = "VITPIPE_KUBEFLOW__TOKEN"
_SECRETS = {("metadata", "password"): PASSWORD, ("kubeflow", "token"): TOKEN}  # what only the environment gives


class SettingsError(Exception):
    """Settings that cannot be used; the message names the key, the value and the cure."""


class DataSettings(Group):
    dir: Path = Path("data/cifar10")
    span: int | None = Field(None, ge=1, le=ingest.MAX_SPAN)  # the newest when not given
    gate_span: int = Field(1, ge=1, le=ingest.MAX_SPAN)  # whose test set the gate looks at, whatever is trained on


class MetadataSettings(Group):
    """Where ML Metadata is kept. The password comes from the environment and is in no record of the settings."""

    address: str = ""  # mysql://USER@HOST[:PORT]/DATABASE; the run folder's metadata.db when not given
    password: SecretStr = SecretStr("")

    @field_validator("address")
    @classmethod
    def is_a_server(cls, address: str) -> str:
        try:
            if address and Address.parse(address, password="").file:
                raise ValueError("write mysql://USER@HOST[:PORT]/DATABASE, or nothing for the run folder's metadata.db")
        except StoreError as error:
            raise ValueError(str(error)) from None
        return address


class Settings(Group):
    """All of them. A preset or file holds only what differs."""

    # Of the pipeline, and of its folder under `runs`.
    name: str = Field("vitpipe", pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=63)
    runs: Path = Path("runs")
    data: DataSettings = DataSettings()
    data_gate: DataGateSettings = DataGateSettings()
    model: ModelSettings = ModelSettings()
    augment: AugmentSettings = AugmentSettings()
    training: TrainingSettings = TrainingSettings()
    finetune: FinetuneSettings = FinetuneSettings()
    gate: GateSettings = GateSettings()
    serving_check: ServingCheckSettings = ServingCheckSettings()
    metadata: MetadataSettings = MetadataSettings()
    kubeflow: KubeflowSettings = KubeflowSettings()
    keep_versions: int = Field(10, ge=1)  # of the pushed models, the newest; a roll-back needs more than one

    @model_validator(mode="after")
    def starts_from_one_thing(self):
        if self.finetune.source and self.training.warm_start:
            raise ValueError(
                f"finetune.source {self.finetune.source} and training.warm_start both say what to start from: set one"
            )
        return self

    def chosen_span(self) -> int:
        """The span to train on: the one set, or the newest. Raises SettingsError where it or the gate's is missing."""
        data = self.data.dir
        there = ingest.spans(data)
        if not there:
            raise SettingsError(
                f"no data in {data}: make some with `vitpipe data prepare cifar10|images|sample --out {data}`, "
                "or name another folder with --data"
            )
        span = self.data.span if self.data.span is not None else there[-1]
        for key, wanted in ("data.span", span), ("data.gate_span", self.data.gate_span):
            if wanted not in there:
                raise SettingsError(f"{key}: no span {wanted} in {data}, it has {', '.join(map(str, there))}")
        return span

    def resolved(self, span: int) -> str:
        """All settings as JSON, with the span that was chosen: what a run records of itself.

        Without where it is recorded and on which machines it runs: the same run is the same elsewhere.
        """
        settings = self.model_dump(mode="json", exclude={"metadata", "kubeflow"})
        settings["data"]["span"] = span
        return json.dumps(settings, sort_keys=True)

    def digest(self, span: int) -> str:
        """sha256 of the resolved settings."""
        return hashlib.sha256(self.resolved(span).encode()).hexdigest()

    @property
    def folder(self) -> Path:
        """The run folder of this pipeline, absolute: ML Metadata keeps these paths."""
        return (self.runs / self.name).resolve()

    @property
    def store(self) -> Address:
        """Where this pipeline's ML Metadata is."""
        if self.metadata.address:
            return Address.parse(self.metadata.address, self.metadata.password.get_secret_value())
        return Address(file=self.folder / "metadata.db")


def load(
    source: str,
    flags: list[str] | None = None,
    environment: dict[str, str] | None = None,
    data: dict[str, Any] | None = None,
) -> Settings:
    """Settings from a preset's name or a YAML file, under `VITPIPE_A__B` variables, `a.b=c` flags and `data`.

    A file may build on a preset with `preset: NAME`. `data` holds settings of the group of that name.

    Raises SettingsError.
    """
    layers = _file_layers(source)
    variables = dict(os.environ if environment is None else environment)
    secrets = {key: variables.pop(variable, "") for key, variable in _SECRETS.items()}
    for name, text in variables.items():
        if name.startswith(_PREFIX):
            layers.append(_nested(name.removeprefix(_PREFIX).lower().split("__"), text))
    for flag in flags or []:
        layers.append(_flag_layer(flag))
    layers.append({"data": data or {}})
    for layer in layers:
        for (group, key), variable in _SECRETS.items():
            given = layer.get(group)
            if isinstance(given, dict) and key in given:
                raise SettingsError(
                    f"{group}.{key}: only the environment variable {variable} gives it; files are copied, and flags "
                    "are in every list of processes"
                )
    # As they are: not every password is YAML.
    merged: dict[str, Any] = {group: {key: text} for (group, key), text in secrets.items()}
    for layer in layers:
        _merge(merged, layer)
    try:
        return Settings.model_validate(merged)
    except ValidationError as error:
        raise explained(error) from None


def override(settings: dict[str, Any], flag: str) -> None:
    """Put the `a.b=c` of a flag into nested settings that are not validated yet. Raises SettingsError."""
    _merge(settings, _flag_layer(flag))


def presets() -> list[str]:
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def _file_layers(source: str) -> list[dict]:
    preset = PRESETS / f"{source}.yaml"
    path = preset if source in presets() else Path(source)
    if not path.is_file():
        nearest = difflib.get_close_matches(source, presets(), n=1)
        hint = f"did you mean {nearest[0]}? " if nearest else ""
        raise SettingsError(f"no preset or file named {source}: {hint}the presets are {', '.join(presets())}")
    try:
        content = yaml.safe_load(path.read_text()) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not YAML: {error}") from None
    if not isinstance(content, dict):
        raise SettingsError(f"{path} must hold settings as `key: value`, not {type(content).__name__}")
    if path == preset or "preset" not in content:
        return [content]
    base = content.pop("preset")
    if base not in presets():
        raise SettingsError(f"{path}: no preset {base!r}; the presets are {', '.join(presets())}")
    return [*_file_layers(base), content]


def _flag_layer(flag: str) -> dict:
    key, equals, text = flag.partition("=")
    if not equals:
        raise SettingsError(f"--set {flag}: write it as key=value, for example training.epochs=10")
    return _nested(key.split("."), text)


def _nested(keys: list[str], text: str) -> dict:
    try:
        value: Any = yaml.safe_load(text)  # the same spelling of numbers and lists as in a file
    except yaml.YAMLError:
        value = text
    for key in reversed(keys):
        value = {key: value}
    return value


def _merge(into: dict, layer: dict) -> None:
    for key, value in layer.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def explained(error: ValidationError, settings: type[BaseModel] | None = None) -> SettingsError:
    """What is wrong with the values of settings, a line for each; those of a run unless others are named."""
    return SettingsError("\n".join(_explain(problem, settings or Settings) for problem in error.errors()))


def _explain(problem, settings: type[BaseModel]) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        nearest = difflib.get_close_matches(key, _keys(settings), n=1, cutoff=0.5)
        return f"{key}: no such setting" + (f"; did you mean {nearest[0]}?" if nearest else "")
    message = problem["msg"].removeprefix("Value error, ")
    # An address may hold a password, wrong as that is.
    shown = not isinstance(problem["input"], dict) and not key.startswith("metadata")
    given = f" (got {problem['input']!r})" if shown else ""
    return f"{key}: {message}{given}".removeprefix(": ")  # what is wrong of all settings together has no key


def _keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    keys = []
    for name, field in model.model_fields.items():
        keys.append(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += _keys(field.annotation, f"{prefix}{name}.")
    return keys
