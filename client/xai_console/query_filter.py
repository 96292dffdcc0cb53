"""A page's query as the SDK takes it."""

from __future__ import annotations

from xai_client import SampleFilter
from xai_client.samples import ScoreRange
from xai_console.query import Query


def filter_of(query: Query, now: float) -> SampleFilter:
    """The samples that a query means.

    Args:
        query: The query.
        now: Unix time from which hours past are counted: the same for all pages of a list.
    """
    score = None
    if query.explainer and query.metric and (query.smin is not None or query.smax is not None):
        score = ScoreRange(query.explainer, query.metric, query.smin, query.smax)
    return SampleFilter(
        predicted=query.predicted,
        true=query.true,
        outcomes=query.outcome,
        min_probability=query.pmin,
        max_probability=query.pmax,
        min_ood_percentile=query.oodmin,
        max_ood_percentile=query.oodmax,
        map_statuses=query.status,
        map_explainer=query.of,
        score=score,
        start=query.start if query.hours is None else now - 3600 * query.hours,
        end=query.end,
    )


def order_of(query: Query) -> tuple[str, tuple[str, str] | None]:
    """The order, and by whose scores it goes; the newest first as long as it is not said whose."""
    if not query.by_score:
        return query.order, None
    if not (query.explainer and query.metric):
        return "newest_first", None
    return query.order, (query.explainer, query.metric)
