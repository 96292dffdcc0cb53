"""The store as the evaluator's threads use it: what it refuses is counted and logged, and the rest goes on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from xai_sidecar.errors import StoreBlockedError, StoreError
from xai_sidecar.evaluator.records import SampleKey, SampleState
from xai_sidecar.evaluator.store import Store
from xai_sidecar.telemetry import EvaluatorTelemetry

_TELLING_SECONDS = 60.0

_log = structlog.get_logger(__name__)


class StoreErrors:
    """A store, and who is told of its failures.

    Args:
        store: The store.
        telemetry: Told.

    Attributes:
        store: The store.
    """

    def __init__(self, store: Store, telemetry: EvaluatorTelemetry) -> None:
        self.store = store
        self._telemetry = telemetry
        self._next_told = 0.0  # that it is blocked

    @contextmanager
    def writing(self, key: SampleKey | None = None) -> Iterator[None]:
        """Has what is done in this context end early, and no more, where the store fails."""
        try:
            yield
        except StoreError as error:
            self.failed(error, key)

    def failed(self, error: StoreError, key: SampleKey | None = None) -> None:
        """Counts and logs a failure; that the store is blocked, once a minute."""
        self._telemetry.store_failed()
        if isinstance(error, StoreBlockedError):
            if time.monotonic() < self._next_told:
                return
            self._next_told = time.monotonic() + _TELLING_SECONDS
        _log.warning("store_failed", request_id=key and key.request_id, error=error.message)

    def end(self, key: SampleKey, state: SampleState) -> None:
        """Takes down what became of a sample."""
        self._telemetry.event(state.value)
        with self.writing(key):
            self.store.set_state(key, state)
