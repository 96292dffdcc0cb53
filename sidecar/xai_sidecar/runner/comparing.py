"""Two runs side by side: which scores differ beyond chance, from the differences on the same pictures."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from xai_client.command.tables import table
from xai_sidecar.errors import ConfigError
from xai_sidecar.evaluator.comparison import goodness
from xai_sidecar.metrics.discovery import installed_metrics
from xai_sidecar.runner.folder import RunFolder

LEVEL = 0.05
"""Probability of telling a difference of anything where there is none."""

_Values: TypeAlias = NDArray[np.float64]

_Scores: TypeAlias = Mapping[tuple[str, str], Mapping[tuple[str, str], float]]
"""Scores by explainer and metric, and by picture and class."""


@dataclass(frozen=True)
class Difference:
    """How the scores of an explainer by a metric differ between two runs.

    Attributes:
        explainer: Name of the explainer or control.
        metric: Name of the metric.
        before: Mean of the first run.
        after: Mean of the second run, of the same pictures.
        count: Pictures that have a score in both.
        p_value: Probability of as large a difference by chance, by a paired t test; where all differences are the same
            and not 0, by a sign test; NaN of a single picture.
        certain: Whether it is beyond chance, all comparisons taken together.
        better: Whether the second run is better; None where it is neither.
    """

    explainer: str
    metric: str
    before: float
    after: float
    count: int
    p_value: float
    certain: bool = False
    better: bool | None = None


def compare(first: Path, second: Path) -> list[Difference]:
    """Compares the scores of two runs, picture by picture: of its classes, those that both runs explained.

    Several classes of a picture are no more pictures: their scores are not independent, and their mean counts once.

    Args:
        first: The folder of the run before.
        second: The folder of the run after.

    Returns:
        A difference for each explainer and metric that both have, those beyond chance by Holm's method (1979): the
        probability that any of them is told where there is none is 5 % at the most.

    Raises:
        ConfigError: One of them is no run with results, or they have no map in common.
    """
    scores = [_scores(RunFolder(each)) for each in (first, second)]
    found = []
    for key in (each for each in scores[0] if each in scores[1]):
        one, other = (run[key] for run in scores)
        both = one.keys() & other.keys()
        if both and key[1] in installed_metrics():
            found.append(_difference(*key, _by_picture(one, both), _by_picture(other, both)))
    if not found:
        raise ConfigError(f"{first} and {second} have no scores of the same pictures, classes, explainers and metrics.")
    return _certain(found)


def _scores(folder: RunFolder) -> _Scores:
    folder.record()
    path = folder.file("scores.csv")
    found: dict[tuple[str, str], dict[tuple[str, str], float]] = {}
    try:
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                if row["value"]:
                    of_pair = found.setdefault((row["explainer"], row["metric"]), {})
                    of_pair[row["name"], row["target"]] = float(row["value"])
    except (OSError, KeyError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read: {error}. Let the run come to its end.") from error
    return found


def _by_picture(scores: Mapping[tuple[str, str], float], keys: Iterable[tuple[str, str]]) -> _Values:
    """The mean score of each picture over its classes, in an order that depends on the keys alone."""
    pictures: dict[str, list[float]] = {}
    for name, target in sorted(keys):
        pictures.setdefault(name, []).append(scores[name, target])
    return np.array([np.mean(each) for each in pictures.values()])


def _difference(explainer: str, metric: str, before: _Values, after: _Values) -> Difference:
    differences = after - before
    mean = float(differences.mean())
    better = None
    if mean:
        kind = installed_metrics()[metric]
        better = goodness(kind, float(after.mean())) > goodness(kind, float(before.mean()))
    return Difference(
        explainer,
        metric,
        float(before.mean()),
        float(after.mean()),
        len(differences),
        _p_value(differences),
        better=better,
    )


def _p_value(differences: _Values) -> float:
    from scipy.special import stdtr

    count = len(differences)
    if not differences.any():
        return 1.0
    if count < 2:
        return math.nan
    spread = float(differences.std(ddof=1))
    if spread <= 1e-12 * abs(float(differences.mean())):
        return float(2 * 0.5**count)
    t = float(differences.mean()) / (spread / math.sqrt(count))
    return float(2 * stdtr(count - 1, -abs(t)))


def _certain(found: Sequence[Difference]) -> list[Difference]:
    """Marks those that are beyond chance, in the order given."""
    order = sorted(range(len(found)), key=lambda place: (math.isnan(found[place].p_value), found[place].p_value))
    certain = set()
    for rank, place in enumerate(order):
        if not found[place].p_value <= LEVEL / (len(found) - rank):
            break
        certain.add(place)
    return [replace(each, certain=place in certain) for place, each in enumerate(found)]


def comparison_lines(differences: Sequence[Difference]) -> list[str]:
    """What differs, as lines of text."""
    certain = [each for each in differences if each.certain]
    if not certain:
        least = min(each.count for each in differences)
        return [f"no score differs beyond chance: {len(differences)} compared, each on {least:,} pictures or more"]
    header = ("explainer", "metric", "before", "after", "", "pictures", "p")
    rows = [
        (
            each.explainer,
            each.metric,
            f"{each.before:.4f}",
            f"{each.after:.4f}",
            "better" if each.better else "worse",
            f"{each.count:,}",
            f"{each.p_value:.1e}",
        )
        for each in sorted(certain, key=lambda each: each.p_value)
    ]
    return [
        f"{len(certain)} of {len(differences)} scores differ beyond chance:",
        *table(header, rows, right=(2, 3, 5, 6)),
    ]
