"""What calls bring in, sampled pictures and ground truth: written by a thread of its own, in the order it came."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from typing import NamedTuple

from xai_sidecar.config import EvaluatorConfig
from xai_sidecar.errors import NotFoundError, OverloadedError, ShuttingDownError, StoreError, within
from xai_sidecar.evaluator.annotations import check_shape
from xai_sidecar.evaluator.live_quality import LiveQuality
from xai_sidecar.evaluator.measurement import EvaluatedModel
from xai_sidecar.evaluator.records import (
    GroundTruth,
    MaskShape,
    PolygonShape,
    Sample,
    SampleKey,
    SampleRecord,
    SampleState,
    Shape,
)
from xai_sidecar.evaluator.sampling import Waiting, chosen
from xai_sidecar.evaluator.store import KeptPicture, Reported
from xai_sidecar.evaluator.store_errors import StoreErrors
from xai_sidecar.telemetry import EvaluatorTelemetry

_OBJECT_BYTES = 200
"""What a report, an object or a corner of one takes in memory, about."""

_QUICK_EFFORT = 10_000
"""Corners of a report's polygons that the writer checks itself; masks it never does."""


class Receipt(NamedTuple):
    """What became of a report of ground truth.

    Attributes:
        reported: What it changed.
        warnings: For objects by their number, what was taken and may not be what was meant.
    """

    reported: Reported
    warnings: Sequence[tuple[int, str]] = ()


class Intake:
    """Takes samples and ground truth. Any thread may call it.

    Args:
        store_errors: Where all of it goes.
        model: The model.
        settings: What to sample, and how much of it may wait.
        quality: Told when samples come.
        telemetry: Told what becomes of them.
        max_pixels: Most pixels of a mask.
        reported: Called when there is new ground truth.
        clock: Unix time in seconds.

    Attributes:
        waiting: Samples that wait to be measured.

    Raises:
        StoreError: The store cannot be read.
    """

    def __init__(
        self,
        store_errors: StoreErrors,
        model: EvaluatedModel,
        settings: EvaluatorConfig,
        quality: LiveQuality,
        telemetry: EvaluatorTelemetry,
        max_pixels: int,
        reported: Callable[[], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store_errors = store_errors
        self._model = model
        self._settings = settings
        self._quality = quality
        self._telemetry = telemetry
        self._max_pixels = max_pixels
        self._reported = reported
        self._clock = clock
        self._salt = store_errors.store.sampling_salt()
        self.waiting = Waiting(settings.pending_bytes, settings.max_age_seconds)
        self._lock = threading.Lock()
        self._taking_in = 0  # bytes of samples and reports on their way to the store
        self._writer = ThreadPoolExecutor(1, "store")
        self._checker = ThreadPoolExecutor(1, "shapes")  # of what takes longer to check than to write

    def wants(self, request_id: str) -> bool:
        """Whether the pictures of a request are to be offered."""
        return chosen(request_id, self._settings.sample_rate, self._salt)

    def offer(self, samples: Sequence[Sample]) -> None:
        """Takes the pictures of a sampled request; what becomes of them is told by the metrics alone."""
        for sample in samples:
            self._telemetry.event("sampled")
            self._quality.add_sample(sample.key, sample.time)
            if not (self._has_room(sample.byte_count) and self._submitted(sample)):
                self._telemetry.event("dropped")

    def report(self, key: SampleKey, truth: GroundTruth) -> Future[Receipt]:
        """Stores what a sample really showed; once that is done it is not lost any more.

        Returns:
            What became of it; or a NotFoundError where it is no sample, an InvalidRequestError where a shape does not
            fit its picture, a StoreError where it could not be stored.

        Raises:
            OverloadedError: Too much waits to be stored.
            ShuttingDownError: `close` was called.
        """
        size = _OBJECT_BYTES + sum(_size(shown.shape) for shown in truth.objects)
        if not self._has_room(size, alone=True):
            raise OverloadedError("Too many reports wait to be stored. Try again shortly.", retry_seconds=1.0)
        try:
            if sum(_effort(shown.shape) for shown in truth.objects) > _QUICK_EFFORT:
                stored = self._checker.submit(self._report_slowly, key, truth)
            else:
                stored = self._writer.submit(self._report, key, truth)
        except RuntimeError:
            raise ShuttingDownError("The server is shutting down. Report to it once it is back.") from None
        stored.add_done_callback(lambda _: self._taken_in(size))
        return stored

    def restore(self) -> None:
        """Goes on with the samples that waited when the server ended, if their pictures were kept.

        Raises:
            StoreError: The store cannot be read.
        """
        version = self._model.version
        for record, kept in self._store_errors.store.pending():
            if kept is None or record.model_version != version:
                self._store_errors.end(record.key, SampleState.LOST)
                continue
            self._quality.add_sample(record.key, record.time)
            model_says = kept.logits, kept.probabilities, record.positives
            self._queue(Sample(record.key, record.time, version, record.frame, kept.image, *model_says, record.ood))

    def expire(self) -> None:
        """Gives up samples that have waited too long."""
        for sample in self.waiting.expire(self._clock()):
            self._store_errors.end(sample.key, SampleState.EXPIRED)

    def close(self, timeout: float = 5.0) -> None:
        """Takes nothing more, and waits until all that came in is stored, for so many seconds at the most."""
        with suppress(RuntimeError):  # it is closed already
            wait([self._checker.submit(lambda: self._writer.submit(_nothing).result())], timeout)
        self._checker.shutdown(wait=False, cancel_futures=True)
        self._writer.shutdown(wait=False, cancel_futures=True)

    def _has_room(self, size: int, *, alone: bool = False) -> bool:
        """Takes room on the way to the store, if the store keeps up; what comes alone may have as much as it needs."""
        with self._lock:
            room = self._taking_in + size <= self._settings.pending_bytes or (alone and not self._taking_in)
            self._taking_in += size * room
            return room

    def _submitted(self, sample: Sample) -> bool:
        """Has a sample taken in; False if it is closed."""
        try:
            self._writer.submit(self._take_in, sample)
        except RuntimeError:
            return False
        return True

    # ------------------------------------------------------------------------------------------------ the writer

    def _take_in(self, sample: Sample) -> None:
        try:
            kept = (
                KeptPicture(sample.image, sample.logits, sample.probabilities) if self._settings.keep_pictures else None
            )
            if self._store_errors.store.add_sample(record := self._record(sample), kept):
                self._queue(sample)
            else:
                self._telemetry.event("repeated")
                self._compare(record)
        except StoreError as error:
            self._telemetry.event("dropped")
            self._store_errors.failed(error, sample.key)
        finally:
            self._taken_in(sample.byte_count)

    def _taken_in(self, size: int) -> None:
        with self._lock:
            self._taking_in -= size

    def _compare(self, record: SampleRecord) -> None:
        """Tells a call that was repeated from another one with its id, such as a trace's: whose truth would it be?"""
        known = self._store_errors.store.sample(record.key)
        if known is not None and not _same(known, record):
            self._store_errors.store.set_state(record.key, SampleState.AMBIGUOUS)

    def _queue(self, sample: Sample) -> None:
        for gone in self.waiting.add(sample, self._clock()):
            self._store_errors.end(gone.key, SampleState.DROPPED if gone is sample else SampleState.EXPIRED)

    def _record(self, sample: Sample) -> SampleRecord:
        return SampleRecord(
            key=sample.key,
            time=sample.time,
            model_version=sample.model_version,
            frame=sample.frame,
            target=sample.target,
            probability=float(sample.probabilities[sample.target]),
            positives=sample.positives,
            ood=sample.ood,
        )

    def _report(self, key: SampleKey, truth: GroundTruth) -> Receipt:
        return self._put(key, truth, self._warnings(self._known(key), truth))

    def _report_slowly(self, key: SampleKey, truth: GroundTruth) -> Receipt:
        """The same, on another thread than the writer, which goes on with what others report."""
        try:
            record = self._writer.submit(self._known, key).result()
            warnings = self._warnings(record, truth)
            return self._writer.submit(self._put, key, truth, warnings).result()
        except (RuntimeError, CancelledError):
            raise ShuttingDownError("The server is shutting down. Report to it once it is back.") from None

    def _known(self, key: SampleKey) -> SampleRecord:
        with self._telling_of_failures(key):
            record = self._store_errors.store.sample(key)
        if record is None:
            raise NotFoundError(
                f"Picture {key.image_index} of request {key.request_id} is not among the samples that are kept. "
                "PredictResponse.sampled tells which requests are sampled.",
                field="request_id",
            )
        if record.state is SampleState.AMBIGUOUS:
            raise NotFoundError(
                f"Several pictures were sent as picture {key.image_index} of request {key.request_id}, and it is "
                "not known which this is about. Give each request an id of its own.",
                field="request_id",
            )
        return record

    def _warnings(self, record: SampleRecord, truth: GroundTruth) -> list[tuple[int, str]]:
        warnings = []
        for number, shown in enumerate(truth.objects):
            with within(f"objects[{number}]"):
                told = check_shape(shown.shape, record.frame, self._max_pixels)
            warnings += [(number, each) for each in told]
        return warnings

    def _put(self, key: SampleKey, truth: GroundTruth, warnings: list[tuple[int, str]]) -> Receipt:
        with self._telling_of_failures(key):
            reported = self._store_errors.store.put_truth(key, truth)
        self._telemetry.report(reported.value)
        self._reported()
        return Receipt(reported, warnings)

    @contextmanager
    def _telling_of_failures(self, key: SampleKey) -> Iterator[None]:
        try:
            yield
        except StoreError as error:
            self._store_errors.failed(error, key)
            raise


def _same(known: SampleRecord, other: SampleRecord) -> bool:
    """Whether two pictures are one, as far as can be told; the last bits of a probability depend on the batch."""
    pairs = [(each.target, each.positives, each.frame.picture_size) for each in (known, other)]
    return pairs[0] == pairs[1] and math.isclose(known.probability, other.probability, abs_tol=1e-4)


def _size(shape: Shape) -> int:
    """What a shape takes in memory, about."""
    if isinstance(shape, MaskShape):
        return _OBJECT_BYTES + len(shape.png)
    return _OBJECT_BYTES * (1 + (len(shape.points) if isinstance(shape, PolygonShape) else 0))


def _effort(shape: Shape) -> int:
    """What a shape takes to check, in corners of polygons."""
    if isinstance(shape, MaskShape):
        return _QUICK_EFFORT + 1
    return len(shape.points) if isinstance(shape, PolygonShape) else 1


def _nothing() -> None:
    """Comes after all that was submitted before."""
