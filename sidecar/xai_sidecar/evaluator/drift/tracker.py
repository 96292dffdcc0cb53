"""All statistics of all maps over time, by explainer, by where the maps come from, and by class."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xai_sidecar.config import DriftConfig
from xai_sidecar.engine.work import FloatArray
from xai_sidecar.evaluator.drift.shape import MapShape, shape_of
from xai_sidecar.evaluator.drift.stream import Comparison, Stream

REQUESTS, SAMPLES = "requests", "samples"
SOURCES = (REQUESTS, SAMPLES)
"""Where maps come from: those that callers asked for, or those of sampled pictures. Which pictures callers want
explained is their choice, so that the two are not compared with each other."""

OF_ONE = ("concentration", "centre_x", "centre_y", "border", "typicality")
"""The statistics of a map by itself; see `MapShape`, and `_MeanMaps` for the last."""

_FEWEST = 5
"""Maps of a class, among those that are learnt from, from which on it has a mean map of its own."""


class StreamKey(NamedTuple):
    """What a statistic is of.

    Attributes:
        source: One of `SOURCES`.
        explainer: Name of the explainer.
        statistic: One of `OF_ONE`; or ``agreement/NAME``, the correlation with another explainer's map of the same
            picture and class.
        class_name: The class that the maps are of; empty for all classes together.
    """

    source: str
    explainer: str
    statistic: str
    class_name: str = ""


class _MeanMaps:
    """The mean coarse maps of an explainer's first maps, of classes that had enough and of all.

    They are fixed from then on, so that what later maps have in common with them (`typicality`) has the same
    distribution as long as the maps do.
    """

    def __init__(self, count: int) -> None:
        self._left = count
        self._sums: dict[int | None, NDArray[np.float64]] = {}
        self._counts: Counter[int | None] = Counter()

    def typicality(self, target: int, coarse: NDArray[np.float64] | None) -> float | None:
        """The correlation of a map with the mean map of its class, or of all where that had too few.

        None while the map itself is learnt from, and where there is none.
        """
        if coarse is None:
            return None
        if self._left > 0:
            self._left -= 1
            self._learn(target, coarse)
            return None
        total = self._sums.get(target, self._sums[None])
        norm = float(np.linalg.norm(total))
        return float(coarse @ total) / norm if norm > 0 else None

    def _learn(self, target: int, coarse: NDArray[np.float64]) -> None:
        for key in (target, None):
            self._sums[key] = self._sums.get(key, 0) + coarse
            self._counts[key] += 1
        if not self._left:
            few = [key for key, count in self._counts.items() if key is not None and count < _FEWEST]
            for key in few:
                del self._sums[key]


class DriftTracker:
    """Compares maps with those of a while ago. Any thread may use it.

    Its memory ends with the process, and is bounded: eight bytes for each map of a window and each stream, of which
    there are fewer than 1,600 with seven explainers and twenty classes, so 2 MB with windows of 100 maps.

    The level of `DriftConfig.false_alarms` is shared out evenly among all streams of all classes together, which get
    half of it, and those of single classes. So it bounds the probability of a single false alarm of the whole server.

    Args:
        explainers: The explainers, in the order in which pairs are named.
        classes: Classes with statistics of their own: what they are called, by class id.
        settings: The config's section.
    """

    def __init__(self, explainers: Sequence[str], classes: Mapping[int, str], settings: DriftConfig) -> None:
        self._explainers = tuple(explainers)
        self._classes = dict(classes)
        self._settings = settings
        count = len(self._explainers)
        streams = len(SOURCES) * max(1, count * len(OF_ONE) + count * (count - 1) // 2)
        halves = 2 if self._classes else 1
        self._level = settings.false_alarms / halves / streams
        self._class_level = (
            settings.false_alarms / halves / (len(SOURCES) * max(1, count * len(OF_ONE) * len(self._classes)))
        )
        self._lock = threading.Lock()
        self._means: dict[tuple[str, str], _MeanMaps] = {}
        self._streams: dict[StreamKey, Stream] = {}

    def add(self, source: str, target: int, maps: Mapping[str, FloatArray], counted: frozenset[str]) -> None:
        """Takes maps of one picture and class.

        Args:
            source: One of `SOURCES`.
            target: The class that is explained.
            maps: Maps (H, W) by explainer. Those that are the same all over have no shape, and do not count.
            counted: The explainers whose maps count by themselves; agreement counts where one of the two does.
        """
        shapes = {name: shape for name in self._explainers if name in maps and (shape := shape_of(maps[name]))}
        with self._lock:
            for name, shape in shapes.items():
                if name in counted:
                    self._add_one(source, target, name, shape)
            for one, two in itertools.combinations(shapes, 2):
                first, second = shapes[one].coarse, shapes[two].coarse
                if {one, two} & counted and first is not None and second is not None:
                    self._put(StreamKey(source, one, f"agreement/{two}"), float(first @ second))

    def comparisons(self) -> Iterator[tuple[StreamKey, Comparison]]:
        """The latest comparison of each stream that has one; those of single classes only where they find drift."""
        with self._lock:
            found = [(key, stream.comparison) for key, stream in self._streams.items()]
        for key, comparison in found:
            if comparison is not None and (not key.class_name or comparison.drifted):
                yield key, comparison

    def _add_one(self, source: str, target: int, name: str, shape: MapShape) -> None:
        means = self._means.setdefault((source, name), _MeanMaps(max(_FEWEST, self._settings.window // 2)))
        typicality = means.typicality(target, shape.coarse)
        values = (shape.concentration, shape.centre_x, shape.centre_y, shape.border, typicality)
        for statistic, value in zip(OF_ONE, values, strict=True):
            if value is not None:
                self._put(StreamKey(source, name, statistic), value)
                if target in self._classes:
                    self._put(StreamKey(source, name, statistic, self._classes[target]), value)

    def _put(self, key: StreamKey, value: float) -> None:
        if key not in self._streams:
            level = self._class_level if key.class_name else self._level
            self._streams[key] = Stream(self._settings.window, level)
        self._streams[key].put(value)
