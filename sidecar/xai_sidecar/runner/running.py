"""Runs a data set: reads, predicts, explains and measures its pictures, and keeps what comes of it.

    data ─ read ahead ─ predict ─ samples ─ Progress, Measurer, Keeper: as of live traffic ─ store

One thread does what is here; pictures are read on others, and the engine has its own.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from xai_sidecar.engine.batch import Lane
from xai_sidecar.engine.engine import Engine
from xai_sidecar.engine.work import OodScores, Steps, forward, ood_score
from xai_sidecar.errors import DeviceLostError, InvalidRequestError, ShuttingDownError, StoreError
from xai_sidecar.evaluator.agenda import Run
from xai_sidecar.evaluator.annotations import check_annotation
from xai_sidecar.evaluator.keeping import Keeper
from xai_sidecar.evaluator.live_quality import LiveQuality
from xai_sidecar.evaluator.measurement import EvaluatedModel, Measurer
from xai_sidecar.evaluator.progress import Progress
from xai_sidecar.evaluator.records import GroundTruth, Sample, SampleKey, SampleState, TruthObject
from xai_sidecar.evaluator.store import Store
from xai_sidecar.evaluator.store.small import top_classes
from xai_sidecar.evaluator.store_errors import StoreErrors
from xai_sidecar.imaging import Prepared
from xai_sidecar.runner.data import DataItem, DataSet
from xai_sidecar.runner.options import RunOptions
from xai_sidecar.runner.reading import MOST_PIXELS, ReadItem, read_ahead
from xai_sidecar.serving.evaluation import sample_of
from xai_sidecar.serving.model import ServedModel
from xai_sidecar.serving.plan import ModelOutput
from xai_sidecar.telemetry import EvaluatorTelemetry

_READ_AHEAD = 16
_PREDICTED_AHEAD = 8
"""Pictures that are predicted, or have been, and are not measured yet: enough to fill a batch."""

_POLL_SECONDS = 0.5

_FINAL = frozenset({SampleState.SCORED, SampleState.FAILED, SampleState.NO_POSITIVE})
"""States of samples that are not measured again."""


@dataclass
class RunCounts:
    """How far a run is.

    Attributes:
        total: Pictures to run; 0 if that is not known.
        done: Pictures that are measured, those of earlier starts included.
        known: Those of earlier starts.
        skipped: Pictures that could not be read: name and reason.
        notes: What is doubtful about the data, in sentences.
        interrupted: Whether it was ended early.
    """

    total: int = 0
    done: int = 0
    known: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    interrupted: bool = False


class Runner:
    """Runs a data set once.

    Args:
        engine: Ready; nobody else uses it.
        model: The model that it runs.
        evaluated: The same as the evaluator sees it.
        store: Where everything is kept.
        options: How the data set is run.
        quality: The scores so far, for whoever shows them.
        telemetry: Counts measurements.
        on_progress: Called after each picture.
        stop: Called now and then; returns whether to end once what has been begun is measured.
    """

    def __init__(
        self,
        engine: Engine,
        model: ServedModel,
        evaluated: EvaluatedModel,
        store: Store,
        options: RunOptions,
        quality: LiveQuality,
        telemetry: EvaluatorTelemetry,
        on_progress: Callable[[RunCounts], None] = lambda counts: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self._engine = engine
        self._model = model
        self._evaluated = evaluated
        self._store = store
        self._options = options
        self._quality = quality
        self._on_progress = on_progress
        self._stop = stop
        settings = model.config.evaluator
        measurer = Measurer(evaluated, settings)
        keeper = Keeper(_Strict(store, telemetry), measurer, quality, telemetry)
        self.measurer = measurer
        self._progress = Progress(measurer, evaluated, settings, keeper, quality, self._concluded, thorough=True)
        self._jobs: dict[Future[Any], Callable[[Future[Any]], None]] = {}
        self._predicting = 0
        self._ready: deque[Sample] = deque()
        self._open: dict[str, int] = {}  # samples of pictures that are not measured yet, by name
        self.counts = RunCounts()

    def run(self, data: DataSet) -> RunCounts:
        """Runs the pictures that the store does not have yet.

        Raises:
            StoreError: The store fails.
            PictureError: A picture cannot be read, and that is to end the run.
        """
        limit = self._options.limit
        self.counts.total = min(len(data), limit) if limit and len(data) else len(data) or (limit or 0)
        self.counts.notes += data.notes
        if costly := self.measurer.too_costly():
            self.counts.notes.append(f"Not measured, for evaluator.max_passes: {', '.join(costly)}.")
        reading: Iterator[ReadItem] | None = read_ahead(self._missing(data), self._model.input, _READ_AHEAD)
        while reading is not None or self._jobs or self._ready or self._progress.open_count:
            if reading is not None and self._stop():
                self.counts.interrupted = True
                reading = None
            while reading is not None and self._predicting + len(self._ready) < _PREDICTED_AHEAD:
                found = next(reading, None)
                if found is None:
                    reading = None
                else:
                    self._predict(found)
            self._measure()
            self._await()
        return self.counts

    def _missing(self, data: DataSet) -> Iterator[DataItem]:
        """The pictures that are not measured yet."""
        ended = self._ended()
        for number, item in enumerate(data):
            if number == self._options.limit:
                return
            if self._request_id(item) in ended:
                self.counts.known += 1
                self.counts.done += 1
            else:
                yield item

    def _ended(self) -> set[str]:
        """The ids of pictures of which everything is measured."""
        states: dict[str, list[SampleState]] = {}
        for key, state in self._store.states():
            states.setdefault(key.request_id, []).append(state)
        return {request_id for request_id, found in states.items() if _FINAL.issuperset(found)}

    def _request_id(self, item: DataItem) -> str:
        """What its samples are kept by; all that is random in measuring them comes from it."""
        return f"{item.name}#{self._options.seed}" if self._options.seed else item.name

    # ------------------------------------------------------------------------------------------------ predictions

    def _predict(self, found: ReadItem) -> None:
        prepared = found.prepared
        if prepared is None:
            if self._options.fail_fast:
                raise InvalidRequestError(f"{found.item.name}: {found.problem}")
            self.counts.skipped.append((found.item.name, found.problem))
            self._on_progress(self.counts)
            return
        inputs = prepared.array[np.newaxis]
        steps: Steps[Any] = ood_score(inputs) if self._model.facts.has_ood else forward(inputs)
        self._predicting += 1
        self._submit(steps, Lane.PREDICT, lambda job: self._predicted(found.item, prepared, job.result().value))

    def _predicted(self, item: DataItem, prepared: Prepared, output: Any) -> None:
        self._predicting -= 1
        ood = None
        if isinstance(output, OodScores):
            ood = float(output.scores[0]), float(output.percentiles[0])
            output = output.logits
        logits = output[0]
        probabilities = self._evaluated.activation(logits).astype(np.float32)
        predicted = ModelOutput(prepared, logits, probabilities, ood if ood and np.isfinite(ood).all() else None)
        key = SampleKey(self._request_id(item), 0)
        first = sample_of(key, time.time(), self._evaluated.version, self._model, predicted, ())
        targets = self._targets(item, first)
        samples = [
            replace(first, key=SampleKey(key.request_id, place), chosen=target) for place, target in enumerate(targets)
        ] or [first]
        self._open[key.request_id] = len(samples)
        objects = self._objects(item, first)
        for sample in samples:
            self._keep(sample, item.class_ids, objects)
            self._ready.append(sample)

    def _targets(self, item: DataItem, sample: Sample) -> list[int]:
        """The classes to explain, each once."""
        options = self._options
        found: list[int] = []
        if options.targets != "true":
            found += sorted(sample.positives, key=lambda each: -sample.logits[each])
        if options.targets != "predicted":
            found += item.class_ids
        if options.probable is not None:
            found += np.flatnonzero(sample.probabilities >= options.probable).tolist()
        return list(dict.fromkeys(map(int, found)))

    def _objects(self, item: DataItem, sample: Sample) -> tuple[TruthObject, ...]:
        """The objects that lie on the picture; what is wrong with the others is noted."""
        kept = []
        for thing in item.objects:
            try:
                check_annotation(thing.annotation, sample.frame, MOST_PIXELS)
                kept.append(thing)
            except InvalidRequestError as error:
                self.counts.notes.append(f"An object of {item.name} is left out: {error.message}")
        return tuple(kept)

    def _keep(self, sample: Sample, class_ids: tuple[int, ...], objects: tuple[TruthObject, ...]) -> None:
        """Stores a sample with what is known of it. Its picture counts once for what the model got right."""
        self._store.add_sample(sample.record(), classes=top_classes(sample.logits, sample.probabilities))
        own = class_ids if sample.key.image_index == 0 else ()
        here = tuple(_for_class(thing, class_ids) for thing in objects) if not own else objects
        if own or here:
            truth = GroundTruth(own, here, sample.time)
            self._store.put_truth(sample.key, truth)
            self._store.mark_applied(sample.key, truth.time)
            self._quality.put_truth(sample.key, sample.positives, own)

    # ------------------------------------------------------------------------------------------------ measuring

    def _measure(self) -> None:
        """Submits what there is room for."""
        for run in self._progress.runs(self._next_sample):
            self._submit(self._progress.steps(run), Lane.EVALUATE, partial(self._measured, run))

    def _next_sample(self) -> Sample | None:
        if not self._ready:
            return None
        sample = self._ready.popleft()
        self._quality.add_sample(sample.key, sample.time)
        return sample

    def _measured(self, run: Run, job: Future[Any]) -> None:
        completed = None
        try:
            completed = job.result()
        except (CancelledError, DeviceLostError, ShuttingDownError):
            raise
        except Exception as error:
            self.counts.notes.append(f"Measuring {run.measured.sample.key.request_id} failed: {error}")
        self._progress.ended(run, completed)

    def _concluded(self, sample: Sample, maps: Any) -> None:
        request_id = sample.key.request_id
        self._open[request_id] -= 1
        if not self._open[request_id]:
            del self._open[request_id]
            self.counts.done += 1
            self._on_progress(self.counts)

    def _submit(self, steps: Steps[Any], lane: Lane, then: Callable[[Future[Any]], None]) -> None:
        self._jobs[self._engine.submit(steps, lane)] = then

    def _await(self) -> None:
        """Waits for a job, and goes on with those that are done."""
        if not self._jobs:
            return
        done, _ = wait(self._jobs, _POLL_SECONDS, FIRST_COMPLETED)
        for job in done:
            self._jobs.pop(job)(job)


class _Strict(StoreErrors):
    """A store whose errors end the run: what is not kept would be missing in its results."""

    @contextmanager
    def writing(self, key: SampleKey | None = None) -> Iterator[None]:
        """Lets errors pass."""
        yield

    def failed(self, error: StoreError, key: SampleKey | None = None) -> None:
        """Raises it."""
        raise error


def _for_class(thing: TruthObject, class_ids: tuple[int, ...]) -> TruthObject:
    """An object with its class, where that follows from those of the picture."""
    return replace(thing, class_id=class_ids[0]) if thing.class_id is None and len(class_ids) == 1 else thing
