"""Measures pictures: reads, predicts, explains and measures them, and hands on what came of each.

    pictures ─ read ahead ─ predict ─ samples ─ Progress, Measurer, Keeper: as of live traffic ─ outcomes

One thread does what is here; pictures are read on others, and the engine has its own.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry

from xai_sidecar.engine.awaited import Awaited
from xai_sidecar.engine.batch import Lane
from xai_sidecar.engine.engine import Engine
from xai_sidecar.engine.work import OodScores, Steps, forward, ood_score
from xai_sidecar.errors import DeviceLostError, InvalidRequestError, ShuttingDownError
from xai_sidecar.evaluator.agenda import Run
from xai_sidecar.evaluator.annotations import check_annotation
from xai_sidecar.evaluator.keeping import Keeper
from xai_sidecar.evaluator.measurement import EvaluatedModel, Measurer
from xai_sidecar.evaluator.progress import Progress
from xai_sidecar.evaluator.records import GroundTruth, Sample, SampleKey, TruthObject
from xai_sidecar.evaluator.store.small import top_classes
from xai_sidecar.evaluator.store.whole import MeasuredSample, pack
from xai_sidecar.imaging import Prepared
from xai_sidecar.picture_units import PictureUnits
from xai_sidecar.runner.data import DataItem
from xai_sidecar.runner.outcome import PictureOutcome, request_id_of
from xai_sidecar.runner.reading import MOST_PIXELS, KeptPictures, ReadItem, read_ahead
from xai_sidecar.runner.recording import Recording, SampleRecorder, Unheeded
from xai_sidecar.serving.evaluation import make_telemetry, sample_of
from xai_sidecar.serving.model import ServedModel
from xai_sidecar.serving.plan import ModelOutput

_READ_AHEAD = 16
_PREDICTED_AHEAD = 8
"""Pictures that are predicted, or have been, and are not measured yet: enough to fill a batch."""

_POLL_SECONDS = 0.5

_END = object()


@dataclass
class _Open:
    """A picture that is not measured yet.

    Attributes:
        name: The picture's.
        count: Its samples.
        begun: Whether one of them is being measured, or has been.
        samples: Those that have been.
        notes: What is doubtful about it.
    """

    name: str
    count: int
    begun: bool = False
    samples: list[MeasuredSample] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Runner:
    """Measures pictures. What comes of one does not depend on the others.

    Args:
        engine: Ready; nobody else uses it.
        model: The model that it runs, with the config of a run.
        evaluated: The same as the evaluator sees it.
        units: Units of model inputs, by which they are shown as pictures; None for the model's.
    """

    def __init__(
        self, engine: Engine, model: ServedModel, evaluated: EvaluatedModel, units: PictureUnits | None = None
    ) -> None:
        self._engine = engine
        self._model = model
        self._evaluated = evaluated
        self._options = model.config.run
        self._units = (units or model.input.units) if self._options.keep_pictures else None
        settings = model.config.evaluator
        telemetry = make_telemetry(CollectorRegistry(), evaluated, settings)
        measurer = Measurer(evaluated, settings)
        unheeded = Unheeded(evaluated, settings, telemetry)
        self._recorder = SampleRecorder(self._ended)
        keeper = Keeper(Recording(self._recorder, telemetry), measurer, unheeded, telemetry)
        self._progress = Progress(measurer, evaluated, settings, keeper, unheeded, thorough=True)
        self._jobs: Awaited[Callable[[Future[Any]], None]] = Awaited()
        self._predicting = 0
        self._ready: deque[Sample] = deque()
        self._stopped = False
        self._open: dict[str, _Open] = {}  # by what its samples are kept by
        self._take: Callable[[PictureOutcome], None] = lambda outcome: None

    def run(
        self,
        items: Iterator[DataItem | None],
        take: Callable[[PictureOutcome], None],
        stop: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Measures pictures.

        Args:
            items: The pictures; None where there is none at the moment, and may be one later.
            take: Called with what came of each, in any order.
            stop: Called now and then; returns whether to end once the pictures that are being measured have been.

        Returns:
            Whether it was stopped.
        """
        self._take = take
        reading: Iterator[ReadItem | None] | None = read_ahead(items, self._model.input, _READ_AHEAD, self._units)
        while reading is not None or self._jobs or self._ready or self._progress.open_count:
            if reading is not None and stop():
                reading = None
                self._stop()
            if reading is not None and not self._begin(reading):
                reading = None
            self._measure()
            self._await()
        return self._stopped

    def _stop(self) -> None:
        """Leaves the pictures that have only been predicted."""
        self._stopped = True
        self._ready = deque(each for each in self._ready if self._open[each.key.request_id].begun)

    def _begin(self, reading: Iterator[ReadItem | None]) -> bool:
        """Has pictures predicted while there is room; returns whether there are more."""
        while self._predicting + len(self._ready) < _PREDICTED_AHEAD:
            found = next(reading, _END)
            if not isinstance(found, ReadItem):
                return found is not _END
            self._predict(found)
        return True

    # ------------------------------------------------------------------------------------------------ predictions

    def _predict(self, found: ReadItem) -> None:
        prepared = found.prepared
        if prepared is None:
            self._take(PictureOutcome(found.item.name, problem=found.problem))
            return
        inputs = prepared.array[np.newaxis]
        steps: Steps[Any] = ood_score(inputs) if self._model.facts.has_ood else forward(inputs)
        self._predicting += 1
        self._submit(steps, Lane.PREDICT, lambda job: self._predicted(found, prepared, job.result().value))

    def _predicted(self, found: ReadItem, prepared: Prepared, output: Any) -> None:
        item, pictures = found.item, found.kept or KeptPictures(b"", b"")
        self._predicting -= 1
        if self._stopped:
            return
        ood = None
        if isinstance(output, OodScores):
            ood = float(output.scores[0]), float(output.percentiles[0])
            output = output.logits
        logits = output[0]
        probabilities = self._evaluated.activation(logits).astype(np.float32)
        predicted = ModelOutput(prepared, logits, probabilities, ood if ood and np.isfinite(ood[0]) else None)
        key = SampleKey(request_id_of(item.name, self._options.seed), 0)
        first = sample_of(key, time.time(), self._evaluated.version, self._model, predicted, ())
        targets = self._targets(item, first)
        samples = [
            replace(first, key=SampleKey(key.request_id, place), chosen=target) for place, target in enumerate(targets)
        ] or [first]
        opened = self._open[key.request_id] = _Open(item.name, len(samples))
        objects = self._objects(item, first, opened.notes)
        for sample in samples:
            classes = top_classes(sample.logits, sample.probabilities)
            truth = _truth(sample, item.class_ids, objects)
            self._recorder.begin(MeasuredSample(sample.record(), classes, truth, *pictures))
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

    @staticmethod
    def _objects(item: DataItem, sample: Sample, notes: list[str]) -> tuple[TruthObject, ...]:
        """The objects that lie on the picture; what is wrong with the others is noted."""
        kept = []
        for thing in item.objects:
            try:
                check_annotation(thing.annotation, sample.frame, MOST_PIXELS)
                kept.append(thing)
            except InvalidRequestError as error:
                notes.append(f"An object of {item.name} is left out: {error.message}")
        return tuple(kept)

    # ------------------------------------------------------------------------------------------------ measuring

    def _measure(self) -> None:
        """Submits what there is room for."""
        for run in self._progress.runs(self._next_sample):
            self._submit(self._progress.steps(run), Lane.EVALUATE, partial(self._measured, run))

    def _next_sample(self) -> Sample | None:
        if not self._ready:
            return None
        sample = self._ready.popleft()
        self._open[sample.key.request_id].begun = True
        return sample

    def _measured(self, run: Run, job: Future[Any]) -> None:
        completed = None
        try:
            completed = job.result()
        except (CancelledError, DeviceLostError, ShuttingDownError):
            raise
        except Exception as error:
            opened = self._open[run.measured.sample.key.request_id]
            opened.notes.append(f"Measuring {opened.name} failed: {error}")
        self._progress.ended(run, completed)

    def _ended(self, sample: MeasuredSample) -> None:
        """Hands on a picture whose samples are all measured."""
        opened = self._open[sample.key.request_id]
        opened.samples.append(sample)
        if len(opened.samples) == opened.count:
            del self._open[sample.key.request_id]
            samples = [pack(each) for each in sorted(opened.samples, key=lambda each: each.key)]
            self._take(PictureOutcome(opened.name, tuple(samples), notes=tuple(opened.notes)))

    def _submit(self, steps: Steps[Any], lane: Lane, then: Callable[[Future[Any]], None]) -> None:
        self._jobs.add(self._engine.submit(steps, lane), then)

    def _await(self) -> None:
        """Waits for a job, and goes on with those that are done."""
        if self._jobs:
            for job, then in self._jobs.ended(_POLL_SECONDS):
                then(job)


def _truth(sample: Sample, class_ids: tuple[int, ...], objects: tuple[TruthObject, ...]) -> GroundTruth | None:
    """What is known of a sample. Its picture counts once for what the model got right."""
    own = class_ids if sample.key.image_index == 0 else ()
    here = objects if own else tuple(_for_class(thing, class_ids) for thing in objects)
    return GroundTruth(own, here, sample.time) if own or here else None


def _for_class(thing: TruthObject, class_ids: tuple[int, ...]) -> TruthObject:
    """An object with its class, where that follows from those of the picture."""
    return replace(thing, class_id=class_ids[0]) if thing.class_id is None and len(class_ids) == 1 else thing
