"""Requests for samples and for quality. What can be known to be wrong without the server is refused here."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Final

from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.timestamp_pb2 import Timestamp

from xai_client.errors import ArgumentError
from xai_client.request import integer, short_names
from xai_client.samples import Moment, SampleFilter, ScoreRange
from xai_proto import explanation_pb2 as pb
from xai_proto import quality_pb2 as qpb

MOST_PAGE: Final = 200
MOST_BINS: Final = 500

_LARGEST = 2**31 - 1
_LONGEST = 4096
_BY_SCORE = ("worst_score_first", "best_score_first")


def list_request(
    where: SampleFilter | None,
    *,
    order: str,
    score_of: tuple[str, str] | None,
    page_size: int = MOST_PAGE,
    page_token: str = "",
    with_thumbnails: bool,
    with_map_of: str,
    with_total_count: bool = False,
) -> qpb.ListSamplesRequest:
    """Builds a ListSamplesRequest; see `Client.list_samples` for the arguments.

    Raises:
        ArgumentError: An argument is wrong.
    """
    explainer, metric = _score_of(order, score_of)
    if not isinstance(page_token, str):
        raise ArgumentError(f"page_token is a text, not {page_token!r}", field="page_token")
    return qpb.ListSamplesRequest(
        filter=sample_filter(where),
        order=_enum(order, "order", qpb.SampleOrder.DESCRIPTOR),
        order_explainer=explainer,
        order_metric=metric,
        page_size=integer(page_size, "page_size", 1, MOST_PAGE),
        page_token=page_token,
        with_thumbnails=bool(with_thumbnails),
        with_map_of=_text(with_map_of, "with_map_of"),
        with_total_count=bool(with_total_count),
    )


def watch_request(where: SampleFilter | None, *, with_thumbnails: bool, with_map_of: str) -> qpb.WatchSamplesRequest:
    """Builds a WatchSamplesRequest; see `Client.watch_samples` for the arguments.

    Raises:
        ArgumentError: An argument is wrong.
    """
    return qpb.WatchSamplesRequest(
        filter=sample_filter(where),
        with_thumbnails=bool(with_thumbnails),
        with_map_of=_text(with_map_of, "with_map_of"),
    )


def sample_request(
    request_id: str, image_index: int, explainers: str | Iterable[str], encoding: str
) -> qpb.GetSampleRequest:
    """Builds a GetSampleRequest; see `Client.sample` for the arguments.

    Raises:
        ArgumentError: An argument is wrong.
    """
    return qpb.GetSampleRequest(
        request_id=_request_id(request_id),
        image_index=integer(image_index, "image_index", 0, _LARGEST),
        explainers=_names(explainers, "explainers"),
        encoding=_enum(encoding, "encoding", pb.MapEncoding.DESCRIPTOR),
    )


def _request_id(name: Any) -> str:
    """What the picture's request is called or, of an offline run, the picture itself, in whatever letters."""
    if not isinstance(name, str) or not 0 < len(name) <= _LONGEST:
        raise ArgumentError(f"request_id is a text of 1 to {_LONGEST} characters, not {name!r}", field="request_id")
    return name


def history_request(
    *,
    start: Moment | None,
    end: Moment | None,
    bins: int,
    explainers: str | Iterable[str],
    metrics: str | Iterable[str],
    reference: tuple[Moment, Moment] | None,
) -> qpb.GetQualityHistoryRequest:
    """Builds a GetQualityHistoryRequest; see `Client.quality_history` for the arguments.

    Raises:
        ArgumentError: An argument is wrong.
    """
    request = qpb.GetQualityHistoryRequest(
        bin_count=integer(bins, "bins", 1, MOST_BINS),
        explainers=_names(explainers, "explainers"),
        metrics=_names(metrics, "metrics"),
    )
    _set_time(request.start_time, start, "start")
    _set_time(request.end_time, end, "end")
    if reference is not None:
        if not isinstance(reference, Sequence) or len(reference) != 2:
            raise ArgumentError(f"reference is a beginning and an end, not {reference!r}", field="reference")
        _set_time(request.reference_start_time, reference[0], "reference")
        _set_time(request.reference_end_time, reference[1], "reference")
    return request


def class_maps_request(
    explainers: str | Iterable[str], class_ids: int | Iterable[int], max_samples: int, outcomes: str | Iterable[str]
) -> qpb.GetClassMapsRequest:
    """Builds a GetClassMapsRequest; see `Client.class_maps` for the arguments.

    Raises:
        ArgumentError: An argument is wrong.
    """
    return qpb.GetClassMapsRequest(
        explainers=_names(explainers, "explainers"),
        class_ids=_class_ids(class_ids, "class_ids"),
        max_sample_count=integer(max_samples, "max_samples", 1, 1000),
        outcomes=_enums(outcomes, "outcomes", qpb.Outcome.DESCRIPTOR),
    )


def sample_filter(where: SampleFilter | None) -> qpb.SampleFilter | None:
    """Builds a filter's message; None for none.

    Raises:
        ArgumentError: Something in it is wrong.
    """
    if where is None:
        return None
    if not isinstance(where, SampleFilter):
        raise ArgumentError(f"a filter is a SampleFilter, not {where!r}", field="where")
    message = qpb.SampleFilter(
        predicted_class_ids=_class_ids(where.predicted, "predicted"),
        true_class_ids=_class_ids(where.true, "true"),
        outcomes=_enums(where.outcomes, "outcomes", qpb.Outcome.DESCRIPTOR),
        map_statuses=_enums(where.map_statuses, "map_statuses", pb.MapStatus.DESCRIPTOR),
        map_explainer=_text(where.map_explainer, "map_explainer"),
        states=_enums(where.states, "states", qpb.SampleState.DESCRIPTOR),
        request_id=_request_id(where.request_id) if where.request_id else "",
        any_model_version=bool(where.any_model_version),
    )
    for name in ("min_probability", "max_probability", "min_ood_percentile", "max_ood_percentile"):
        _set_number(message, name, getattr(where, name))
    if where.score is not None:
        message.score.CopyFrom(_score_range(where.score))
    _set_time(message.start_time, where.start, "start")
    _set_time(message.end_time, where.end, "end")
    return message


def _score_range(score: Any) -> qpb.ScoreRange:
    if not isinstance(score, ScoreRange) or not (score.explainer and score.metric):
        raise ArgumentError(f"score is a ScoreRange that names an explainer and a metric, not {score!r}", field="score")
    message = qpb.ScoreRange(explainer=_text(score.explainer, "score"), metric=_text(score.metric, "score"))
    _set_number(message, "minimum", score.minimum)
    _set_number(message, "maximum", score.maximum)
    return message


def _score_of(order: str, score_of: Any) -> tuple[str, str]:
    if order not in _BY_SCORE:
        if score_of is not None:
            raise ArgumentError(f"score_of goes with the order {' or '.join(_BY_SCORE)}", field="score_of")
        return "", ""
    if not isinstance(score_of, (tuple, list)) or len(_names(score_of, "score_of")) != 2:
        raise ArgumentError(f"score_of must be (explainer, metric), not {score_of!r}", field="score_of")
    explainer, metric = score_of
    return explainer, metric


def _class_ids(values: Any, name: str) -> list[int]:
    several = list(values) if isinstance(values, Iterable) and not isinstance(values, str) else [values]
    return [integer(each, name, 0, _LARGEST) for each in several]


def _enums(values: str | Iterable[str], name: str, enum: EnumDescriptor) -> list[Any]:
    return [_enum(each, name, enum) for each in _names(values, name)]


def _enum(value: Any, name: str, enum: EnumDescriptor) -> Any:
    choices = {short: number for number, short in short_names(enum).items()}
    if isinstance(value, str) and value in choices:
        return choices[value]
    raise ArgumentError(f"{name} must be of {', '.join(choices)}, not {value!r}", field=name)


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise ArgumentError(f"{name} is a name, not {value!r}", field=name)
    return value


def _set_number(message: Any, name: str, value: Any) -> None:
    if value is None:
        return
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        raise ArgumentError(f"{name} must be a number, not {value!r}", field=name)
    setattr(message, name, value)


def _set_time(message: Timestamp, value: Moment | None, name: str) -> None:
    if value is not None:
        message.FromNanoseconds(round(_seconds(value, name) * 1e9))


def _seconds(value: Any, name: str) -> float:
    """A point in time as Unix time."""
    if isinstance(value, datetime):
        return value.timestamp()
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e11:
        return float(value)
    raise ArgumentError(f"{name} must be a datetime or Unix time in seconds, not {value!r}", field=name)


def _names(values: Any, name: str) -> list[str]:
    """Texts as a list; a single one becomes a list of one."""
    found: list[Any] = [values]
    if isinstance(values, Iterable) and not isinstance(values, str):
        found = list(values)
    if not all(isinstance(each, str) and each for each in found):
        raise ArgumentError(f"{name} must be names, not {values!r}", field=name)
    return found
