"""From a request of the protocol to the core's, and from the paths in the core's errors back to the protocol's."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from xai_sidecar.errors import InvalidRequestError, ParameterError, SidecarError, TensorError, quoted, within
from xai_sidecar.open_inference.messages import InferRequest, InputTensor, RequestedOutput
from xai_sidecar.open_inference.settings import (
    EXPLANATION_SETTINGS,
    check_known,
    explanation_request,
    integer,
    names,
)
from xai_sidecar.open_inference.tensors import BYTES, check_datatype, check_shape, read_array, read_elements
from xai_sidecar.serving.request_ids import valid_request_id
from xai_sidecar.serving.requests import EncodedPicture, ExplanationRequest, ModelInput, Picture, Pixels, PredictRequest

IMAGE: Final = "image"
MODEL_INPUT: Final = "model_input"
TAKEN: Final = {IMAGE: (BYTES, "UINT8"), MODEL_INPUT: ("FP32", "FP16")}
"""The inputs, one of which a request has, with the types that each may be of."""

PLAIN: Final = ("probabilities", "logits", "labels", "class_ids", "ood_score", "ood_percentile")
"""Outputs of every prediction."""

BY_DEFAULT: Final = ("probabilities", "logits", "labels")
OF_EXPLANATIONS: Final = ("saliency", "standard_error", "status", "class_ids")
"""Outputs of explanations: each of these, a dot, and the explanation's name."""

_CLASSIFIED = ("probabilities", "logits")
_REQUEST_SETTINGS = ("top_k", "explain", "timeout", *EXPLANATION_SETTINGS)
_IGNORED = ("priority", "content_type", "headers", "binary_data_output")
"""Settings that other servers know, and that change no answer. `binary_data…` is about how it travels."""

_MICRO = 1e-6
_MOST_INPUTS = 8
_MOST_OUTPUTS = 300


@dataclass(frozen=True)
class WantedOutput:
    """An output that is wanted.

    Attributes:
        name: Its name.
        kind: One of `PLAIN` or of `OF_EXPLANATIONS`.
        explanation: Name of the explanation that it is of; empty where it is of the prediction.
        classification: How many of the largest values are wanted, as texts; 0 for the values.
    """

    name: str
    kind: str
    explanation: str = ""
    classification: int = 0


@dataclass(frozen=True, eq=False)
class Inference:
    """What is asked for, in the core's terms.

    Attributes:
        request: The core's request.
        outputs: The outputs that are wanted.
        timeout_seconds: How long the caller waits by the request's own word; None where it does not say.
        input_index: Which input has the pictures.
        paths: Where the protocol's request asks for each explanation.
        common: The settings that the request has for all of its explanations.
    """

    request: PredictRequest
    outputs: tuple[WantedOutput, ...]
    timeout_seconds: float | None
    input_index: int
    paths: tuple[str, ...]
    common: frozenset[str]

    @property
    def images(self) -> Sized:
        """The pictures."""
        return self.request.images

    @property
    def explanations(self) -> Sequence[ExplanationRequest]:
        """The explanations of each."""
        return tuple(self.request.explanations)


def check_counts(inputs: Sized, outputs: Sized) -> None:
    """Refuses more inputs or outputs than a request can have; to be called before they are converted.

    Raises:
        InvalidRequestError: There are more.
    """
    if len(inputs) > _MOST_INPUTS:
        raise InvalidRequestError(f"There are {len(inputs):,} inputs. Send one: image or model_input.", field="inputs")
    if len(outputs) > _MOST_OUTPUTS:
        raise InvalidRequestError(
            f"{len(outputs):,} outputs are asked for, of at most {_MOST_OUTPUTS}. Ask for fewer.", field="outputs"
        )


def read_request(request: InferRequest, request_id: str, most_images: int) -> Inference:
    """The core's request.

    Args:
        request: The protocol's.
        request_id: The id of it where its own is none that logs can carry.
        most_images: Most pictures of a request.

    Raises:
        SidecarError: With the path of the field at fault.
    """
    index, pictures = _pictures(request.inputs, most_images)
    check_known(request.parameters, _REQUEST_SETTINGS, _IGNORED)
    asked = _Asked.of(request)
    common = {name: request.parameters[name] for name in EXPLANATION_SETTINGS if name in request.parameters}
    if common and not asked.settings:
        name = next(iter(common))
        raise ParameterError(
            f"{name} is about explanations, and none is asked for. Ask for an output such as saliency.gradcam, or "
            "leave it out.",
            field=f"parameters.{name}",
        )
    explanation_request("", common)  # whose errors then name the request's settings
    timeout = integer(request.parameters, "timeout")
    return Inference(
        request=PredictRequest(
            images=pictures,
            explanations=asked.explanations(common),
            top_k=integer(request.parameters, "top_k"),
            ood=any(each.kind.startswith("ood_") for each in asked.outputs),
            request_id=request.id if valid_request_id(request.id) else request_id,
            model=request.model_name,
            byte_count=request.byte_count,
        ),
        outputs=tuple(asked.outputs),
        timeout_seconds=timeout * _MICRO if timeout else None,
        input_index=index,
        paths=tuple(asked.paths.values()),
        common=frozenset(common),
    )


@contextmanager
def protocol_paths(inference: Inference) -> Iterator[None]:
    """Has errors that pass name the field of the protocol's request, as in ``outputs[1].parameters.masks``."""
    try:
        yield
    except SidecarError as error:
        error.field = _path(error.field, inference)
        raise


_OF_IMAGE = re.compile(r"images\[(\d+)\]")
_OF_EXPLANATION = re.compile(r"explanations\[(\d+)\](?:\.(?:targets|condition|(parameters))?\.?(\w*))?")
_OTHER_NAMES = {"budget": "budget_seconds"}


def _path(field: str, inference: Inference) -> str:
    """The protocol's path of a field of the core's request."""
    if found := _OF_IMAGE.match(field):
        return f"inputs[{inference.input_index}][{found[1]}]"
    if field == "images":
        return f"inputs[{inference.input_index}].shape"
    if found := _OF_EXPLANATION.match(field):
        path, setting = inference.paths[int(found[1])], _OTHER_NAMES.get(found[3], found[3])
        if setting in inference.common and not found[2]:
            return f"parameters.{setting}"
        if not setting and found[2]:
            return f"{path}.parameters"
        if setting in ("", None, "name") or (setting == "explainer" and path == "parameters.explain"):
            return path
        return f"{path}.name" if setting == "explainer" else f"{path}.parameters.{setting}"
    whole = {"explanations": "outputs", "top_k": "parameters.top_k", "ood": "outputs", "model": "model_name"}
    return whole.get(field, field)


def _pictures(inputs: Sequence[InputTensor], most: int) -> tuple[int, list[Picture]]:
    """Which input has the pictures, and they.

    Raises:
        SidecarError: There is none, or more than one, or it is none that the server takes.
    """
    for index, each in enumerate(inputs[: len(TAKEN) + 1]):
        if each.name not in TAKEN:
            raise InvalidRequestError(
                f"There is no input {quoted(each.name)}. Send image, of BYTES or UINT8, or model_input, of FP32.",
                field=f"inputs[{index}].name",
            )
    if len(inputs) != 1:
        raise InvalidRequestError(
            f"There are {len(inputs)} inputs. Send one: image, encoded files as BYTES or pixels as UINT8, or "
            "model_input, FP32 that is resized and normalised already.",
            field="inputs",
        )
    with within("inputs[0]"):
        check_known(inputs[0].parameters, (), ("content_type", "headers", "binary_data_size"))
        return 0, _read(inputs[0], most)


def _read(tensor: InputTensor, most: int) -> list[Picture]:
    check_datatype(tensor, TAKEN[tensor.name])
    check_shape(tensor)
    if tensor.shape and tensor.shape[0] > most:
        raise InvalidRequestError(f"There are {tensor.shape[0]:,} pictures; send 1 to {most}.", field="shape")
    if tensor.datatype == BYTES:
        if len(tensor.shape) not in (1, 2) or tensor.shape[1:] not in ((), (1,)):
            raise TensorError(
                f"The shape is {list(tensor.shape)}. Send [n] for n files, or [n, 1].",
                field="shape",
            )
        return [EncodedPicture(each) for each in read_elements(tensor)]
    if len(tensor.shape) != 4:
        axes = "[n, height, width, channels]" if tensor.name == IMAGE else "[n, channels, height, width]"
        raise TensorError(f"The shape {list(tensor.shape)} has {len(tensor.shape)} axes; send {axes}.", field="shape")
    return [Pixels(row) if tensor.name == IMAGE else ModelInput(row) for row in read_array(tensor)]


def _classification(output: RequestedOutput) -> int:
    count = integer(output.parameters, "classification")
    if count is not None and count < 1:
        raise ParameterError(f"It is {count}; give 1 or more.", field="parameters.classification")
    return count or 0


class _Asked:
    """The outputs that a request asks for, and the settings of its explanations by their names.

    Attributes:
        outputs: The outputs.
        settings: Of each explanation, its own settings.
        paths: Where each explanation was asked for first.
    """

    def __init__(self) -> None:
        self.outputs: list[WantedOutput] = []
        self.settings: dict[str, dict[str, Any]] = {}
        self.paths: dict[str, str] = {}
        self._names: set[str] = set()

    @classmethod
    def of(cls, request: InferRequest) -> _Asked:
        asked = cls()
        for index, each in enumerate(request.outputs):
            with within(f"outputs[{index}]"):
                asked._output(each, f"outputs[{index}]")
        if not request.outputs:
            asked.outputs += [WantedOutput(name, name) for name in BY_DEFAULT]
        for name in names(request.parameters, "explain"):
            asked._explained(name)
        return asked

    def explanations(self, common: dict[str, Any]) -> list[ExplanationRequest]:
        """The core's requests for explanations."""
        found = []
        for name, settings in self.settings.items():
            with within(self.paths[name]):
                found.append(explanation_request(name, {**common, **settings}))
        return found

    def _output(self, output: RequestedOutput, path: str) -> None:
        if output.name in self._names:
            raise InvalidRequestError(f"{quoted(output.name)} is asked for twice. Ask for it once.", field="name")
        self._names.add(output.name)
        kind, _, explanation = output.name.partition(".")
        if output.name in PLAIN:
            known = ("classification",) if kind in _CLASSIFIED else ()
            check_known(output.parameters, known, ("binary_data", *_IGNORED))
            self.outputs.append(WantedOutput(output.name, kind, "", _classification(output)))
        elif explanation and kind in OF_EXPLANATIONS:
            self.outputs.append(WantedOutput(output.name, kind, explanation))
            self.paths.setdefault(explanation, path)
            self._merge(explanation, output)
        else:
            raise InvalidRequestError(
                f"There is no output {quoted(output.name)}. There are {', '.join(PLAIN)}, and of each explainer "
                f"{', '.join(f'{each}.EXPLAINER' for each in OF_EXPLANATIONS)}.",
                field="name",
            )

    def _explained(self, explanation: str) -> None:
        """Adds what shows an explanation that the request's settings ask for."""
        self.settings.setdefault(explanation, {})
        self.paths.setdefault(explanation, "parameters.explain")
        for kind in ("saliency", "status"):
            if (name := f"{kind}.{explanation}") not in self._names:
                self._names.add(name)
                self.outputs.append(WantedOutput(name, kind, explanation))

    def _merge(self, explanation: str, output: RequestedOutput) -> None:
        """Adds an output's settings to those that others of the same explanation have."""
        settings = self.settings.setdefault(explanation, {})
        for name, value in output.parameters.items():
            if name in ("binary_data", *_IGNORED):
                continue
            if settings.setdefault(name, value) != value:
                raise ParameterError(
                    f"Two outputs of {quoted(explanation)} give it {quoted(settings[name])} and {quoted(value)}. Give "
                    "it once.",
                    field=f"parameters.{name[:64]}",
                )
