"""Confusion counts: how often each class was predicted rightly and wrongly."""

from __future__ import annotations

import heapq
import threading
from collections import Counter
from collections.abc import Collection, Iterable
from typing import NamedTuple

from xai_sidecar.evaluator.records import SampleKey

_MOST_CLASSES = 100
"""Classes whose counts are listed with the accuracy."""


class Counts(NamedTuple):
    """True and false positives and negatives: positive is a class that was predicted, negative one that was not."""

    tp: float
    fp: float
    fn: float
    tn: float

    @property
    def precision(self) -> float | None:
        """Share of what was predicted that applies; None of nothing."""
        return _share(self.tp, self.fp)

    @property
    def recall(self) -> float | None:
        """Share of what applies that was predicted; None of nothing."""
        return _share(self.tp, self.fn)


class Accuracy(NamedTuple):
    """Share of right predictions.

    Attributes:
        picture_count: Samples whose classes are known, at least 1.
        share: Share of them that was predicted rightly, 0 to 1, by their weights.
        classes: Class id and counts, in samples, of the classes that were predicted or apply, those of the most samples
            first.
        weighted: Of the same classes the counts by the samples' weights: what precision and recall go by.
    """

    picture_count: int
    share: float
    classes: tuple[tuple[int, Counts], ...]
    weighted: tuple[Counts, ...]


class _Classes(NamedTuple):
    """The classes of one sample that are true positives, false positives and false negatives, and its weight."""

    tp: frozenset[int]
    fp: frozenset[int]
    fn: frozenset[int]
    weight: float


class _Tally:
    """Samples by class, true positives, false positives and false negatives, each for so much; exact for weights."""

    def __init__(self) -> None:
        self.total = 0.0
        self.counters: tuple[Counter[int], ...] = (Counter(), Counter(), Counter())

    def add(self, classes: _Classes, amount: float) -> None:
        self.total += amount
        for counter, ids in zip(self.counters, classes[:3], strict=True):
            for class_id in ids:
                counter[class_id] += amount  # type: ignore[assignment]  # typeshed has counters of int alone

    def counts(self, class_ids: Collection[int]) -> Counts:
        tp, fp, fn = (sum(counter[class_id] for class_id in class_ids) for counter in self.counters)
        return Counts(tp, fp, fn, len(class_ids) * self.total - tp - fp - fn)


class ConfusionCounts:
    """Confusion counts over the samples whose true classes are known. It may be used from several threads at once.

    It holds the classes of each sample that were predicted or apply; all others are true negatives.

    Args:
        class_count: The model's classes.
        one_class: Whether a prediction is of one class, and right if that applies; else it is right if it is of exactly
            the classes that apply.
    """

    def __init__(self, class_count: int, one_class: bool = False) -> None:
        self._class_count = class_count
        self._one_class = one_class
        self._lock = threading.Lock()
        self._samples: dict[SampleKey, _Classes] = {}
        self._in_samples, self._by_weight = _Tally(), _Tally()
        self._right = 0.0  # by weight
        self._accuracy: Accuracy | None = None  # None until it is computed anew

    @property
    def count(self) -> int:
        """How many samples there are."""
        with self._lock:
            return len(self._samples)

    def put(self, key: SampleKey, positives: Iterable[int], class_ids: Iterable[int], weight: float = 1.0) -> None:
        """Counts a sample, in place of an earlier report on it.

        Args:
            key: Which sample.
            positives: The classes that were predicted.
            class_ids: The classes that apply. Of none, nothing is known, and the sample is not counted.
            weight: What it counts for; a whole number of 2⁻¹⁶.

        Raises:
            ValueError: The model has no such class.
        """
        predicted, true = frozenset(positives), frozenset(class_ids)
        unknown = [class_id for class_id in predicted | true if not 0 <= class_id < self._class_count]
        if unknown:
            raise ValueError(f"there is no class {min(unknown)} among {self._class_count}")
        with self._lock:
            self._remove(key)
            if true:
                self._samples[key] = classes = _Classes(predicted & true, predicted - true, true - predicted, weight)
                self._count(classes, 1)

    def remove(self, key: SampleKey) -> None:
        """Forgets a sample, if it is there."""
        with self._lock:
            self._remove(key)

    def counts(self, class_id: int) -> Counts:
        """The counts of a class, over all samples, by their weights."""
        with self._lock:
            return self._by_weight.counts([class_id])

    def rest(self, class_ids: Collection[int]) -> Counts:
        """The counts of all classes but some, together, by the samples' weights: each class of each sample is one.

        Args:
            class_ids: The classes of the model that are listed apart.
        """
        apart = frozenset(class_ids)
        with self._lock:
            listed = self._by_weight.counts(apart)
            sums = (sum(counter.values()) for counter in self._by_weight.counters)
            tp, fp, fn = (total - part for total, part in zip(sums, listed, strict=False))
            others = (self._class_count - len(apart)) * self._by_weight.total
        return Counts(tp, fp, fn, others - tp - fp - fn)

    def accuracy(self) -> Accuracy | None:
        """Share of right predictions, and counts by class; None where no sample's classes are known."""
        with self._lock:
            if self._accuracy is None and self._samples:
                often: Counter[int] = sum(self._in_samples.counters, Counter())
                most = heapq.nlargest(_MOST_CLASSES, often, key=lambda class_id: (often[class_id], -class_id))
                share = self._right / self._by_weight.total
                classes = tuple((class_id, self._in_samples.counts([class_id])) for class_id in most)
                weighted = tuple(self._by_weight.counts([class_id]) for class_id in most)
                self._accuracy = Accuracy(len(self._samples), share, classes, weighted)
            return self._accuracy

    def _is_right(self, classes: _Classes) -> bool:
        return bool(classes.tp) if self._one_class else not (classes.fp or classes.fn)

    def _count(self, classes: _Classes, sign: int) -> None:
        self._in_samples.add(classes, sign)
        self._by_weight.add(classes, sign * classes.weight)
        self._right += sign * classes.weight * self._is_right(classes)

    def _remove(self, key: SampleKey) -> None:
        self._accuracy = None
        classes = self._samples.pop(key, None)
        if classes is not None:
            self._count(classes, -1)


def _share(part: float, rest: float) -> float | None:
    return part / (part + rest) if part + rest else None
