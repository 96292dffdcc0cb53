"""Which requests are rather sampled than others: those of classes that are rarely predicted, and doubtful ones.

A picture of a class that a share p of the recent pictures are of is wanted in proportion to 1/√p, halfway between as
often as it comes and as often as every other class (power allocation, Bankier 1988), and twice as much where its
prediction is wholly undecided as where it is certain. A request is wanted as much as the most wanted of its pictures.
What that comes to is divided by what it is on average, so that as much is sampled as without, and kept within
bounds: no class is starved, and no sample weighs much more than another.
"""

from __future__ import annotations

import math
import threading
from collections import Counter, deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from xai_sidecar.engine.work import FloatArray

LEAST, MOST = 0.5, 4.0
"""Bounds of how much more often than others a request is sampled, where few are sampled."""

_RECENT = 1000
"""Pictures by which it is known how rare a class is."""

_GAIN = 1 / 128
"""By how much the level is corrected with each request."""


class Seen(NamedTuple):
    """What the preference goes by.

    Attributes:
        target: The most probable class.
        doubt: How undecided the prediction is, 0 to 1.
    """

    target: int
    doubt: float


def seen(logits: FloatArray, probabilities: FloatArray, least: float | None) -> Seen:
    """What the preference goes by, of a prediction.

    Args:
        logits: (classes,).
        probabilities: (classes,).
        least: The probability from which on a class counts as predicted; None where the most probable one does.

    Returns:
        The class, and how undecided the prediction is: 1 less the lead of the most probable class over the next, or,
        where classes count by themselves, how near the one that is nearest to counting or not is to that.
    """
    target = int(logits.argmax())
    if least is not None:
        doubt = 1 - float(np.abs(probabilities - least).min()) / max(least, 1 - least)
    elif len(probabilities) > 1:
        second, first = np.partition(probabilities, -2)[-2:]
        doubt = 1 - float(first - second)
    else:
        doubt = 0.0
    return Seen(target, min(max(doubt, 0.0), 1.0) if math.isfinite(doubt) else 1.0)


class Preference:
    """How much rather a request is sampled than others, by what came before. Any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._recent: deque[int] = deque()
        self._counts: Counter[int] = Counter()
        self._roots = 0.0  # sum over classes of the square root of their count
        self._level = math.log(1.5)  # logarithm of what requests are wanted on average

    def factor(self, pictures: Sequence[Seen]) -> float:
        """How much rather a request is sampled, `LEAST` to `MOST`, and 1 on average.

        Args:
            pictures: Its pictures.
        """
        if not pictures:
            return 1.0
        with self._lock:
            for picture in pictures:
                self._count(picture.target)
            wanted = max(self._rarity(each.target) * (1 + each.doubt) for each in pictures)
            factor = min(max(wanted / math.exp(self._level), LEAST), MOST)
            self._level += _GAIN * (factor - 1)
        return factor

    def _rarity(self, target: int) -> float:
        """1/√p of a class over the mean of that over the recent pictures."""
        return len(self._recent) / (self._roots * math.sqrt(self._counts[target]))

    def _count(self, target: int) -> None:
        self._recent.append(target)
        self._change(target, 1)
        if len(self._recent) > _RECENT:
            self._change(self._recent.popleft(), -1)

    def _change(self, target: int, by: int) -> None:
        before = self._counts[target]
        if before + by:
            self._counts[target] = before + by
        else:
            del self._counts[target]
        self._roots += math.sqrt(before + by) - math.sqrt(before)
