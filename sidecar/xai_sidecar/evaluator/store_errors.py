"""Errors of the store, as the evaluator's threads handle them: counted and logged, and everything else goes on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from xai_sidecar.errors import StoreBlockedError, StoreError
from xai_sidecar.evaluator.records import SampleKey, SampleState
from xai_sidecar.evaluator.store import Store
from xai_sidecar.telemetry import EvaluatorTelemetry

_BLOCKED_LOG_SECONDS = 60.0
"""Time between two log lines about a store that is blocked."""

_log = structlog.get_logger(__name__)


class StoreErrors:
    """A store whose errors end what is being written, and nothing else.

    Args:
        store: The store.
        telemetry: Counts the errors.

    Attributes:
        store: The store.
    """

    def __init__(self, store: Store, telemetry: EvaluatorTelemetry) -> None:
        self.store = store
        self._telemetry = telemetry
        self._next_blocked_log = 0.0

    @contextmanager
    def writing(self, key: SampleKey | None = None) -> Iterator[None]:
        """Suppresses StoreError in this context; counts and logs it."""
        try:
            yield
        except StoreError as error:
            self.failed(error, key)

    def failed(self, error: StoreError, key: SampleKey | None = None) -> None:
        """Counts and logs an error; that the store is blocked is logged once a minute."""
        self._telemetry.store_failed()
        if isinstance(error, StoreBlockedError):
            if time.monotonic() < self._next_blocked_log:
                return
            self._next_blocked_log = time.monotonic() + _BLOCKED_LOG_SECONDS
        _log.warning("store_failed", request_id=key and key.request_id, error=error.message)

    def end(self, key: SampleKey, state: SampleState) -> None:
        """Stores and counts the state that a sample has ended in."""
        self._telemetry.event(state.value)
        with self.writing(key):
            self.store.set_state(key, state)
