"""Listing samples: each order with each filter that a list offers, of a store with 100,000 samples.

The samples are made up: twenty classes, some far more frequent than others, four explainers and two controls, two
metrics, a fifth with ground truth. SQLite's times are CPU times of the thread that asks, which is where it works. With
XAI_BENCH_POSTGRES=postgresql://…, an empty database, PostgreSQL is measured, too, by the clock.
"""

from __future__ import annotations

import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sqlalchemy import insert

from bench.figure import Figure
from xai_sidecar.evaluator.reading.filters import SampleFilter, ScoreRange
from xai_sidecar.evaluator.reading.orders import By, Order
from xai_sidecar.evaluator.reading.pages import load_page
from xai_sidecar.evaluator.records import SampleState
from xai_sidecar.evaluator.store import Outcome, Store
from xai_sidecar.evaluator.store.database import Database
from xai_sidecar.evaluator.store.details import STATUS_BITS
from xai_sidecar.evaluator.store.outcomes import outcomes_of
from xai_sidecar.evaluator.store.small import TopClass, pack_classes
from xai_sidecar.evaluator.store.tables import (
    class_outcomes,
    explained,
    ground_truth_classes,
    ground_truths,
    predictions,
    samples,
    scores,
    top_classes,
)
from xai_sidecar.explainers.base import MapStatus

COUNT = int(os.environ.get("XAI_BENCH_SAMPLES", "100000"))
BAR_MILLISECONDS = 100.0
NAMES = ("gradcam", "rise", "occlusion", "gradient", "control/random", "control/blob")
METRICS = ("faithfulness/srg", "faithfulness/deletion_auc")
VERSION = "5f0c2a" * 8
START = 1_700_000_000.0
_CLASSES = 20
_AT_A_TIME = 5000
_ROUNDS = 3

ORDERS = {
    "newest": Order(),
    "oldest": Order(descending=False),
    "least probable": Order(By.PROBABILITY, descending=False),
    "most probable": Order(By.PROBABILITY),
    "outliers": Order(By.OOD, descending=False),
    "inliers": Order(By.OOD),
    "worst score": Order.by_score("rise", METRICS[0], worst_first=True),
    "best score": Order.by_score("rise", METRICS[0], worst_first=False),
}
FILTERS: dict[str, dict[str, Any]] = {
    "all": {},
    "frequent class": {"predicted": (0,)},
    "rare class": {"predicted": (19,)},
    "five classes": {"predicted": (0, 1, 2, 3, 4)},
    "true class": {"true": (3,)},
    "wrong": {"outcomes": Outcome.FALSE_POSITIVE},
    "wrong class": {"predicted": (0,), "outcomes": Outcome.FALSE_POSITIVE},
    "confused": {"predicted": (0,), "true": (7,)},
    "unknown": {"outcomes": Outcome.UNKNOWN},
    "unsure": {"max_probability": 0.2},
    "unlike": {"max_ood_percentile": 1.0},
    "withheld": {"map_statuses": frozenset({MapStatus.ZERO_GRADIENT, MapStatus.UNRELIABLE})},
    "withheld of one": {"map_statuses": frozenset({MapStatus.UNRELIABLE}), "map_explainer": "rise"},
    "explained by one": {"map_explainer": "rise"},
    "score": {"score": ScoreRange("rise", METRICS[0], None, -0.2)},
    "score of another": {"score": ScoreRange("gradcam", METRICS[1], 0.7, None)},
    "last day": {"start": START + 0.97 * COUNT},
    "states": {"states": frozenset({SampleState.FAILED})},
    "nothing": {"min_probability": 0.999999},
    "several": {
        "predicted": (0, 1),
        "outcomes": Outcome.FALSE_POSITIVE,
        "max_probability": 0.5,
        "max_ood_percentile": 50.0,
    },
}


def figures() -> list[Figure]:
    """The slowest and the usual list of each database, with and without the count of all that there are."""
    with tempfile.TemporaryDirectory() as folder:
        found = _measured("SQLite", f"sqlite:///{folder}/samples.sqlite", time.thread_time)
    url = os.environ.get("XAI_BENCH_POSTGRES")
    return found + (_measured("PostgreSQL", url, time.perf_counter) if url else [])


def _measured(name: str, url: str, clock: Callable[[], float]) -> list[Figure]:
    store = Store.open(url, max_bytes=1 << 50, retention_seconds=1e15)
    fill(store.database, COUNT)
    found = []
    for with_total in (False, True):
        times = {
            (order, where): _milliseconds(store.database, where, order, clock, with_total=with_total)
            for order, where in itertools.product(ORDERS, FILTERS)
        }
        slowest, what = max(times, key=lambda key: times[key]), "a page and the count" if with_total else "a page"
        note = f"order {slowest[0]}, filter {slowest[1]}; median of all {statistics.median(times.values()):.0f} ms"
        bar = None if with_total else BAR_MILLISECONDS
        found.append(Figure(f"{name}: slowest list, {what}", times[slowest], "ms", bar, note))
    store.close()
    return found


def _milliseconds(database: Database, where: str, order: str, clock: Callable[[], float], *, with_total: bool) -> float:
    """Median time of a first page of 50."""
    chosen, times = SampleFilter(VERSION, single_label=True, **FILTERS[where]), []
    for _ in range(_ROUNDS):
        began = clock()
        with database.read() as connection:
            load_page(connection, chosen, ORDERS[order], 50, with_total=with_total)
        times.append(clock() - began)
    return 1e3 * statistics.median(times)


def fill(database: Database, count: int) -> None:
    """Fills an empty store with samples."""
    generator = np.random.default_rng(0)
    for first in range(0, count, _AT_A_TIME):
        rows = _rows(generator, range(first + 1, min(first + _AT_A_TIME, count) + 1))
        with database.write() as connection:
            for table, content in rows.items():
                connection.execute(insert(table), content)


def _rows(generator: np.random.Generator, ids: Sequence[int]) -> dict[Any, list[dict[str, Any]]]:
    count = len(ids)
    target = np.minimum(generator.geometric(0.25, count) - 1, _CLASSES - 1)
    probability, ood = generator.beta(5, 1.5, count), generator.random(count) * 100
    right, known = generator.random(count) < 0.85, generator.random(count) < 0.2
    other = generator.integers(0, _CLASSES, count)
    status = generator.choice(4, (count, len(NAMES)), p=[0.93, 0.04, 0.02, 0.01])
    value = np.clip(generator.normal(0.3, 0.25, (count, len(NAMES), len(METRICS))), -1, 1)
    statuses = (MapStatus.OK, MapStatus.UNRELIABLE, MapStatus.ZERO_GRADIENT, MapStatus.NOT_FINITE)
    small = generator.integers(0, 256, 784, np.uint8).tobytes()
    found: dict[Any, list[dict[str, Any]]] = {
        table: []
        for table in (
            samples, predictions, top_classes, explained, scores, ground_truths, ground_truth_classes, class_outcomes
        )
    }  # fmt: skip
    for place, number in enumerate(ids):
        predicted = int(target[place])
        true = (predicted if right[place] else int(other[place]),) if known[place] else ()
        outcomes = outcomes_of((predicted,), true)
        of_maps = [statuses[each] for each in status[place]]
        found[samples].append(
            {
                "id": number, "request_id": f"{number:032x}", "image_index": 0, "time": START + number,
                "model_version": VERSION, "state": "failed" if number % 500 == 0 else "scored", "target": predicted,
                "probability": float(probability[place]), "height": 224, "width": 224, "picture_width": 640,
                "picture_height": 480, "region_left": 80.0, "region_top": 0.0, "region_right": 560.0,
                "region_bottom": 480.0, "ood_score": 0.5, "ood_percentile": float(ood[place]), "byte_count": 20_000,
                "outcomes": int(np.bitwise_or.reduce([int(each) for each in outcomes.values()])),
                "map_statuses": int(np.bitwise_or.reduce([STATUS_BITS[each] for each in of_maps[:4]])),
            }
        )  # fmt: skip
        found[predictions].append({"sample_id": number, "class_id": predicted})
        classes = [TopClass((predicted + each) % _CLASSES, 0.5 / (each + 1), 3.0 - each) for each in range(10)]
        found[top_classes].append({"sample_id": number, "classes": pack_classes(classes)})
        found[class_outcomes] += [
            {"sample_id": number, "class_id": class_id, "outcome": int(each)} for class_id, each in outcomes.items()
        ]
        if true:
            found[ground_truths].append({"sample_id": number, "time": START + number, "applied": True})
            found[ground_truth_classes] += [{"sample_id": number, "class_id": each} for each in true]
        for name, each in zip(NAMES, of_maps, strict=True):
            shown = each is MapStatus.OK
            found[explained].append(
                {
                    "sample_id": number, "explainer": name, "target": predicted, "status": each.name.lower(),
                    "pass_count": 1000, "concentration": 0.5, "centre_x": 0.5, "centre_y": 0.5, "border": 0.1,
                    "small_height": 28, "small_width": 28, "small_minimum": 0.0, "small_maximum": 1.0,
                    "small": small if shown else None,
                }
            )  # fmt: skip
        found[scores] += [
            {
                "sample_id": number, "explainer": name, "metric": metric, "target": predicted,
                "value": float(value[place, one, two]), "status": "ok", "time": START + number, "seconds": 1.0,
                "pass_count": 60, "definition": "d",
            }
            for one, name in enumerate(NAMES)
            for two, metric in enumerate(METRICS)
        ]  # fmt: skip
    return {table: content for table, content in found.items() if content}
