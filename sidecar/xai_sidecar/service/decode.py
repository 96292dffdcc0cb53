"""From the contract's requests to the types that the rest of the program works with; every check is here."""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from google.protobuf.message import Message
from pydantic import ValidationError

from xai_proto import explanation_pb2 as pb
from xai_sidecar.config import ServerConfig
from xai_sidecar.errors import (
    InvalidRequestError,
    ParameterError,
    PictureError,
    PreconditionError,
    TargetError,
    TensorError,
    UnknownExplainerError,
    UnsupportedError,
    within,
)
from xai_sidecar.explainers.base import Parameters
from xai_sidecar.imaging import InputSpec, Prepared, check_model_input, decode, from_pixels, prepare
from xai_sidecar.service.model import OfferedExplainer, ServedModel
from xai_sidecar.service.predictor import ExplanationPlan, Targets

_DTYPES: dict[int, np.dtype[Any]] = {
    pb.DATA_TYPE_FLOAT32: np.dtype("<f4"),
    pb.DATA_TYPE_FLOAT16: np.dtype("<f2"),
    pb.DATA_TYPE_UINT8: np.dtype("u1"),
}
_BYTES = {pb.MAP_ENCODING_FLOAT32: 4, pb.MAP_ENCODING_FLOAT16: 2, pb.MAP_ENCODING_PNG: 1}
_DEFAULT_TOP_K = 5
_SEED_BITS = 32  # of seeds drawn here: JSON and JavaScript carry them, too
_LONGEST_NAME = 128
_MOST_AXES = 4
_IN_THE_CONTRACT = {
    "auto",
    *(field.name for field in pb.ExplanationRequest.DESCRIPTOR.oneofs_by_name["parameters"].fields),
}
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:\-]{1,128}")


@dataclass(frozen=True)
class Asked:
    """A request, checked, but for its pictures.

    Attributes:
        top_k: Classes to return.
        ood: Whether OoD scores are wanted.
        plans: The explanations wanted.
        encodings: How to encode the maps of each.
    """

    top_k: int
    ood: bool
    plans: tuple[ExplanationPlan, ...]
    encodings: tuple[pb.MapEncoding, ...]


def valid_request_id(request_id: str) -> bool:
    """Whether a name for a request is one that logs and metadata can carry."""
    return _REQUEST_ID.fullmatch(request_id) is not None


def read_request(request: pb.PredictRequest, model: ServedModel) -> Asked:
    """Checks all of a request that can be checked without decoding pictures.

    Raises:
        SidecarError: With the path of the field at fault.
    """
    limits = model.config.server
    if request.request_id and not valid_request_id(request.request_id):
        raise InvalidRequestError(
            "A request id has 1 to 128 characters of [A-Za-z0-9._:-]. Shorten it or leave it out.", field="request_id"
        )
    if not 1 <= len(request.images) <= limits.max_images:
        raise InvalidRequestError(
            f"There are {len(request.images)} images in the request; send 1 to {limits.max_images}.", field="images"
        )
    if request.ood and not model.facts.has_ood:
        raise PreconditionError(
            "This server has no OoD net. Leave ood out, or train one with xai-sidecar train-ood and set ood.checkpoint "
            "in the server's config.",
            field="ood",
        )
    class_count = len(model.labels)
    top_k = request.top_k if request.HasField("top_k") else min(_DEFAULT_TOP_K, class_count)
    if not 1 <= top_k <= class_count:
        raise InvalidRequestError(f"top_k is {top_k}; give 1 to {class_count}, the number of classes.", field="top_k")
    if len(request.explanations) > limits.max_explanations:
        raise InvalidRequestError(
            f"{len(request.explanations)} explanations are asked for; the server takes {limits.max_explanations}.",
            field="explanations",
        )
    plans: list[ExplanationPlan] = []
    for index, wanted in enumerate(request.explanations):
        with within(f"explanations[{index}]"):
            plan = _plan(wanted, model)
            if any(plan.name == other.name for other in plans):
                raise InvalidRequestError(
                    f"There are two explanations named {plan.name!r}. Give them different names.", field="name"
                )
            plans.append(plan)
    encodings = tuple(wanted.encoding or pb.MAP_ENCODING_FLOAT32 for wanted in request.explanations)
    _check_passes(request, plans, model)
    asked = Asked(top_k, request.ood, tuple(plans), encodings)
    size = len(request.images) * _map_bytes(asked, model)
    if size > limits.max_message_bytes:
        raise InvalidRequestError(
            f"The maps could take {size:,} bytes, but the server sends {limits.max_message_bytes:,} in a message. "
            "Ask for fewer pictures, explanations or targets, or for MAP_ENCODING_FLOAT16 or MAP_ENCODING_PNG.",
            field="explanations",
        )
    return asked


def _check_passes(request: pb.PredictRequest, plans: Sequence[ExplanationPlan], model: ServedModel) -> None:
    limits = model.config.server
    counts = [
        plan.explainer.pass_count(plan.targets.most(limits.max_targets), plan.parameters, model.facts) for plan in plans
    ]
    total = len(request.images) * sum(counts)
    if total > limits.max_passes:
        most = int(np.argmax(counts))
        raise InvalidRequestError(
            f"The explanations may take {total:,} passes through the model, {plans[most].name} {counts[most]:,} a "
            f"picture; the server takes {limits.max_passes:,} a request. Ask for fewer masks, larger windows or "
            "strides, or fewer pictures at a time.",
            field=f"explanations[{most}]",
        )


def _map_bytes(asked: Asked, model: ServedModel) -> int:
    """The most bytes that the maps of one picture can take, PNGs counted as if they did not shrink."""
    limit = model.config.server.max_targets
    pixels = model.input.height * model.input.width
    return sum(
        plan.targets.most(limit) * pixels * _BYTES[encoding]
        for plan, encoding in zip(asked.plans, asked.encodings, strict=True)
    )


def read_image(image: pb.Image, spec: InputSpec, limits: ServerConfig) -> Prepared:
    """One picture as a model input.

    Raises:
        SidecarError: With the path of the field at fault within the image.
    """
    source = image.WhichOneof("source")
    if source is None:
        raise PictureError("The image is empty. Set encoded, pixels or model_input.")
    with within(source):
        if source == "encoded":
            return prepare(decode(image.encoded, limits.max_pixels), spec)
        if source == "pixels":
            return prepare(from_pixels(read_tensor(image.pixels), limits.max_pixels), spec)
        return check_model_input(read_tensor(image.model_input), spec)


def read_tensor(tensor: pb.Tensor) -> np.ndarray[Any, Any]:
    """A tensor as a read-only array over its bytes.

    Raises:
        TensorError: dtype, shape and data do not belong together.
    """
    dtype = _DTYPES.get(tensor.dtype)
    if dtype is None:
        raise TensorError("The dtype is not set, or not one of this version. Set it to a DATA_TYPE.", field="dtype")
    shape = tuple(tensor.shape)
    if any(size < 1 for size in shape):
        raise TensorError(f"The shape {shape} has a size below 1.", field="shape")
    expected = math.prod(shape) * dtype.itemsize
    if expected != len(tensor.data):
        raise TensorError(
            f"A {dtype.name} tensor of shape {shape} takes {expected} bytes, but there are {len(tensor.data)}. "
            "Send all of it, in C order and little-endian.",
            field="data",
        )
    if len(shape) > _MOST_AXES:
        raise TensorError(f"The tensor has {len(shape)} axes; pictures have 3.", field="shape")
    array: np.ndarray[Any, Any] = np.frombuffer(tensor.data, dtype).reshape(shape)
    return array


def _plan(wanted: pb.ExplanationRequest, model: ServedModel) -> ExplanationPlan:
    for field in ("explainer", "name"):
        if len(getattr(wanted, field)) > _LONGEST_NAME:
            raise InvalidRequestError(f"It has more than {_LONGEST_NAME} characters. Shorten it.", field=field)
    if wanted.encoding not in (pb.MAP_ENCODING_UNSPECIFIED, *_BYTES):
        raise InvalidRequestError(f"{wanted.encoding} is no MapEncoding of this version.", field="encoding")
    offered = model.explainers.get(wanted.explainer)
    usable = ", ".join(name for name, other in model.explainers.items() if not other.unavailable)
    if offered is None and wanted.explainer in _IN_THE_CONTRACT:
        raise UnsupportedError(
            f"This version of the server does not have {wanted.explainer}. It has: {usable}.", field="explainer"
        )
    if offered is None:
        raise UnknownExplainerError(
            f"There is no explainer {wanted.explainer!r} here. There are: {usable}.", field="explainer"
        )
    if offered.unavailable:
        raise PreconditionError(
            f"{wanted.explainer} cannot be used: {offered.unavailable} Usable here: {usable}.", field="explainer"
        )
    for field in ("budget", "condition"):
        if wanted.HasField(field):
            raise UnsupportedError(f"This version of the server does not know {field}s. Leave it out.", field=field)
    targets = _targets(wanted.targets, len(model.labels), model.config.server.max_targets)
    parameters = _parameters(wanted, offered, model)
    seed = wanted.seed if wanted.HasField("seed") else secrets.randbits(_SEED_BITS)
    return ExplanationPlan(wanted.name or wanted.explainer, offered.explainer, parameters, targets, seed)


def _targets(targets: pb.Targets, class_count: int, limit: int) -> Targets:
    given = [field.name for field, _ in targets.ListFields()]
    if len(given) > 1:
        raise TargetError(f"Both {given[0]} and {given[1]} are set. Set one of them.", field="targets")
    if len(targets.class_ids) > limit:
        raise TargetError(
            f"{len(targets.class_ids)} targets are listed; the server takes {limit}.", field="targets.class_ids"
        )
    ids = tuple(targets.class_ids)
    for index, class_id in enumerate(ids):
        field = f"targets.class_ids[{index}]"
        if not 0 <= class_id < class_count:
            raise TargetError(f"There is no class {class_id}; the model has 0 to {class_count - 1}.", field=field)
        if class_id in ids[:index]:
            raise TargetError(f"Class {class_id} is listed twice. List it once.", field=field)
    if targets.HasField("min_probability"):
        if not 0 < targets.min_probability <= 1:
            raise TargetError(
                f"min_probability is {targets.min_probability:g}; give more than 0 and at most 1.",
                field="targets.min_probability",
            )
        return Targets(min_probability=targets.min_probability)
    if targets.HasField("top_count"):
        highest = min(limit, class_count)
        if not 1 <= targets.top_count <= highest:
            raise TargetError(f"top_count is {targets.top_count}; give 1 to {highest}.", field="targets.top_count")
        return Targets(top_count=targets.top_count)
    return Targets(class_ids=ids)


def _parameters(wanted: pb.ExplanationRequest, offered: OfferedExplainer, model: ServedModel) -> Parameters:
    explainer = offered.explainer
    given = wanted.WhichOneof("parameters")
    if given is None:
        return offered.defaults
    if given != explainer.name:
        raise ParameterError(
            f"These are parameters of {given}, but {explainer.name} is asked for. Set {explainer.name} instead.",
            field=given,
        )
    with within(given):
        message = getattr(wanted, given)
        if given == "rise_plus":
            with within("rise"):
                return _filled(message.rise, offered, model)
        return _filled(message, offered, model)


def _filled(message: Message, offered: OfferedExplainer, model: ServedModel) -> Parameters:
    """An explainer's parameters as far as a message sets them, the rest as configured."""
    explainer = offered.explainer
    given = _set_fields(message)
    follows = explainer.parameters_type.follows
    configured = {
        name: value for name, value in offered.configured.model_dump().items() if follows.get(name) not in given
    }
    values = {**configured, **given}
    try:
        parameters = explainer.parameters_type(**values)
    except ValidationError as error:
        problem = error.errors()[0]
        raise ParameterError(f"{problem['msg']}; got {problem['input']!r:.80}.", field=str(problem["loc"][0])) from None
    resolved: Parameters = explainer.resolve(parameters, model.facts)
    if not offered.on_demand and explainer.kind(resolved) not in offered.kinds:
        ready = ", ".join(kind.layer for kind in offered.kinds)
        raise PreconditionError(
            f"{explainer.kind(resolved).layer!r} was not compiled at start. Ask for one of {ready}, or have it "
            f"added to explainers.{explainer.name}.layers in the config.",
            field="layer",
        )
    return resolved


def _set_fields(message: Message) -> dict[str, Any]:
    """The fields that are set, enums by the lower-case rest of their names."""
    values = {}
    for field, value in message.ListFields():
        enum = field.enum_type
        if enum is not None:
            known = enum.values_by_number.get(value)
            if known is None:
                raise ParameterError(f"{value} is no {enum.name} of this version.", field=field.name)
            prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", enum.name).upper() + "_"
            value = known.name.removeprefix(prefix).lower()
        elif field.type == field.TYPE_FLOAT:
            value = float(str(np.float32(value)))  # 0.1, not the 0.10000000149 that is nearest to it
        values[field.name] = value
    return values


def read_images(images: Sequence[pb.Image], spec: InputSpec, limits: ServerConfig) -> list[Prepared]:
    """All pictures of a request; see `read_image`."""
    prepared = []
    for index, image in enumerate(images):
        with within(f"images[{index}]"):
            prepared.append(read_image(image, spec, limits))
    return prepared
