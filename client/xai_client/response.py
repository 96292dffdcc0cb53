"""Answers of the server as the SDK's types."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from typing import Final

import numpy as np
from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.struct_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp
from PIL import Image

from xai_client.colours import FloatArray
from xai_client.errors import ResponseError
from xai_client.request import short_names
from xai_client.types import (
    Advantage,
    AutoChoice,
    ClassScore,
    Event,
    Explained,
    Explanation,
    Finished,
    ParameterValue,
    PictureSize,
    Predicted,
    Prediction,
    Progress,
    Region,
    SaliencyMap,
)
from xai_proto import explanation_pb2 as pb

_FLOATS: Final[Mapping[int, str]] = {pb.DATA_TYPE_FLOAT32: "<f4", pb.DATA_TYPE_FLOAT16: "<f2"}


def predictions(response: pb.PredictResponse, request_id: str, count: int) -> list[Prediction]:
    """Decodes all predictions of a response.

    Args:
        response: The response.
        request_id: Id sent, for servers that do not repeat it.
        count: Number of pictures in the request.

    Raises:
        ResponseError: The response contradicts the contract.
    """
    name = response.request_id or request_id
    if len(response.predictions) != count:
        raise ResponseError(f"{count} pictures were sent, but {len(response.predictions)} predictions came back")
    return [_prediction(each, name, response) for each in response.predictions]


def _prediction(message: pb.Prediction, request_id: str, response: pb.PredictResponse) -> Prediction:
    region = _region(message) if message.HasField("region") else None
    size = size_of(message.picture) if message.HasField("picture") else None
    explanations = [_explanation(each, region, size) for each in message.explanations]
    has_ood = message.HasField("ood")
    return Prediction(
        request_id=request_id,
        model_version=response.model_version,
        classes=class_scores(message.classes),
        ood_score=message.ood.score if has_ood else None,
        ood_percentile=message.ood.percentile if has_ood else None,
        explanations={each.name: each for each in explanations},
        region=region,
        picture_size=size,
        sampled=response.sampled,
    )


def class_scores(messages: Iterable[pb.ClassScore]) -> tuple[ClassScore, ...]:
    """Decodes classes with how sure the model is of them."""
    return tuple(ClassScore(each.class_id, each.label, each.probability, each.logit) for each in messages)


def _region(message: pb.Prediction) -> Region:
    region = region_of(message.region)
    if not all(map(math.isfinite, region)) or region.left >= region.right or region.top >= region.bottom:
        raise ResponseError(f"the region of the prediction is empty: {region}")
    return region


def region_of(message: pb.Region) -> Region:
    """Decodes a rectangle."""
    return Region(message.left, message.top, message.right, message.bottom)


def size_of(message: pb.PictureSize) -> PictureSize:
    """Decodes the size of a picture."""
    return PictureSize(message.width, message.height)


def _explanation(message: pb.Explanation, region: Region | None, size: PictureSize | None) -> Explanation:
    return Explanation(
        name=message.name or message.explainer,
        explainer=message.explainer,
        status=enum_name(pb.ExplanationStatus.DESCRIPTOR, message.status),
        status_message=message.status_message,
        maps=tuple(saliency_map(each, map_values(each)) for each in message.maps),
        parameters=values_of(message.parameters),
        seed=message.seed if message.HasField("seed") else None,
        passes=message.pass_count,
        truncated=message.truncated,
        elapsed=message.elapsed.ToTimedelta().total_seconds(),
        region=region,
        picture_size=size,
        choice=auto_choice(message.auto_choice) if message.HasField("auto_choice") else None,
        precision=message.precision,
    )


def auto_choice(message: pb.AutoChoice) -> AutoChoice:
    """Decodes why an explainer was chosen."""
    return AutoChoice(
        reason=message.reason,
        kind=enum_name(pb.AutoChoiceKind.DESCRIPTOR, message.kind),
        composite_score=message.composite_score if message.HasField("composite_score") else None,
        advantage=advantage(message.advantage) if message.HasField("advantage") else None,
    )


def advantage(message: pb.Advantage) -> Advantage:
    """Decodes by how much an explainer is better than something else."""
    return Advantage(message.over, message.mean, message.confidence_half_width)


def saliency_map(message: pb.SaliencyMap, values: FloatArray | None) -> SaliencyMap:
    """Decodes what is said of a map.

    Args:
        message: The message.
        values: Its values, see `map_values`; None for a map without.
    """
    return SaliencyMap(
        class_id=message.class_id,
        label=message.label,
        status=enum_name(pb.MapStatus.DESCRIPTOR, message.status),
        values=values,
        standard_error=message.standard_error if message.HasField("standard_error") else None,
        standard_error_bound=message.standard_error_bound if message.HasField("standard_error_bound") else None,
        precision_error=message.precision_error if message.HasField("precision_error") else None,
    )


def map_values(message: pb.SaliencyMap) -> FloatArray | None:
    """Decodes the values of a map (H, W); None where its status forbids one.

    Raises:
        ResponseError: They are missing, or contradict the contract.
    """
    kind = message.WhichOneof("map")
    # A map that came with a status that forbids one would be the garbage that the status warns of.
    if message.status not in (pb.MAP_STATUS_OK, pb.MAP_STATUS_ALL_ZERO, pb.MAP_STATUS_UNRELIABLE):
        return None
    if kind == "tensor":
        return _tensor(message.tensor)
    if kind == "png":
        return _png(message.png)
    raise ResponseError(f"the map of class {message.class_id} is missing, though its status promises one")


def _tensor(tensor: pb.Tensor) -> FloatArray:
    shape = tuple(tensor.shape)
    dtype = _FLOATS.get(tensor.dtype)
    if dtype is None or len(shape) != 2 or min(shape) < 1:
        raise ResponseError(f"a map must be a tensor of floats (H, W), not of type {tensor.dtype} and shape {shape}")
    if math.prod(shape) * np.dtype(dtype).itemsize != len(tensor.data):
        raise ResponseError(f"a map of shape {shape} came with {len(tensor.data)} bytes")
    return np.frombuffer(tensor.data, dtype).reshape(shape).astype(np.float32)


def _png(message: pb.PngMap) -> FloatArray:
    try:
        with Image.open(io.BytesIO(message.data), formats=["PNG"]) as picture:
            grey = np.asarray(picture.convert("L"), np.float32)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ResponseError(f"a map is no readable PNG: {error}") from error
    return (message.minimum + grey / np.float32(255) * (message.maximum - message.minimum)).astype(np.float32)


class EventDecoder:
    """Decodes the events of one stream, which build on its first one: that one holds the region of every picture."""

    def __init__(self, request_id: str) -> None:
        self._request_id = request_id
        self._prediction: Prediction | None = None

    def decode(self, message: pb.PredictStreamResponse) -> Event | None:
        """Returns the event; None for one that this version does not know.

        Raises:
            ResponseError: The event contradicts the contract.
        """
        request_id = message.request_id or self._request_id
        kind = message.WhichOneof("event")
        if kind == "predicted":
            self._prediction = predictions(message.predicted, request_id, 1)[0]
            return Predicted(request_id, self._prediction)
        if kind == "progress":
            return _progress(message.progress, request_id)
        if kind == "explained":
            return self._explained(message.explained, request_id)
        return Finished(request_id) if kind == "finished" else None

    def _explained(self, message: pb.ExplanationUpdate, request_id: str) -> Explained:
        if self._prediction is None:
            raise ResponseError("an explanation came before the prediction")
        first = self._prediction
        return Explained(request_id, _explanation(message.explanation, first.region, first.picture_size))


def _progress(message: pb.ExplanationProgress, request_id: str) -> Progress:
    return Progress(
        request_id=request_id,
        name=message.name,
        passes=message.pass_count,
        planned_passes=message.planned_pass_count,
        standard_error=message.standard_error if message.HasField("standard_error") else None,
        remaining=message.remaining.ToTimedelta().total_seconds() if message.HasField("remaining") else None,
    )


def enum_name(enum: EnumDescriptor, number: int) -> str:
    """The lower-case name of an enum's value, such as "zero_gradient"; "unknown" for one that this version lacks."""
    return short_names(enum).get(number, "unknown")


def value_of(value: Value) -> ParameterValue:
    """A parameter's value; whole numbers as ints, lists and objects as None, for parameters have none."""
    kind = value.WhichOneof("kind")
    if kind == "number_value":
        number = value.number_value
        return int(number) if number.is_integer() else number
    if kind == "string_value":
        return value.string_value
    return value.bool_value if kind == "bool_value" else None


def values_of(values: Mapping[str, Value]) -> dict[str, ParameterValue]:
    """Decodes parameters, by name, in the order of their names."""
    return {name: value_of(value) for name, value in sorted(values.items())}


def time_of(timestamp: Timestamp) -> datetime:
    """A point in time, in UTC."""
    return timestamp.ToDatetime(timezone.utc)
