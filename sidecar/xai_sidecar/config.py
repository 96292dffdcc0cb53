"""The config file as pydantic models. Every error names the key and the cure.

Relative paths in the file are relative to the file.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from xai_sidecar.errors import ConfigError
from xai_sidecar.explainers.gradcam import GradCamParameters
from xai_sidecar.explainers.gradient import GradientParameters
from xai_sidecar.imaging import InputSpec

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Size = Annotated[int, Field(ge=1, le=4096)]
BatchSizes = Annotated[list[Annotated[int, Field(ge=1, le=1024)]], Field(min_length=1, max_length=8)]
Address = Annotated[str, Field(pattern=r"^(\[[0-9a-fA-F:]+\]|[^:\s\[\]]+):\d{1,5}$")]


def cache_folder() -> Path:
    """Where converted weights and compiled programs are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "xai-sidecar"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class InputConfig(_Section):
    """What the net takes, and how pictures become that."""

    size: Size | tuple[Size, Size] = Field(default=224, description="Side, or [height, width], of the model input.")
    channels: Literal[1, 3] = Field(default=3, description="1 for grey, 3 for RGB.")
    layout: Literal["nchw", "nhwc"] = Field(default="nchw", description="Axes of the net's input.")
    resize: Size | tuple[Size, Size] | None = Field(
        default=None,
        description="What pictures are scaled to before the centre crop. A number is the length of the input's shorter "
        "side: the picture keeps its proportions and covers the input scaled up by as much. [height, width] must be at "
        "least the size. Default: the size.",
    )
    stretch: bool = Field(default=False, description="Scale to `resize` exactly, giving up the picture's proportions.")
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = Field(
        default="bilinear", description="How pictures are resized."
    )
    mean: float | list[float] = Field(
        default=[0.485, 0.456, 0.406],
        description="Subtracted from each channel of a picture scaled to [0, 1]; one number for all, or one each.",
    )
    std: float | list[float] = Field(
        default=[0.229, 0.224, 0.225], description="What each channel is then divided by; above 0."
    )

    @model_validator(mode="before")
    @classmethod
    def _grey_default(cls, data: Any) -> Any:
        """ImageNet's statistics have three channels; a grey model gets 0 and 1 instead."""
        if isinstance(data, dict) and data.get("channels") == 1:
            return {"mean": 0.0, "std": 1.0, **data}
        return data

    @model_validator(mode="after")
    def _fits(self) -> InputConfig:
        for key in ("mean", "std"):
            value = getattr(self, key)
            if isinstance(value, list) and len(value) != self.channels:
                raise ValueError(f"{key} has {len(value)} numbers for {self.channels} channels; give one for each")
        if any(std <= 0 for std in _each(self.std, self.channels)):
            raise ValueError("std must be above 0 for every channel")
        height, width = _pair(self.size)
        resize_height, resize_width = self._resize()
        if resize_height < height or resize_width < width:
            raise ValueError(
                f"resize {resize_height}x{resize_width} is smaller than size {height}x{width}; give at least the size"
            )
        return self

    def _resize(self) -> tuple[int, int]:
        height, width = _pair(self.size)
        if self.resize is None:
            return height, width
        if isinstance(self.resize, tuple):
            return self.resize
        scale = self.resize / min(height, width)
        return round(height * scale), round(width * scale)

    def spec(self) -> InputSpec:
        """The same, as imaging wants it."""
        height, width = _pair(self.size)
        resize_height, resize_width = self._resize()
        return InputSpec(
            channels=self.channels,
            height=height,
            width=width,
            resize_height=resize_height,
            resize_width=resize_width,
            stretch=self.stretch,
            interpolation=self.interpolation,
            mean=_each(self.mean, self.channels),
            std=_each(self.std, self.channels),
        )


class ModelConfig(_Section):
    """The classifier."""

    name: str = Field(default="model", min_length=1, max_length=128, description="Name shown to clients.")
    factory: str = Field(
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$", description="module:callable that returns a MindSpore cell."
    )
    arguments: dict[str, Any] = Field(default={}, description="Keyword arguments of the factory.")
    checkpoint: Path | None = Field(
        default=None, description="Weights, .ckpt or .safetensors. Default: those that the factory gives."
    )
    labels: Path | list[str] | None = Field(
        default=None, description="File with one label a line, or the labels themselves. Default: the class ids."
    )
    activation: Literal["softmax", "sigmoid"] = Field(
        default="softmax", description="softmax where exactly one class applies, sigmoid for multi-label models."
    )
    device: str = Field(
        default="cpu",
        pattern=r"^(cpu|gpu|ascend)(:\d+)?$",
        description="cpu, gpu or ascend, optionally with :index. There is no falling back to another device.",
    )
    batch_sizes: BatchSizes = Field(default=[1, 2, 4, 8], description="Batch sizes compiled for predictions.")
    gradient_batch_sizes: BatchSizes = Field(default=[1, 4], description="Batch sizes compiled for gradients.")
    compile_cache: Path | Literal[False] = Field(
        default_factory=lambda: cache_folder() / "compiled",
        description="Folder for compiled programs, so that the next start is quicker; false for none.",
    )
    input: InputConfig = Field(default_factory=InputConfig, description="What the net takes.")

    @field_validator("checkpoint")
    @classmethod
    def _known_format(cls, path: Path | None) -> Path | None:
        if path is not None and path.suffix not in (".ckpt", ".safetensors"):
            raise ValueError(
                f"{path.name} is neither .ckpt nor .safetensors; convert it with mindspore.save_checkpoint"
            )
        return path

    @field_validator("batch_sizes", "gradient_batch_sizes")
    @classmethod
    def _with_one(cls, sizes: list[int]) -> list[int]:
        if 1 not in sizes:
            raise ValueError("1 must be among the batch sizes, so that a row can run alone")
        return sorted(set(sizes))


class GradientConfig(GradientParameters):
    """Defaults of `gradient`."""

    enabled: bool = Field(default=True, description="Whether to offer it; one that is not costs no start-up time.")


class GradCamConfig(GradCamParameters):
    """Defaults of `gradcam`."""

    enabled: bool = Field(default=True, description="Whether to offer it; one that is not costs no start-up time.")
    layers: list[str] = Field(
        default=[], description="Further layers to compile at start, so that requests may name them at no delay."
    )
    compile_on_demand: bool = Field(
        default=True,
        description="Whether a request may name a layer that was not compiled at start. Its first use takes seconds, "
        "during which predictions wait.",
    )


class ExplainersConfig(_Section):
    """The explainers."""

    gradient: GradientConfig = Field(default_factory=GradientConfig, description="Defaults of gradient.")
    gradcam: GradCamConfig = Field(default_factory=GradCamConfig, description="Defaults of gradcam.")


class ServerConfig(_Section):
    """The service and its limits."""

    grpc: Address = Field(default="127.0.0.1:50051", description="Where gRPC is served; port 0 takes a free one.")
    http: Address = Field(default="127.0.0.1:9090", description="Where /metrics, /healthz and /readyz are served.")
    max_message_bytes: int = Field(
        default=16 * 2**20, ge=2**16, le=2**30, description="Largest message received or sent, in bytes."
    )
    max_pixels: int = Field(
        default=50_000_000, ge=1, le=10**9, description="Most pixels, width times height, of a picture."
    )
    max_images: int = Field(default=16, ge=1, le=1024, description="Most pictures in a request.")
    max_explanations: int = Field(default=16, ge=1, le=64, description="Most explanations in a request.")
    max_targets: int = Field(default=16, ge=1, le=1024, description="Most targets of an explanation.")
    queue_capacity: int = Field(
        default=256,
        ge=1,
        le=100_000,
        description="Most predictions and explanations under way; beyond that requests are refused, with a retry hint.",
    )
    drain_seconds: float = Field(
        default=30, gt=0, le=3600, description="How long calls in flight may take to finish after SIGTERM."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="What is logged.")
    log_format: Literal["auto", "text", "json"] = Field(
        default="auto", description="auto: text on a terminal, JSON otherwise."
    )


class Config(_Section):
    """The whole file."""

    model: ModelConfig
    explainers: ExplainersConfig = Field(default_factory=ExplainersConfig)
    server: ServerConfig = Field(default_factory=ServerConfig)


def load_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Reads a config file.

    Args:
        path: The TOML file.
        overrides: ``key.path=value`` each; the value is TOML, or else a text as it stands.

    Raises:
        ConfigError: Something in it is wrong; the first thing found is named.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}. Name a config file with --config.") from error
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}. Correct that line.") from error
    return parse_config(data, overrides, folder=path.resolve().parent)


def parse_config(data: dict[str, Any], overrides: Sequence[str] = (), folder: Path | None = None) -> Config:
    """Checks a config that is already a dict; see `load_config`. Paths are relative to `folder`."""
    for override in overrides:
        _apply(data, override)
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        raise _config_error(error) from None
    return _with_files(config, folder or Path.cwd())


def load_labels(labels: Path | list[str] | None, class_count: int) -> tuple[str, ...]:
    """The label of every class.

    Raises:
        ConfigError: They cannot be read, or there are not as many as the net has outputs.
    """
    if labels is None:
        return tuple(str(class_id) for class_id in range(class_count))
    where = "model.labels has"
    if isinstance(labels, Path):
        where = f"{labels} has"
        try:
            labels = labels.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"{labels} cannot be read: {error}. Give a UTF-8 text file with one label a line.", field="model.labels"
            ) from error
        while labels and not labels[-1].strip():
            labels.pop()
    if len(labels) != class_count:
        raise ConfigError(
            f"{where} {len(labels)} labels, but the net has {class_count} outputs. "
            "Give one label for each output, in their order.",
            field="model.labels",
        )
    return tuple(label.strip() for label in labels)


def _apply(data: dict[str, Any], override: str) -> None:
    path, equals, value = override.partition("=")
    *parents, key = path.strip().split(".")
    if not equals or not key:
        raise ConfigError(f"--set {override!r} is not of the form key.path=value, as in --set model.device=cpu.")
    for parent in parents:
        data = data.setdefault(parent, {})
        if not isinstance(data, dict):
            raise ConfigError(f"--set {override!r}: {parent!r} is a value, not a section.", field=path)
    try:
        data[key] = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        data[key] = value.strip()


def _with_files(config: Config, folder: Path) -> Config:
    """The config with absolute paths, all of which exist."""
    changes: dict[str, Path] = {}
    for key in ("checkpoint", "labels"):
        path = getattr(config.model, key)
        if isinstance(path, Path):
            changes[key] = folder / path.expanduser()
            if not changes[key].is_file():
                raise ConfigError(f"there is no file {changes[key]}. Correct the path.", field=f"model.{key}")
    if isinstance(config.model.compile_cache, Path):
        changes["compile_cache"] = folder / config.model.compile_cache.expanduser()
    return config.model_copy(update={"model": config.model.model_copy(update=changes)})


def _config_error(error: ValidationError) -> ConfigError:
    """The first problem that pydantic found, unknown keys before the rest, as those often cause it."""
    problems = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    problem = problems[0]
    path = [str(part) for part in problem["loc"] if not str(part).startswith(("function-", "constrained-"))]
    path = [
        part for part in path if part not in ("int", "tuple[int, int]", "float", "list[float]", "path", "list[str]")
    ]
    field = ".".join(part for part in path if "[" not in part)
    more = f" ({len(problems) - 1} more after this one.)" if len(problems) > 1 else ""
    if problem["type"] == "extra_forbidden":
        return ConfigError(f"there is no such key.{_suggestion(path)}{more}", field=field)
    if problem["type"] == "missing":
        return ConfigError(f"this key is required.{more}", field=field)
    message = problem["msg"].removeprefix("Value error, ")
    # An error of a whole section says itself which key it means, and its input would be the whole section.
    got = "" if isinstance(problem["input"], (dict, BaseModel)) else f" (got {problem['input']!r})"
    return ConfigError(f"{message[:1].lower()}{message[1:]}{got}.{_description(path)}{more}", field=field)


def _section(path: Sequence[str]) -> type[BaseModel] | None:
    section: Any = Config
    for part in path:
        field = section.model_fields.get(part)
        section = field and field.annotation
        if not (isinstance(section, type) and issubclass(section, BaseModel)):
            return None
    found: type[BaseModel] = section
    return found


def _suggestion(path: Sequence[str]) -> str:
    section = _section(path[:-1])
    if section is None:
        return ""
    known = list(section.model_fields)
    close = difflib.get_close_matches(path[-1], known, n=1)
    return f" Did you mean {close[0]!r}?" if close else f" Known here: {', '.join(known)}."


def _description(path: Sequence[str]) -> str:
    section = _section(path[:-1]) if path else None
    field = section.model_fields.get(path[-1]) if section else None
    return f" {field.description}" if field and field.description else ""


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return size if isinstance(size, tuple) else (size, size)


def _each(value: float | list[float], count: int) -> tuple[float, ...]:
    return tuple(value) if isinstance(value, list) else (value,) * count
