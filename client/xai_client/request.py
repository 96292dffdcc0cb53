"""Requests built from Python arguments. What can be known to be wrong without the server is refused here."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, TypeAlias

import numpy as np
from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration

from xai_client.errors import ArgumentError, ParameterError
from xai_client.named_parameters import named_parameters, parse_named
from xai_client.picture import ImageLike, to_message
from xai_proto import explanation_pb2 as pb

# Parameters that have another name in the contract's requests than everywhere else; both are taken.
_SDK_NAMES = {"mask_count": "masks"}

_INTEGERS = (FieldDescriptor.CPPTYPE_INT32, FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64)
_NUMBERS = (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE)


class Explain:
    """An explanation wanted, where a plain explainer name is not enough.

    Args:
        explainer: Name of the explainer, or "auto" for the best measured one that fits the budget.
        name: Key of the result in `Prediction.explanations`; unique in the request. Default: the explainer's name.
        targets: Class id or ids to explain, in this order. Default: the most probable class, if it counts as predicted:
            with sigmoid, none may.
        min_probability: Instead of `targets`, every class at least this probable, in (0, 1].
        top_count: Instead of `targets`, the this many most probable classes.
        budget: Longest time to spend, in seconds or as a timedelta; the best map so far, if there is one, is then
            returned, truncated.
        seed: Seed of everything random in it, 0 to 2**64 - 1. Default: drawn and reported by the server.
        encoding: How maps travel: "float32" (default), "float16" (half the bytes) or "png" (8 bits).
        top_probability_below: Explain only if the highest probability is below this, in (0, 1].
        ood_percentile_below: Explain only if the OoD percentile is below this, in (0, 100]. Where both conditions are
            given, either one is enough.
        **parameters: Parameters of the explainer, such as ``masks=1000`` for "rise", ``layer="layer4"`` for "gradcam",
            or ``normalization="max"``; `Client.model_info` lists them with their ranges. None means the default. Those
            of explainers that this version of the SDK does not know are checked by the server alone.

    Raises:
        ParameterError: The explainer has no such parameter, or the value is of the wrong type.
        ArgumentError: Another argument is wrong.
    """

    def __init__(
        self,
        explainer: str,
        *,
        name: str | None = None,
        targets: int | Iterable[int] | None = None,
        min_probability: float | None = None,
        top_count: int | None = None,
        budget: float | timedelta | None = None,
        seed: int | None = None,
        encoding: str | None = None,
        top_probability_below: float | None = None,
        ood_percentile_below: float | None = None,
        **parameters: Any,
    ) -> None:
        if not isinstance(explainer, str) or not explainer:
            raise ArgumentError(f"an explainer is named by a text, not {explainer!r}", field="explainer")
        message = pb.ExplanationRequest(explainer=explainer, name=name or "")
        if parameters and explainer != "auto" and not _parameters(explainer):
            message.named_parameters.CopyFrom(named_parameters(parameters))
        else:
            for key, value in _sdk_named(parameters).items():
                _set_parameter(message, key, value)
        if targets is not None:
            message.targets.class_ids.extend(_class_ids(targets))
        _set_number(message.targets, "min_probability", min_probability)
        if top_count is not None:
            message.targets.top_count = integer(top_count, "top_count", -(2**31), 2**31 - 1)
        if sum(value is not None for value in (targets, min_probability, top_count)) > 1:
            raise ArgumentError("give one of targets, min_probability and top_count, not several", field="targets")
        if budget is not None:
            message.budget.CopyFrom(_duration(budget, "budget"))
        if seed is not None:
            message.seed = integer(seed, "seed", 0, 2**64 - 1)
        if encoding is not None:
            number: Any = _enum(encoding, "encoding", pb.MapEncoding.DESCRIPTOR)
            message.encoding = number
        _set_number(message.condition, "top_probability_below", top_probability_below)
        _set_number(message.condition, "ood_percentile_below", ood_percentile_below)
        self._message = message

    @property
    def explainer(self) -> str:
        """Name of the explainer."""
        return self._message.explainer

    @property
    def name(self) -> str | None:
        """Name given to the result; None for the default."""
        return self._message.name or None

    def to_message(self, name: str) -> pb.ExplanationRequest:
        """The message, with the result named `name`."""
        message = pb.ExplanationRequest()
        message.CopyFrom(self._message)
        message.name = name
        return message

    def __repr__(self) -> str:
        """The explainer and the result's name."""
        return f"Explain({self.explainer!r}, name={self.name!r})"


ExplainLike: TypeAlias = str | Explain | Sequence[str | Explain]
"""One explanation wanted or several, each an explainer's name or an `Explain`."""


def predict_request(
    images: Sequence[ImageLike],
    explain: ExplainLike,
    *,
    top_k: int | None,
    ood: bool,
    request_id: str,
    skip_sampling: bool = False,
) -> pb.PredictRequest:
    """Builds a PredictRequest; see `Client.predict` for the arguments.

    Raises:
        ArgumentError: An argument is wrong.
        OSError: A file cannot be read.
    """
    request = pb.PredictRequest(
        explanations=_explanations(explain), ood=bool(ood), request_id=request_id, skip_sampling=bool(skip_sampling)
    )
    if top_k is not None:
        request.top_k = integer(top_k, "top_k", -(2**31), 2**31 - 1)
    for image in images:
        to_message(image, request.images.add())
    return request


def check_images(images: Any) -> list[ImageLike]:
    """Returns several images as a list.

    Raises:
        ArgumentError: It is a single image, or there are none.
    """
    single = isinstance(images, (str, bytes, bytearray, memoryview)) or (
        isinstance(images, np.ndarray) and images.ndim < 4
    )
    if single or not isinstance(images, Iterable):
        raise ArgumentError("predict_many takes a list of images; for one image use predict", field="images")
    listed = list(images)
    if not listed:
        raise ArgumentError("there is no image to predict", field="images")
    return listed


def explanation_names(explain: ExplainLike) -> list[str]:
    """The keys that the results will have in `Prediction.explanations`, in the order of the request."""
    return [message.name for message in _explanations(explain)]


def stream_request(request: pb.PredictRequest, progress_interval: float | None) -> pb.PredictStreamRequest:
    """Builds a PredictStreamRequest.

    Args:
        request: What to classify and to explain.
        progress_interval: Shortest time between two progress events in seconds; None for the default.
    """
    message = pb.PredictStreamRequest(request=request)
    if progress_interval is not None:
        message.progress_interval.CopyFrom(_duration(progress_interval, "progress_interval"))
    return message


def parse_parameter(explainer: str, name: str, text: str) -> Any:
    """Reads a parameter's value from a text, as the type that the explainer wants.

    Of an explainer that this version of the SDK does not know, it is JSON, or else a text as it stands.

    Raises:
        ParameterError: The explainer has no such parameter, or the text is not of its type.
    """
    if explainer != "auto" and not _parameters(explainer):
        return parse_named(text)
    _, field = _find_parameter(explainer, name)
    try:
        if field.cpp_type in _INTEGERS:
            return int(text)
        if field.cpp_type in _NUMBERS:
            return float(text)
    except ValueError as error:
        kind = "whole number" if field.cpp_type in _INTEGERS else "number"
        raise ParameterError(f"{explainer}'s {name} is a {kind}, not {text!r}", field=name) from error
    return text


def integer(value: Any, name: str, low: int, high: int) -> int:
    """Checks a whole number within limits.

    Raises:
        ArgumentError: It is none.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or not low <= number <= high:
        raise ArgumentError(f"{name} must be a whole number from {low} to {high}, not {value!r}", field=name)
    return number


def _class_ids(targets: int | Iterable[int]) -> list[int]:
    ids = list(targets) if isinstance(targets, Iterable) else [targets]
    if not ids:
        raise ArgumentError("targets is empty; leave it out for the most probable class", field="targets")
    return [integer(each, "targets", 0, 2**31 - 1) for each in ids]


def _explanations(explain: ExplainLike) -> list[pb.ExplanationRequest]:
    if not isinstance(explain, (str, Explain, Iterable)):
        raise ArgumentError(f"explain takes names of explainers and Explain objects, not {explain!r}", field="explain")
    wanted = [explain] if isinstance(explain, (str, Explain)) else list(explain)
    items = [item if isinstance(item, Explain) else Explain(item) for item in wanted]
    given = [item.name for item in items if item.name]
    for name in given:
        if given.count(name) > 1:
            raise ArgumentError(f"two explanations are named {name!r}; give each a name of its own", field="explain")
    taken = set(given)
    return [item.to_message(item.name or _free_name(item.explainer, taken)) for item in items]


def _free_name(explainer: str, taken: set[str]) -> str:
    name, number = explainer, 1
    while name in taken:
        number += 1
        name = f"{explainer}-{number}"
    taken.add(name)
    return name


def _parameters(explainer: str) -> dict[str, tuple[tuple[str, ...], FieldDescriptor]]:
    """The parameters of an explainer by their SDK names: the messages that lead to each, and the field."""
    fields: Any = pb.ExplanationRequest.DESCRIPTOR.oneofs_by_name["parameters"].fields
    return dict(_flatten((field for field in fields if field.name == explainer), ()))


def _flatten(fields: Any, path: tuple[str, ...]) -> Iterator[tuple[str, tuple[tuple[str, ...], FieldDescriptor]]]:
    for field in fields:
        if field.message_type is not None:
            yield from _flatten(field.message_type.fields, (*path, field.name))
        else:
            yield _SDK_NAMES.get(field.name, field.name), (path, field)


def _sdk_named(parameters: Mapping[str, Any]) -> Mapping[str, Any]:
    """Parameters by their SDK names."""
    for contract, sdk in _SDK_NAMES.items():
        if contract in parameters and sdk in parameters:
            raise ParameterError(f"{sdk} and {contract} are the same; give one of them", field=sdk)
    return {_SDK_NAMES.get(name, name): value for name, value in parameters.items()}


def sdk_path(path: str) -> str:
    """A path of the contract, such as "explanations[0].rise.mask_count", as the SDK names its parts."""
    return ".".join(_SDK_NAMES.get(part, part) for part in path.split("."))


def _find_parameter(explainer: str, name: str) -> tuple[tuple[str, ...], FieldDescriptor]:
    parameters = _parameters(explainer)
    name = _SDK_NAMES.get(name, name)
    if explainer == "auto":
        raise ParameterError("auto takes no parameters: every explainer runs with the server's", field=name)
    if name not in parameters:
        raise ParameterError(
            f"{explainer} has no parameter {name!r}; it has {', '.join(sorted(parameters))}", field=name
        )
    return parameters[name]


def _set_parameter(message: pb.ExplanationRequest, name: str, value: Any) -> None:
    path, field = _find_parameter(message.explainer, name)
    if value is None:
        return
    parent: Any = message
    for step in path:
        parent = getattr(parent, step)
    setattr(parent, field.name, _convert(value, name, field))


def _convert(value: Any, name: str, field: FieldDescriptor) -> int | float | str:
    try:
        if field.enum_type is not None:
            return _enum(value, name, field.enum_type)
        if field.cpp_type in _INTEGERS:
            return integer(value, name, -(2**31), 2**31 - 1)
        if field.cpp_type in _NUMBERS:
            return _number(value, name)
    except ArgumentError as error:
        raise ParameterError(error.message, field=name) from error
    if not isinstance(value, str):
        raise ParameterError(f"{name} must be a text, not {value!r}", field=name)
    return value


def _enum(value: Any, name: str, enum: EnumDescriptor) -> int:
    choices = short_names(enum)
    for number, short in choices.items():
        if isinstance(value, str) and short == value.lower():
            return number
    raise ArgumentError(f"{name} must be one of {', '.join(choices.values())}, not {value!r}", field=name)


def short_names(enum: EnumDescriptor) -> Mapping[int, str]:
    """The lower-case names of an enum's values without their common prefix, by number; unspecified left out."""
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return {value.number: value.name.removeprefix(prefix).lower() for value in enum.values if value.number}


def _number(value: Any, name: str) -> float:
    try:
        if not isinstance(value, (str, bool)):
            return float(value)
    except (TypeError, ValueError):
        pass
    raise ArgumentError(f"{name} must be a number, not {value!r}", field=name)


def _set_number(message: Any, name: str, value: float | None) -> None:
    if value is not None:
        setattr(message, name, _number(value, name))


def _duration(value: float | timedelta, name: str) -> Duration:
    seconds = value.total_seconds() if isinstance(value, timedelta) else _number(value, name)
    if not (math.isfinite(seconds) and 0 < seconds < 2**33):
        raise ArgumentError(f"{name} must be a number of seconds greater than 0, not {value!r}", field=name)
    duration = Duration()
    duration.FromNanoseconds(max(1, round(seconds * 1e9)))
    return duration
