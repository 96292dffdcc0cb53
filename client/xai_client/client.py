"""The client for synchronous programs."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
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
from xai_client.quality_calls import QualityCalls
from xai_client.request import ExplainLike, check_images, predict_request, stream_request
from xai_client.response import EventDecoder, predictions
from xai_client.types import Event, Prediction
from xai_proto import explanation_pb2 as pb


class Client(QualityCalls):
    """Calls an xai-sidecar. May be shared by threads; best used as a context manager.

    Every method raises a `ServiceError` when the call fails, an `ArgumentError` when an argument is wrong, a
    `ClosedError` after `close`, and a `ForkedError` in a process that was forked while its parent was using gRPC. A
    call is made up to five times within its timeout where it surely was not run: the server cannot be reached, is
    shutting down, or is overloaded and says when to come back.

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
        self._channel = LazyChannel(address, channel_options(options, address), credentials)
        self._closed = False

    def __enter__(self) -> Client:
        """Returns the client."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Closes the client."""
        self.close()

    def close(self) -> None:
        """Closes the connection; calls in progress fail with a `ClosedError`. Closing twice is fine."""
        self._closed = True
        channel = self._channel.opened()
        if channel is not None:
            channel.close()
            fork.closed(channel)

    def predict(
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
        """Classifies a picture and explains the prediction.

        Args:
            image: A path, the bytes of an encoded file, a PIL image, a uint8 array (H, W, 3) or (H, W), or a float32
                or float16 array (C, H, W) that is a model input, already resized and normalised.
            explain: The explanations wanted: names of explainers, or `Explain` objects to set more.
            top_k: How many classes to return, most probable first. Default: 5.
            ood: Whether to return an out-of-distribution score.
            timeout: Deadline in seconds. Default: the client's.
            request_id: 1 to 128 characters of [A-Za-z0-9._:-]. Default: a new one.
            skip_sampling: Whether this is no traffic, but somebody who looks at what the model says: it is not sampled,
                and nothing that the server measures counts it.

        Raises:
            ServiceError: The call failed.
            ArgumentError: An argument is wrong.
            OSError: The file cannot be read; FileNotFoundError if there is none.
        """
        many = self.predict_many(
            [image],
            explain,
            top_k=top_k,
            ood=ood,
            timeout=timeout,
            request_id=request_id,
            skip_sampling=skip_sampling,
        )
        return many[0]

    def predict_many(
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
        """As `predict`, for several pictures in one request; returns the predictions in the order of the pictures.

        All share one request id; `report_ground_truth` tells them apart by `image_index`.
        """
        call = self._connection.call(timeout, request_id)
        request = predict_request(
            check_images(images),
            explain,
            top_k=top_k,
            ood=ood,
            request_id=call.request_id,
            skip_sampling=skip_sampling,
        )
        response: pb.PredictResponse = self._unary("Predict", request, call)
        return predictions(response, call.request_id, len(request.images))

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
    ) -> Generator[Event, None, None]:
        """As `predict`, but yields the prediction at once and each explanation as it comes.

        The call starts with the first event asked for, and is cancelled when the generator is closed, as it is where a
        ``for`` loop over it ends early.

        Args:
            image: See `predict`.
            explain: See `predict`.
            top_k: See `predict`.
            ood: See `predict`.
            progress_interval: Shortest time between two `Progress` events of one explanation in seconds.
                Default: 0.25.
            timeout: Deadline of the whole stream in seconds. Default: the client's.
            request_id: See `predict`.
            skip_sampling: See `predict`.

        Returns:
            A generator of `Predicted`, then `Progress` and `Explained` in any order, and at last `Finished`.

        Raises:
            UnsupportedError: This server does not stream.
            DeadlineError: The timeout passed, or is too short for what was asked.
            ServiceError: The call failed.
            ArgumentError: An argument is wrong; raised at once.
        """
        call = self._connection.call(timeout, request_id)
        request = predict_request(
            [image], explain, top_k=top_k, ood=ood, request_id=call.request_id, skip_sampling=skip_sampling
        )
        return self._events(stream_request(request, progress_interval), call)

    def report_ground_truth(
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
        """Tells what an earlier picture really showed: at least one label, class id, box or object.

        Only a request that was sampled takes it, see `Prediction.sampled`. The last report of a picture counts and
        replaces the former one whole, unless `keep_unmentioned`.

        Args:
            request_id: `Prediction.request_id`.
            labels: Labels that apply, each one of `ModelInfo.labels`.
            boxes: Where objects are of every class reported: (left, top, right, bottom) in pixels of the upright
                picture, or of the model input where one was sent.
            image_index: Index of the picture in the request.
            objects: Where objects are, in any shape and of any class reported.
            class_ids: Classes that apply, instead of labels or besides them; tell which is meant where several classes
                share a label.
            keep_unmentioned: Whether what this says nothing of stays as it was reported before: its classes where there
                are neither labels nor class ids here, its objects where there are none here.
            timeout: Deadline in seconds. Default: the client's.

        Returns:
            Whether this changed anything; False if the same had been reported before. A `GroundTruthWarning` tells of
            what was taken and may not have been meant, such as an object where the model did not look.

        Raises:
            NotFoundError: The request is unknown, was not sampled, or is no longer kept; the message says what to do.
            ServiceError: The call failed.
            ArgumentError: An argument is wrong, or there is nothing to report.
            OSError: The file of a mask cannot be read.
        """
        request = ground_truth_request(
            request_id,
            labels,
            boxes,
            image_index,
            objects=objects,
            class_ids=class_ids,
            keep_unmentioned=keep_unmentioned,
        )
        response: pb.ReportGroundTruthResponse = self._unary(
            "ReportGroundTruth", request, self._connection.call(timeout, idempotent=True)
        )
        warn(response.warnings, stacklevel=2)
        return response.changed

    def model_info(self, *, timeout: float | None = None) -> ModelInfo:
        """Describes the model, its input, and every explainer with its parameters, cost and measured quality.

        Raises:
            ServiceError: The call failed.
        """
        trailing: list[tuple[str, str | bytes]] = []
        call = self._connection.call(timeout, idempotent=True)
        response: pb.GetModelInfoResponse = self._unary("GetModelInfo", pb.GetModelInfoRequest(), call, trailing)
        return model_info(response.model, trailing)

    def _unary(self, name: str, request: Any, call: Call, trailing: list[tuple[str, str | bytes]] | None = None) -> Any:
        """Makes a call; returns its answer, and adds its trailing metadata where they are wanted."""
        while True:
            with fork.guard():
                try:
                    method = getattr(self._stub(), name)
                    if trailing is None:
                        return method(request, **call.arguments())
                    message, answer = method.with_call(request, **call.arguments())
                    trailing.extend(answer.trailing_metadata())
                    return message
                except grpc.RpcError as error:
                    self._check_open(error)
                    delay = call.retry_delay(error)
                except ValueError as error:
                    # How gRPC reports a channel that another thread closed in the meantime.
                    self._check_open(error)
                    raise
            time.sleep(delay)

    def _events(self, request: pb.PredictStreamRequest, call: Call) -> Generator[Event, None, None]:
        decoder = EventDecoder(call.request_id)
        with closing(self._stream("PredictStream", request, call)) as messages:
            for message in messages:
                event = decoder.decode(message)
                if event is not None:
                    yield event

    def _stream(self, name: str, request: Any, call: Call) -> Generator[Any, None, None]:
        started = False
        while True:
            with fork.guard() as is_here:
                answer = None
                try:
                    answer = getattr(self._stub(), name)(request, **call.arguments())
                    for message in answer:
                        started = True
                        yield message
                        fork.check()
                    return
                except grpc.RpcError as error:
                    self._check_open(error)
                    delay = call.retry_delay(error, repeatable=not started)
                except ValueError as error:
                    self._check_open(error)
                    raise
                finally:
                    if answer is not None and is_here():
                        answer.cancel()
            time.sleep(delay)

    def _stub(self) -> Any:
        self._check_open()
        return self._channel.stub()

    def _check_open(self, cause: Exception | None = None) -> None:
        if self._closed:
            raise ClosedError("the client is closed") from cause
