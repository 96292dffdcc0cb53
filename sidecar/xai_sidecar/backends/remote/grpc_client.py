"""The Open Inference Protocol by gRPC."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import grpc

from xai_proto import open_inference_pb2 as oip
from xai_sidecar.backends.remote.credentials import channel_credentials, token_of
from xai_sidecar.backends.remote.failures import failure
from xai_sidecar.backends.remote.protocol import Inferred, ModelMetadata, Tensor, from_numbers, from_raw, raw
from xai_sidecar.config.upstream import UpstreamAddress, UpstreamConfig
from xai_sidecar.engine.work import Array
from xai_sidecar.errors import DeviceError

_SERVICE = "/inference.GRPCInferenceService/"
_RAW_INPUT = 7 << 3 | 2
"""Tag of `raw_input_contents` of a ModelInferRequest."""

_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_retries", 0),  # whether to try again is for the callers to say
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),  # a model server is a neighbour, and REST goes through none either
)

_NUMBERS = {"FP32": "fp32_contents", "FP64": "fp64_contents"}

Response = TypeVar("Response")


class GrpcClient:
    """See `Client`.

    Args:
        address: Where the model is.
        settings: How it is called.
    """

    def __init__(self, address: UpstreamAddress, settings: UpstreamConfig) -> None:
        self._address = address
        self._seconds = settings.timeout_seconds
        self._version = settings.version or ""
        self._token = token_of(address, settings)
        target = f"{address.host}:{address.port}"
        if address.secure:
            self._channel = grpc.secure_channel(target, channel_credentials(settings), _OPTIONS)
        else:
            self._channel = grpc.insecure_channel(target, _OPTIONS)
        self._infer: Callable[..., Any] = self._channel.unary_unary(
            f"{_SERVICE}ModelInfer", None, oip.ModelInferResponse.FromString
        )

    def server(self) -> str:
        """See `Client`."""
        found = self._call("ServerMetadata", oip.ServerMetadataRequest(), oip.ServerMetadataResponse)
        return f"{found.name} {found.version}".strip()

    def ready(self) -> bool:
        """See `Client`."""
        asked = oip.ModelReadyRequest(name=self._address.model, version=self._version)
        return self._call("ModelReady", asked, oip.ModelReadyResponse).ready

    def metadata(self) -> ModelMetadata:
        """See `Client`."""
        asked = oip.ModelMetadataRequest(name=self._address.model, version=self._version)
        found = self._call("ModelMetadata", asked, oip.ModelMetadataResponse)
        return ModelMetadata(
            found.name,
            tuple(found.versions),
            found.platform,
            tuple(Tensor(each.name, each.datatype, tuple(each.shape)) for each in found.inputs),
            tuple(Tensor(each.name, each.datatype, tuple(each.shape)) for each in found.outputs),
        )

    def infer(self, tensor: Tensor, rows: Array, outputs: Sequence[str]) -> Inferred:
        """See `Client`."""
        datatype = tensor.datatype or "FP32"
        head = oip.ModelInferRequest(
            model_name=self._address.model,
            model_version=self._version,
            inputs=[
                oip.ModelInferRequest.InferInputTensor(name=tensor.name, datatype=datatype, shape=list(rows.shape))
            ],
            outputs=[oip.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in outputs],
        )
        response = self._called(self._infer, _with_raw(head, raw(rows, datatype)))
        return Inferred(response.model_version, _outputs(response))

    def close(self) -> None:
        """See `Client`."""
        self._channel.close()

    def _call(self, method: str, asked: Any, answer: type[Response]) -> Response:
        call = self._channel.unary_unary(
            _SERVICE + method,
            type(asked).SerializeToString,
            answer.FromString,  # type: ignore[attr-defined]
        )
        found: Response = self._called(call, asked)
        return found

    def _called(self, call: Callable[..., Any], asked: Any) -> Any:
        metadata = () if self._token is None else (("authorization", self._token.header()),)
        try:
            return call(asked, timeout=self._seconds, metadata=metadata)
        except grpc.RpcError as error:
            raise failure(self._address, error.code(), error.details() or "") from None
        except ValueError as error:  # the channel was closed
            raise failure(self._address, grpc.StatusCode.CANCELLED, str(error)) from None


def _with_raw(head: oip.ModelInferRequest, values: Array) -> bytes:
    """A serialized request with raw contents: those are megabytes, and protobuf would copy them twice more."""
    return b"".join((head.SerializeToString(), _varint(_RAW_INPUT), _varint(values.nbytes), values.data.cast("B")))


def _varint(number: int) -> bytes:
    """A number as protobuf writes it: seven bits a byte, the lowest first."""
    content = bytearray()
    while number > 0x7F:
        content.append(number & 0x7F | 0x80)
        number >>= 7
    content.append(number)
    return bytes(content)


def _outputs(response: oip.ModelInferResponse) -> dict[str, Array]:
    raws = response.raw_output_contents
    if raws and len(raws) != len(response.outputs):
        raise DeviceError(
            f"The model's server sent {len(response.outputs)} outputs and {len(raws)} contents. Its log may say more."
        )
    found = {}
    for index, each in enumerate(response.outputs):
        if raws:
            found[each.name] = from_raw(each.name, each.datatype, each.shape, raws[index])
        else:
            numbers = getattr(each.contents, _NUMBERS.get(each.datatype, "fp32_contents"))
            found[each.name] = from_numbers(each.name, each.datatype, each.shape, numbers)
    return found
