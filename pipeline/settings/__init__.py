"""Settings of a run, typed and frozen. Precedence: flags, environment, file, preset, defaults."""

import json
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Self, TypeVar

from pydantic import AfterValidator, BaseModel, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from components.data import ingest
from components.data.gate.bounds import DataGateSettings
from components.data.labels.settings import LabelCheckSettings
from components.errors import SettingsError, StoreError
from components.model.evaluator.judgement import GateSettings
from components.model.serving_check.bounds import ServingCheckSettings
from components.suggestions import did_you_mean
from pipeline.metadata.address import PASSWORD, Address
from pipeline.settings import strict_yaml
from pipeline.settings.beam import BeamSettings
from pipeline.settings.cluster import KubeflowSettings
from pipeline.settings.monitor import WEBHOOK, MonitorSettings
from pipeline.settings.strict_yaml import Place, UnsupportedYamlError, YamlSyntaxError
from trainer.search_space import TuneSettings, check_space
from trainer.settings import (
    RENAMED,
    AugmentSettings,
    FinetuneSettings,
    ModelSettings,
    SettingsGroup,
    TrainingSettings,
    check_path_characters,
)
from trainer.sizes import check_stored_size

PRESETS = Path(__file__).resolve().parents[2] / "configs"
_PREFIX = "VITPIPE_"
_DEEPEST = 5  # levels of a setting's key, such as kubeflow.steps.Trainer.node_selector.KEY
_LONGEST_SHOWN = 100  # characters of a value in a message
_MOST_EXPLAINED = 20  # problems in one message
_NO_SETTINGS = "it has no settings: write some below it"
# Settings of earlier versions that no longer exist, with the reason.
REMOVED = {
    "training.memory_gib": "decoded images are always in a temporary file",
    "data_gate.rotated": "the Exif orientation is applied",
}
_RENAMED = {f"model.{old}": f"model.{new}" for old, new in RENAMED.items()}
TOKEN = "VITPIPE_KUBEFLOW__TOKEN"
# Settings that only the environment can set.
_SECRETS = {("metadata", "password"): PASSWORD, ("kubeflow", "token"): TOKEN, ("monitor", "webhook"): WEBHOOK}


def _checked_path(path: Path) -> Path:
    check_path_characters(str(path))
    return path


PathSetting = Annotated[Path, AfterValidator(_checked_path)]


class DataSettings(SettingsGroup):
    """Settings of the data to train and gate on."""

    dir: PathSetting = Field(Path("data/cifar10"), description="Data folder that `vitpipe data prepare` wrote.")
    span: int | None = Field(
        None, ge=1, le=ingest.MAX_SPAN, description="Span to train on. null: the newest one in the folder."
    )
    gate_span: int = Field(
        1,
        ge=1,
        le=ingest.MAX_SPAN,
        description="Span whose test images the gate evaluates on. It stays fixed when newer spans are trained on.",
    )
    window: int = Field(
        1,
        ge=1,
        le=1000,
        description="Number of spans to train on: the chosen one and the newest before it that the data gate did not "
        "refuse. If several of them contain an image, the copy in the newest span is used.",
    )
    earlier_images: int | None = Field(
        None,
        ge=1,
        le=10**12,
        description="Largest number of different training images that each earlier span of the window contributes, "
        "chosen at random. null: all.",
    )

    @model_validator(mode="after")
    def check_window(self) -> Self:
        """Reject a limit on earlier spans if there are none."""
        if self.earlier_images is not None and self.window == 1:
            raise ValueError(
                f"earlier_images {self.earlier_images} limits earlier spans, but window 1 has none: raise window, or "
                "set earlier_images to null"
            )
        return self


class MetadataSettings(SettingsGroup):
    """Settings of ML Metadata. The password comes from the environment and is never recorded."""

    address: str = Field(
        "",
        description="Server of ML Metadata, mysql://USER@HOST[:PORT]/DATABASE. Empty: the file metadata.db in the run "
        "folder.",
    )
    password: SecretStr = Field(
        SecretStr(""),
        description="Password of the server. Only an environment variable can set it. It is never recorded.",
    )

    @field_validator("address")
    @classmethod
    def check_address(cls, address: str) -> str:
        """Check that the address is that of a server, or empty."""
        try:
            if address and Address.parse(address, password="").file:
                raise ValueError(
                    "it is not the address of a server: write mysql://USER@HOST[:PORT]/DATABASE, or leave it empty for "
                    "metadata.db in the run folder"
                )
        except StoreError as error:
            raise ValueError(str(error)) from None
        return address


class LayeredSettings(BaseSettings, SettingsGroup):
    """Settings that `merge_sources` reads from several sources."""

    model_config = SettingsConfigDict(case_sensitive=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Keep pydantic from reading the environment, so that recorded settings mean the same on every machine.

        Args:
            settings_cls: the class of the settings.
            init_settings: source of the values that the constructor is called with, which is kept.
            env_settings: source of environment variables, which only `load` reads.
            dotenv_settings: source of a `.env` file, which is not read.
            file_secret_settings: source of a folder of secrets, which is not read.
        """
        return (init_settings,)


Kind = TypeVar("Kind", bound=LayeredSettings)


class Settings(LayeredSettings):
    """Settings of one pipeline run. A preset or file holds only what differs from the defaults."""

    name: str = Field(
        "vitpipe",
        pattern=r"^[a-z0-9][a-z0-9-]*$",
        max_length=63,
        description="Name of the pipeline, and of its folder under runs.",
    )
    runs: PathSetting = Field(Path("runs"), description="Folder that holds a run folder for each pipeline.")
    data: DataSettings = Field(DataSettings(), description="Data to train and gate on.")
    data_gate: DataGateSettings = Field(DataGateSettings(), description="Checks of the data before the training.")
    label_check: LabelCheckSettings = Field(
        LabelCheckSettings(), description="Search for wrong labels before the data gate."
    )
    model: ModelSettings = Field(ModelSettings(), description="Architecture of the Vision Transformer.")
    augment: AugmentSettings = Field(AugmentSettings(), description="Augmentation of training images.")
    training: TrainingSettings = Field(TrainingSettings(), description="Training.")
    finetune: FinetuneSettings = Field(FinetuneSettings(), description="Fine-tuning of a pretrained backbone.")
    tune: TuneSettings = Field(TuneSettings(), description="Search for better settings.")
    gate: GateSettings = Field(GateSettings(), description="Bounds that a model must satisfy before it is pushed.")
    serving_check: ServingCheckSettings = Field(
        ServingCheckSettings(),
        description="Bounds of the serving check, which a model must satisfy before it is pushed.",
    )
    monitor: MonitorSettings = Field(MonitorSettings(), description="Checks of the model that serves.")
    beam: BeamSettings = Field(BeamSettings(), description="Engine of the Beam jobs.")
    metadata: MetadataSettings = Field(MetadataSettings(), description="Store of ML Metadata.")
    kubeflow: KubeflowSettings = Field(KubeflowSettings(), description="Cluster that runs the pipeline.")
    license: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9.+-]*$",
        max_length=64,
        description="Licence of the models, for their model cards, as an identifier such as `apache-2.0`. null: the "
        "cards state none.",
    )
    keep_versions: int = Field(
        10,
        ge=1,
        le=10_000,
        description="Number of pushed versions to keep. Older ones are removed. A rollback needs at least two.",
    )

    @model_validator(mode="after")
    def check_start(self) -> Self:
        """Check that a training starts from a backbone or from the serving model, and not from both."""
        if self.finetune.source and self.training.warm_start:
            raise ValueError(
                f"finetune.source {self.finetune.source} and training.warm_start exclude each other: set one of them"
            )
        return self

    @model_validator(mode="after")
    def check_teacher(self) -> Self:
        """Reject a teacher for a fine-tuning, or for an image size that is not a multiple of 8."""
        if self.training.teacher_epochs and self.finetune.source:
            raise ValueError(
                f"finetune.source {self.finetune.source} and training.teacher_epochs {self.training.teacher_epochs} "
                "exclude each other: set training.teacher_epochs to 0, or remove finetune.source"
            )
        if self.training.teacher_epochs and self.model.image_size % 8:
            raise ValueError(
                f"model.image_size {self.model.image_size} is not a multiple of 8, which training.teacher_epochs "
                f"{self.training.teacher_epochs} requires: change model.image_size, or set training.teacher_epochs to 0"
            )
        return self

    @model_validator(mode="after")
    def check_wrong_labels(self) -> Self:
        """Reject a bound on the share of wrong labels if the label check, which estimates it, is off."""
        if self.data_gate.wrong_labels.is_set and not self.label_check.epochs:
            bound = ", ".join(
                f"{level} {value:g}"
                for level, value in self.data_gate.wrong_labels.model_dump(exclude_none=True).items()
            )
            raise ValueError(
                f"data_gate.wrong_labels has a bound ({bound}), but label_check.epochs is 0, so that labels are not "
                "checked: set label_check.epochs to at least 1, or remove the bound"
            )
        return self

    @model_validator(mode="after")
    def check_stored_size(self) -> Self:
        """Check that training images are kept at the size of the model's input or a larger one."""
        check_stored_size(self.augment.stored_size, self.model.image_size)
        return self

    @model_validator(mode="after")
    def check_tuning(self) -> Self:
        """Check that each searched setting accepts its values, and that the training can use them."""
        check_space(self.tune)
        if self.training.tuned and self.finetune.source:
            raise ValueError(
                f"finetune.source {self.finetune.source} and training.tuned exclude each other, because a tuning "
                "trains from scratch: set one of them"
            )
        return self

    def chosen_span(self) -> int:
        """Return the span to train on: `data.span`, or the newest one.

        Raises:
            SettingsError: if that span or the gate span is missing.
        """
        data = self.data.dir
        existing = ingest.spans(data)
        if not existing:
            raise SettingsError(
                f"no data in {data}: make some with `vitpipe data prepare cifar10|images|sample --out {data}`, "
                "or name another folder with --data"
            )
        span = self.data.span if self.data.span is not None else existing[-1]
        for key, wanted in ("data.span", span), ("data.gate_span", self.data.gate_span):
            if wanted not in existing:
                raise SettingsError(f"{key}: no span {wanted} in {data}; its spans are {', '.join(map(str, existing))}")
        return span

    def resolved(self, span: int) -> str:
        """Return the settings as JSON, with the chosen span, as a run records them.

        The groups `metadata` and `kubeflow` and the secrets are left out, so that equal runs on different machines have
        equal records.
        """
        settings = self.model_dump(
            mode="json", exclude={"metadata": True, "kubeflow": True, "monitor": {"webhook": True}}
        )
        settings["data"]["span"] = span
        return json.dumps(settings, sort_keys=True)

    @property
    def folder(self) -> Path:
        """Absolute path of the run folder of this pipeline, as ML Metadata records it."""
        return (self.runs / self.name).resolve()

    @property
    def store(self) -> Address:
        """Address of this pipeline's store of ML Metadata."""
        if self.metadata.address:
            return Address.parse(self.metadata.address, self.metadata.password.get_secret_value())
        return Address(file=self.folder / "metadata.db")


class Source(PydanticBaseSettingsSource):
    """Settings from one origin: a file, an environment variable or a flag.

    Args:
        values: settings, nested in their groups.
        origin: name of the file or variable; empty for a flag.
        lines: line of each setting in a file.
    """

    def __init__(
        self, values: dict[str, Any], origin: str = "", lines: Mapping[Place, int] = MappingProxyType({})
    ) -> None:
        super().__init__(BaseSettings)
        self.values, self.origin, self.lines = values, origin, lines

    def __call__(self) -> dict[str, Any]:
        """Return the settings."""
        return self.values

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Return the value of a group or setting, as pydantic requires.

        Args:
            field: declaration of the field.
            field_name: its name.

        Returns:
            The value, the name, and False because the value is not JSON.
        """
        return self.values.get(field_name), field_name, False

    def where(self, place: Place) -> str:
        """Return the prefix of a message about a setting: the origin and, in a file, the line; empty for a flag."""
        if not self.origin:
            return ""
        return f"{self.origin}:{self.lines[place]}: " if place in self.lines else f"{self.origin}: "


def load(
    source: str,
    flags: list[str] | None = None,
    environment: dict[str, str] | None = None,
    data: dict[str, Any] | None = None,
) -> Settings:
    """Load settings. From the highest precedence: `data`, flags, environment, file, its preset, defaults.

    Args:
        source: name of a preset, or a YAML file, which may build on a preset with `preset: NAME`.
        flags: settings as `a.b=c`, of which a later one overrides an earlier one.
        environment: environment variables, of which `VITPIPE_A__B` sets `a.b`; None for those of this process.
        data: settings of the group `data`.

    Raises:
        SettingsError: for settings that cannot be read or used.
    """
    files = _file_sources(source)
    explicit = explicit_sources(flags or [], environment)
    _check_no_secrets(files)
    settings = merge_sources(Settings, [Source({"data": data or {}}), *explicit, *files])
    if settings.training.tuned:
        _check_not_tuned(settings, explicit)
    return settings


def explicit_sources(
    flags: Sequence[str], environment: Mapping[str, str] | None = None, groups: Collection[str] | None = None
) -> list[Source]:
    """Return the sources of flags and of environment variables, of which an earlier one overrides a later one.

    Args:
        flags: settings as `a.b=c`, of which a later one overrides an earlier one.
        environment: environment variables, of which `VITPIPE_A__B` sets `a.b`; None for those of this process.
        groups: groups of settings whose variables are read; None for all.

    Raises:
        SettingsError: for a flag or variable that cannot be read, or a flag that sets a secret.
    """
    variables = {
        name: text
        for name, text in (os.environ if environment is None else environment).items()
        if name.startswith(_PREFIX) and (groups is None or _keys_of_variable(name)[0] in groups)
    }
    # Secrets are kept as raw strings: not every password is valid YAML.
    secrets = {
        group: {key: SecretStr(variables.pop(variable, ""))}
        for (group, key), variable in _SECRETS.items()
        if groups is None or group in groups
    }
    overrides = [Source(_nested(_keys_of_variable(name), text, name), name) for name, text in variables.items()]
    sources = [*map(flag_source, reversed(flags)), *reversed(overrides)]
    _check_no_secrets(sources)
    return [*sources, Source(secrets)]


def _keys_of_variable(name: str) -> list[str]:
    return name.removeprefix(_PREFIX).lower().split("__")


def _check_no_secrets(sources: Sequence[Source]) -> None:
    """Raise SettingsError if a file or a flag sets a setting that only the environment may set."""
    for source in sources:
        for (group, key), variable in _SECRETS.items():
            values = source.values.get(group)
            if isinstance(values, dict) and key in values:
                raise SettingsError(
                    f"{source.where((group, key))}{group}.{key}: only the environment variable {variable} may set it; "
                    "files are copied, and flags appear in lists of processes"
                )


def _check_not_tuned(settings: Settings, explicit: Sequence[Source]) -> None:
    """Raise SettingsError if a flag or variable sets a value that `training.tuned` would replace."""
    for source in explicit:
        for name in settings.tune.space.dimensions():
            group, _, key = name.partition(".")
            if key in source.values.get(group, {}):
                raise SettingsError(
                    f"{source.where((group, key)) or '--set '}{name}: with training.tuned, the tuning decides this "
                    f"value: leave it out, take it out of the search with tune.space.{name}=null, or set "
                    "training.tuned=false"
                )


def merge_sources(settings: type[Kind], sources: Sequence[Source]) -> Kind:
    """Return the settings from several sources.

    Args:
        settings: class of the settings.
        sources: the sources, of which an earlier one overrides a later one.

    Raises:
        SettingsError: if a setting is unknown or has a wrong value.
    """
    for source in sources:
        _check_groups(settings, source, source.values)
    try:
        return settings(_build_sources=(tuple(sources), {}))
    except ValidationError as error:
        raise settings_error(error, settings, sources) from None


def _check_groups(
    settings: type[BaseModel], source: Source, values: Mapping[str, Any], place: tuple[str, ...] = ()
) -> None:
    """Raise SettingsError if a source has a single value in place of a group of settings."""
    for name, field in settings.model_fields.items():
        group, value, here = _group(field), values.get(name, {}), (*place, name)
        if group and not isinstance(value, dict):
            wrong = _NO_SETTINGS if value is None else "it must be a group of settings: write some below it"
            raise SettingsError(f"{source.where(here)}{'.'.join(here)}: {wrong}, or remove it")
        if group:
            _check_groups(group, source, value, here)


def _group(field: FieldInfo) -> type[BaseModel] | None:
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def presets() -> list[str]:
    """Return the names of the presets."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def _file_sources(source: str) -> list[Source]:
    """Return the sources of a preset, or of a file and the preset that it builds on."""
    preset = PRESETS / f"{source}.yaml"
    path = preset if source in presets() else Path(source)
    try:
        if not path.is_file():
            if path.exists():
                raise SettingsError(f"{path} is a folder or a device: name a YAML file with settings")
            raise SettingsError(
                f"no preset or file named {source}: {did_you_mean(source, presets())}the presets are "
                f"{', '.join(presets())}"
            )
        content, lines = strict_yaml.read(path)
    except OSError as error:
        raise SettingsError(f"{_short(source)} cannot be read: {error.strerror}") from None
    except (YamlSyntaxError, UnsupportedYamlError) as error:
        raise SettingsError(f"{path}:{error}") from None
    if content is None or content == {}:
        raise SettingsError(f"{path}:1: the file holds no settings: write at least a line such as `preset: sample`")
    if not isinstance(content, dict):
        raise SettingsError(f"{path}:1: write settings as `key: value`, and not a {type(content).__name__}")
    if path == preset or "preset" not in content:
        return [Source(content, str(path), lines)]
    base = content.pop("preset")
    if base not in presets():
        raise SettingsError(
            f"{path}:{lines['preset',]}: no preset {_short(repr(base))}; the presets are {', '.join(presets())}"
        )
    return [Source(content, str(path), lines), *_file_sources(base)]


def flag_source(flag: str) -> Source:
    """Return the source of a flag `a.b=c`. Raises SettingsError."""
    key, equals, text = flag.partition("=")
    if not equals or not key:
        raise SettingsError(f"--set {_short(flag)}: write it as key=value, for example training.epochs=10")
    return Source(_nested(key.split("."), text, f"--set {_short(key)}"))


def _nested(keys: list[str], text: str, origin: str) -> dict[str, Any]:
    """Return the setting of a variable or flag as nested groups. Messages start with `origin`."""
    if len(keys) > _DEEPEST:
        raise SettingsError(f"{origin}: no such setting; settings are at most {_DEEPEST} levels deep")
    try:
        value = strict_yaml.parse(text).value  # numbers and lists are written as in a file
    except YamlSyntaxError:
        value = text
    except UnsupportedYamlError as error:
        raise SettingsError(f"{origin}: line {error}") from None
    *groups, name = keys
    nested: dict[str, Any] = {name: value}
    for group in reversed(groups):
        nested = {group: nested}
    return nested


def settings_error(
    error: ValidationError, settings: type[BaseModel] = Settings, sources: Sequence[Source] = ()
) -> SettingsError:
    """Return the error for invalid settings, with a line for each problem.

    Args:
        error: the error of pydantic.
        settings: class of the settings that were validated.
        sources: the sources of the settings, so that a line can name a file or a variable.
    """
    problems = error.errors()
    lines = [_origin(problem["loc"], sources) + _explain(problem, settings) for problem in problems[:_MOST_EXPLAINED]]
    if len(problems) > _MOST_EXPLAINED:
        lines.append(f"and {len(problems) - _MOST_EXPLAINED:,} more")
    return SettingsError(*lines)


def _origin(place: Place, sources: Sequence[Source]) -> str:
    """Return the prefix of a message about a setting, which names the first source that sets it."""
    for source in sources:
        value: Any = source.values
        for depth, key in enumerate(place):
            if isinstance(value, dict) and key in value:
                value = value[key]
            elif depth and isinstance(value, list):  # a list has one line for all its values
                return source.where(place[:depth])
            else:
                break
        else:
            return source.where(place) if place else ""
    return ""


def _explain(problem: ErrorDetails, settings: type[BaseModel]) -> str:
    key = ".".join(str(part) for part in problem["loc"])
    if key in _RENAMED:
        return f"{key} was renamed to {_RENAMED[key]}"
    if key in REMOVED:
        return f"{key} no longer exists, because {REMOVED[key]}: leave it out"
    if problem["type"] == "extra_forbidden" and key in _keys(Settings):
        return f"{key}: this command does not use this setting: leave it out"
    if problem["type"] == "extra_forbidden":
        hint = did_you_mean(key[:_LONGEST_SHOWN], _keys(settings)).strip()
        return f"{_short(key)}: no such setting" + (f"; {hint}" if hint else "")
    if problem["type"] == "model_type" and problem["input"] is None:
        return f"{key}: {_NO_SETTINGS}, or remove it"
    message = problem["msg"].removeprefix("Value error, ")
    # The value of an address is not shown, because the user may have put a password in it by mistake.
    shown = not isinstance(problem["input"], dict | SecretStr) and not key.startswith("metadata")
    value = f" (got {_short(repr(problem['input']))})" if shown else ""
    return f"{key}: {message}{value}".removeprefix(": ")  # a problem of all settings together has no key


def _short(text: str) -> str:
    """Return a value of any length, shortened for a message."""
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}... ({len(text):,} characters)"


def _keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    keys = []
    for name, field in model.model_fields.items():
        keys.append(prefix + name)
        if group := _group(field):
            keys += _keys(group, f"{prefix}{name}.")
    return keys
