"""From the contract's requests to those that the core takes.

Refused here are only values that are malformed on the wire: durations, enums and tensors. The core checks the rest.
"""

from __future__ import annotations

from typing import Any, Protocol

from google.protobuf.duration_pb2 import Duration

from xai_proto import explanation_pb2 as pb
from xai_sidecar.errors import InvalidRequestError
from xai_sidecar.rpc.parameters import read_parameters
from xai_sidecar.rpc.pictures import picture_of
from xai_sidecar.serving.checking import check_interval
from xai_sidecar.serving.plan import Condition, Targets
from xai_sidecar.serving.requests import Converted, ExplanationRequest, MapEncoding, PredictRequest

_DEFAULT_INTERVAL = 0.25
_MOST_SECONDS = 315_576_000_000  # as google.protobuf.Duration says
_MOST_NANOS = 999_999_999
_ENCODINGS = {
    pb.MAP_ENCODING_UNSPECIFIED: MapEncoding.FLOAT32,
    pb.MAP_ENCODING_FLOAT32: MapEncoding.FLOAT32,
    pb.MAP_ENCODING_FLOAT16: MapEncoding.FLOAT16,
    pb.MAP_ENCODING_PNG: MapEncoding.PNG,
}


class _Fields(Protocol):
    """A message of which fields may be set."""

    def HasField(self, field_name: Any) -> bool: ...  # noqa: N802


def read_request(request: pb.PredictRequest, request_id: str = "", byte_count: int | None = None) -> PredictRequest:
    """The core's request; its pictures and explanations are converted when the core looks at them.

    Args:
        request: The contract's.
        request_id: Its id where it has none of its own.
        byte_count: Size of it as it was received; None to have it encoded anew to find out.
    """
    return PredictRequest(
        images=Converted(request.images, picture_of),
        explanations=Converted(request.explanations, read_explanation),
        top_k=_given(request, "top_k"),
        ood=request.ood,
        request_id=request.request_id or request_id,
        model=request.model,
        byte_count=request.ByteSize() if byte_count is None else byte_count,
        skip_sampling=request.skip_sampling,
    )


def read_encoding(number: Any) -> MapEncoding:
    """How maps are to be sent.

    Raises:
        InvalidRequestError: It is not known.
    """
    encoding = _ENCODINGS.get(number)
    if encoding is None:
        raise InvalidRequestError(f"{number} is no MapEncoding of this version.", field="encoding")
    return encoding


def read_explanation(request: pb.ExplanationRequest) -> ExplanationRequest:
    """The core's request for an explanation.

    Raises:
        InvalidRequestError: A malformed duration or an unknown encoding; with the field.
        ParameterError: Parameters of another explainer than the one asked for, or an unknown enum value.
    """
    encoding = read_encoding(request.encoding)
    return ExplanationRequest(
        explainer=request.explainer,
        name=request.name,
        parameters=read_parameters(request),
        targets=Targets(
            request.targets.class_ids,
            _given(request.targets, "min_probability"),
            _given(request.targets, "top_count"),
        ),
        budget_seconds=read_duration(request.budget, "budget") if request.HasField("budget") else None,
        seed=_given(request, "seed"),
        condition=_condition(request.condition) if request.HasField("condition") else None,
        encoding=encoding,
    )


def read_interval(request: pb.PredictStreamRequest) -> float:
    """Seconds between two progress events.

    Raises:
        InvalidRequestError: They are out of range.
    """
    if not request.HasField("progress_interval"):
        return _DEFAULT_INTERVAL
    return check_interval(read_duration(request.progress_interval, "progress_interval"))


def read_duration(duration: Duration, field: str) -> float:
    """A duration in seconds.

    Raises:
        InvalidRequestError: It is malformed: google.protobuf.Duration has bounds, and one sign for both of its fields.
    """
    seconds, nanos = duration.seconds, duration.nanos
    if abs(seconds) > _MOST_SECONDS or abs(nanos) > _MOST_NANOS or seconds * nanos < 0:
        raise InvalidRequestError(
            f"{seconds} s and {nanos} ns are no Duration. Give seconds within ±{_MOST_SECONDS:,}, and nanos within "
            f"±{_MOST_NANOS:,} and of the same sign.",
            field=field,
        )
    return float(seconds + nanos / 1e9)


def _given(message: _Fields, field: str) -> Any:
    """A field's value; None if it is not set."""
    return getattr(message, field) if message.HasField(field) else None


def _condition(condition: pb.Condition) -> Condition:
    return Condition(_given(condition, "top_probability_below"), _given(condition, "ood_percentile_below"))
