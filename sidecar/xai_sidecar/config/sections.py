"""The keys of the config file, as pydantic models. docs/reference/config.md is made of their descriptions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from xai_sidecar.config.drift import DriftConfig
from xai_sidecar.config.evaluation import EvaluatorConfig
from xai_sidecar.config.explainers import ExplainersConfig, explainers_section
from xai_sidecar.config.input import InputConfig
from xai_sidecar.config.listening import ListeningConfig, must_match
from xai_sidecar.config.run import RunConfig
from xai_sidecar.config.section import MadeSection, Section
from xai_sidecar.config.upstream import UpstreamConfig, checked_address
from xai_sidecar.errors import ConfigError
from xai_sidecar.paths import cache_folder


def _device(value: str) -> str:
    return must_match(value, r"(cpu|gpu|ascend)(:\d+)?", "one of these")


def _factory(value: str) -> str:
    return must_match(value, r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", "of the form module:callable")


BatchSizes = Annotated[list[Annotated[int, Field(ge=1, le=1024, strict=True)]], Field(min_length=1, max_length=8)]


SOURCES = ("factory", "onnx", "oip")
"""The keys that say where a model comes from, of which exactly one is set."""

_BELONGING = {
    "arguments": "factory",
    "checkpoint": "factory",
    "onnx_input": "onnx",
    "onnx_output": "onnx",
    "upstream": "oip",
}
"""Keys that mean something for one source alone."""

_OF_THIS_MACHINE = ("device", "threads", "forward_engine", "gradient_batch_sizes")
"""Keys that mean nothing for a model on another server."""


class ModelConfig(Section):
    """The classifier."""

    name: str = Field(default="model", min_length=1, max_length=128, description="Name shown to clients.")
    factory: Annotated[str, AfterValidator(_factory)] | None = Field(
        default=None,
        description="module:callable that returns a MindSpore cell. Exactly one of model.factory, model.onnx and "
        "model.oip says where the model comes from.",
    )
    onnx: Path | None = Field(
        default=None,
        description="An ONNX file of a classifier, from any framework. Weights in files of their own lie beside it.",
    )
    onnx_input: str | None = Field(
        default=None, min_length=1, description="Input of the ONNX file that takes the pictures. Default: its only one."
    )
    onnx_output: str | None = Field(
        default=None,
        min_length=1,
        description="Output of the ONNX file with the logits, or with what a last softmax or sigmoid made of them. "
        "Default: its only one.",
    )
    oip: Annotated[str, AfterValidator(checked_address)] | None = Field(
        default=None,
        description="A model on another server that speaks the Open Inference Protocol: grpc://host:port/model, or "
        "grpcs, http or https. It is explained from outside, by passes alone.",
    )
    upstream: UpstreamConfig = Field(
        default_factory=UpstreamConfig, description="The model on another server that model.oip names."
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
    device: Annotated[str, AfterValidator(_device)] = Field(
        default="cpu",
        description="cpu, gpu or ascend, optionally with :index. There is no falling back to another device.",
    )
    threads: Annotated[int, Field(ge=1, le=1024, strict=True)] | None = Field(
        default=None,
        description="Threads that compute passes on a CPU. Default: one for each CPU that the process may use, by its "
        "affinity and its container's quota.",
    )
    forward_engine: Literal["auto", "onnxruntime", "openvino", "mindspore"] = Field(
        default="auto",
        description="What runs passes and gradients on a CPU. auto: the fastest engine that gives the same answers; "
        "what it cannot run of a MindSpore cell runs on MindSpore.",
    )
    batch_sizes: BatchSizes = Field(default=[1, 2, 4, 8], description="Batch sizes of forward passes.")
    gradient_batch_sizes: BatchSizes = Field(
        default=[1],
        description="Batch sizes compiled for gradients. On a CPU, more than 1 gains little and has predictions wait.",
    )
    compile_cache: Path | Literal[False] = Field(
        default_factory=lambda: cache_folder() / "compiled",
        description="Folder for compiled programs, and for what was found out about the net, so that the next start is "
        "quicker; false for none.",
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

    @property
    def source(self) -> str:
        """Which key says where the model comes from: one of `SOURCES`.

        Raises:
            ConfigError: None does, or several do.
        """
        given = [key for key in SOURCES if getattr(self, key) is not None]
        if len(given) == 1:
            return given[0]
        if not given:
            raise ConfigError(
                f"nothing says where the model comes from. Set one of {_keys(SOURCES)}: a module:callable that returns "
                "a MindSpore cell, an ONNX file, or a model on another server.",
                field="model.factory",
            )
        raise ConfigError(
            f"{_keys(given)} are set, and a model comes from one place. Leave all of them out but one.",
            field=f"model.{given[-1]}",
        )

    @model_validator(mode="after")
    def _from_one_source(self) -> ModelConfig:
        source = self.source
        for key in _OF_THIS_MACHINE:
            if source == "oip" and key in self.model_fields_set:
                raise ConfigError(
                    "the model runs on the server that model.oip names, whose matter that is. Leave it out.",
                    field=f"model.{key}",
                )
        for key, of in _BELONGING.items():
            if key in self.model_fields_set and of != source:
                raise ConfigError(
                    f"it belongs to model.{of}, and model.{source} is set. Leave it out.", field=f"model.{key}"
                )
        return self


def _keys(names: Sequence[str]) -> str:
    """The names of some keys of the section, with "and" before the last."""
    *first, last = (f"model.{name}" for name in names)
    return f"{', '.join(first)} and {last}"


class OodConfig(Section):
    """The out-of-distribution net."""

    checkpoint: Path | None = Field(
        default=None, description="What xai-sidecar train-ood wrote. Default: no OoD scores, and no rise_plus."
    )


class ServerConfig(ListeningConfig):
    """The service and its limits."""

    max_message_bytes: int = Field(
        default=16 * 2**20, ge=2**16, le=2**30, description="Largest message received or sent, in bytes."
    )
    max_pixels: int = Field(
        default=50_000_000, ge=1, le=10**9, description="Most pixels, width times height, of a picture."
    )
    max_request_pixels: int | None = Field(
        default=None,
        ge=1,
        le=10**11,
        description="Most pixels of all pictures of a request together, and of all masks of a report of ground truth. "
        "Default: twice max_pixels.",
    )
    queue_pixels: int = Field(
        default=1_000_000_000,
        ge=1,
        le=10**12,
        description="Most pixels of pictures that wait to be decoded; requests beyond that are refused, with a retry "
        "hint.",
    )
    decode_seconds: float = Field(
        default=10.0, gt=0, le=3600, description="Most CPU time that decoding a picture may take."
    )
    max_images: int = Field(default=16, ge=1, le=1024, description="Most pictures in a request.")
    max_explanations: int = Field(default=16, ge=1, le=64, description="Most explanations in a request.")
    max_targets: int = Field(default=16, ge=1, le=1024, description="Most targets of an explanation.")
    max_passes: int = Field(
        default=200_000,
        ge=1,
        le=10**9,
        description="Most passes through the model that all explanations of a request may take.",
    )
    queue_capacity: int = Field(
        default=256,
        ge=1,
        le=100_000,
        description="Most pictures, and as many explanations, in progress; requests beyond that are refused, with a "
        "retry hint.",
    )
    queue_bytes: int = Field(
        default=2**30,
        ge=2**20,
        le=2**40,
        description="Most bytes of requests in progress, with their pictures, masks and maps; requests beyond that are "
        "refused, with a retry hint.",
    )
    max_calls: int = Field(
        default=1000,
        ge=1,
        le=100_000,
        description="Most calls in progress, and most connections; what comes beyond is refused.",
    )
    max_call_seconds: float = Field(
        default=3600,
        gt=0,
        le=86_400,
        description="The longest time that a call may take, whatever its deadline.",
    )
    stall_seconds: float = Field(
        default=20,
        gt=0,
        le=3600,
        description="How long a caller may take to send a request or to read an answer or an event of a stream, and a "
        "second more for each 256 KiB of it; then the call is ended.",
    )
    repeat_seconds: float = Field(
        default=10,
        ge=0,
        le=3600,
        description="How long the answer of a Predict or PredictStream is kept for a call with the same id and "
        "content, such as a client's retry after a lost connection, up to 64 MiB of answers. While it is worked on, "
        "such a call joins it. 0: not kept.",
    )
    response_cache_bytes: int = Field(
        default=0,
        ge=0,
        le=2**40,
        description="Bytes of answers of Predict that are kept for callers who ask the same again under another id: "
        "the same pictures, parameters and seed of the same model. The least recently used go first. Answers cut short "
        "or with an explainer chosen by auto are not kept. 0 keeps none.",
    )
    slice_milliseconds: float = Field(
        default=20,
        gt=0,
        le=10_000,
        description="Time slice: what a batch on the device may take, and so how long a prediction waits for one that "
        "is running. A batch of a single row may take longer.",
    )
    explain_share: float = Field(
        default=0.1,
        ge=0,
        le=0.9,
        description="The part of the device's time that explanations get, if they want it, however many predictions "
        "there are.",
    )
    batch_delay_milliseconds: float = Field(
        default=0,
        ge=0,
        le=1000,
        description="How long a prediction may wait for others to share a batch with.",
    )
    hang_seconds: float = Field(
        default=60,
        ge=1,
        le=3600,
        description="A batch that takes longer than this hangs: all calls fail, and the process ends with status 1. "
        "Compiling and pauses of the whole machine do not count.",
    )
    drain_seconds: float = Field(
        default=30, gt=0, le=3600, description="How long calls in flight may take to finish after SIGTERM."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(default="info", description="What is logged.")
    log_format: Literal["auto", "text", "json"] = Field(
        default="auto", description="auto: text on a terminal, JSON otherwise."
    )

    tracing: Literal["off", "log", "otel"] = Field(
        default="off",
        description="What becomes of the steps of each prediction, with their times: nothing, a log line, or "
        "OpenTelemetry spans, which take the extra otel and go where OTEL_EXPORTER_OTLP_ENDPOINT says.",
    )

    @property
    def most_request_pixels(self) -> int:
        """`max_request_pixels`, or its default."""
        return self.max_request_pixels or 2 * self.max_pixels


class Config(Section):
    """The whole file."""

    model: ModelConfig
    explainers: Annotated[ExplainersConfig, MadeSection(explainers_section)] = Field(
        default_factory=lambda: explainers_section()()
    )
    ood: OodConfig = Field(default_factory=OodConfig)
    server: ServerConfig = Field(default_factory=ServerConfig)
    evaluator: EvaluatorConfig = Field(default_factory=EvaluatorConfig)
    drift: DriftConfig = Field(default_factory=DriftConfig)
    run: RunConfig = Field(default_factory=RunConfig)

    @model_validator(mode="after")
    def _times_out_first(self) -> Config:
        longest, hangs = self.model.upstream.timeout_seconds, self.server.hang_seconds
        if self.model.oip is not None and longest >= hangs:
            raise ConfigError(
                f"{longest:g} s are not below the {hangs:g} s of server.hang_seconds, after which a batch is given up. "
                "Lower the one or raise the other.",
                field="model.upstream.timeout_seconds",
            )
        return self
