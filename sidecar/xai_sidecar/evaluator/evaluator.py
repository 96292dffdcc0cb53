"""The background evaluator: measures sampled traffic in the engine's lowest lane, and stores the results."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, Future
from typing import Any

import structlog

from xai_sidecar.config import EvaluatorConfig
from xai_sidecar.engine.awaited import Awaited
from xai_sidecar.engine.batch import Lane
from xai_sidecar.engine.engine import Engine
from xai_sidecar.engine.work import FloatArray
from xai_sidecar.errors import DeviceLostError, HungError, ShuttingDownError
from xai_sidecar.evaluator.agenda import Run
from xai_sidecar.evaluator.ingest import Ingest
from xai_sidecar.evaluator.keeping import Keeper
from xai_sidecar.evaluator.live_quality import LiveQuality
from xai_sidecar.evaluator.measurement import EvaluatedModel, Measurer
from xai_sidecar.evaluator.progress import Progress
from xai_sidecar.evaluator.records import Sample
from xai_sidecar.evaluator.restoring import restore_quality
from xai_sidecar.evaluator.store import Store
from xai_sidecar.evaluator.store_errors import StoreErrors
from xai_sidecar.telemetry import EvaluatorTelemetry

_POLL_SECONDS = 0.5
"""Longest wait for a job or a report, after which new samples are looked for."""

_HOUSEKEEPING_SECONDS = 60.0
"""Longest time between two rounds of expiring and pruning."""

_PRUNING_SHARE = 0.01
"""The most of the time that is spent on looking for what is to be pruned, which takes longer the more there is."""

_BLOCKED = "Nothing more is kept, since another program has been reading the store for too long."
_HANGS = "Nothing is measured any more, since too many measurements hang: restart the server."

_log = structlog.get_logger(__name__)


class Evaluator:
    """Measures samples from `start` to `close`, on a thread of its own.

    Args:
        engine: Runs the model.
        store: Keeps samples, maps, scores and ground truth; `close` closes it.
        model: The model.
        settings: The evaluator's section of the config.
        quality: Rolling windows for the scores.
        telemetry: Counts samples and measurements.
        max_pixels: Most pixels of an annotated mask.
        clock: Unix time in seconds.
        on_maps: Called with a sample and its maps, by explainer or control, once it is measured.

    Attributes:
        ingest: Takes samples and ground truth from calls.
    """

    def __init__(
        self,
        engine: Engine,
        store: Store,
        model: EvaluatedModel,
        settings: EvaluatorConfig,
        quality: LiveQuality,
        telemetry: EvaluatorTelemetry,
        max_pixels: int,
        clock: Callable[[], float] = time.time,
        on_maps: Callable[[Sample, Mapping[str, FloatArray]], object] = lambda sample, maps: None,
    ) -> None:
        self._engine = engine
        self._store = store
        self._model = model
        self._settings = settings
        self._quality = quality
        self._telemetry = telemetry
        self._clock = clock
        self._measurer = Measurer(model, settings)
        self._store_errors = StoreErrors(store, telemetry)
        self._woken = threading.Event()
        self.ingest = Ingest(
            self._store_errors, model, settings, quality, telemetry, max_pixels, self._woken.set, clock
        )
        waiting = self.ingest.waiting
        telemetry.watch_pending(lambda: waiting.count, lambda: waiting.byte_count)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._main, name="evaluator", daemon=True)
        # The rest belongs to that thread.
        self._keeper = Keeper(self._store_errors, self._measurer, quality, telemetry)
        self._progress = Progress(self._measurer, model, settings, self._keeper, quality, on_maps)
        self._jobs: Awaited[Run] = Awaited()
        self._told: list[str] = []  # of the notes, those on what is not scored
        self._next_pruning = 0.0

    @property
    def store(self) -> Store:
        """The store."""
        return self._store

    @property
    def model(self) -> EvaluatedModel:
        """The model."""
        return self._model

    @property
    def measurer(self) -> Measurer:
        """What says how is measured."""
        return self._measurer

    def start(self) -> None:
        """Restores live quality and pending samples from the store, and starts the thread.

        Raises:
            ConfigError: Another process has the store.
            StoreError: The store cannot be read.
        """
        self._store.claim()
        self._restore()
        costly = self._measurer.too_costly()
        if costly:
            self._quality.note(f"Not measured, for evaluator.max_passes: {', '.join(costly)}.")
            _log.info("too_costly_to_measure", max_passes=self._settings.max_passes, what=costly)
        self._telemetry.interval(self._settings.interval_seconds)
        self._thread.start()

    def close(self, timeout: float = 5.0) -> None:
        """Cancels measurements in progress, and waits until samples and reports that came in are stored.

        Args:
            timeout: Longest time to wait for each of the two, in seconds: the store may not answer.
        """
        self._stopped.set()
        self._woken.set()
        if self._thread.is_alive():
            self._thread.join(timeout)
        self.ingest.close(timeout)
        self._store.close()

    # ------------------------------------------------------------------------------------------------ its thread

    def _main(self) -> None:
        next_round = next_housekeeping = 0.0
        more = False  # samples may be waiting that have not been looked at in this round
        while not self._stopped.is_set():
            try:
                reported = self._woken.is_set()
                if reported:  # a report that comes from now on is for the next time
                    self._woken.clear()
                now = time.monotonic()
                due = now >= next_round
                if due:
                    next_round, more = now + self._settings.interval_seconds, True
                if due or now >= next_housekeeping:
                    next_housekeeping = now + _HOUSEKEEPING_SECONDS
                    self._housekeep()
                if reported or due:
                    self._keeper.apply_truths(self._model.version)
                more = self._begin_more(more)
                self._report_busy()
                self._await(next_round)
            except (DeviceLostError, ShuttingDownError):
                break
            except Exception:
                _log.exception("evaluation_failed")
                self._stopped.wait(_POLL_SECONDS)
        self._jobs.cancel()

    def _await(self, next_round: float) -> None:
        """Waits for a job, a report or the next round, and finishes the jobs that are done."""
        left = max(0.0, next_round - time.monotonic())
        if not self._jobs:
            self._woken.wait(min(left, _POLL_SECONDS))
            return
        for job, run in self._jobs.ended(min(left, _POLL_SECONDS)):
            self._finish(job, run)

    def _begin_more(self, more: bool) -> bool:
        """Submits runs while there is room, of new samples before further scores; returns False when none waits."""
        accepts = self._engine.accepts(Lane.EVALUATE)
        self._quality.note(_HANGS, not accepts)
        if not accepts:
            return more

        def take() -> Sample | None:
            nonlocal more
            sample = self.ingest.waiting.take(self._clock()) if more else None
            more = sample is not None
            return sample

        for run in self._progress.runs(take):
            self._submit(run)
            if not self._engine.accepts(Lane.EVALUATE):
                break
        return more

    def _submit(self, run: Run) -> None:
        job: Future[Any]
        try:
            job = self._engine.submit(self._progress.steps(run), Lane.EVALUATE)
        except HungError as error:  # too many others hang
            job = Future()
            job.set_exception(error)
        self._jobs.add(job, run)

    def _finish(self, job: Future[Any], run: Run) -> None:
        completed = None
        try:
            completed = job.result()
        except (CancelledError, DeviceLostError, ShuttingDownError):
            self._stopped.set()
            return
        except Exception as error:
            _log.warning("measuring_failed", request_id=run.measured.sample.key.request_id, error=str(error))
        self._progress.ended(run, completed)

    # ------------------------------------------------------------------------------------------------ housekeeping

    def _restore(self) -> None:
        version, now = self._model.version, self._clock()
        since, most = now - self._settings.window_seconds, self._settings.window_samples
        restore_quality(
            self._quality,
            self._store,
            version,
            since,
            most,
            set(self._model.measured),
            self._settings.metrics,
            self._measurer.definitions,
        )
        self.ingest.restore()
        self._telemetry.store_bytes(self._store.byte_count() + self._store.journal_bytes())
        self._report_busy()

    def _housekeep(self) -> None:
        now = self._clock()
        self.ingest.expire()
        self._tell_unscored(now)
        with self._store_errors.writing():
            if (began := time.monotonic()) >= self._next_pruning:
                self._prune(now)
                ended = time.monotonic()
                self._next_pruning = ended + (ended - began) / _PRUNING_SHARE
            self._telemetry.store_bytes(self._store.byte_count() + self._store.journal_bytes())
            self._quality.note(_BLOCKED, self._store.blocked)
        self._telemetry.round(now)

    def _prune(self, now: float) -> None:
        for key in self._store.prune(now):
            self._quality.remove_truth(key)
        self._store.prune_details(now)

    def _tell_unscored(self, now: float) -> None:
        """Says in the note, and once in the log, what was sampled and not scored; and where less is sampled for it."""
        unscored, share = self.ingest.unscored.text(now), self.ingest.waiting.share(now)
        fewer = f"For the time that measuring takes, {100 * share:.0f} % of evaluator.sample_rate is sampled."
        notes = [each for each in (unscored, fewer if share < 1 else "") if each]
        if unscored and not self._told:
            _log.warning("samples_not_scored", what=unscored)
        for each in self._told:
            self._quality.note(each, False)
        for each in notes:
            self._quality.note(each)
        self._told = notes

    def _report_busy(self) -> None:
        self._quality.set_busy(bool(self._progress.open_count or self.ingest.waiting.count))
