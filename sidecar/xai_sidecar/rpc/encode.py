"""From the core's answers to the contract's messages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf.struct_pb2 import Value

from xai_proto import explanation_pb2 as pb
from xai_sidecar.errors import within
from xai_sidecar.evaluator.choice import Choice, Reason
from xai_sidecar.evaluator.comparison import Advantage
from xai_sidecar.explainers.base import MapStatus
from xai_sidecar.imaging import Region
from xai_sidecar.serving.answers import Answer, Event, Explanation, Prediction, SaliencyMap
from xai_sidecar.serving.map_encodings import float_bytes, png
from xai_sidecar.serving.plan import Stage
from xai_sidecar.serving.requests import MapEncoding
from xai_sidecar.serving.streaming import ExplanationProgress

STATUSES = {
    MapStatus.OK: pb.MAP_STATUS_OK,
    MapStatus.ALL_ZERO: pb.MAP_STATUS_ALL_ZERO,
    MapStatus.ZERO_GRADIENT: pb.MAP_STATUS_ZERO_GRADIENT,
    MapStatus.NOT_FINITE: pb.MAP_STATUS_NOT_FINITE,
    MapStatus.NO_OOD_RANGE: pb.MAP_STATUS_NO_OOD_RANGE,
    MapStatus.UNRELIABLE: pb.MAP_STATUS_UNRELIABLE,
}
"""The contract's statuses of maps."""

_KINDS = {
    Reason.BEST: pb.AUTO_CHOICE_KIND_BEST,
    Reason.BEST_OF_CLASS: pb.AUTO_CHOICE_KIND_BEST_OF_CLASS,
    Reason.FALLBACK: pb.AUTO_CHOICE_KIND_FALLBACK,
}
_DTYPES = {MapEncoding.FLOAT32: pb.DATA_TYPE_FLOAT32, MapEncoding.FLOAT16: pb.DATA_TYPE_FLOAT16}


def predict_response(answer: Answer) -> pb.PredictResponse:
    """The answer to a request.

    Raises:
        PreconditionError: A map cannot be had in the encoding asked for.
    """
    return pb.PredictResponse(
        request_id=answer.request_id,
        model_version=answer.model_version,
        sampled=answer.sampled,
        predictions=[_prediction(one) for one in answer.predictions],
    )


def stream_event(request_id: str) -> Callable[[Event], pb.PredictStreamResponse]:
    """What makes events of a stream's messages; it raises a PreconditionError as `predict_response` does."""

    def encode(event: Event) -> pb.PredictStreamResponse:
        response = pb.PredictStreamResponse(request_id=request_id)
        if isinstance(event, Answer):
            response.predicted.CopyFrom(predict_response(event))
        elif isinstance(event, ExplanationProgress):
            response.progress.CopyFrom(_progress(event))
        else:
            response.explained.image_index = event.image_index
            explanation = _explanation(event.explanation, event.explanation_index)
            response.explained.explanation.CopyFrom(explanation)
        return response

    return encode


def finished_event(request_id: str) -> pb.PredictStreamResponse:
    """The last event of a stream."""
    return pb.PredictStreamResponse(request_id=request_id, finished=pb.StreamFinished())


def _progress(event: ExplanationProgress) -> pb.ExplanationProgress:
    progress = pb.ExplanationProgress(
        image_index=event.key.image_index,
        name=event.name,
        pass_count=event.pass_count,
        planned_pass_count=event.planned_passes,
        standard_error=event.standard_error,
    )
    progress.remaining.FromNanoseconds(round(event.seconds_left * 1e9))
    return progress


def _prediction(one: Prediction) -> pb.Prediction:
    prediction = pb.Prediction(
        classes=[
            pb.ClassScore(class_id=class_id, label=label, probability=probability, logit=logit)
            for class_id, label, probability, logit in one.classes
        ],
        explanations=[_explanation(each, index) for index, each in enumerate(one.explanations)],
    )
    if one.ood is not None:
        prediction.ood.score, prediction.ood.percentile = one.ood
    if one.picture_size is not None:
        prediction.picture.width, prediction.picture.height = one.picture_size
    if one.region is not None:
        prediction.region.CopyFrom(region_message(one.region))
    return prediction


def region_message(region: Region) -> pb.Region:
    """A rectangle on a picture."""
    return pb.Region(left=region.left, top=region.top, right=region.right, bottom=region.bottom)


def _explanation(one: Explanation, index: int) -> pb.Explanation:
    explanation = pb.Explanation(
        name=one.name,
        explainer=one.explainer,
        status=f"EXPLANATION_STATUS_{one.stage.name}",
        status_message=one.message,
        truncated=one.stage is Stage.TRUNCATED,
        parameters=parameter_values(one.parameters),
        pass_count=one.pass_count,
        seed=one.seed,
        precision=one.precision,
    )
    explanation.elapsed.FromNanoseconds(round(one.seconds * 1e9))
    if one.choice is not None:
        explanation.auto_choice.CopyFrom(choice_message(one.choice))
    with within(f"explanations[{index}]"):
        explanation.maps.extend(map_message(each, one.encoding) for each in one.maps)
    return explanation


def choice_message(choice: Choice) -> pb.AutoChoice:
    """Why `auto` chose an explainer."""
    message = pb.AutoChoice(reason=choice.explanation, kind=_KINDS[choice.reason], composite_score=choice.composite)
    if choice.advantage is not None:
        message.advantage.CopyFrom(advantage_message(choice.advantage))
    return message


def advantage_message(one: Advantage) -> pb.Advantage:
    """By how much an explainer is better than something else."""
    return pb.Advantage(over=one.over, mean=one.mean, confidence_half_width=one.half_width)


def map_message(one: SaliencyMap, encoding: MapEncoding) -> pb.SaliencyMap:
    """A map of one class.

    Raises:
        PreconditionError: It cannot be had in that encoding.
    """
    message = pb.SaliencyMap(
        class_id=one.class_id,
        label=one.label,
        status=STATUSES[one.status],
        standard_error=one.standard_error,
        standard_error_bound=one.standard_error_bound,
        precision_error=one.precision_error,
    )
    if one.values is not None and encoding is MapEncoding.PNG:
        data, minimum, maximum = png(one.values)
        message.png.CopyFrom(pb.PngMap(data=data, minimum=minimum, maximum=maximum))
    elif one.values is not None:
        data = float_bytes(one.values, encoding)
        message.tensor.CopyFrom(pb.Tensor(dtype=_DTYPES[encoding], shape=one.values.shape, data=data))
    return message


def value_message(value: Any) -> Value:
    """A parameter's value as a message."""
    if isinstance(value, bool):
        return Value(bool_value=value)
    if isinstance(value, (int, float)):
        return Value(number_value=value)
    return Value(string_value=str(value))


def parameter_values(parameters: Mapping[str, Any]) -> dict[str, Value]:
    """Parameters as messages, without those that are not set."""
    return {name: value_message(value) for name, value in parameters.items() if value is not None}
