"""Two stores of the same made-up samples, in SQLite and in PostgreSQL, and what a list of Python's makes of them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from xai_sidecar.evaluator.reading import Reader
from xai_sidecar.evaluator.records import (
    BoxAnnotation,
    Frame,
    GroundTruth,
    MapRecord,
    SampleKey,
    SampleRecord,
    SampleState,
    ScoreRecord,
    TruthObject,
)
from xai_sidecar.evaluator.store import Outcome, Store, TopClass
from xai_sidecar.evaluator.store.outcomes import outcomes_of
from xai_sidecar.explainers.base import MapStatus
from xai_sidecar.metrics.base import ScoreStatus

COUNT = 80
CLASSES = 6
EXPLAINERS = ("gradcam", "rise", "control/random")
METRICS = ("faithfulness/srg", "faithfulness/deletion_auc")
"""The higher the better, and the reverse."""

VERSIONS = ("now", "before")


@dataclass
class Kept:
    """A sample as it was put into the store, for brute force."""

    record: SampleRecord
    true: tuple[int, ...] = ()
    statuses: dict[str, MapStatus] = field(default_factory=dict)
    scores: dict[tuple[str, str], float] = field(default_factory=dict)

    @property
    def outcomes(self) -> dict[int, Outcome]:
        return outcomes_of(self.record.positives, self.true)


def made(*, single_label: bool) -> list[Kept]:
    """Samples with all that there can be; times and numbers that occur twice, and some that are not known."""
    generator = np.random.default_rng(7 + single_label)
    found = []
    for number in range(COUNT):
        target = int(generator.integers(CLASSES))
        positives = (target,)
        if not single_label:
            positives = tuple(np.flatnonzero(generator.random(CLASSES) < 0.3).tolist())
        known = generator.random() < 0.6
        kept = Kept(
            SampleRecord(
                key=SampleKey(f"request-{number // 2}", number % 2),
                time=float(1000 + generator.integers(40)),
                model_version=VERSIONS[int(generator.random() < 0.2)],
                frame=Frame(8, 9),
                target=target,
                probability=float("nan") if number % 17 == 0 else float(generator.integers(10)) / 10,
                positives=positives,
                ood=None if number % 5 == 0 else (0.5, float(generator.integers(100))),
                state=SampleState.PENDING,
            ),
            true=tuple(np.flatnonzero(generator.random(CLASSES) < 0.25).tolist()) if known else (),
        )
        for name in EXPLAINERS:
            if generator.random() < 0.8:
                kept.statuses[name] = list(MapStatus)[int(generator.choice(6, p=[0.5, 0.1, 0.1, 0.1, 0.1, 0.1]))]
                for metric in METRICS if kept.statuses[name].believed else ():
                    if generator.random() < 0.8:
                        kept.scores[name, metric] = float(generator.integers(8)) / 8
        found.append(kept)
    return found


def put(store: Store, kept: Kept, number: int = 0) -> None:
    """Puts a sample into a store."""
    record = kept.record
    assert store.add_sample(record, classes=[TopClass(record.target, record.probability, 1.5)])
    for name, status in kept.statuses.items():
        if status.believed:
            values = np.random.default_rng(number).random((8, 9)).astype(np.float32)
            store.add_map(record.key, MapRecord(name, record.target, {}, 5, status, values, 3), ())
        else:
            store.put_withheld(record.key, name, record.target, status, 3)
    scores = [
        ScoreRecord(name, metric, record.target, value, ScoreStatus.OK, record.time, 1.0, 4, "d")
        for (name, metric), value in kept.scores.items()
    ]
    store.put_scores(record.key, scores)
    objects = (TruthObject(BoxAnnotation(1, 2, 3, 4)),) if number % 3 == 0 else ()
    if kept.true or objects:
        store.put_truth(record.key, GroundTruth(kept.true, objects, record.time))
    if number % 4 == 0:
        store.set_state(record.key, SampleState.SCORED)
        kept.record = replace(record, state=SampleState.SCORED)


@dataclass
class Filled:
    """A store with its samples, in the order in which they were put in."""

    store: Store
    reader: Reader
    kept: list[Kept]
    single_label: bool


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def filled(request, tmp_path_factory):
    """A store in memory that does not change, of single labels."""
    yield from _filled(request, tmp_path_factory, single_label=True)


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def filled_multi(request, tmp_path_factory):
    """The same of a model with sigmoid."""
    yield from _filled(request, tmp_path_factory, single_label=False)


def _filled(request, tmp_path_factory, *, single_label):
    if request.param == "sqlite":
        yield from _opened(f"sqlite:///{tmp_path_factory.mktemp('reading')}/store.db", single_label)
        return
    server = request.getfixturevalue("postgres")
    with server.database() as name:
        yield from _opened(server.url(name), single_label)


def _opened(url, single_label):
    store = Store.open(url, max_bytes=1 << 30, retention_seconds=1e12)
    kept = made(single_label=single_label)
    for number, each in enumerate(kept):
        put(store, each, number)
    yield Filled(store, Reader(store.database), kept, single_label)
    store.close()
