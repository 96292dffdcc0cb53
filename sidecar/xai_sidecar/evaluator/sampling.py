"""Which requests are sampled, and the samples that wait to be scored."""

from __future__ import annotations

import bisect
import hashlib
import threading
from operator import attrgetter
from typing import NamedTuple

from xai_sidecar.evaluator.records import Sample


def chosen(request_id: str, rate: float, salt: bytes = b"") -> bool:
    """Whether a request is sampled: the same for an id in every run, and whatever other ids there are.

    Args:
        request_id: Any text.
        rate: Part of the requests to be sampled, 0 to 1. What a rate chooses, every higher rate chooses too.
        salt: A secret of up to 64 bytes, without which nobody can tell which ids are chosen.
    """
    digest = hashlib.blake2b(request_id.encode(), digest_size=8, key=salt, person=b"xai sampling").digest()
    # 53 bits, which a float holds as they are: all 64 could be rounded up to 1.
    return (int.from_bytes(digest, "big") >> 11) / 2**53 < rate


class _Entry(NamedTuple):
    """A sample in its place: by time, then by arrival."""

    time: float
    number: int
    byte_count: int
    sample: Sample


class Waiting:
    """Samples that wait in memory, the oldest first. It may be used from several threads at once.

    When it is full, newcomers are turned away, so that those who wait get their turn.

    Args:
        max_bytes: The most that the samples may take together; see `Sample.byte_count`.
        max_age_seconds: Samples older than this are not handed out any more.
    """

    def __init__(self, max_bytes: int, max_age_seconds: float) -> None:
        self._max_bytes = max_bytes
        self._max_age_seconds = max_age_seconds
        self._lock = threading.Lock()
        self._entries: list[_Entry] = []
        self._byte_count = 0
        self._arrivals = 0

    @property
    def count(self) -> int:
        """How many there are, those too old included."""
        with self._lock:
            return len(self._entries)

    @property
    def byte_count(self) -> int:
        """What they take together."""
        with self._lock:
            return self._byte_count

    def add(self, sample: Sample, now: float) -> list[Sample]:
        """Lets a sample wait.

        Args:
            sample: The newcomer.
            now: Unix time in seconds.

        Returns:
            What had to go: without room, all that is too old; and the newcomer itself, if there still is none.
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

    def take(self, now: float) -> Sample | None:
        """Removes the oldest sample that is not too old, and gives it; None if there is none.

        Args:
            now: Unix time in seconds.
        """
        with self._lock:
            first = self._first_young(now)
            return next(iter(self._remove(first, first + 1)), None)

    def expire(self, now: float) -> list[Sample]:
        """Removes the samples that are too old, and gives them, the oldest first.

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
        return [entry.sample for entry in removed]
