"""From the contract's questions about samples to those that a store is asked."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from xai_proto import quality_pb2 as qpb
from xai_sidecar.errors import InvalidRequestError, TargetError, UnknownExplainerError, quoted, within
from xai_sidecar.evaluator.reading import Extras, Order, SampleFilter, ScoreRange
from xai_sidecar.evaluator.reading.filters import NO_OUTCOME
from xai_sidecar.evaluator.reading.orders import By
from xai_sidecar.evaluator.reading.pages import MOST
from xai_sidecar.evaluator.records import SampleKey, SampleState
from xai_sidecar.evaluator.store import Outcome
from xai_sidecar.metrics.discovery import installed_metrics
from xai_sidecar.rpc.encode import STATUSES
from xai_sidecar.serving.quality import Shown

_PAGE = 50
_BINS, _MOST_BINS = 48, 500
_CLASSES, _MOST_CLASSES = 24, 100
_OF_A_CLASS, _MOST_OF_A_CLASS = 200, 1000
_MOST_IDS = 1000
_MOST_NAMES = 100

OUTCOMES = {
    qpb.OUTCOME_UNKNOWN: Outcome.UNKNOWN,
    qpb.OUTCOME_TRUE_POSITIVE: Outcome.TRUE_POSITIVE,
    qpb.OUTCOME_FALSE_POSITIVE: Outcome.FALSE_POSITIVE,
    qpb.OUTCOME_FALSE_NEGATIVE: Outcome.FALSE_NEGATIVE,
}
_MAP_STATUSES = {number: status for status, number in STATUSES.items()}
_STATES = {
    number: SampleState[name.removeprefix("SAMPLE_STATE_")] for name, number in qpb.SampleState.items() if number
}
_ORDERS = {
    qpb.SAMPLE_ORDER_UNSPECIFIED: Order(),
    qpb.SAMPLE_ORDER_NEWEST_FIRST: Order(),
    qpb.SAMPLE_ORDER_OLDEST_FIRST: Order(descending=False),
    qpb.SAMPLE_ORDER_LEAST_PROBABLE_FIRST: Order(By.PROBABILITY, descending=False),
    qpb.SAMPLE_ORDER_MOST_PROBABLE_FIRST: Order(By.PROBABILITY),
    qpb.SAMPLE_ORDER_OUTLIERS_FIRST: Order(By.OOD, descending=False),
    qpb.SAMPLE_ORDER_INLIERS_FIRST: Order(By.OOD),
}
_BY_SCORE = {qpb.SAMPLE_ORDER_WORST_SCORE_FIRST: True, qpb.SAMPLE_ORDER_BEST_SCORE_FIRST: False}


@dataclass(frozen=True)
class HistoryQuestion:
    """What a history is wanted of.

    Attributes:
        start: Beginning, as Unix time.
        end: End, later than that.
        bins: Number of bins.
        explainers: Explainers and controls.
        metrics: Metrics.
        reference: Beginning and end of a window to compare with; None for none.
    """

    start: float
    end: float
    bins: int
    explainers: list[str]
    metrics: list[str]
    reference: tuple[float, float] | None


@dataclass(frozen=True)
class ClassMapsQuestion:
    """Which mean maps are wanted.

    Attributes:
        explainers: The explainers; none for the one that `auto` takes.
        class_ids: The classes; none for the most frequent ones.
        most_classes: How many of these.
        most_samples: Most samples for each map.
        where: Which samples.
    """

    explainers: list[str]
    class_ids: list[int]
    most_classes: int
    most_samples: int
    where: SampleFilter


def read_filter(message: qpb.SampleFilter, shown: Shown) -> SampleFilter:
    """The filter.

    Raises:
        InvalidRequestError: Something in it is wrong; with its field.
    """
    return SampleFilter(
        model_version=None if message.any_model_version else shown.evaluated.version,
        single_label=shown.single_label and not message.any_model_version,
        predicted=_class_ids(message.predicted_class_ids, "predicted_class_ids", shown),
        true=_class_ids(message.true_class_ids, "true_class_ids", shown),
        outcomes=_outcomes(message.outcomes),
        **{name: _bound(message, name) for name in _BOUNDS},
        map_statuses=frozenset(_member(each, _MAP_STATUSES, "map_statuses") for each in message.map_statuses),
        map_explainer=message.map_explainer and _explainer(message.map_explainer, "map_explainer", shown),
        score=_score_range(message.score, shown) if message.HasField("score") else None,
        start=_time(message, "start_time"),
        end=_time(message, "end_time"),
        states=frozenset(_member(each, _STATES, "states") for each in message.states),
        request_id=message.request_id,
    )


_BOUNDS = ("min_probability", "max_probability", "min_ood_percentile", "max_ood_percentile")


def read_list(request: qpb.ListSamplesRequest, shown: Shown) -> tuple[SampleFilter, Order, int, str, Extras]:
    """Filter, order, size, page token and extras.

    Raises:
        InvalidRequestError: Something in it is wrong; with its field.
    """
    with within("filter"):
        where = read_filter(request.filter, shown)
    size = _count(request.page_size, "page_size", _PAGE, MOST)
    return where, _order(request, shown), size, request.page_token, read_extras(request, shown)


def read_extras(request: qpb.ListSamplesRequest | qpb.WatchSamplesRequest, shown: Shown) -> Extras:
    """What to send of each sample besides.

    Raises:
        InvalidRequestError: There is no such explainer.
    """
    wanted = request.with_map_of and _explainer(request.with_map_of, "with_map_of", shown)
    return Extras(request.with_thumbnails, wanted)


def read_key(request: qpb.GetSampleRequest, shown: Shown) -> tuple[SampleKey, list[str]]:
    """Which sample, and the explainers and controls to send; none for all.

    Raises:
        InvalidRequestError: Something in it is wrong; with its field.
    """
    if not request.request_id:
        raise InvalidRequestError("The request id is missing. Name the sample by it.", field="request_id")
    return SampleKey(request.request_id, request.image_index), _explainers(request.explainers, shown)


def read_history(request: qpb.GetQualityHistoryRequest, shown: Shown) -> HistoryQuestion:
    """Of when, and of what.

    Raises:
        InvalidRequestError: Something in it is wrong; with its field.
    """
    settings = shown.model.config.evaluator
    end = _time(request, "end_time") or shown.clock()
    start = _time(request, "start_time")
    start = max(0.0, end - settings.window_seconds) if start is None else start
    if start >= end:
        raise InvalidRequestError("The beginning is not before the end. Swap them.", field="start_time")
    metrics = list(request.metrics) or [name for name, weight in settings.auto.weights.items() if weight > 0]
    return HistoryQuestion(
        start=start,
        end=end,
        bins=_count(request.bin_count, "bin_count", _BINS, _MOST_BINS),
        explainers=_explainers(request.explainers, shown) or shown.names,
        metrics=[_metric(name, f"metrics[{place}]") for place, name in enumerate(metrics[:_MOST_NAMES])],
        reference=_reference(request),
    )


def read_class_maps(request: qpb.GetClassMapsRequest, shown: Shown) -> ClassMapsQuestion:
    """Which mean maps.

    Raises:
        InvalidRequestError: Something in it is wrong; with its field.
    """
    if len(request.class_ids) > _MOST_CLASSES:
        raise InvalidRequestError(
            f"{len(request.class_ids):,} classes are asked for, of at most {_MOST_CLASSES} at a time. Ask for fewer.",
            field="class_ids",
        )
    return ClassMapsQuestion(
        explainers=_explainers(request.explainers, shown),
        class_ids=list(_class_ids(request.class_ids, "class_ids", shown)),
        most_classes=_CLASSES,
        most_samples=_count(request.max_sample_count, "max_sample_count", _OF_A_CLASS, _MOST_OF_A_CLASS),
        where=replace(shown.all_samples(), outcomes=_outcomes(request.outcomes)),
    )


def _order(request: qpb.ListSamplesRequest, shown: Shown) -> Order:
    worst_first = _BY_SCORE.get(request.order)
    if worst_first is None:
        return _member(request.order, _ORDERS, "order")  # type: ignore[no-any-return]
    explainer = _explainer(request.order_explainer, "order_explainer", shown)
    return Order.by_score(explainer, _metric(request.order_metric, "order_metric"), worst_first=worst_first)


def _score_range(message: qpb.ScoreRange, shown: Shown) -> ScoreRange:
    with within("score"):
        return ScoreRange(
            _explainer(message.explainer, "explainer", shown),
            _metric(message.metric, "metric"),
            _bound(message, "minimum"),
            _bound(message, "maximum"),
        )


def _reference(request: qpb.GetQualityHistoryRequest) -> tuple[float, float] | None:
    start, end = _time(request, "reference_start_time"), _time(request, "reference_end_time")
    if start is None and end is None:
        return None
    if start is None or end is None or start >= end:
        raise InvalidRequestError(
            "A reference window has a beginning, and an end after it. Set both.", field="reference_start_time"
        )
    return start, end


def _outcomes(numbers: Collection[int]) -> Outcome:
    found = NO_OUTCOME
    for each in numbers:
        found |= _member(each, OUTCOMES, "outcomes")
    return found


def _member(number: int, members: Any, field: str) -> Any:
    if number not in members:
        raise InvalidRequestError(f"{number} is none of its values. Take one that the contract has.", field=field)
    return members[number]


def _class_ids(numbers: Sequence[int], field: str, shown: Shown) -> tuple[int, ...]:
    if len(numbers) > _MOST_IDS:
        raise InvalidRequestError(f"{len(numbers):,} classes are more than {_MOST_IDS:,}. Name fewer.", field=field)
    for place, each in enumerate(numbers):
        if not 0 <= each < len(shown.labels):
            raise TargetError(
                f"There is no class {each}; the model has 0 to {len(shown.labels) - 1}.", field=f"{field}[{place}]"
            )
    return tuple(dict.fromkeys(numbers))


def _explainers(names: Sequence[str], shown: Shown) -> list[str]:
    if len(names) > _MOST_NAMES:
        raise InvalidRequestError(f"{len(names):,} explainers are more than there are.", field="explainers")
    return [_explainer(name, f"explainers[{place}]", shown) for place, name in enumerate(names)]


def _explainer(name: str, field: str, shown: Shown) -> str:
    """An explainer, or a control; of those that cannot be used now there may be samples, too."""
    known = (*shown.model.explainers, *shown.evaluated.controls)
    if name not in known:
        raise UnknownExplainerError(
            f"There is no explainer and no control {quoted(name)}; there are {', '.join(known)}.", field=field
        )
    return name


def _metric(name: str, field: str) -> str:
    if name not in installed_metrics():
        raise InvalidRequestError(
            f"There is no metric {quoted(name)}; there are {', '.join(installed_metrics())}.", field=field
        )
    return name


def _count(given: int, field: str, default: int, most: int) -> int:
    if not 0 <= given <= most:
        raise InvalidRequestError(f"{given} is not from 1 to {most}. Leave it out for {default}.", field=field)
    return given or default


def _bound(message: Any, field: str) -> float | None:
    if not message.HasField(field):
        return None
    value = float(getattr(message, field))
    if not math.isfinite(value):
        raise InvalidRequestError(f"{value} is no bound. Leave it out for none.", field=field)
    return value


def _time(message: Any, field: str) -> float | None:
    if not message.HasField(field):
        return None
    stamp: Timestamp = getattr(message, field)
    if not 0 <= stamp.nanos < 10**9 or abs(stamp.seconds) > 10**12:
        raise InvalidRequestError("It is no point in time. Set seconds and 0 to 999,999,999 nanos.", field=field)
    return stamp.seconds + stamp.nanos / 1e9
