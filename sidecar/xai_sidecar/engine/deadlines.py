"""Promises that explanations are done by a time: whether all can be kept, and who has to go first for it.

Everything here is by order of deadlines, which is optimal on one device: where any order keeps all promises, this one
does (Liu, Layland 1973). A promise is in danger when the work up to it, its own included, needs all of the time to it
but `FAIR_SHARE`, which is always left to others; more is never promised. Where not all promises can be kept any more,
the one of most work gives way, as in Moore and Hodgson's rule for the fewest late jobs, but for its first map. No clock
in here.
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from xai_sidecar.engine.batch import Flow

FAIR_SHARE = 0.1
"""Share of the lane's time that is given by fair turns, however many promises are in danger."""

_RECHECK_SECONDS = 0.1
"""How long promises are taken to be out of danger at the most: meanwhile launches may have become slower."""


@dataclass(frozen=True)
class Commitment:
    """What is left of a promise.

    Attributes:
        by: When it has to be done.
        seconds: What it still takes when nothing else runs.
        first_seconds: What of that cannot be done without: a first map.
    """

    by: float
    seconds: float
    first_seconds: float = 0.0


def granted(commitments: Sequence[Commitment], now: float) -> list[float]:
    """The seconds that each gets so that as few as possible are late; in full where all can be kept.

    Args:
        commitments: By order of `by`.
        now: The time now.
    """
    seconds = [each.seconds for each in commitments]
    total = 0.0
    for index, each in enumerate(commitments):
        total += seconds[index]
        while total > each.by - now:
            spare = [seconds[i] - commitments[i].first_seconds for i in range(index + 1)]
            # Of equals the last one gives way, which has come last or has most time left.
            most = max(range(index + 1), key=lambda i: (spare[i], i))
            if spare[most] <= 0:
                break
            total -= spare[most]
            seconds[most] = commitments[most].first_seconds
    return seconds


def in_danger(commitments: Sequence[Commitment], now: float, margin: float) -> tuple[list[int], float]:
    """Which commitments have to go before all others, and else for how long none has to.

    Args:
        commitments: By order of `by`.
        now: The time now.
        margin: Seconds that may pass before the next look.

    Returns:
        Their indices, the most urgent one's first, and seconds, which are 0 where there are any.
    """
    total, spare = 0.0, float("inf")
    first: list[int] = []
    for index, (each, seconds) in enumerate(zip(commitments, granted(commitments, now), strict=True)):
        total += seconds
        if seconds > 0:
            first.append(index)
            left = (1 - FAIR_SHARE) * (each.by - now) - total - margin
            if left <= 0:
                return first, 0.0
            spare = min(spare, left)
    return [], spare


def fits(
    others: Iterable[Commitment], new: Iterable[Commitment], now: float, first_maps: Iterable[Commitment] = ()
) -> bool:
    """Whether new commitments can be kept, and make none late that would not be late without them.

    A device that has nothing else to do takes any: whether one of them could ever be kept is not looked at here.

    Args:
        others: What is promised already.
        new: What is to be promised.
        now: The time now.
        first_maps: What comes with it and may be late itself, but must make no others late.
    """
    others, first_maps = [each for each in others if each.seconds > 0], list(first_maps)
    if not others:
        return True
    late = _late(others, now) | {id(each) for each in first_maps}
    return _late([*others, *new, *first_maps], now) <= late


def fits_share(own: Iterable[Commitment], new: Iterable[Commitment], now: float, others: Sequence[float]) -> bool:
    """Whether a caller's new commitments can be kept beside its own others, where callers share the time evenly.

    Args:
        own: What is promised to it already.
        new: What is to be promised.
        now: The time now.
        others: Seconds that each of the other callers still wants; infinite where nobody knows.
    """
    own = list(own)
    return _late_of_share([*own, *new], now, others) <= _late_of_share(own, now, others)


def _late_of_share(commitments: Iterable[Commitment], now: float, others: Sequence[float]) -> set[int]:
    """Which commitments of a caller, by their ids, are late where the others take their shares, or all they want."""
    total, late = 0.0, set()
    for each in sorted(commitments, key=lambda each: each.by):
        total += each.seconds
        left = max(0.0, each.by - now)
        theirs = sum(min(seconds, left / (len(others) + 1)) for seconds in others)
        if total > (1 - FAIR_SHARE) * (left - theirs):
            late.add(id(each))
            total = min(total, left)
    return late


def _late(commitments: Iterable[Commitment], now: float) -> set[int]:
    """Which commitments, by their ids, are late if all are begun now, by order of deadlines."""
    total, late = 0.0, set()
    for each in sorted(commitments, key=lambda each: each.by):
        total += each.seconds
        if total > (1 - FAIR_SHARE) * (each.by - now):
            late.add(id(each))
            total = min(total, max(0.0, each.by - now))  # it ends then, done or not
    return late


def advanced(commitments: Iterable[Commitment], now: float, later: float, *, alone: bool) -> list[Commitment]:
    """The most that can be left of commitments at a later time, if all are kept, by order of deadlines.

    Args:
        commitments: Those of now.
        now: The time now.
        later: The later time.
        alone: Whether nothing else wants the device, so that they get all of its time and not only what they need.
    """
    ordered = sorted(commitments, key=lambda each: each.by)
    sums = list(itertools.accumulate(each.seconds for each in ordered))
    all_left = sums[-1] - (1 - FAIR_SHARE) * (later - now) if sums and alone else float("inf")
    left = [
        min(total, (1 - FAIR_SHARE) * (each.by - later), all_left) for total, each in zip(sums, ordered, strict=True)
    ]
    # What is left up to one deadline is no more than what is left up to the next.
    bounds = [max(0.0, least) for least in reversed(list(itertools.accumulate(reversed(left), min)))]
    seconds = [bound - before for bound, before in zip(bounds, [0.0, *bounds], strict=False)]
    return [replace(each, seconds=one) for each, one in zip(ordered, seconds, strict=True)]


@dataclass(frozen=True)
class Return:
    """A caller who was told to come back.

    Attributes:
        at: When.
        commitments: What it will ask for, with times counted from then.
    """

    at: float
    commitments: tuple[Commitment, ...]


def time_to_return(
    others: Iterable[Commitment],
    new: Sequence[Commitment],
    now: float,
    expected: Iterable[Return] = (),
    *,
    alone: bool,
) -> float:
    """A time from which on new commitments fit, if nobody comes before but those who are expected; as early as is sure.

    Args:
        others: What is promised already.
        new: With times counted from the one that is returned.
        now: The time now.
        expected: Those who were told to come back, by time.
        alone: As of `advanced`.
    """
    others, time = list(others), now
    for each in expected:
        others = advanced(others, time, max(time, each.at), alone=alone)
        time = max(time, each.at)
        others += _shifted(each.commitments, time)

    def fitting(after: float) -> bool:
        return fits(advanced(others, time, time + after, alone=alone), _shifted(new, time + after), time + after)

    low, high = 0.0, max((each.by for each in others), default=time) - time
    if fitting(0.0):
        return time
    while high - low > max(0.001, high / 100):
        middle = (low + high) / 2
        low, high = (low, middle) if fitting(middle) else (middle, high)
    return time + high


def _shifted(commitments: Iterable[Commitment], time: float) -> list[Commitment]:
    return [replace(each, by=each.by + time) for each in commitments]


class Promises:
    """The flows of a lane that something is promised to, by order of their deadlines.

    Args:
        row_seconds: Seconds that a row of a flow takes when nothing else runs.
    """

    def __init__(self, row_seconds: Callable[[Flow], float]) -> None:
        self._row_seconds = row_seconds
        self._flows: list[tuple[float, int, Flow]] = []
        self._arrivals = 0
        self._safe_until = float("-inf")

    def add(self, flow: Flow) -> None:
        """Adds a flow, if anything is promised to it."""
        if flow.promise is not None:
            self._arrivals += 1
            bisect.insort(self._flows, (flow.promise.by, self._arrivals, flow))
            self._safe_until = float("-inf")

    def remove(self, flow: Flow) -> None:
        """Removes a flow, if it is there."""
        if flow.promise is not None:
            self._flows = [each for each in self._flows if each[2] is not flow]

    def in_danger(self, now: float, margin: float) -> Iterable[Flow]:
        """The flows that have to go before all others, the first one first; see `in_danger`."""
        if now < self._safe_until or not self._flows:
            return ()
        urgent, spare = in_danger([self._commitment(flow) for _, _, flow in self._flows], now, margin)
        self._safe_until = now + min(spare, _RECHECK_SECONDS)
        return [self._flows[index][2] for index in urgent]

    def _commitment(self, flow: Flow) -> Commitment:
        promise = flow.promise
        if promise is None:
            raise ValueError("nothing is promised to this flow")
        per_row = self._row_seconds(flow)
        rows, first = (max(0, count - flow.rows) for count in (promise.rows, promise.first_rows))
        return Commitment(promise.by, rows * per_row, min(rows, first) * per_row)
