"""What is wanted of a picture: ranking, targets, and when to explain at all."""

import numpy as np
import pytest

from xai_sidecar.explainers.activations import sigmoid, softmax
from xai_sidecar.serving.plan import Condition, Targets, positives, ranked


def array(*values):
    return np.array(values, np.float32)


def test_ties_are_ranked_by_class_id():
    assert ranked(array(0.2, 0.4, 0.2, 0.4)).tolist() == [1, 3, 0, 2]
    assert ranked(np.full(1000, 0.001, np.float32)).tolist() == list(range(1000))
    assert ranked(array(0.5)).dtype == np.int32


@pytest.mark.parametrize("count", [1, 2, 5, 39, 40, 41])
def test_the_first_of_a_ranking_are_those_of_the_whole(count):
    chance = np.random.default_rng(count)
    for _ in range(20):
        logits = chance.integers(-3, 3, 40).astype(np.float32)  # with many ties
        expected = sorted(range(40), key=lambda each: (-logits[each], each))[:count]
        first = ranked(logits, count)
        assert first.tolist() == expected
        assert first.dtype == np.int32
        assert positives(logits, logits, None).tolist() == expected[:1]


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (Targets(), [1]),
        (Targets(top_count=3), [1, 3, 0]),
        (Targets(class_ids=(2, 0)), [2, 0]),
        (Targets(min_probability=0.2), [1, 3, 0]),
        (Targets(min_probability=0.25), [1, 3]),
        (Targets(min_probability=0.5), []),
        (Targets(min_probability=0.01), [1, 3, 0]),  # the limit
    ],
)
def test_targets(targets, expected):
    probabilities = array(0.2, 0.35, 0.15, 0.3)
    found = targets.of(np.log(probabilities), probabilities, 3)
    assert found.tolist() == expected
    assert found.dtype == np.int32


@pytest.mark.parametrize(
    ("activation", "logits", "targets", "expected"),
    [
        (sigmoid, (18, 40, 5, 25), Targets(), [1]),
        (sigmoid, (18, 40, 5, 25), Targets(top_count=2), [1, 3]),
        (sigmoid, (18, 40, 5, 25), Targets(min_probability=1.0), [1, 3]),  # the limit cuts off the least of three
        (softmax, (-130, 10, -190, -150), Targets(top_count=4), [1, 0, 3, 2]),
        (softmax, (-190, -130, 10, -150), Targets(min_probability=1e-30), [2]),
        (sigmoid, (30, 40, 40, 25), Targets(top_count=3), [1, 2, 0]),  # a tie of logits goes by class id
    ],
)
def test_saturated_probabilities_are_ranked_by_their_logits(activation, logits, targets, expected):
    logits = array(*logits)
    probabilities = np.asarray(activation(logits), np.float32)
    assert targets.of(logits, probabilities, 2).tolist() == expected


def test_what_counts_as_predicted():
    logits, probabilities = array(3, 0, -0.01, 0.5), array(0.9526, 0.5, 0.4975, 0.6225)
    assert positives(logits, probabilities, None).tolist() == [0]
    assert positives(logits, probabilities, 0.5).tolist() == [0, 1, 3]  # equal is enough
    assert positives(logits, probabilities, 0.99).tolist() == []
    assert positives(array(18, 40), array(1, 1), None).tolist() == [1]


@pytest.mark.parametrize(
    ("targets", "fewest", "most"),
    [
        (Targets(), 1, 1),
        (Targets(top_count=3), 3, 3),
        (Targets(class_ids=(2, 0)), 2, 2),
        (Targets(min_probability=0.2), 1, 7),
    ],
)
def test_how_many_targets_there_can_be(targets, fewest, most):
    assert (targets.fewest, targets.most(7)) == (fewest, most)


# ------------------------------------------------------------------------------------------------ conditions


@pytest.mark.parametrize(
    ("condition", "top_probability", "percentile", "holds"),
    [
        (Condition(), 1.0, None, True),
        (Condition(), 1.0, 100.0, True),
        (Condition(top_probability_below=0.5), 0.25, None, True),
        (Condition(top_probability_below=0.5), 0.5, None, False),  # equal is not below
        (Condition(top_probability_below=0.5), 0.75, 0.0, False),
        (Condition(ood_percentile_below=5), 1.0, 4.0, True),
        (Condition(ood_percentile_below=5), 0.0, 5.0, False),
        (Condition(ood_percentile_below=5), 0.0, 6.0, False),
        (Condition(top_probability_below=0.5, ood_percentile_below=5), 0.75, 6.0, False),
        (Condition(top_probability_below=0.5, ood_percentile_below=5), 0.5, 5.0, False),
        (Condition(top_probability_below=0.5, ood_percentile_below=5), 0.25, 6.0, True),
        (Condition(top_probability_below=0.5, ood_percentile_below=5), 0.75, 4.0, True),
        (Condition(top_probability_below=0.5, ood_percentile_below=5), 0.25, 4.0, True),
    ],
)
def test_conditions(condition, top_probability, percentile, holds):
    assert (condition.failure(top_probability, percentile) == "") is holds


def test_a_condition_that_does_not_hold_says_why():
    both = Condition(top_probability_below=0.6, ood_percentile_below=5)
    assert Condition(top_probability_below=0.6).failure(0.91238, 3.0) == (
        "Its condition did not hold: the top probability is 0.9124, not below 0.6."
    )
    assert Condition(ood_percentile_below=5).failure(0.9, 40.0) == (
        "Its condition did not hold: the OoD percentile is 40, not below 5."
    )
    assert both.failure(0.75, 40.0) == (
        "Its condition did not hold: the top probability is 0.75, not below 0.6, and the OoD percentile is 40, "
        "not below 5."
    )


def test_whether_there_is_a_condition():
    assert Condition().always
    assert not Condition(top_probability_below=1).always
    assert not Condition(ood_percentile_below=100).always
