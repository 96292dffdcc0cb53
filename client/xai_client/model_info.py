"""The description of the model that a server serves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from xai_client.evaluator_info import (
    EvaluatorInfo,
    MapDrift,
    QualityMeasure,
    Standing,
    WeightDependence,
    evaluator_info,
    map_drift,
    quality_measure,
    standing,
    weight_dependence,
)
from xai_client.response import enum_name, time_of, value_of
from xai_client.types import ParameterValue
from xai_proto import explanation_pb2 as pb

_ROLES: Final = "x-roles"


@dataclass(frozen=True)
class InputInfo:
    """What the net takes and how pictures become that.

    Attributes:
        channels: 1 (grey) or 3 (RGB).
        height: Rows.
        width: Columns.
        resize_height: Height that a picture is scaled to cover before the centre crop.
        resize_width: Width, likewise.
        stretch: Whether pictures are stretched to that size, losing their proportions.
        interpolation: "nearest", "bilinear", "bicubic" or "lanczos".
        mean: Subtracted from each channel of the picture scaled to [0, 1].
        std: Each channel is then divided by this.
        letterbox: Whether the whole picture is scaled to fit, and the rest filled with the mean colour.
        mean_colour: What explainers and metrics cover pictures with, each channel in [0, 1]; empty from a server that
            does not say.
    """

    channels: int
    height: int
    width: int
    resize_height: int
    resize_width: int
    stretch: bool
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    letterbox: bool = False
    mean_colour: tuple[float, ...] = ()


@dataclass(frozen=True)
class ParameterInfo:
    """One parameter of an explainer.

    Attributes:
        name: Name, as `Explain` takes it.
        description: What it does, with its unit.
        type: "integer", "number", "string" or "boolean".
        default: Value when not given.
        minimum: Smallest value allowed; None if not limited.
        maximum: Largest value allowed; None if not limited.
        choices: The values allowed, for strings of a fixed set.
    """

    name: str
    description: str
    type: str
    default: ParameterValue
    minimum: float | None
    maximum: float | None
    choices: tuple[str, ...]


@dataclass(frozen=True)
class ExplanationCost:
    """What an explanation is expected to cost with the defaults and one target.

    Attributes:
        passes: Rows through the model.
        seconds: Estimated seconds at the current load.
        idle_seconds: Estimated seconds on an idle device; None where the server does not say.
    """

    passes: int
    seconds: float
    idle_seconds: float | None = None


@dataclass(frozen=True)
class ExplainerInfo:
    """One explainer.

    Attributes:
        name: Name to ask for it by.
        description: What it does, in a sentence, with its source.
        available: Whether it can be used with this model.
        unavailable_reason: If not, why not and what would help.
        parameters: Its parameters by name.
        cost: What it is expected to cost; None if not known.
        quality: How good its maps have been measured to be on live traffic; empty until measured.
        composite_score: How good its maps are by all metrics together, by which "auto" chooses: 0 to 1 with 1 for the
            best; None until known.
        standing: Whether "auto" may choose it; None until it has been compared with the controls.
        precision: What its passes are computed in with the defaults; below float32 that depends on the picture. Empty
            from a server that does not say.
        weight_dependence: How its maps change when the model's weights are put in disorder; None until that is tried.
        drift: How far its maps have moved from those that the server made first; empty until there are enough.
    """

    name: str
    description: str
    available: bool
    unavailable_reason: str
    parameters: Mapping[str, ParameterInfo]
    cost: ExplanationCost | None
    quality: tuple[QualityMeasure, ...]
    composite_score: float | None = None
    standing: Standing | None = None
    precision: str = ""
    weight_dependence: WeightDependence | None = None
    drift: tuple[MapDrift, ...] = ()


@dataclass(frozen=True)
class OodInfo:
    """The out-of-distribution net.

    Attributes:
        training_sample_count: Pictures that it was trained on.
        training_time: When it was trained, UTC; None if not known.
        auroc: Area under the ROC curve against each kind of outlier, 0 to 1 with 0.5 for guessing.
    """

    training_sample_count: int
    training_time: datetime | None
    auroc: Mapping[str, float]


@dataclass(frozen=True)
class Limits:
    """What a request may ask for at the most.

    Attributes:
        max_image_count: Pictures in one request.
        max_pixel_count: Pixels in one picture.
        max_message_bytes: Bytes in one message.
        max_explanation_count: Explanations in one request.
        max_target_count: Targets of one explanation.
        max_pass_count: Passes that the explanations of one request may take; 0 from a server that does not say.
        max_call_seconds: Longest time that a call may take, whatever its deadline; 0 from a server that does not say.
    """

    max_image_count: int
    max_pixel_count: int
    max_message_bytes: int
    max_explanation_count: int
    max_target_count: int
    max_pass_count: int = 0
    max_call_seconds: float = 0.0


@dataclass(frozen=True)
class BatchCost:
    """What one batch costs, by its size.

    Attributes:
        batch_size: Rows in the batch.
        seconds: Median time of one batch, as measured at start.
    """

    batch_size: int
    seconds: float


@dataclass(frozen=True)
class LayerInfo:
    """A layer that explainers of a layer can explain, since its output lies on the picture.

    Attributes:
        name: Name, as the parameter `layer` takes it.
        channels: Channels of its output.
        height: Rows of its output.
        width: Columns of its output.
        available: Whether a request may name it: it was compiled at start, or the server compiles layers on demand.
        compiled: Whether it was compiled at start, so that naming it costs no delay.
        is_default: Whether it is the one explained where a request names none.
    """

    name: str
    channels: int
    height: int
    width: int
    available: bool
    compiled: bool
    is_default: bool


@dataclass(frozen=True)
class ModelInfo:
    """What is served, and how.

    Attributes:
        name: Name from the config.
        version: Fingerprint of what answers depend on: the net's structure and weights, how pictures become its inputs,
            the activation and the labels. Equal versions give equal answers, but for rounding.
        class_count: Number of classes.
        labels: Label of every class, by class id.
        activation: "softmax" or "sigmoid".
        input: What the net takes.
        device: Where it runs: "cpu", "gpu:0", "ascend:0".
        engine: What runs the forward passes, with its version.
        engine_note: Why a faster engine does not; empty where none was passed over.
        explainers: Every explainer by name, usable here or not.
        ood: The out-of-distribution net; None where there is none.
        limits: What a request may ask for at the most.
        server_version: Version of xai-sidecar.
        ready_time: When the server became ready, UTC; None if not known.
        batches: Batch sizes compiled for predictions, ascending.
        evaluator: What measures how good explanations are; None where nothing is sampled.
        layers: The layers that explainers of a layer, such as Grad-CAM, can explain, in the order in which they run.
        weights: Where the weights came from, in a sentence; says so where any were not loaded from a file.
        run: Name of the offline run that is shown, which has samples but predicts nothing; empty of a server.
        roles: What those who asked may do there: "predict", "explain", "feedback", "read". None where the server lets
            everybody do everything, or is older and does not say.
    """

    name: str
    version: str
    class_count: int
    labels: tuple[str, ...]
    activation: str
    input: InputInfo
    device: str
    engine: str
    explainers: Mapping[str, ExplainerInfo]
    ood: OodInfo | None
    limits: Limits
    server_version: str
    ready_time: datetime | None
    batches: tuple[BatchCost, ...]
    engine_note: str = ""
    evaluator: EvaluatorInfo | None = None
    layers: tuple[LayerInfo, ...] = ()
    weights: str = ""
    run: str = ""
    roles: tuple[str, ...] | None = None


def model_info(message: pb.ModelInfo, metadata: Iterable[tuple[str, str | bytes]] = ()) -> ModelInfo:
    """Decodes the description of the model, and what the trailing metadata say of the caller."""
    roles = next((value for key, value in metadata if key == _ROLES), None)
    return ModelInfo(
        name=message.name,
        version=message.version,
        class_count=message.class_count,
        labels=tuple(message.labels),
        activation=enum_name(pb.Activation.DESCRIPTOR, message.activation),
        input=_input(message.input),
        device=message.device,
        engine=message.engine,
        explainers={each.name: _explainer(each) for each in message.explainers},
        ood=_ood(message.ood) if message.HasField("ood") else None,
        limits=_limits(message.limits),
        server_version=message.server_version,
        ready_time=time_of(message.ready_time) if message.HasField("ready_time") else None,
        batches=tuple(
            BatchCost(each.batch_size, each.duration.ToTimedelta().total_seconds()) for each in message.batches
        ),
        engine_note=message.engine_note,
        evaluator=evaluator_info(message.evaluator) if message.HasField("evaluator") else None,
        layers=tuple(_layer(each) for each in message.layers),
        weights=message.weights,
        run=message.run,
        roles=tuple(roles.split(",")) if isinstance(roles, str) else None,
    )


def _input(message: pb.InputInfo) -> InputInfo:
    return InputInfo(
        channels=message.channels,
        height=message.height,
        width=message.width,
        resize_height=message.resize_height,
        resize_width=message.resize_width,
        stretch=message.stretch,
        letterbox=message.letterbox,
        interpolation=message.interpolation,
        mean=tuple(message.mean),
        std=tuple(message.std),
        mean_colour=tuple(message.mean_colour),
    )


def _layer(message: pb.LayerInfo) -> LayerInfo:
    return LayerInfo(
        name=message.name,
        channels=message.channels,
        height=message.height,
        width=message.width,
        available=message.available,
        compiled=message.compiled,
        is_default=message.is_default,
    )


def _explainer(message: pb.ExplainerInfo) -> ExplainerInfo:
    idle = message.cost.idle_duration.ToTimedelta().total_seconds() if message.cost.HasField("idle_duration") else None
    cost = ExplanationCost(message.cost.pass_count, message.cost.duration.ToTimedelta().total_seconds(), idle)
    return ExplainerInfo(
        name=message.name,
        description=message.description,
        available=message.available,
        unavailable_reason=message.unavailable_reason,
        parameters={each.name: _parameter(each) for each in message.parameters},
        cost=cost if message.HasField("cost") else None,
        quality=tuple(quality_measure(each) for each in message.quality),
        composite_score=message.composite_score if message.HasField("composite_score") else None,
        standing=standing(message.standing) if message.HasField("standing") else None,
        precision=message.precision,
        weight_dependence=weight_dependence(message),
        drift=tuple(map_drift(each) for each in message.drift),
    )


def _parameter(message: pb.ParameterInfo) -> ParameterInfo:
    return ParameterInfo(
        name=message.name,
        description=message.description,
        type=enum_name(pb.ParameterType.DESCRIPTOR, message.type),
        default=value_of(message.default_value),
        minimum=message.minimum if message.HasField("minimum") else None,
        maximum=message.maximum if message.HasField("maximum") else None,
        choices=tuple(message.choices),
    )


def _ood(message: pb.OodInfo) -> OodInfo:
    return OodInfo(
        training_sample_count=message.training_sample_count,
        training_time=time_of(message.training_time) if message.HasField("training_time") else None,
        auroc=dict(message.auroc),
    )


def _limits(message: pb.Limits) -> Limits:
    return Limits(
        max_image_count=message.max_image_count,
        max_pixel_count=message.max_pixel_count,
        max_message_bytes=message.max_message_bytes,
        max_explanation_count=message.max_explanation_count,
        max_target_count=message.max_target_count,
        max_pass_count=message.max_pass_count,
        max_call_seconds=message.max_call_duration.ToTimedelta().total_seconds(),
    )
