"""The folder of a run as those see it who look at it: its samples and their quality, while it goes on, too."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

from prometheus_client import CollectorRegistry

from xai_sidecar.config import ServerConfig
from xai_sidecar.errors import ConfigError, StoreError
from xai_sidecar.evaluator.live_quality import LiveQuality
from xai_sidecar.evaluator.measurement import Measurer
from xai_sidecar.evaluator.reading.following import Follower
from xai_sidecar.evaluator.records import SampleKey
from xai_sidecar.evaluator.restoring import count_measured, restore_quality
from xai_sidecar.evaluator.store import Change, Store
from xai_sidecar.runner.folder import SUMMARY, RunFolder
from xai_sidecar.runner.model_record import recorded_model
from xai_sidecar.runner.options import ALL, FOR_EVER
from xai_sidecar.serving.description import ModelDescription, describe
from xai_sidecar.serving.evaluation import evaluated_model, make_telemetry
from xai_sidecar.serving.quality import Shown

_AFTER = 1e-3
"""Seconds that make the newest sample one from before now."""

_POLL_SECONDS = 1.0
_QUIET_SECONDS = 120.0
"""A run that has stored nothing for so long has been ended early."""


class BrowsedRun:
    """A `QualitySource` of a run's folder. It only reads; what a run in another process adds is followed.

    Args:
        folder: The folder.

    Attributes:
        limits: How long a call may take.

    Raises:
        ConfigError: It is no folder of a run, or of one that says too little; field "run".
        StoreError: The store cannot be read.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.limits = ServerConfig()
        record = folder.record()
        self._model = recorded_model(folder.model())
        evaluated = evaluated_model(self._model)
        if evaluated.version != record["model_version"]:
            raise ConfigError(f"{folder.path} describes another model than the one that it is of.", field="run")
        if not folder.has_store:
            raise ConfigError(f"{folder.path} has no store yet: the run has only just begun. Try again.", field="run")
        self._settings = self._model.config.evaluator
        self._evaluated, self._measurer = evaluated, Measurer(evaluated, self._settings)
        self._store = Store.open(folder.store_url, max_bytes=2**50, retention_seconds=FOR_EVER)
        self._follower = Follower(self._store.database)
        self._newest, self._changed = 0.0, time.monotonic()
        self._summary = folder.file(SUMMARY)
        telemetry = make_telemetry(CollectorRegistry(), evaluated, self._settings)
        self._quality = LiveQuality(evaluated, self._settings, telemetry, self._now, most_paired=ALL)
        self._shown = Shown(self._model, evaluated, self._measurer, self._quality, self._store, self._now)
        self._ready_seconds = time.time()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="following", daemon=True)
        self._begin()
        self._thread.start()

    def shown(self, model: str = "") -> Shown:
        """See `QualitySource`."""
        self._model.check_name(model)
        return self._shown

    def describe(self, model: str = "") -> ModelDescription:
        """See `QualitySource`."""
        self._model.check_name(model)
        return describe(self._model, self._ready_seconds, self._quality.summary())

    def close(self) -> None:
        """Ends it."""
        self._ending.set()
        self._thread.join()
        self._store.close()

    def _now(self) -> float:
        """When the newest sample was predicted: a run grows no older than that."""
        return self._newest + _AFTER if self._newest else time.time()

    def _begin(self) -> None:
        for each in self._follower.poll():
            self._newest = max(self._newest, each.time)
        known, definitions = set(self._evaluated.measured), self._measurer.definitions
        version, metrics = self._evaluated.version, self._settings.metrics
        restore_quality(self._quality, self._store, version, 0.0, ALL, known, metrics, definitions)
        self._quality.set_busy(not self._has_ended())

    def _follow(self) -> None:
        while not self._ending.wait(_POLL_SECONDS):
            with suppress(StoreError):  # it is asked again
                self._poll()

    def _poll(self) -> None:
        """Takes what has come since the last time."""
        for each in self._follower.poll():
            self._changed = time.monotonic()
            self._newest = max(self._newest, each.time)
            if each.new:
                self._store.changes.put(each.key, Change.NEW)
            if each.measured:
                self._take(each.key)
                self._store.changes.put(each.key, Change.MEASURED)
        recently = time.monotonic() - self._changed < _QUIET_SECONDS
        self._quality.set_busy(recently and not self._has_ended())

    def _has_ended(self) -> bool:
        """Whether the results were written after all that has been predicted."""
        try:
            return self._summary.stat().st_mtime >= self._newest
        except OSError:  # there are none yet
            return False

    def _take(self, key: SampleKey) -> None:
        """Counts a sample that has been measured."""
        record, truth = self._store.sample(key), self._store.truth(key)
        if record is None:
            return
        scores = [each for each in self._store.scores(key) if each.definition in self._measurer.definitions]
        count_measured(self._quality, record, truth, scores, new=False)
