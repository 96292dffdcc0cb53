"""Choosing the requests to sample, and the queue of samples that wait to be measured."""

from __future__ import annotations

import bisect
import hashlib
import threading
from collections import deque
from collections.abc import Callable
from operator import attrgetter
from typing import NamedTuple

from xai_sidecar.evaluator.preference import LEAST, MOST
from xai_sidecar.evaluator.records import Sample, SampleKey
from xai_sidecar.evaluator.weighted import rounded

_FULL = 0.5
"""How full the queue is from which on fewer requests are sampled: it never fills up, so that nothing is lost of it."""

_TOLD_SECONDS = 3600.0
"""For how long samples that were not scored are told of."""


class Draw(NamedTuple):
    """How a request came to be sampled.

    Attributes:
        inclusion: How likely it was to be, given what was predicted, above 0.
        weight: What its pictures count for in means: how likely requests were on average over how likely this one was,
            a whole number of 2⁻¹⁶. What depends on time alone, such as how full the queue is, weighs nothing.
        typical: Whether it would have been sampled whatever was predicted. Of those, all were as likely.
    """

    inclusion: float = 1.0
    weight: float = 1.0
    typical: bool = True


def draw(place: float, rate: float, factor: Callable[[], float] | None) -> Draw | None:
    """Samples a request, or not.

    Args:
        place: Its `place`.
        rate: Share of requests to sample, 0 to 1.
        factor: How much rather it is sampled than others, in the odds, `LEAST` to `MOST`; called only where that makes
            the difference. None where all are sampled alike.

    Returns:
        None where it is not sampled.
    """
    if factor is None:
        return Draw(rate) if place < rate else None
    if place >= _inclusion(rate, MOST):
        return None
    inclusion = _inclusion(rate, factor())
    if place >= inclusion:
        return None
    return Draw(inclusion, rounded(rate / inclusion), place < _inclusion(rate, LEAST))


def kept_draw(place: float, inclusion: float | None, weight: float) -> Draw:
    """The draw of a sample in the store; with an inclusion of None, of a version that sampled all alike."""
    if inclusion is None:
        return Draw(weight=weight)
    return Draw(inclusion, weight, place < _inclusion(inclusion * weight, LEAST))


def _inclusion(rate: float, factor: float) -> float:
    """How likely a request is to be sampled that is so much more wanted: 1 at a rate of 1, as every request is."""
    return rate * factor / (1 - rate + rate * factor)


def chosen(request_id: str, rate: float, salt: bytes = b"") -> bool:
    """Whether a request is sampled where all are alike. It depends on the id alone: it is the same in every run.

    Args:
        request_id: Any text.
        rate: Share of requests to sample, 0 to 1. A higher rate chooses all that a lower one does.
        salt: As of `place`.
    """
    return place(request_id, salt) < rate


def place(request_id: str, salt: bytes = b"") -> float:
    """A number in [0, 1) that a request has, as if drawn at random; the same in every run.

    Args:
        request_id: Any text.
        salt: A secret of up to 64 bytes, without which callers cannot predict it.
    """
    digest = hashlib.blake2b(request_id.encode(), digest_size=8, key=salt, person=b"xai sampling").digest()
    # 53 bits, which a float holds as they are: all 64 could be rounded up to 1.
    return (int.from_bytes(digest, "big") >> 11) / 2**53


class _Entry(NamedTuple):
    """A sample in the queue, which is ordered by time, then by arrival."""

    time: float
    number: int
    byte_count: int
    sample: Sample


class Waiting:
    """The queue of samples in memory, the oldest first. It may be used from several threads at once.

    When it is full, new samples are dropped rather than waiting ones, so that some are measured.

    Args:
        max_bytes: Most memory for all samples together; see `Sample.byte_count`.
        max_age_seconds: Samples older than this are not handed out any more.
    """

    def __init__(self, max_bytes: int, max_age_seconds: float) -> None:
        self._max_bytes = max_bytes
        self._max_age_seconds = max_age_seconds
        self._lock = threading.Lock()
        self._entries: list[_Entry] = []
        self._byte_count = 0
        self._arrivals = 0
        self._preferred: set[SampleKey] = set()  # of the entries

    @property
    def count(self) -> int:
        """Number of samples, those too old included."""
        with self._lock:
            return len(self._entries)

    @property
    def byte_count(self) -> int:
        """Memory of all samples together."""
        with self._lock:
            return self._byte_count

    def add(self, sample: Sample, now: float) -> list[Sample]:
        """Adds a sample, if there is room.

        Args:
            sample: The new sample.
            now: Unix time in seconds.

        Returns:
            The samples that were dropped: where there was no room, all that are too old; and the new one itself, if
            there still is none.
        """
        byte_count = sample.byte_count
        with self._lock:
            if byte_count > self._max_bytes:
                return [sample]
            gone = []
            if self._byte_count + byte_count > self._max_bytes:
                gone = self._remove(0, self._first_young(now))
            if self._byte_count + byte_count > self._max_bytes:
                return [*gone, sample]
            bisect.insort(self._entries, _Entry(sample.time, self._arrivals, byte_count, sample))
            self._arrivals += 1
            self._byte_count += byte_count
            return gone

    def prefer(self, key: SampleKey) -> None:
        """Puts a sample first, if it waits: its ground truth is known, so that there is more to be measured of it."""
        with self._lock:
            if any(entry.sample.key == key for entry in self._entries):
                self._preferred.add(key)

    def share(self, now: float) -> float:
        """The share of what could be sampled that is to be, 0 to 1, by how full the queue is and how old the oldest.

        Args:
            now: Unix time in seconds.
        """
        with self._lock:
            age = now - self._entries[0].time if self._entries else 0.0
            full = max(self._byte_count / self._max_bytes, age / self._max_age_seconds)
        return min(1.0, max(0.0, (1 - full) / (1 - _FULL)))

    def take(self, now: float) -> Sample | None:
        """Removes and returns the oldest sample of those preferred, or else of all, that is not too old; None of none.

        Args:
            now: Unix time in seconds.
        """
        with self._lock:
            first = self._first_young(now)
            if self._preferred:
                young = range(first, len(self._entries))
                first = next((place for place in young if self._entries[place].sample.key in self._preferred), first)
            return next(iter(self._remove(first, first + 1)), None)

    def expire(self, now: float) -> list[Sample]:
        """Removes and returns the samples that are too old, the oldest first.

        Args:
            now: Unix time in seconds.
        """
        with self._lock:
            return self._remove(0, self._first_young(now))

    def _first_young(self, now: float) -> int:
        return bisect.bisect_left(self._entries, now - self._max_age_seconds, key=attrgetter("time"))

    def _remove(self, first: int, end: int) -> list[Sample]:
        removed = self._entries[first:end]
        del self._entries[first:end]
        self._byte_count -= sum(entry.byte_count for entry in removed)
        self._preferred -= {entry.sample.key for entry in removed}
        return [entry.sample for entry in removed]


class Unscored:
    """The samples of the last hour that were not scored for want of time or room. Any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._times: deque[tuple[float, str]] = deque(maxlen=100_000)

    def add(self, now: float, why: str) -> None:
        """Takes one.

        Args:
            now: Unix time in seconds.
            why: "expired" or "dropped".
        """
        with self._lock:
            self._times.append((now, why))

    def text(self, now: float) -> str:
        """A sentence on them, and what helps; empty if there are none."""
        with self._lock:
            while self._times and self._times[0][0] < now - _TOLD_SECONDS:
                self._times.popleft()
            counts = {why: sum(each == why for _, each in self._times) for why in ("expired", "dropped")}
        if not any(counts.values()):
            return ""
        found = " and ".join(f"{count:,} {why}" for why, count in counts.items() if count)
        return (
            f"Of the pictures sampled in the last hour {found} before anything of them was measured: lower "
            "evaluator.sample_rate, or raise evaluator.device_share, pending_bytes or max_age_seconds."
        )
