"""Differences of scores on the same pictures."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xai_sidecar.evaluator.records import SampleKey
from xai_sidecar.evaluator.weighted import ScoreStatistics, statistics_of


class ScoreArrays(NamedTuple):
    """Scores of some pictures as arrays (n,), by rising keys.

    Attributes:
        keys: Hashes of the samples' keys, 64 bits.
        values: The scores.
        measured: When each was measured, as Unix time in seconds.
        weights: What each counts for.
    """

    keys: NDArray[np.int64]
    values: NDArray[np.float64]
    measured: NDArray[np.float64]
    weights: NDArray[np.float64]

    @classmethod
    def of(cls, scores: Iterable[tuple[SampleKey, float, float, float]]) -> ScoreArrays:
        """The arrays of scores, each a key, a value, when it was measured, and its weight."""
        rows = [(hash(key), *rest) for key, *rest in scores]
        rows.sort()
        keys, *others = zip(*rows, strict=True) if rows else ((), (), (), ())
        return cls(np.array(keys, np.int64), *(np.array(each, np.float64) for each in others))

    def less(self, other: ScoreArrays) -> ScoreStatistics | None:
        """Statistics of these scores less those of another one, on the pictures that both have; None of none."""
        if not len(self.keys) or not len(other.keys):
            return None
        places = np.minimum(np.searchsorted(other.keys, self.keys), len(other.keys) - 1)
        both = other.keys[places] == self.keys
        if not both.any():
            return None
        differences = self.values[both] - other.values[places[both]]
        updated = max(float(self.measured[both].max()), float(other.measured[places[both]].max()))
        return statistics_of(differences, self.weights[both], updated)
