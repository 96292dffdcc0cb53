"""A page's query as the SDK takes it, and the samples that it lists."""

from __future__ import annotations

from xai_client import SampleFilter, SamplePage
from xai_client.samples import ScoreRange
from xai_console.query import Query
from xai_console.source import Source


async def list_by(
    source: Source, query: Query, now: float, *, size: int, token: str = "", maps: str = ""
) -> SamplePage:
    """Lists the samples that a query means, in its order.

    Args:
        source: Where they are.
        query: What the viewer chose.
        now: See `filter_of`; all pages of a list take the same.
        size: Most samples in the page.
        token: Names the page; empty for the first.
        maps: The explainer whose small maps come with them; empty for none.

    Raises:
        XaiError: They cannot be listed.
    """
    order, score_of = order_of(query)
    return await source.list_samples(
        filter_of(query, now), order=order, score_of=score_of, page_size=size, page_token=token, map_of=maps
    )


def filter_of(query: Query, now: float) -> SampleFilter:
    """The samples that a query means.

    Args:
        query: What the viewer chose.
        now: Unix time from which its hours count.
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
