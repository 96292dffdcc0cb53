"""The client for programs that use asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any

import grpc

from xai_client import fork
from xai_client.calls import DEFAULT_TIMEOUT, Call, Connection, Metadata
from xai_client.channel import ChannelOptions, LazyChannel, channel_options
from xai_client.credentials import TlsLike, TokenLike, channel_credentials, token_of
from xai_client.errors import ClosedError
from xai_client.ground_truth import GroundTruthObject, ground_truth_request, warn
from xai_client.model_info import ModelInfo, model_info
from xai_client.picture import ImageLike
from xai_client.quality_calls import AsyncQualityCalls
from xai_client.request import ExplainLike, check_images, predict_request, stream_request
from xai_client.response import EventDecoder, predictions
from xai_client.types import Event, Prediction
from xai_proto import explanation_pb2 as pb


class AsyncClient(AsyncQualityCalls):
    """`Client` with coroutines: the same methods with the same arguments, results and errors.

    Belongs to the event loop in which it is first used. Files are read and pictures encoded in a thread. Cancelling
    the task that awaits a call cancels the call.

    Args:
        address: "host:port". To this machine's own addresses, no proxy of the environment is used.
        timeout: Default deadline of a call in seconds, all attempts included; None for none.
        tls: True, a file of certificates to believe, or a `Tls`, which can have a certificate of the client's own.
            False: no encryption. Default: what the environment says (XAI_TLS=1, XAI_TLS_CA, XAI_TLS_CERTIFICATE,
            XAI_TLS_KEY), else none.
        token: Sent with every call, as a bearer token: a text, or the path of a file, which is read anew when it
            changes. Default: the file of XAI_TOKEN_FILE, else none.
        credentials: gRPC's own, such as `grpc.ssl_channel_credentials()`, instead of `tls`.
        metadata: Pairs sent with every call, such as ``[("authorization", "Bearer ...")]``.
        wait_for_ready: Whether a call waits, until its deadline, for a server that cannot be reached yet.
        options: gRPC channel arguments, which win over those that the client sets (messages up to 64 MiB, retries).

    Raises:
        ArgumentError: The address, the timeout, the metadata or the token cannot be used.
        OSError: A file of `tls` or of the token cannot be read.
    """

    def __init__(
        self,
        address: str,
        *,
        timeout: float | None = DEFAULT_TIMEOUT,
        tls: TlsLike = None,
        token: TokenLike = None,
        credentials: grpc.ChannelCredentials | None = None,
        metadata: Metadata = (),
        wait_for_ready: bool = False,
        options: ChannelOptions = (),
    ) -> None:
        self._connection = Connection(address, timeout, tuple(metadata), wait_for_ready, token_of(token, metadata))
        credentials = channel_credentials(address, self._connection.token, tls, credentials)
        self._channel = LazyChannel(address, channel_options(options, address), credentials, asynchronous=True)
        self._closed = False

    async def __aenter__(self) -> AsyncClient:
        """Returns the client."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Closes the client."""
        await self.close()

    async def close(self) -> None:
        """Closes the connection; calls in progress fail with a `ClosedError`. Closing twice is fine."""
        self._closed = True
        channel = self._channel.opened()
        if channel is not None:
            await channel.close()
            fork.closed(channel)

    async def predict(
        self,
        image: ImageLike,
        explain: ExplainLike = (),
        *,
        top_k: int | None = None,
        ood: bool = False,
        timeout: float | None = None,
        request_id: str | None = None,
        skip_sampling: bool = False,
    ) -> Prediction:
        """Classifies a picture and explains the prediction; see `Client.predict`."""
        many = await self.predict_many(
            [image],
            explain,
            top_k=top_k,
            ood=ood,
            timeout=timeout,
            request_id=request_id,
            skip_sampling=skip_sampling,
        )
        return many[0]

    async def predict_many(
        self,
        images: Iterable[ImageLike],
        explain: ExplainLike = (),
        *,
        top_k: int | None = None,
        ood: bool = False,
        timeout: float | None = None,
        request_id: str | None = None,
        skip_sampling: bool = False,
    ) -> list[Prediction]:
        """As `predict`, for several pictures in one request; see `Client.predict_many`."""
        call = self._connection.call(timeout, request_id)
        request = await asyncio.to_thread(
            predict_request,
            check_images(images),
            explain,
            top_k=top_k,
            ood=ood,
            request_id=call.request_id,
            skip_sampling=skip_sampling,
        )
        response: pb.PredictResponse = await self._unary("Predict", request, call)
        return await asyncio.to_thread(predictions, response, call.request_id, len(request.images))

    def stream(
        self,
        image: ImageLike,
        explain: ExplainLike = (),
        *,
        top_k: int | None = None,
        ood: bool = False,
        progress_interval: float | None = None,
        timeout: float | None = None,
        request_id: str | None = None,
        skip_sampling: bool = False,
    ) -> AsyncGenerator[Event, None]:
        """Yields the prediction at once and each explanation as it comes, for ``async for``; see `Client.stream`.

        A wrong argument is found when the first event is asked for. Where a loop may end early, `contextlib.aclosing`
        has the call cancelled at once, and not when the event loop gets to it.
        """
        call = self._connection.call(timeout, request_id)

        def build() -> pb.PredictStreamRequest:
            request = predict_request(
                [image], explain, top_k=top_k, ood=ood, request_id=call.request_id, skip_sampling=skip_sampling
            )
            return stream_request(request, progress_interval)

        return self._events(build, call)

    async def report_ground_truth(
        self,
        request_id: str,
        labels: str | Iterable[str] = (),
        boxes: Iterable[Sequence[float]] = (),
        image_index: int = 0,
        *,
        objects: GroundTruthObject | Iterable[GroundTruthObject] = (),
        class_ids: int | Iterable[int] = (),
        keep_unmentioned: bool = False,
        timeout: float | None = None,
    ) -> bool:
        """Tells what an earlier picture really showed; see `Client.report_ground_truth`."""
        call = self._connection.call(timeout, idempotent=True)
        request = await asyncio.to_thread(
            ground_truth_request,
            request_id,
            labels,
            boxes,
            image_index,
            objects=objects,
            class_ids=class_ids,
            keep_unmentioned=keep_unmentioned,
        )
        response: pb.ReportGroundTruthResponse = await self._unary("ReportGroundTruth", request, call)
        warn(response.warnings, stacklevel=2)
        return response.changed

    async def model_info(self, *, timeout: float | None = None) -> ModelInfo:
        """Describes the model and every explainer; see `Client.model_info`."""
        trailing: list[tuple[str, str | bytes]] = []
        call = self._connection.call(timeout, idempotent=True)
        response: pb.GetModelInfoResponse = await self._unary("GetModelInfo", pb.GetModelInfoRequest(), call, trailing)
        return model_info(response.model, trailing)

    async def _unary(
        self, name: str, request: Any, call: Call, trailing: list[tuple[str, str | bytes]] | None = None
    ) -> Any:
        """Makes a call; returns its answer, and adds its trailing metadata where they are wanted."""
        while True:
            with fork.guard():
                try:
                    answer = getattr(self._stub(), name)(request, **call.arguments())
                    message = await answer
                    if trailing is not None:
                        trailing.extend(await answer.trailing_metadata())
                    return message
                except grpc.RpcError as error:
                    self._check_open(error)
                    delay = call.retry_delay(error)
                except (asyncio.CancelledError, Exception) as error:
                    self._check_interrupted(error)
                    raise
            await asyncio.sleep(delay)

    async def _events(self, build: Callable[[], pb.PredictStreamRequest], call: Call) -> AsyncGenerator[Event, None]:
        decoder = EventDecoder(call.request_id)
        request = await asyncio.to_thread(build)
        async with aclosing(self._stream("PredictStream", request, call)) as messages:
            async for message in messages:
                event = decoder.decode(message)
                if event is not None:
                    yield event

    async def _stream(self, name: str, request: Any, call: Call) -> AsyncGenerator[Any, None]:
        started = False
        while True:
            with fork.guard() as is_here:
                answer = None
                try:
                    answer = getattr(self._stub(), name)(request, **call.arguments())
                    async for message in answer:
                        started = True
                        yield message
                        fork.check()
                    return
                except grpc.RpcError as error:
                    self._check_open(error)
                    delay = call.retry_delay(error, repeatable=not started)
                except (asyncio.CancelledError, Exception) as error:
                    self._check_interrupted(error)
                    raise
                finally:
                    if answer is not None and is_here():
                        answer.cancel()
            await asyncio.sleep(delay)

    def _stub(self) -> Any:
        self._check_open()
        stub = self._channel.stub()
        if self._channel.loop is not asyncio.get_running_loop():
            raise ClosedError("this AsyncClient belongs to another event loop; make one in each loop that uses one")
        return stub

    def _check_interrupted(self, error: BaseException) -> None:
        """Raises ClosedError if closing the client, and not the caller's own task, ended the call.

        gRPC cancels the calls of a channel that is closed, which looks as if the task had been cancelled.
        """
        task = asyncio.current_task()
        # Python 3.10 cannot tell whether a task is being cancelled.
        cancelling = getattr(task, "cancelling", None)
        if isinstance(error, asyncio.CancelledError) and cancelling is not None and cancelling():
            return
        self._check_open(error)

    def _check_open(self, cause: BaseException | None = None) -> None:
        if self._closed:
            raise ClosedError("the client is closed") from cause
