"""How fast the evaluator scores on a device with nothing else to do, and what it leaves in the store."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry

from bench import models
from xai_sidecar.backends.loading import load_backend
from xai_sidecar.config import EvaluatorConfig
from xai_sidecar.engine.backend import Backend
from xai_sidecar.engine.batch import Lane
from xai_sidecar.engine.dispatcher import BatchRecord
from xai_sidecar.engine.engine import Engine
from xai_sidecar.engine.job import Job, JobOutcome
from xai_sidecar.engine.scheduler import Policy
from xai_sidecar.engine.throttle import QUIET_SECONDS
from xai_sidecar.engine.work import Array, FloatArray, Kind, MaskedForward, forward
from xai_sidecar.evaluator.records import MapRecord, Sample, SampleKey, SampleRecord, ScoreRecord
from xai_sidecar.evaluator.store import Store
from xai_sidecar.explainers.activations import ACTIVATIONS
from xai_sidecar.imaging import decode, prepare
from xai_sidecar.paths import cache_folder
from xai_sidecar.serving.evaluation import sample_of, start_evaluation
from xai_sidecar.serving.model import ServedModel, start_model
from xai_sidecar.serving.plan import ModelOutput
from xai_sidecar.zoo.sample import sample_picture

_EXPLAINERS = ("gradient", "guided_backprop", "deconvolution", "gradcam", "occlusion", "rise")
_PICTURES = ("chelsea", "coffee")
_BARE_SECONDS = 0.06
"""Of launches of one kind and size in a pause."""

_EVALUATED_SECONDS = 3.0
"""From the beginning of a pause to that of the next one, at least."""

_SCORING_SECONDS = 300.0

_Launched = tuple[Kind, int]
"""Launches of a kind and a batch size."""


@dataclass(frozen=True)
class Scored:
    """How some samples were scored by one explainer.

    Attributes:
        explainer: Which.
        count: How many samples.
        seconds: From the first launch until all were scored and stored.
        launches: How many there were, by kind and size.
        rows: Rows without padding, by kind.
        busy: Seconds that launches took, by kind.
        bare: Seconds of a bare launch, by kind and size.
        kept: What the store had of each sample then.
    """

    explainer: str
    count: int
    seconds: float
    launches: Counter[_Launched]
    rows: Counter[Kind]
    busy: Mapping[Kind, float]
    bare: Mapping[_Launched, float]
    kept: Sequence[tuple[SampleRecord, MapRecord, Sequence[ScoreRecord]]]

    @property
    def over_best(self) -> float:
        """What bare launches of the best size take for as many rows, over what scoring took."""
        per_row = {kind: self.bare[kind, self.best(kind)] / self.best(kind) for kind in self.rows}
        return sum(count * per_row[kind] for kind, count in self.rows.items()) / self.seconds

    def best(self, kind: Kind) -> int:
        """The batch size of the most rows per second."""
        return min((one for one in self.bare if one[0] == kind), key=lambda one: self.bare[one] / one[1])[1]


class _Observer:
    """Notes the evaluator's launches, with when they ended."""

    def __init__(self) -> None:
        self.launches: list[tuple[float, BatchRecord]] = []

    def batch_ran(self, record: BatchRecord) -> None:
        """See `Observer`."""
        if record.lane is Lane.EVALUATE:
            self.launches.append((time.monotonic(), record))

    def ended(self, lane: Lane, outcome: JobOutcome) -> None:
        """See `Observer`."""


@contextmanager
def scoring() -> Iterator[tuple[Iterator[Scored], list[Sample]]]:
    """Scores samples by one explainer after the other, on a device with nothing else to do."""
    settings = EvaluatorConfig(sample_rate=1, interval_seconds=1, device_share=1)
    policy = Policy(evaluate_slice_seconds=settings.slice_milliseconds / 1e3, evaluate_share=settings.device_share)
    with (
        models.sample_config(cache_folder() / "compiled") as (config, _),
        tempfile.TemporaryDirectory() as folder,
    ):
        observer = _Observer()
        engine = Engine(partial(load_backend, config), policy=policy, observer=observer)
        try:
            model = start_model(engine, config, lambda line: None).result()
            predicted = [_predicted(name, model, engine) for name in _PICTURES]
            keys = [SampleKey(name, 0) for name in _PICTURES]
            time.sleep(QUIET_SECONDS)  # until the device counts as idle
            now = time.time()
            samples = [sample_of(key, now, "bench", model, one, ()) for key, one in zip(keys, predicted, strict=True)]

            def scored() -> Iterator[Scored]:
                for name in _EXPLAINERS:
                    url = f"sqlite:///{Path(folder) / name}.sqlite"
                    chosen = settings.model_copy(update={"explainers": [name], "store": url})
                    changed = replace(model, config=config.model_copy(update={"evaluator": chosen}))
                    yield _score(name, changed, engine, observer, predicted)

            yield scored(), samples
        finally:
            engine.close()


def _predicted(name: str, model: ServedModel, engine: Engine) -> ModelOutput:
    prepared = prepare(decode(sample_picture(name).read_bytes(), 10**9), model.input)
    logits = engine.submit(forward(prepared.array[np.newaxis]), Lane.PREDICT).result().value[0]
    activation = ACTIVATIONS[model.config.model.activation]
    return ModelOutput(prepared, logits, np.asarray(activation(logits), np.float32))


def _score(
    name: str, model: ServedModel, engine: Engine, observer: _Observer, predicted: Sequence[ModelOutput]
) -> Scored:
    """Scores pictures by one explainer, with bare launches in between."""
    offered = model.explainers[name]
    kinds = {MaskedForward.kind, offered.explainer.kind(offered.defaults)}
    bare = _Bare(engine, model.backend, kinds, predicted[0].prepared.array)
    observer.launches.clear()
    registry = CollectorRegistry()
    evaluation = start_evaluation(model, engine, registry)
    try:
        for picture, one in zip(_PICTURES, predicted, strict=True):
            evaluation.offer(picture, model, [one])
        ended = _wait_for(registry, len(predicted), bare)
    finally:
        evaluation.close()
    seconds, paused = bare.results()
    records = [record for _, record in observer.launches]
    started = observer.launches[0][0] - records[0].seconds
    rows: Counter[Kind] = Counter()
    busy: dict[Kind, float] = dict.fromkeys(kinds, 0.0)
    for record in records:
        rows[record.kind] += record.row_count
        busy[record.kind] += record.seconds
    return Scored(
        explainer=name,
        count=len(predicted),
        seconds=ended - started - sum(max(0.0, min(ended, end) - max(started, start)) for start, end in paused),
        launches=Counter((record.kind, record.size) for record in records),
        rows=rows,
        busy=busy,
        bare=seconds,
        kept=_kept(model.config.evaluator.store, name),
    )


class _Bare:
    """Bare launches on the device thread, between those of the evaluator, which stands still meanwhile.

    Args:
        engine: Whose device thread.
        backend: Its backend.
        kinds: What to launch.
        image: The model input.
    """

    def __init__(self, engine: Engine, backend: Backend, kinds: set[Kind], image: FloatArray) -> None:
        self._engine = engine
        self._backend = backend
        self._rows = {(kind, size): _rows(kind, image, size) for kind in kinds for size in backend.costs(kind)}
        self._pauses: list[Job[Any]] = []
        self._next = 0.0

    def launch(self) -> None:
        """Begins with a pause if one is due."""
        if time.monotonic() >= self._next and (not self._pauses or self._pauses[-1].done()):
            self._pauses.append(self._engine.submit(self._pause(), Lane.PREDICT))
            self._next = time.monotonic() + _EVALUATED_SECONDS

    def results(self) -> tuple[dict[_Launched, float], list[tuple[float, float]]]:
        """Seconds of a launch of each kind and size, and when each pause began and ended by `time.monotonic`."""
        pauses = [pause.result().value for pause in self._pauses]
        totals = {launched: np.sum([taken[launched] for taken, _ in pauses], axis=0) for launched in self._rows}
        return {launched: seconds / count for launched, (seconds, count) in totals.items()}, [
            when for _, when in pauses
        ]

    def _pause(self) -> Any:
        began = time.monotonic()
        taken = {launched: self._run(launched) for launched in self._rows}
        return taken, (began, time.monotonic())
        yield

    def _run(self, launched: _Launched) -> tuple[float, int]:
        """Seconds and launches of a kind and size; one that comes first does not count."""
        (kind, _), rows, count = launched, self._rows[launched], 0
        self._backend.run(kind, rows)
        started = time.perf_counter()
        while (seconds := time.perf_counter() - started) < _BARE_SECONDS:
            self._backend.run(kind, rows)
            count += 1
        return seconds, count


def _wait_for(registry: CollectorRegistry, count: int, bare: _Bare) -> float:
    """When so many samples had been scored, on the clock of `time.monotonic`; with pauses meanwhile.

    Raises:
        RuntimeError: That did not come about.
    """
    until, events = time.monotonic() + _SCORING_SECONDS, "xai_samples_total"
    # Not all of the registry, which would take much of a CPU.
    looked_at: Any = registry.restricted_registry([events])
    while time.monotonic() < until:
        found = {one.labels["event"]: one.value for each in looked_at.collect() for one in each.samples}
        if found.get("failed"):
            break
        if found.get("scored") == count:
            return time.monotonic()
        bare.launch()
        time.sleep(0.01)
    raise RuntimeError(f"the evaluator did not score {count} samples, but {found}")


def _rows(kind: Kind, image: FloatArray, size: int) -> tuple[Array, ...]:
    if kind == MaskedForward.kind:
        masks = np.random.default_rng(0).integers(0, 2, (size, *image.shape[1:])).astype(np.float32)
        return MaskedForward(image, masks).rows
    return np.repeat(image[np.newaxis], size, axis=0), np.full(size, 7, np.int32)


def _kept(url: str, explainer: str) -> Sequence[tuple[SampleRecord, MapRecord, Sequence[ScoreRecord]]]:
    """What a store has of each sample by an explainer."""
    store = Store.open(url, max_bytes=2**30, retention_seconds=1e9)
    try:
        found = []
        for picture in _PICTURES:
            key = SampleKey(picture, 0)
            record, maps = store.sample(key), store.maps(key)
            if record is None or [one.explainer for one in maps] != [explainer]:
                raise RuntimeError(f"the store does not have {explainer}'s map of {picture}")
            found.append((record, maps[0], store.scores(key)))
        return found
    finally:
        store.close()
