"""A call from beginning to end, whatever protocol it came by: check, admit, prepare, predict, explain, sample, answer.

    adapter ─ PredictRequest ─► Core.predict ────────► encode(Answer)
                                Core.predict_stream ─► encode(Answer), encode(ExplanationProgress or -Update), …

An adapter makes neutral requests of its protocol's, gives a function that makes messages of answers, and maps errors to
statuses. An error's field is its path in the neutral request.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from xai_sidecar.config import ServerConfig
from xai_sidecar.engine.trace import mark
from xai_sidecar.errors import PreconditionError, ShuttingDownError
from xai_sidecar.serving.admission import Admission, AdmittedRequest
from xai_sidecar.serving.answers import Answer, AnswerBuilder, Event
from xai_sidecar.serving.callers import Role, current_caller
from xai_sidecar.serving.checking import check_request
from xai_sidecar.serving.description import ModelDescription, describe
from xai_sidecar.serving.evaluation import Evaluation
from xai_sidecar.serving.ground_truth import GroundTruthReceipt, check_report, receipt_of, report_paths
from xai_sidecar.serving.model import ServedModel
from xai_sidecar.serving.plan import ExplanationResult, ModelOutput
from xai_sidecar.serving.predictor import Predictor
from xai_sidecar.serving.preprocessing import Preprocessor
from xai_sidecar.serving.promising import Demand
from xai_sidecar.serving.request_ids import new_request_id
from xai_sidecar.serving.requests import GroundTruthReport, PredictRequest
from xai_sidecar.serving.streaming import ExplanationVersion, explanations, is_partial
from xai_sidecar.serving.workers import Workers

T = TypeVar("T")

_FOREVER = float("inf")

_FEW_SCORES = 1000
"""So many are encoded in less time than waking a thread takes."""

_SMALL_REPORT_BYTES = 16 * 1024
"""Size up to which a report is checked in a millisecond or two."""


def deadline_of(seconds: float | None) -> float:
    """The time that a caller still waits as a time on the clock of `time.monotonic`; None is for ever."""
    return _FOREVER if seconds is None else time.monotonic() + seconds


def check_caller(request: PredictRequest) -> None:
    """Checks that whoever asks for explanations may have some; `Core` does so, and who answers without it has to.

    Raises:
        RoleMissingError: It lacks the role.
    """
    if request.explanations:
        current_caller().check((Role.EXPLAIN,), "An explanation")


@dataclass(frozen=True)
class ServingState:
    """What serves calls once the model is loaded.

    Attributes:
        model: The model.
        admission: Decides which requests are taken on.
        predictor: Runs the model.
        evaluation: Measures its explanations.
        ready_seconds: When it became ready, as Unix time.
    """

    model: ServedModel
    admission: Admission
    predictor: Predictor
    evaluation: Evaluation
    ready_seconds: float


class Core:
    """Answers calls. To be used on one event loop.

    Args:
        limits: How much is decoded, and how long a call may take.
        on_repeat: Called with how a call was answered without work of its own; see `Repeats`.

    Attributes:
        limits: As given.
        on_repeat: As given.
        state: What serves calls; None until the model is loaded, and again when the server drains.
    """

    def __init__(self, limits: ServerConfig, on_repeat: Callable[[str], object] = lambda how: None) -> None:
        self.state: ServingState | None = None
        self.limits = limits
        self.on_repeat = on_repeat
        self._longest_seconds = limits.max_call_seconds
        self._workers = Workers()
        self._preprocessor = Preprocessor(self._workers, limits)

    def ready(self) -> ServingState:
        """What serves calls.

        Raises:
            ShuttingDownError: Nothing, since the model is not loaded yet, or the server drains.
        """
        if self.state is None:
            raise ShuttingDownError("The server is starting or shutting down. Try again, or another one.")
        return self.state

    @property
    def unready(self) -> str:
        """Why the model can answer nothing at present; empty if it can. See `Backend`; any thread may ask."""
        state = self.state
        if state is None:
            return "the server is starting or shutting down"
        return getattr(state.model.backend, "unready", "")

    async def predict(self, request: PredictRequest, encode: Callable[[Answer], T], deadline: float = _FOREVER) -> T:
        """Classifies and explains.

        Args:
            request: What is asked for.
            encode: Makes the adapter's message of the answer. Run on a worker thread where there are maps to encode;
                what the request holds of the server's capacities is given back only afterwards.
            deadline: When the caller stops waiting, on the clock of `time.monotonic`.

        Returns:
            What `encode` returns.

        Raises:
            SidecarError: With the path of the field at fault in the request, if one is.
        """
        call = self._begin(request, deadline)
        state, plans = call.state, call.builder.checked.plans
        with state.admission.admit(call.demand) as admitted:
            mark("admit")
            predicted = await self._predicted(call, admitted)
            explained = await state.predictor.explain(predicted, plans, call.demand.deadline, admitted)
            if plans:
                mark("explain")
            sampled = call.sample(predicted, explained)
            call.watch(predicted, explained if plans else ())
            answer = partial(call.builder.answer, predicted, explained, sampled)
            with state.predictor.answering.measured() if plans else nullcontext():
                return await self._result(lambda: encode(answer()), small=not plans and call.has_few_scores)

    async def predict_stream(
        self,
        request: PredictRequest,
        encode: Callable[[Event], T],
        interval: float,
        deadline: float = _FOREVER,
    ) -> AsyncGenerator[T, None]:
        """Classifies, and explains while the caller watches. Closing it cancels what is not done.

        Args:
            request: What is asked for.
            encode: Makes the adapter's message of an event; see `predict`. A partial version for which it raises a
                PreconditionError is left out: what an encoding cannot carry of it is no reason to end the stream.
            interval: Seconds between two progress events of one explanation.
            deadline: When the caller stops waiting, on the clock of `time.monotonic`.

        Yields:
            What `encode` returns of each event: first the answer without explanations.

        Raises:
            SidecarError: With the path of the field at fault in the request, if one is.
        """
        call = self._begin(request, deadline)
        state, builder = call.state, call.builder
        with state.admission.admit(call.demand) as admitted:
            predicted = await self._predicted(call, admitted)
            sampled = call.sample(predicted)
            first = partial(builder.answer, predicted, None, sampled)
            yield await self._result(lambda: encode(first()), small=call.has_few_scores)
            plans, deadline = builder.checked.plans, call.demand.deadline
            events = explanations(state.predictor, predicted, plans, deadline, interval, admitted)
            finals: list[list[ExplanationResult]] = [[] for _ in predicted]
            async with aclosing(events):
                async for event in events:
                    if isinstance(event, ExplanationVersion) and not is_partial(event):
                        finals[event.key.image_index].append(event.result)
                    message = partial(lambda event: encode(builder.event(event)), event)
                    has_maps = isinstance(event, ExplanationVersion) and len(event.result.targets) > 0
                    try:
                        with state.predictor.answering.measured() if has_maps else nullcontext():
                            encoded = await self._result(message, small=not has_maps)
                    except PreconditionError:
                        if not is_partial(event):
                            raise
                    else:
                        yield encoded
            call.watch(predicted, finals)

    async def report_ground_truth(self, report: GroundTruthReport) -> GroundTruthReceipt:
        """Takes what a picture of a sampled request really showed.

        Raises:
            PreconditionError: Nothing is sampled here.
            SidecarError: With the path of the field at fault in the report, if one is.
        """
        state = self.ready()
        state.model.check_name(report.model)
        evaluator = state.evaluation.evaluator
        if evaluator is None:
            raise PreconditionError(
                "This server samples no requests, and so takes no ground truth. Set evaluator.sample_rate in its "
                "config."
            )
        with state.admission.holding(report.byte_count):
            check = partial(check_report, report, state.model)
            key, truth = await self._result(check, small=report.byte_count <= _SMALL_REPORT_BYTES)
            with report_paths(report):
                receipt = await asyncio.wrap_future(
                    evaluator.ingest.report(key, truth, keep_unmentioned=report.keep_unmentioned)
                )
        return receipt_of(receipt, report)

    def describe(self, model: str = "") -> ModelDescription:
        """What is served, and how.

        Args:
            model: Name of the model; empty for the one that is served.

        Raises:
            NotFoundError: Another model is served.
        """
        state = self.ready()
        state.model.check_name(model)
        quality = state.evaluation.quality.summary()
        drift = () if state.evaluation.drift is None else state.evaluation.drift.figures().figures
        return describe(state.model, state.ready_seconds, quality, state.predictor.costs, drift)

    def close(self) -> None:
        """Ends the worker threads."""
        self._workers.close()

    def _begin(self, request: PredictRequest, deadline: float) -> _Call:
        """Checks a request, and bounds the time that it may take."""
        state = self.ready()
        check_caller(request)
        checked = check_request(request, state.model)
        latest = time.monotonic() + self._longest_seconds
        demand = Demand(
            len(request.images),
            checked.plans,
            request.byte_count,
            min(deadline, latest),
            capped=deadline > latest,
        )
        return _Call(
            state, request, AnswerBuilder(request.request_id or new_request_id(), checked, state.model), demand
        )

    async def _predicted(self, call: _Call, admitted: AdmittedRequest) -> list[ModelOutput]:
        """What the model says of the pictures of a request."""
        state, deadline = call.state, call.demand.deadline
        state.predictor.engine.announce()
        images = await self._preprocessor.prepare(call.request.images, state.model.input, deadline)
        predicted = await state.predictor.predict(images, deadline, ood=call.builder.checked.needs_ood)
        admitted.predicted()
        return predicted

    async def _result(self, function: Callable[[], T], *, small: bool) -> T:
        """A function's result; a small piece of work is done at once, since it is not worth a thread."""
        return function() if small else await self._workers.run(function)


@dataclass(frozen=True)
class _Call:
    """A request in progress."""

    state: ServingState
    request: PredictRequest
    builder: AnswerBuilder
    demand: Demand

    def sample(self, predicted: Sequence[ModelOutput], explained: Sequence[Sequence[ExplanationResult]] = ()) -> bool:
        """Has the pictures measured, if the request is sampled; returns whether it is."""
        request, evaluation = self.request, self.state.evaluation
        return not request.skip_sampling and evaluation.sample(
            self.builder.request_id, self.state.model, predicted, explained, request.images
        )

    def watch(self, predicted: Sequence[ModelOutput], explained: Sequence[Sequence[ExplanationResult]]) -> None:
        """Has the maps compared with former ones, if they are of traffic."""
        if not self.request.skip_sampling:
            self.state.evaluation.watch(self.state.model, predicted, explained)

    @property
    def has_few_scores(self) -> bool:
        return self.demand.image_count * self.builder.checked.top_k <= _FEW_SCORES
