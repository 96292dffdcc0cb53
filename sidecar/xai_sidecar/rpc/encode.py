"""From what was computed to the contract's responses."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from google.protobuf.struct_pb2 import Value
from PIL import Image

from xai_proto import explanation_pb2 as pb
from xai_sidecar.engine.work import FloatArray
from xai_sidecar.errors import PreconditionError, within
from xai_sidecar.evaluator.choice import Reason
from xai_sidecar.explainers.base import MOST_STANDARD_ERROR, MapStatus
from xai_sidecar.imaging import Region
from xai_sidecar.rpc.decode import CheckedRequest
from xai_sidecar.serving.model import ServedModel
from xai_sidecar.serving.plan import Explained, Predicted, Stage, ranked
from xai_sidecar.serving.streaming import Progress, Update

_STATUSES = {
    MapStatus.OK: pb.MAP_STATUS_OK,
    MapStatus.ALL_ZERO: pb.MAP_STATUS_ALL_ZERO,
    MapStatus.ZERO_GRADIENT: pb.MAP_STATUS_ZERO_GRADIENT,
    MapStatus.NOT_FINITE: pb.MAP_STATUS_NOT_FINITE,
    MapStatus.NO_OOD_RANGE: pb.MAP_STATUS_NO_OOD_RANGE,
    MapStatus.UNRELIABLE: pb.MAP_STATUS_UNRELIABLE,
}
_KINDS = {
    Reason.BEST: pb.AUTO_CHOICE_KIND_BEST,
    Reason.BEST_OF_CLASS: pb.AUTO_CHOICE_KIND_BEST_OF_CLASS,
    Reason.FALLBACK: pb.AUTO_CHOICE_KIND_FALLBACK,
}
_HALF_RANGE = (2.0**-14, 65504.0)
"""Largest magnitudes of maps that half precision carries to its full relative precision."""


def predict_response(
    predicted: Sequence[Predicted],
    explained: Sequence[Sequence[Explained]],
    asked: CheckedRequest,
    model: ServedModel,
    request_id: str,
    sampled: bool = False,
) -> pb.PredictResponse:
    """The answer to a request, sampled or not.

    Raises:
        PreconditionError: A map cannot be had in the encoding asked for.
    """
    response = pb.PredictResponse(request_id=request_id, model_version=model.version, sampled=sampled)
    for one, maps in zip(predicted, explained, strict=True):
        prediction = _prediction(one, asked, model)
        for index, each in enumerate(maps):
            prediction.explanations.append(_explanation_of(each, index, asked, model))
        response.predictions.append(prediction)
    return response


def predicted_event(
    predicted: Sequence[Predicted], asked: CheckedRequest, model: ServedModel, request_id: str, sampled: bool = False
) -> pb.PredictStreamResponse:
    """The predictions, as the first event of a stream."""
    response = predict_response(predicted, [()] * len(predicted), asked, model, request_id, sampled)
    return pb.PredictStreamResponse(request_id=request_id, predicted=response)


def explaining_event(
    event: Progress | Update, asked: CheckedRequest, model: ServedModel, request_id: str
) -> pb.PredictStreamResponse:
    """An explanation's progress, or a version of it, as an event of a stream.

    Raises:
        PreconditionError: A map cannot be had in the encoding asked for.
    """
    response = pb.PredictStreamResponse(request_id=request_id)
    place = event.place
    if isinstance(event, Progress):
        progress = response.progress
        progress.image_index, progress.name = place.image_index, asked.plans[place.plan_index].name
        progress.pass_count, progress.planned_pass_count = event.pass_count, event.planned_passes
        if event.standard_error is not None:
            progress.standard_error = event.standard_error
        progress.remaining.FromNanoseconds(round(event.seconds_left * 1e9))
    else:
        response.explained.image_index = place.image_index
        explanation = _explanation_of(event.explained, place.plan_index, asked, model)
        response.explained.explanation.CopyFrom(explanation)
    return response


def finished_event(request_id: str) -> pb.PredictStreamResponse:
    """The last event of a stream."""
    return pb.PredictStreamResponse(request_id=request_id, finished=pb.StreamFinished())


def _prediction(predicted: Predicted, asked: CheckedRequest, model: ServedModel) -> pb.Prediction:
    best = ranked(predicted.logits)[: asked.top_k]
    scores = zip(best.tolist(), predicted.probabilities[best].tolist(), predicted.logits[best].tolist(), strict=True)
    prediction = pb.Prediction(
        classes=[
            pb.ClassScore(class_id=class_id, label=model.labels[class_id], probability=probability, logit=logit)
            for class_id, probability, logit in scores
        ],
    )
    if asked.ood and predicted.ood is not None:
        prediction.ood.score, prediction.ood.percentile = predicted.ood
    prepared = predicted.prepared
    if prepared.picture_size is not None:
        prediction.picture.width, prediction.picture.height = prepared.picture_size
    if prepared.region is not None:
        prediction.region.CopyFrom(_region(prepared.region))
    return prediction


def _explanation_of(explained: Explained, plan_index: int, asked: CheckedRequest, model: ServedModel) -> pb.Explanation:
    with within(f"explanations[{plan_index}]"):
        return _explanation(explained, asked.encodings[plan_index], model)


def _region(region: Region) -> pb.Region:
    return pb.Region(left=region.left, top=region.top, right=region.right, bottom=region.bottom)


def _explanation(explained: Explained, encoding: pb.MapEncoding, model: ServedModel) -> pb.Explanation:
    plan = explained.plan
    chosen = not plan.candidates  # else it never came to that
    explanation = pb.Explanation(
        name=plan.name,
        explainer=plan.explainer.name if chosen else "auto",
        status=f"EXPLANATION_STATUS_{explained.stage.name}",
        status_message=explained.message,
        truncated=explained.stage is Stage.TRUNCATED,
        parameters=_values(plan.parameters.model_dump()) if chosen else {},
        pass_count=explained.pass_count,
    )
    explanation.elapsed.FromNanoseconds(round(explained.seconds * 1e9))
    if chosen and plan.explainer.is_random:
        explanation.seed = plan.seed
    if explained.choice is not None:
        choice = explained.choice
        explanation.auto_choice.reason = choice.explanation
        explanation.auto_choice.kind = _KINDS[choice.reason]
        if choice.composite is not None:
            explanation.auto_choice.composite_score = choice.composite
    saliency = explained.saliency
    for index, class_id in enumerate(explained.targets.tolist()):
        status = saliency.statuses[index]
        one = explanation.maps.add(class_id=class_id, label=model.labels[class_id], status=_STATUSES[status])
        if saliency.standard_errors is not None:
            one.standard_error_bound = MOST_STANDARD_ERROR
            if np.isfinite(saliency.standard_errors[index]):
                one.standard_error = saliency.standard_errors[index]
        if not status.shown:
            continue
        if encoding == pb.MAP_ENCODING_PNG:
            one.png.CopyFrom(_png(saliency.maps[index]))
        else:
            one.tensor.CopyFrom(_tensor(saliency.maps[index], encoding))
    return explanation


def _tensor(saliency: FloatArray, encoding: pb.MapEncoding) -> pb.Tensor:
    if encoding == pb.MAP_ENCODING_FLOAT32:
        return pb.Tensor(
            dtype=pb.DATA_TYPE_FLOAT32, shape=saliency.shape, data=np.ascontiguousarray(saliency, "<f4").tobytes()
        )
    largest = float(np.abs(saliency).max())
    low, high = _HALF_RANGE
    if largest and not low <= largest <= high:
        raise PreconditionError(
            f"The map's largest value is {largest:.3g}, which half precision cannot carry well. "
            "Ask for MAP_ENCODING_FLOAT32, or for NORMALIZATION_MAX.",
            field="encoding",
        )
    return pb.Tensor(
        dtype=pb.DATA_TYPE_FLOAT16, shape=saliency.shape, data=np.ascontiguousarray(saliency, "<f2").tobytes()
    )


def _png(saliency: FloatArray) -> pb.PngMap:
    minimum, maximum = float(saliency.min()), float(saliency.max())
    scale = 255 / (maximum - minimum) if maximum > minimum else 0.0
    grey = np.rint((saliency.astype(np.float64) - minimum) * scale).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(grey).save(file, "PNG", compress_level=3)
    return pb.PngMap(data=file.getvalue(), minimum=minimum, maximum=maximum)


def value_message(value: Any) -> Value:
    """A parameter's value as a message."""
    if isinstance(value, bool):
        return Value(bool_value=value)
    if isinstance(value, (int, float)):
        return Value(number_value=value)
    return Value(string_value=str(value))


def _values(parameters: dict[str, Any]) -> dict[str, Value]:
    return {name: value_message(value) for name, value in parameters.items() if value is not None}
