"""Which requests are rather sampled than others."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xai_sidecar.evaluator.preference import LEAST, MOST, Preference, Seen, seen
from xai_sidecar.evaluator.sampling import Draw, draw, kept_draw


def array(*values):
    return np.array(values, np.float32)


def test_doubt_is_what_the_first_lacks_of_a_lead():
    assert seen(array(0, 2, 1), array(0.1, 0.6, 0.3), None) == (1, pytest.approx(0.7))
    assert seen(array(3, 0), array(1, 0), None) == (0, 0)
    assert seen(array(3, 3), array(0.5, 0.5), None) == (0, 1)
    assert seen(array(3), array(1), None) == (0, 0), "there is no other class"


def test_doubt_where_classes_count_by_themselves_is_how_near_one_is_to_counting():
    assert seen(array(2, 0), array(0.9, 0.1), 0.5) == (0, pytest.approx(0.2))
    assert seen(array(2, 0), array(0.9, 0.5), 0.5) == (0, 1)
    assert seen(array(2, 0), array(1, 0), 0.25) == (0, pytest.approx(2 / 3))


def test_an_answer_that_is_no_number_is_doubtful():
    assert seen(array(math.nan, 0), array(math.nan, math.nan), None).doubt == 1


def settled(*shares, doubts=None):
    """A preference after 4000 requests with pictures of so many of each class, and the mean of its factors by class."""
    preference, found = Preference(), [[] for _ in shares]
    classes = np.random.default_rng(3).choice(len(shares), 4000, p=shares)
    for number, target in enumerate(classes.tolist()):
        factor = preference.factor([Seen(target, doubts[target] if doubts else 0.0)])
        if number >= 1000:
            found[target].append(factor)
    return preference, [float(np.mean(each)) if each else math.nan for each in found]


def test_rare_classes_are_wanted_by_the_root_of_how_rare_they_are():
    # Shares 0.64, 0.32, 0.04: roots 0.8, 0.566, 0.2, which add up to 1.566. Over the roots again: 0.8, 1.1, 3.2.
    _, found = settled(0.64, 0.32, 0.04)
    roots = np.sqrt([0.64, 0.32, 0.04])
    assert found == pytest.approx(1 / roots / roots.sum(), rel=0.1)


def test_what_is_undecided_is_wanted_twice_as_much():
    _, found = settled(0.5, 0.5, doubts=[0.0, 1.0])
    assert found == pytest.approx([2 / 3, 4 / 3], rel=0.1)


def test_no_class_is_starved_and_none_is_all_that_is_sampled():
    preference, (often, rare) = settled(0.99, 0.01)
    assert LEAST < often < 1 < MOST - 0.1 < rare <= MOST
    assert preference.factor([Seen(7777, 1.0)]) == MOST, "of a class that has never been"
    _, found = settled(0.75, *[0.25 / 250] * 250)
    assert found[0] == pytest.approx(LEAST, abs=0.01)


def test_a_request_is_wanted_as_much_as_the_most_wanted_of_its_pictures():
    one, _ = settled(0.9, 0.1)
    other, _ = settled(0.9, 0.1)
    both = one.factor([Seen(0, 0.0), Seen(1, 0.0)])
    other._count(0)
    assert both == other.factor([Seen(1, 0.0)])
    assert both > 1.5


def test_what_has_become_frequent_is_rare_no_more():
    preference, _ = settled(0.98, 0.02)
    rare = preference.factor([Seen(1, 0.0)])
    for _ in range(1000):
        preference.factor([Seen(1, 0.0)])
    assert rare > 2
    assert preference.factor([Seen(1, 0.0)]) == pytest.approx(1, abs=0.25)
    assert preference.factor([Seen(0, 0.0)]) == MOST
    assert len(preference._counts) == 2


# ------------------------------------------------------------------------------------------------ drawing


def factor_of(value):
    return lambda: value


def test_by_hand():
    # Odds of 1 to 3, doubled: 2 to 3, so 0.4; 0.25 over that is 0.625.
    assert draw(0.39, 0.25, factor_of(2.0)) == Draw(pytest.approx(0.4), 0.625, False)
    assert draw(0.41, 0.25, factor_of(2.0)) is None
    # Halved: 0.5 to 3, so 1/7. What lies below is sampled whatever it is.
    assert draw(0.142, 0.25, factor_of(2.0)).typical
    assert draw(0.142, 0.25, factor_of(LEAST)).weight == pytest.approx(1.75, abs=2**-16)


def test_all_alike():
    assert draw(0.1, 0.25, None) == Draw(0.25, 1.0, True)
    assert draw(0.25, 0.25, None) is None


@given(st.floats(0, 1, exclude_max=True), st.floats(1e-3, 1), st.floats(LEAST, MOST))
def test_of_a_sample_in_the_store_the_same_is_known(place, rate, factor):
    drawn = draw(place, rate, factor_of(factor))
    if drawn is not None and abs(place - rate / (2 - rate)) > 1e-4:
        assert kept_draw(place, drawn.inclusion, drawn.weight) == drawn
    assert kept_draw(place, None, 1.0).typical


@pytest.mark.parametrize("factor", [LEAST, 1.0, MOST])
def test_all_or_nothing(factor):
    assert draw(1 - 2**-53, 1.0, factor_of(factor)) == Draw(1.0, 1.0, True)
    assert draw(0.0, 0.0, factor_of(factor)) is None


def test_nothing_is_looked_at_that_could_not_be_sampled():
    def never():
        raise AssertionError

    assert draw(0.5, 0.1, never) is None
