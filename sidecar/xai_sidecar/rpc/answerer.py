"""The contract's predictions, whatever they travel by: messages become the core's requests, its answers messages.

A call that comes again, with the same id and content, gets the answer of the first, whichever adapter either came by.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial

from xai_proto import explanation_pb2 as pb
from xai_sidecar.errors import under
from xai_sidecar.rpc.decode import read_interval, read_request
from xai_sidecar.rpc.encode import finished_event, predict_response, stream_event
from xai_sidecar.rpc.parameters import contract_paths
from xai_sidecar.serving.core import Core, check_caller
from xai_sidecar.serving.repeated_streams import AskedStream, Place, StreamRepeats
from xai_sidecar.serving.repeats import CACHED, Asked, Repeats, kept_by_id


@dataclass(frozen=True)
class ReceivedCall:
    """What an adapter knows of a call.

    Attributes:
        request_id: The id that it goes by.
        byte_count: Size of its request; None where that is not known.
        deadline: When the caller stops waiting, on the clock of `time.monotonic`.
        named: Whether its caller has named it; nobody else knows its id, so that nobody can ask for it again.
        fingerprint: Tells it from others of the same id; empty to have that made of its message.
    """

    request_id: str
    byte_count: int | None
    deadline: float
    named: bool
    fingerprint: str = ""


def content_of(message: pb.PredictRequest | pb.PredictStreamRequest, version: str) -> str:
    """A digest of everything that the answer to a request depends on, but for its id."""
    digest = hashlib.sha256(f"{version} {message.DESCRIPTOR.full_name}".encode())
    request = message.request if isinstance(message, pb.PredictStreamRequest) else message
    named, request.request_id = request.request_id, ""
    digest.update(message.SerializeToString(deterministic=True))
    request.request_id = named
    return digest.hexdigest()


def place_of(event: pb.PredictStreamResponse) -> Place:
    """What an event of a stream tells of."""
    if event.HasField("progress"):
        return Place((event.progress.image_index, event.progress.name), "progress", final=False)
    if event.HasField("explained"):
        update = event.explained
        final = update.explanation.status != pb.EXPLANATION_STATUS_PARTIAL
        return Place((update.image_index, update.explanation.name), "explained", final)
    return Place("", str(event.WhichOneof("event")), final=True)


def is_lasting(answer: pb.PredictResponse) -> bool:
    """Whether an answer would be the same at any time: nothing in it depended on the load or on measured quality."""
    explanations = (each for one in answer.predictions for each in one.explanations)
    return not any(each.truncated or each.HasField("auto_choice") for each in explanations)


def renamed(answer: pb.PredictResponse, request_id: str) -> pb.PredictResponse:
    """The answer to another request of the same content, which is no sample of its own."""
    copy = pb.PredictResponse()
    copy.CopyFrom(answer)
    copy.request_id, copy.sampled = request_id, False
    return copy


class Answerer:
    """Answers the contract's predictions.

    Args:
        core: Predicts and explains.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        kept = kept_by_id(core.limits)
        self._repeats: Repeats[pb.PredictResponse] = Repeats(
            core.limits, pb.PredictResponse.ByteSize, is_lasting, core.on_repeat, kept
        )
        self._streams: StreamRepeats[pb.PredictStreamResponse] = StreamRepeats(
            kept, place_of, pb.PredictStreamResponse.ByteSize, core.on_repeat
        )

    async def predict(self, request: pb.PredictRequest, call: ReceivedCall) -> tuple[pb.PredictResponse, str]:
        """Classifies and explains, unless the same call is answered, or being answered, already.

        Returns:
            The answer, and how it came about: one of `telemetry.REPEATS`, or empty for work of its own.
        """
        asked = read_request(request, call.request_id, call.byte_count)
        check_caller(asked)

        async def work() -> pb.PredictResponse:
            with contract_paths(request):
                return await self._core.predict(asked, predict_response, call.deadline)

        state, caches = self._core.ready(), bool(self._core.limits.response_cache_bytes)
        if not caches and not call.named:
            return await work(), ""
        hold = partial(state.admission.holding, asked.byte_count)
        # Where answers are kept for all, it has to be told from any other, and not only from those of its id.
        fingerprint = "" if caches else call.fingerprint
        content = fingerprint or content_of(request, state.model.version)
        answer, how = await self._repeats.answer(Asked(asked.request_id, content, call.deadline, work, hold))
        return answer if how != CACHED else renamed(answer, asked.request_id), how

    async def stream(
        self, request: pb.PredictStreamRequest, call: ReceivedCall, ended: Callable[[str], object]
    ) -> AsyncGenerator[pb.PredictStreamResponse, None]:
        """Classifies, and sends explanations as they come.

        Args:
            request: What is asked for.
            call: What is known of the call.
            ended: Called when all but the last event has been sent; see `AskedStream`.
        """
        state = self._core.ready()
        interval = read_interval(request)
        asked = read_request(request.request, call.request_id, call.byte_count)
        check_caller(asked)

        async def work() -> AsyncGenerator[pb.PredictStreamResponse, None]:
            with under("request"), contract_paths(request.request):
                encode = stream_event(call.request_id)
                async with aclosing(self._core.predict_stream(asked, encode, interval, call.deadline)) as events:
                    async for event in events:
                        yield event

        events = work()
        if call.named:
            hold = partial(state.admission.holding, asked.byte_count)
            content = call.fingerprint or content_of(request, state.model.version)
            events = self._streams.events(AskedStream(asked.request_id, content, call.deadline, work, hold, ended))
        async with aclosing(events):
            async for event in events:
                yield event
        yield finished_event(call.request_id)
