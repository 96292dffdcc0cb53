"""The methods of the protocol, whatever it travels by."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from xai_sidecar import __version__
from xai_sidecar.errors import NotFoundError, SidecarError, quoted
from xai_sidecar.open_inference.answered import make_response
from xai_sidecar.open_inference.asked import (
    IMAGE,
    MODEL_INPUT,
    OF_EXPLANATIONS,
    PLAIN,
    protocol_paths,
    read_request,
)
from xai_sidecar.open_inference.messages import (
    InferRequest,
    InferResponse,
    ModelMetadata,
    ServerMetadata,
    TensorMetadata,
)
from xai_sidecar.open_inference.tensors import BYTES
from xai_sidecar.serving.answers import Answer
from xai_sidecar.serving.call_records import AskedPredictions
from xai_sidecar.serving.core import Core, ServingState
from xai_sidecar.serving.model import ServedModel
from xai_sidecar.serving.planning import AUTO

T = TypeVar("T")

_PLATFORMS = {"onnx": "onnx_onnxv1", "factory": "mindspore_cell"}


class OpenInference:
    """Answers the protocol's calls. To be used on the core's event loop.

    Args:
        core: Answers the calls.
        is_alive: Whether the process still works.
        is_ready: Whether requests should be sent here.
    """

    def __init__(
        self, core: Core, is_alive: Callable[[], bool] = lambda: True, is_ready: Callable[[], bool] | None = None
    ) -> None:
        self._core = core
        self.is_alive = is_alive
        self.is_ready = is_ready or (lambda: core.state is not None)

    def server_metadata(self) -> ServerMetadata:
        """Describes the server."""
        return ServerMetadata("xai-sidecar", __version__, ("binary_tensor_data", "classification"))

    def model_ready(self, name: str, version: str) -> bool:
        """Whether a model can be asked.

        Raises:
            NotFoundError: There is none of that name and version.
        """
        if self._core.state is None:
            return False
        _check_model(self._core.state, name, version, "name", "version")
        return self.is_ready()

    def model_metadata(self, name: str, version: str) -> ModelMetadata:
        """Describes a model's inputs and outputs.

        Raises:
            NotFoundError: There is none of that name and version.
        """
        state = self._core.ready()
        _check_model(state, name, version, "name", "version")
        return _metadata(state.model)

    async def infer(
        self,
        request: InferRequest,
        encode: Callable[[InferResponse], T],
        *,
        request_id: str,
        deadline: float,
        describe: Callable[[AskedPredictions], object] = lambda asked: None,
    ) -> T:
        """Computes a model's outputs.

        Args:
            request: What is asked for.
            encode: Makes the adapter's message of the answer; see `Core.predict`.
            request_id: The id of the request where its own is none that logs can carry.
            deadline: When the caller stops waiting, on the clock of `time.monotonic`.
            describe: Called with what is asked for, in the core's terms.

        Raises:
            SidecarError: With the path of the field at fault in the request, if one is.
        """
        state = self._core.ready()
        _check_model(state, request.model_name, request.model_version, "model_name", "model_version")
        model = state.model
        asked = read_request(request, request_id, model.config.server.max_images)
        describe(asked)
        if asked.timeout_seconds is not None:
            deadline = min(deadline, time.monotonic() + asked.timeout_seconds)

        def response(answer: Answer) -> T:
            return encode(make_response(answer, asked, model, request.id))

        with protocol_paths(asked):
            return await self._core.predict(asked.request, response, deadline)


def _metadata(model: ServedModel) -> ModelMetadata:
    spec, classes = model.input, len(model.labels)
    usable = [name for name, setup in model.explainers.items() if not setup.unavailable]
    shapes = {
        "saliency": ("FP32", (-1, -1, spec.height, spec.width)),
        "standard_error": ("FP32", (-1, -1)),
        "status": (BYTES, (-1, -1)),
        "class_ids": ("INT32", (-1, -1)),
        "probabilities": ("FP32", (-1, classes)),
        "logits": ("FP32", (-1, classes)),
        "labels": (BYTES, (-1, -1)),
        "ood_score": ("FP32", (-1,)),
        "ood_percentile": ("FP32", (-1,)),
    }
    plain = [name for name in PLAIN if model.facts.has_ood or not name.startswith("ood_")]
    explained = [
        (kind, f"{kind}.{name}") for name in [*usable, *([AUTO] if usable else [])] for kind in OF_EXPLANATIONS
    ]
    return ModelMetadata(
        name=model.config.model.name,
        versions=(model.version,),
        platform=_PLATFORMS.get(model.config.model.source, "oip_v2"),
        inputs=(
            TensorMetadata(IMAGE, BYTES, (-1,)),
            TensorMetadata(MODEL_INPUT, "FP32", (-1, spec.channels, spec.height, spec.width)),
        ),
        outputs=tuple(
            TensorMetadata(name, *shapes[kind]) for kind, name in [*((each, each) for each in plain), *explained]
        ),
    )


def _check_model(state: ServingState, name: str, version: str, name_field: str, version_field: str) -> None:
    try:
        state.model.check_name(name)
    except SidecarError as error:
        error.field = name_field
        raise
    if version not in ("", state.model.version):
        raise NotFoundError(
            f"There is no version {quoted(version)} of {quoted(state.model.config.model.name)} here, but "
            f"{state.model.version}. Ask for that, or for none.",
            field=version_field,
        )
