"""What many scores come to."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from xai_sidecar.metrics.base import Score, ScoreStatus


@dataclass(frozen=True)
class Summary:
    """Scores of one benchmark.

    Attributes:
        mean: Of those that could be measured; None if there are none.
        standard_error: Of the mean: the sample's standard deviation over √count. None for fewer than two.
        count: How many could be measured.
        skipped: How many could not, by reason.
    """

    mean: float | None
    standard_error: float | None
    count: int
    skipped: Mapping[ScoreStatus, int]


def summary(scores: Iterable[Score]) -> Summary:
    """Sums up scores of one benchmark."""
    scores = list(scores)
    values = np.array([score.value for score in scores if score.value is not None])
    skipped = Counter(score.status for score in scores if score.value is None)
    return Summary(
        mean=float(values.mean()) if len(values) else None,
        standard_error=float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else None,
        count=len(values),
        skipped=dict(skipped),
    )
