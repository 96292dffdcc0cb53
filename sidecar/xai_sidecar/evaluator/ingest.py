"""Ingest of sampled pictures and reports of ground truth: one thread writes both to the store, in order of arrival."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import NamedTuple

from xai_sidecar.config import EvaluatorConfig
from xai_sidecar.errors import NotFoundError, OverloadedError, ShuttingDownError, StoreError, within
from xai_sidecar.evaluator.annotations import check_annotation
from xai_sidecar.evaluator.live_quality import LiveQuality
from xai_sidecar.evaluator.measurement import EvaluatedModel
from xai_sidecar.evaluator.preference import Preference, Seen
from xai_sidecar.evaluator.records import (
    Annotation,
    GroundTruth,
    MaskAnnotation,
    PolygonAnnotation,
    Sample,
    SampleKey,
    SampleRecord,
    SampleState,
)
from xai_sidecar.evaluator.sampling import Draw, Unscored, Waiting, draw, kept_draw, place
from xai_sidecar.evaluator.store import KeptPicture, Reported
from xai_sidecar.evaluator.store.small import top_classes
from xai_sidecar.evaluator.store_errors import StoreErrors
from xai_sidecar.evaluator.thumbnails import Thumbnails
from xai_sidecar.telemetry import EvaluatorTelemetry

_OBJECT_BYTES = 200
"""Memory of a report, of an annotated object or of a polygon's corner, roughly."""

_QUICK_EFFORT = 10_000
"""Corners of a report's polygons up to which the writer checks them itself; it never checks masks."""


class Receipt(NamedTuple):
    """The result of a report of ground truth.

    Attributes:
        reported: Whether it was new, replaced another report, or repeated one.
        warnings: Number of an annotated object, and what may not be meant about it, in a sentence.
    """

    reported: Reported
    warnings: Sequence[tuple[int, str]] = ()


class Ingest:
    """Takes samples and ground truth from calls. Any thread may call it.

    Args:
        store_errors: The store.
        model: The model.
        settings: The evaluator's section of the config.
        quality: Counts the samples in its window.
        telemetry: Counts samples and reports.
        max_pixels: Most pixels of an annotated mask.
        on_report: Called when a report has been stored.
        clock: Unix time in seconds.

    Attributes:
        waiting: Samples that wait to be measured.
        unscored: Those that were not.
        thumbnails: Makes the pictures that viewers see.

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
        on_report: Callable[[], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store_errors = store_errors
        self._model = model
        self._settings = settings
        self._quality = quality
        self._telemetry = telemetry
        self._max_pixels = max_pixels
        self._on_report = on_report
        self._clock = clock
        self._salt = store_errors.store.sampling_salt()
        self.waiting = Waiting(settings.pending_bytes, settings.max_age_seconds)
        self.unscored = Unscored()
        self._preference = Preference()
        self._lock = threading.Lock()
        self._bytes_in_transit = 0  # of samples and reports on their way to the store
        self._writer = ThreadPoolExecutor(1, "store")
        self._checker = ThreadPoolExecutor(1, "annotations")  # of those that take longer to check than to write
        self.thumbnails = Thumbnails(store_errors, model.facts.units, max_pixels)

    def draw(self, request_id: str, pictures: Callable[[], Sequence[Seen]]) -> Draw | None:
        """Samples a request, or not; fewer where more wait than is measured.

        Args:
            request_id: Its id.
            pictures: Gives what is known of its pictures; called only where it makes a difference.

        Returns:
            How it came to be sampled, so that its pictures are to be offered; None where it is not.
        """
        rate = self._settings.sample_rate * self.waiting.share(self._clock())
        weighted = self._settings.sampling == "weighted"
        factor = (lambda: self._preference.factor(pictures())) if weighted else None
        return draw(place(request_id, self._salt), rate, factor)

    def offer(self, samples: Sequence[Sample]) -> None:
        """Takes the pictures of a sampled request. It never fails: samples that are dropped are counted."""
        for sample in samples:
            self._telemetry.event("sampled")
            self._quality.add_sample(sample.key, sample.time, sample.weight)
            if not (self._take_room(sample.byte_count) and self._submit(sample)):
                self._drop()

    def report(self, key: SampleKey, truth: GroundTruth, *, keep_unmentioned: bool = False) -> Future[Receipt]:
        """Stores a ground truth; once the future is done it outlasts a crash.

        Args:
            key: Which sample.
            truth: What it really shows.
            keep_unmentioned: See `Store.put_truth`.

        Returns:
            The future receipt; or a NotFoundError where there is no such sample, an InvalidRequestError where an
            annotation does not fit the picture, a StoreError where it could not be stored.

        Raises:
            OverloadedError: Too much waits to be stored.
            ShuttingDownError: `close` was called.
        """
        size = _OBJECT_BYTES + sum(_size(thing.annotation) for thing in truth.objects)
        if not self._take_room(size, alone=True):
            raise OverloadedError("Too many reports wait to be stored. Try again shortly.", retry_seconds=1.0)
        try:
            if sum(_effort(thing.annotation) for thing in truth.objects) > _QUICK_EFFORT:
                stored = self._checker.submit(self._report_checked_apart, key, truth, keep_unmentioned)
            else:
                stored = self._writer.submit(self._report, key, truth, keep_unmentioned)
        except RuntimeError:
            raise ShuttingDownError("The server is shutting down. Report to it once it is back.") from None
        stored.add_done_callback(lambda _: self._give_room(size))
        return stored

    def restore(self) -> None:
        """Queues the samples again that were pending when the server ended, if their pictures were kept.

        Raises:
            StoreError: The store cannot be read.
        """
        version = self._model.version
        for record, kept in self._store_errors.store.pending():
            if kept is None or record.model_version != version:
                scored = any(score.value is not None for score in self._store_errors.store.scores(record.key))
                self._store_errors.end(record.key, SampleState.SCORED if scored else SampleState.LOST)
                continue
            self._quality.add_sample(record.key, record.time, record.weight)
            prediction = kept.logits, kept.probabilities, record.positives
            drawn = kept_draw(place(record.key.request_id, self._salt), record.inclusion, record.weight)._asdict()
            sample = Sample(record.key, record.time, version, record.frame, kept.image, *prediction, record.ood)
            self._queue(replace(sample, **drawn))

    def expire(self) -> None:
        """Drops samples that have waited too long."""
        for sample in self.waiting.expire(self._clock()):
            self._end(sample.key, SampleState.EXPIRED)

    def close(self, timeout: float = 5.0) -> None:
        """Refuses what comes from now on, and waits up to `timeout` seconds until the rest is stored."""
        with suppress(RuntimeError):  # it is closed already
            wait([self._checker.submit(lambda: self._writer.submit(_nothing).result())], timeout)
        self.thumbnails.close()
        self._checker.shutdown(wait=False, cancel_futures=True)
        self._writer.shutdown(wait=False, cancel_futures=True)

    def _take_room(self, size: int, *, alone: bool = False) -> bool:
        """Reserves memory on the way to the store, if there is some left; `alone`: any size if nothing else has any."""
        with self._lock:
            room = self._bytes_in_transit + size <= self._settings.pending_bytes or (
                alone and not self._bytes_in_transit
            )
            self._bytes_in_transit += size * room
            return room

    def _submit(self, sample: Sample) -> bool:
        """Queues a sample for the writer; returns False after `close`."""
        try:
            self._writer.submit(self._add, sample)
        except RuntimeError:
            return False
        return True

    # ------------------------------------------------------------------------------------------------ the writer

    def _add(self, sample: Sample) -> None:
        try:
            kept = (
                KeptPicture(sample.image, sample.logits, sample.probabilities) if self._settings.keep_pictures else None
            )
            if self._store_errors.store.add_sample(
                record := sample.record(), kept, top_classes(sample.logits, sample.probabilities)
            ):
                if kept is not None:
                    self.thumbnails.offer(sample)
                self._queue(sample if sample.source is None else replace(sample, source=None))
            else:
                self._telemetry.event("repeated")
                self._compare(record)
        except StoreError as error:
            self._drop()
            self._store_errors.failed(error, sample.key)
        finally:
            self._give_room(sample.byte_count)

    def _give_room(self, size: int) -> None:
        with self._lock:
            self._bytes_in_transit -= size

    def _compare(self, record: SampleRecord) -> None:
        """Marks a sample as ambiguous if another picture has come under its key: a report could mean either."""
        known = self._store_errors.store.sample(record.key)
        if known is not None and not _same(known, record):
            self._store_errors.store.set_state(record.key, SampleState.AMBIGUOUS)

    def _queue(self, sample: Sample) -> None:
        for gone in self.waiting.add(sample, self._clock()):
            self._end(gone.key, SampleState.DROPPED if gone is sample else SampleState.EXPIRED)
        if self._store_errors.store.truth(sample.key) is not None:
            self.waiting.prefer(sample.key)

    def _end(self, key: SampleKey, state: SampleState) -> None:
        self.unscored.add(self._clock(), state.value)
        self._store_errors.end(key, state)

    def _drop(self) -> None:
        self.unscored.add(self._clock(), "dropped")
        self._telemetry.event("dropped")

    def _report(self, key: SampleKey, truth: GroundTruth, keep_unmentioned: bool) -> Receipt:
        return self._put(key, truth, self._warnings(self._known(key), truth), keep_unmentioned)

    def _report_checked_apart(self, key: SampleKey, truth: GroundTruth, keep_unmentioned: bool) -> Receipt:
        """As `_report`, with the check on the checker's thread, so that the writer can go on with other reports."""
        try:
            record = self._writer.submit(self._known, key).result()
            warnings = self._warnings(record, truth)
            return self._writer.submit(self._put, key, truth, warnings, keep_unmentioned).result()
        except (RuntimeError, CancelledError):
            raise ShuttingDownError("The server is shutting down. Report to it once it is back.") from None

    def _known(self, key: SampleKey) -> SampleRecord:
        with self._counting_errors(key):
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
        for number, thing in enumerate(truth.objects):
            with within(f"objects[{number}]"):
                found = check_annotation(thing.annotation, record.frame, self._max_pixels)
            warnings += [(number, each) for each in found]
        return warnings

    def _put(
        self, key: SampleKey, truth: GroundTruth, warnings: list[tuple[int, str]], keep_unmentioned: bool
    ) -> Receipt:
        with self._counting_errors(key):
            reported = self._store_errors.store.put_truth(key, truth, keep_unmentioned=keep_unmentioned)
        self._telemetry.report(reported.value)
        self.waiting.prefer(key)
        self._on_report()
        return Receipt(reported, warnings)

    @contextmanager
    def _counting_errors(self, key: SampleKey) -> Iterator[None]:
        try:
            yield
        except StoreError as error:
            self._store_errors.failed(error, key)
            raise


def _same(known: SampleRecord, other: SampleRecord) -> bool:
    """Whether two samples can be of the same picture; the last bits of a probability depend on the batch."""
    pairs = [(each.target, each.positives, each.frame.picture_size) for each in (known, other)]
    return pairs[0] == pairs[1] and math.isclose(known.probability, other.probability, abs_tol=1e-4)


def _size(annotation: Annotation) -> int:
    """Memory of an annotation, roughly."""
    if isinstance(annotation, MaskAnnotation):
        return _OBJECT_BYTES + len(annotation.png)
    return _OBJECT_BYTES * (1 + (len(annotation.points) if isinstance(annotation, PolygonAnnotation) else 0))


def _effort(annotation: Annotation) -> int:
    """Cost of checking an annotation, in corners of polygons."""
    if isinstance(annotation, MaskAnnotation):
        return _QUICK_EFFORT + 1
    return len(annotation.points) if isinstance(annotation, PolygonAnnotation) else 1


def _nothing() -> None:
    """The last job of a closing executor: done when all before it are."""
