"""Differences of scores on the same pictures."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from xai_sidecar.evaluator.records import SampleKey


class ScoreArrays(NamedTuple):
    """Scores of some pictures as arrays (n,), by rising keys.

    Attributes:
        keys: Hashes of the samples' keys, 64 bits.
        values: The scores.
        measured: When each was measured, as Unix time in seconds.
    """

    keys: NDArray[np.int64]
    values: NDArray[np.float64]
    measured: NDArray[np.float64]

    @classmethod
    def of(cls, scores: Iterable[tuple[SampleKey, float, float]]) -> ScoreArrays:
        """The arrays of scores, each a key, a value and when it was measured."""
        rows = [(hash(key), value, measured) for key, value, measured in scores]
        rows.sort()
        columns = zip(*rows, strict=True) if rows else ((), (), ())
        keys, values, measured = columns
        return cls(np.array(keys, np.int64), np.array(values, np.float64), np.array(measured, np.float64))

    def less(self, other: ScoreArrays) -> tuple[float, float | None, int, float] | None:
        """Statistics of these scores less those of another one, on the pictures that both have.

        Returns:
            Mean of the differences, its standard error (None of one picture), how many there are, and when the latest
            of the scores was measured; None if there are none.
        """
        if not len(self.keys) or not len(other.keys):
            return None
        places = np.minimum(np.searchsorted(other.keys, self.keys), len(other.keys) - 1)
        both = other.keys[places] == self.keys
        count = int(both.sum())
        if not count:
            return None
        differences = self.values[both] - other.values[places[both]]
        error = float(differences.std(ddof=1)) / math.sqrt(count) if count > 1 else None
        updated = max(float(self.measured[both].max()), float(other.measured[places[both]].max()))
        return float(differences.mean()), error, count, updated
