"""How long before a call's deadline its explanations have to end, so that the answer still reaches the caller."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

_LEAST = 0.1
_MOST = 2.0

_FADING = 0.9
"""What an answer that took long counts for after the next one, and the one after that the same again."""

_SHARE = 0.25
"""The most of the time to a deadline that is set aside."""


class AnsweringTime:
    """The seconds that are set aside for an answer: a tenth, and twice what the worst recent one took."""

    def __init__(self) -> None:
        self._worst = 0.0

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Learns from an answer, which is encoded in this context."""
        started = time.monotonic()
        yield
        self.took(time.monotonic() - started)

    def took(self, seconds: float) -> None:
        """Learns from an answer that took some seconds to encode."""
        self._worst = max(seconds, _FADING * self._worst)

    def before(self, deadline: float) -> float:
        """The time before a deadline when explanations end, both on the clock of `time.monotonic`."""
        left = deadline - time.monotonic()
        return deadline - max(0.0, min(_LEAST + 2 * self._worst, _MOST, _SHARE * left))
