"""Means of scores of unequal weights."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from xai_sidecar.evaluator.intervals import interval
from xai_sidecar.evaluator.preference import Preference, Seen
from xai_sidecar.evaluator.records import SampleKey
from xai_sidecar.evaluator.sampling import draw
from xai_sidecar.evaluator.weighted import ScoreStatistics, Weights, rounded, statistics_of
from xai_sidecar.evaluator.windows import Window, Windows
from xai_sidecar.metrics.discovery import installed_metrics

SRG, POINTING = (installed_metrics()[name] for name in ("faithfulness/srg", "localization/pointing_game"))


def key(number):
    return SampleKey(f"r{number}", 0)


def windowed(values, weights):
    window = Window(1000, 1e9)
    for number, (value, weight) in enumerate(zip(values, weights, strict=True)):
        window.put(key(number), number, value, number % 2, number, weight)
    return window.statistics(0)


def by_hand(values, weights):
    """As the docstring of `weighted` has it, in fractions."""
    y, w = ([Fraction(each) for each in them] for them in (values, weights))
    total, squares, cubes = (sum(each**power for each in w) for power in (1, 2, 3))
    mean = sum(a * b for a, b in zip(w, y, strict=True)) / total
    spread = sum((a * (b - mean)) ** 2 for a, b in zip(w, y, strict=True)) / total**2
    corrected = spread * squares / (squares - 2 * cubes / total + squares**2 / total**2)
    return float(mean), math.sqrt(corrected), float(total), float(total**2 / squares)


def test_on_paper():
    # Twice 1 and once 4: the mean is 2. Squares of weight times distance: 4·1 + 1·4 = 8, over 9. Their sums
    # of powers are 3, 5, 9; 5 / (5 - 6 + 25/9) = 45/16. So the variance is 8/9 · 45/16 = 5/2.
    for found in (windowed([1.0, 4.0], [2.0, 1.0]), statistics_of(np.array([1.0, 4]), np.array([2.0, 1]), 1.0)):
        assert (found.mean, found.count, found.updated) == (2, 2, 1)
        assert found.standard_error == pytest.approx(math.sqrt(2.5), rel=1e-12)
        assert (found.total_weight, found.effective_count) == (3, pytest.approx(9 / 5))


def test_what_all_weighs_alike_counts_alike():
    values = [0.1, 0.7, 0.3]
    plain = windowed(values, [1.0] * 3)
    assert (plain.weights, plain.total_weight, plain.effective_count) == (None, 3, 3)
    heavy = windowed(values, [1.75] * 3)
    assert (heavy.mean, heavy.standard_error) == (plain.mean, plain.standard_error)
    assert heavy.weights == Weights(5.25, 3)


def scores(least):
    """Scores with weights up to 4."""
    value = st.integers(-1000, 1000).map(lambda each: each / 1000)
    weight = st.integers(int(least * 2**16), 2**18).map(lambda units: units / 2**16)
    return st.lists(st.tuples(value, weight), min_size=2, max_size=30)


@given(scores(least=2**-16))
def test_windows_as_by_hand(scores):
    values, weights = zip(*scores, strict=True)
    mean, error, total, effective = by_hand(values, weights)
    found = windowed(values, weights)
    assert found.mean == pytest.approx(mean, rel=1e-15)
    assert found.standard_error == pytest.approx(error, rel=1e-12, abs=1e-300)
    assert (found.total_weight, found.effective_count) == (total, pytest.approx(effective, rel=1e-15))


@given(scores(least=2**-8))
def test_arrays_as_by_hand(scores):
    """In doubles, of weights that differ by 1,024 at the most; those of samples differ by 8.

    What all but one sample weigh is what is left of squares, so that it has half their digits.
    """
    values, weights = zip(*scores, strict=True)
    mean, error, total, effective = by_hand(values, weights)
    found = statistics_of(np.array(values), np.array(weights), 0.0)
    assert found.mean == pytest.approx(mean, abs=1e-12)
    assert found.standard_error == pytest.approx(error, rel=1e-6, abs=1e-9)
    assert (found.total_weight, found.effective_count) == pytest.approx((total, effective), rel=1e-12)


def test_what_comes_and_goes_leaves_nothing_of_its_weight():
    window = Window(2, 1e9)
    for number in range(50):
        window.put(key(number), number, 0.1 * number, number % 3, number, rounded(0.3 + number / 7))
    window.put(key(48), 48, 0.25, 0, 60, 1.0)
    window.put(key(49), 49, 0.75, 1, 61, 1.0)
    assert window.statistics(0) == ScoreStatistics(0.5, 0.25, 2, 61)


def test_differences_are_of_the_same_weights():
    windows = Windows(10, 1e9)
    for number, (one, other, weight) in enumerate([(0.5, 0.25, 2.0), (1.0, 0.0, 1.0), (0.5, 0.5, 1.0)]):
        windows.put("a", "m", key(number), number, one, 0, 0, weight)
        windows.put("b", "m", key(number), number, other, 0, 0, weight)
    windows.put("a", "m", key(9), 9, 9.0, 0, 0, 4.0)  # of one alone
    found = windows.differences("a", "b", "m", 9)
    mean, error, *weights = by_hand([0.25, 1.0, 0.0], [2.0, 1.0, 1.0])
    assert (found.mean, found.count) == (pytest.approx(mean), 3)
    assert found.standard_error == pytest.approx(error)
    assert found.weights == pytest.approx(tuple(weights))


def test_an_interval_goes_by_the_effective_count():
    weighted = ScoreStatistics(0.5, 0.05, 40, 0.0, Weights(40.0, 10.0))
    assert interval(SRG, weighted) == interval(SRG, ScoreStatistics(0.5, 0.05, 10, 0.0))
    hits = ScoreStatistics(1.0, 0.0, 40, 0.0, Weights(40.0, 20.0))
    assert interval(POINTING, hits) == interval(POINTING, ScoreStatistics(1.0, 0.0, 20, 0.0))
    alike = ScoreStatistics(0.3, 0.0, 40, 0.0, Weights(40.0, 20.0))
    assert interval(SRG, alike) == interval(SRG, ScoreStatistics(0.3, 0.0, 20, 0.0))


@pytest.mark.parametrize("weight", [1e-9, 0.3, 1.0, 1.9])
def test_a_weight_is_a_whole_number_of_its_unit(weight):
    assert rounded(weight) * 2**16 == round(rounded(weight) * 2**16) >= 1
    assert abs(rounded(weight) - weight) <= 2**-16


# ------------------------------------------------------------------------------------------------ what it is for


class Traffic:
    """Requests of twenty classes, the rarest a twentieth as often as the most frequent, sampled by preference.

    Attributes:
        scores: What a map of each would score: less of rare classes, and less where the prediction is doubtful.
        hits: Whether it would hit: likewise.
        sampled: Places and weights of those that were sampled.
    """

    def __init__(self, count, rate, seed):
        random = np.random.default_rng(seed)
        often = 1 / np.arange(1, 21)
        classes, doubts = random.choice(20, count, p=often / often.sum()), random.beta(0.6, 2.5, count)
        self.scores = 0.6 - 0.01 * classes - 0.4 * doubts + random.normal(0, 0.1, count)
        self.hits = (random.random(count) < 0.9 - 0.6 * doubts).astype(float)
        preference, self.sampled, self.classes = Preference(), [], classes
        for number, each in enumerate(zip(classes.tolist(), doubts.tolist(), strict=True)):
            drawn = draw(random.random(), rate, lambda each=each: preference.factor([Seen(*each)]))
            if drawn is not None:
                self.sampled.append((number, drawn.weight, drawn.typical))


@pytest.fixture(scope="module")
def traffic():
    return Traffic(120_000, 0.1, 20)


def test_as_much_is_sampled_as_without_and_more_of_what_is_rare(traffic):
    assert len(traffic.sampled) == pytest.approx(12_000, rel=0.05)
    places = np.array([each[0] for each in traffic.sampled])
    shares = np.bincount(traffic.classes[places], minlength=20) / np.bincount(traffic.classes, minlength=20)
    assert shares[0] < 0.08, "of the most frequent"
    assert shares[10:].min() > 0.12
    weights = np.array([each[1] for each in traffic.sampled])
    assert 0.25 <= weights.min() <= weights.max() <= 1.9, "0.9/4 + 0.1 and 0.9/0.5 + 0.1 at the most"


@pytest.mark.parametrize("what", ["scores", "hits"])
def test_means_stay_what_they_are(traffic, what):
    """Within two of their standard errors; without weights they would be off by more."""
    everything = getattr(traffic, what)
    places, weights, _ = (np.array(each) for each in zip(*traffic.sampled, strict=True))
    found = statistics_of(everything[places], weights, 0.0)
    assert abs(found.mean - everything.mean()) < 2 * found.standard_error
    assert abs(everything[places].mean() - everything.mean()) > 2.5 * found.standard_error


def test_typical_ones_are_sampled_alike(traffic):
    """For drift: of every class the same share."""
    typical = np.array([place for place, _, typical in traffic.sampled if typical])
    counts, of = (np.bincount(traffic.classes[each], minlength=20) for each in (typical, slice(None)))
    expected = of * len(typical) / of.sum()
    assert ((counts - expected) ** 2 / expected).sum() < 43.8, "chi-square with 19 degrees is above once in a thousand"
    assert len(typical) == pytest.approx(120_000 * 0.05 / 0.95, rel=0.05)


@pytest.mark.parametrize(("what", "count"), [("scores", 12), ("scores", 100), ("hits", 12), ("hits", 100)])
def test_intervals_cover_the_mean_of_all(traffic, what, count):
    """95 times in 100; of 1000 intervals fewer than 925 cover it once in a thousand times, if 0.95 of them should."""
    everything, metric = getattr(traffic, what), SRG if what == "scores" else POINTING
    places, weights, _ = (np.array(each) for each in zip(*traffic.sampled, strict=True))
    random, covering = np.random.default_rng(count), 0
    for _ in range(1000):
        some = random.integers(0, len(places), count)
        found = interval(metric, statistics_of(everything[places[some]], weights[some], 0.0))
        covering += found.low <= everything.mean() <= found.high
    assert binom.cdf(925, 1000, 0.95) < 1e-3
    assert covering > 925
