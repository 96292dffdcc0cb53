"""From the core's answer to the outputs of the protocol that were asked for.

Pictures of one request may have different numbers of targets, and an explanation may have none. Its outputs have room
for the most of them: what is left of a row is NaN, class -1, and a status that says why.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xai_sidecar.open_inference.asked import Inference, WantedOutput
from xai_sidecar.open_inference.messages import InferResponse, OutputTensor, Parameters
from xai_sidecar.open_inference.tensors import BYTES
from xai_sidecar.serving.answers import Answer, Explanation, Prediction, SaliencyMap
from xai_sidecar.serving.model import ServedModel
from xai_sidecar.serving.plan import Stage, ranked

NO_CLASS = -1
"""Stands for a class where a picture has fewer targets than others of the request."""

NO_MAP = "NONE"
"""The status of what other pictures of the request have more of."""


def make_response(answer: Answer, inference: Inference, model: ServedModel, request_id: str) -> InferResponse:
    """The protocol's answer.

    Args:
        answer: The core's.
        inference: What was asked for.
        model: The model that answered.
        request_id: The protocol's id of the request.
    """
    explanations = _by_name(answer.predictions)
    size = (model.input.height, model.input.width)
    outputs = [
        _of_explanation(wanted, explanations[wanted.explanation], size)
        if wanted.explanation
        else _of_prediction(wanted, answer.predictions, model.labels)
        for wanted in inference.outputs
    ]
    parameters = {"request_id": answer.request_id, "sampled": answer.sampled}
    return InferResponse(model.config.model.name, answer.model_version, request_id, parameters, outputs)


def _by_name(predictions: Sequence[Prediction]) -> dict[str, list[Explanation]]:
    """Of each explanation, that of every picture."""
    found: dict[str, list[Explanation]] = {}
    for one in predictions:
        for each in one.explanations:
            found.setdefault(each.name, []).append(each)
    return found


def _of_prediction(wanted: WantedOutput, predictions: Sequence[Prediction], labels: Sequence[str]) -> OutputTensor:
    if wanted.kind in ("probabilities", "logits"):
        values = np.stack([getattr(one, wanted.kind) for one in predictions])
        if wanted.classification:
            return _classified(wanted, values, labels)
        return _numbers(wanted.name, "FP32", values)
    if wanted.kind == "labels":
        return _texts(wanted.name, [[score.label for score in one.classes] for one in predictions])
    if wanted.kind == "class_ids":
        ids = np.array([[score.class_id for score in one.classes] for one in predictions], np.int32)
        return _numbers(wanted.name, "INT32", ids)
    index = 0 if wanted.kind == "ood_score" else 1
    return _numbers(wanted.name, "FP32", np.array([(one.ood or (np.nan,) * 2)[index] for one in predictions]))


def _classified(wanted: WantedOutput, values: NDArray[Any], labels: Sequence[str]) -> OutputTensor:
    """The largest values as texts of value, class id and label, as the classification extension has them."""
    best = [ranked(row, wanted.classification).tolist() for row in values]
    rows = zip(values, best, strict=True)
    return _texts(wanted.name, [[f"{row[each]:.6f}:{each}:{labels[each]}" for each in ids] for row, ids in rows])


def _of_explanation(wanted: WantedOutput, rows: Sequence[Explanation], size: tuple[int, int]) -> OutputTensor:
    count = max(1, *(len(each.maps) for each in rows))
    if wanted.kind == "saliency":
        values = np.full((len(rows), count, *size), np.nan, np.float32)
        for row, column, one in _maps(rows):
            if one.values is not None:
                values[row, column] = one.values
        return _numbers(wanted.name, "FP32", values, _facts(rows))
    if wanted.kind == "status":
        return _texts(wanted.name, [_statuses(each, count) for each in rows])
    read: Callable[[SaliencyMap], float | None] = lambda one: one.standard_error  # noqa: E731
    values = np.full((len(rows), count), np.nan, np.float32)
    if wanted.kind == "class_ids":
        read, values = lambda one: one.class_id, np.full((len(rows), count), NO_CLASS, np.int32)
    for row, column, one in _maps(rows):
        value = read(one)
        if value is not None:
            values[row, column] = value
    return _numbers(wanted.name, "INT32" if wanted.kind == "class_ids" else "FP32", values)


def _maps(rows: Sequence[Explanation]) -> list[tuple[int, int, SaliencyMap]]:
    return [(row, column, one) for row, each in enumerate(rows) for column, one in enumerate(each.maps)]


def _statuses(one: Explanation, count: int) -> list[str]:
    """The statuses of its maps, then why there are no more."""
    found = [each.status.name for each in one.maps]
    return found + [NO_MAP if found or one.stage is Stage.COMPLETE else one.stage.name] * (count - len(found))


def _facts(rows: Sequence[Explanation]) -> Parameters:
    """What is to be known of maps by everyone who gets them: above all whether they can be believed."""
    seeds = [each.seed for each in rows if each.seed is not None]
    statuses = [status for each in rows for status in _statuses(each, max(1, len(each.maps)))]
    facts: dict[str, Any] = {
        "explainer": ",".join(dict.fromkeys(each.explainer for each in rows)),
        "status": ",".join(dict.fromkeys(statuses)),
        "truncated": any(each.stage is Stage.TRUNCATED for each in rows),
        "pass_count": sum(each.pass_count for each in rows),
        "precision": ",".join(dict.fromkeys(each.precision for each in rows)),
    }
    if seeds:
        facts["seed"] = seeds[0]
    if messages := [each.message for each in rows if each.message]:
        facts["status_message"] = messages[0]
    return facts


def _numbers(name: str, datatype: str, values: NDArray[Any], parameters: Parameters | None = None) -> OutputTensor:
    return OutputTensor(name, datatype, values.shape, values, parameters or {})


def _texts(name: str, rows: Sequence[Sequence[str]]) -> OutputTensor:
    elements = [each.encode() for row in rows for each in row]
    return OutputTensor(name, BYTES, (len(rows), len(rows[0])), elements)
