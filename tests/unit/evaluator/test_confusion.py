"""ConfusionCounts by class."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xai_sidecar.evaluator.confusion import ConfusionCounts, Counts
from xai_sidecar.evaluator.records import SampleKey

CLASSES = 6


def key(number):
    return SampleKey(f"r{number // 2}", number % 2)


def test_on_paper():
    # Cat 0, dog 1, bird 2, fish 3.
    outcomes = ConfusionCounts(4)
    outcomes.put(key(0), [0], [0])
    outcomes.put(key(1), [0], [1])
    outcomes.put(key(2), [1], [1, 2])
    outcomes.put(key(3), [0, 1], [0])
    assert outcomes.count == 4
    assert outcomes.counts(0) == Counts(tp=2, fp=1, fn=0, tn=1)
    assert outcomes.counts(1) == Counts(tp=1, fp=1, fn=1, tn=1)
    assert outcomes.counts(2) == Counts(tp=0, fp=0, fn=1, tn=3)
    assert outcomes.counts(3) == Counts(tp=0, fp=0, fn=0, tn=4)
    assert outcomes.rest([0]) == Counts(tp=1, fp=1, fn=2, tn=8)
    assert outcomes.rest([1, 3, 3]) == Counts(tp=2, fp=1, fn=1, tn=4)
    assert outcomes.rest([]) == Counts(tp=3, fp=2, fn=2, tn=9)
    assert outcomes.rest(range(4)) == Counts(0, 0, 0, 0)


def test_what_was_likelier_to_be_sampled_counts_for_less():
    outcomes = ConfusionCounts(2, one_class=True)
    for number, (positive, class_id, weight) in enumerate([(0, 0, 1.5), (0, 1, 0.25), (1, 1, 0.5), (0, 0, 1.0)]):
        outcomes.put(key(number), [positive], [class_id], weight)
    assert outcomes.counts(0) == Counts(tp=2.5, fp=0.25, fn=0, tn=0.5)
    assert outcomes.rest([0]) == Counts(tp=0.5, fp=0, fn=0.25, tn=2.5)
    accuracy = outcomes.accuracy()
    assert (accuracy.picture_count, accuracy.share) == (4, 3 / 3.25)
    assert accuracy.classes == ((0, (2, 1, 0, 1)), (1, (1, 0, 1, 2)))
    assert accuracy.weighted == (outcomes.counts(0), outcomes.counts(1))
    assert [(each.precision, each.recall) for each in accuracy.weighted] == [(2.5 / 2.75, 1), (1, 0.5 / 0.75)]
    outcomes.put(key(1), [0], [0], 0.25)
    assert outcomes.accuracy().share == 1
    nothing = Counts(0, 0, 0, 1)
    assert (nothing.precision, nothing.recall) == (None, None)


def test_accuracy_on_paper():
    """One class is right if it applies; several, if they are exactly those that apply."""
    for one_class, right in ((True, 3), (False, 2)):
        outcomes = ConfusionCounts(5, one_class)
        assert outcomes.accuracy() is None
        for number, (positive, class_ids) in enumerate([(0, [0]), (3, [0, 3]), (0, [1]), (0, [0])]):
            outcomes.put(key(number), [positive], class_ids)
        accuracy = outcomes.accuracy()
        assert (accuracy.picture_count, accuracy.share) == (4, right / 4)
        assert accuracy.classes == ((0, (2, 1, 1, 0)), (1, (0, 0, 1, 3)), (3, (1, 0, 0, 3)))
    outcomes.put(key(3), [0, 4], [0, 4])
    assert outcomes.accuracy().share == 2 / 4
    outcomes.put(key(4), [], [4])
    assert outcomes.accuracy().share == 2 / 5


def test_the_classes_of_the_most_samples_are_listed():
    outcomes = ConfusionCounts(1000)
    for number in range(150):
        outcomes.put(key(number), [number], [number] if number < 10 else [999])
    listed = outcomes.accuracy().classes
    assert len(listed) == 100
    assert [class_id for class_id, _ in listed[:4]] == [999, 0, 1, 2]
    assert listed[0][1] == Counts(0, 0, 140, 10)


def test_a_new_truth_replaces_the_former_whole():
    outcomes = ConfusionCounts(3)
    outcomes.put(key(0), [0], [0, 1])
    outcomes.put(key(0), [0], [2])
    assert [outcomes.counts(each) for each in range(3)] == [(0, 1, 0, 0), (0, 0, 0, 1), (0, 0, 1, 0)]
    assert outcomes.count == 1


def test_a_sample_without_known_classes_counts_for_nothing():
    outcomes = ConfusionCounts(2)
    outcomes.put(key(0), [0], [])
    assert (outcomes.count, outcomes.counts(0)) == (0, (0, 0, 0, 0))
    outcomes.put(key(0), [0], [0])
    outcomes.put(key(0), [0], [])
    assert (outcomes.count, outcomes.rest([])) == (0, (0, 0, 0, 0))


def test_nothing_predicted_is_a_prediction():
    outcomes = ConfusionCounts(2)
    outcomes.put(key(0), [], [1])
    assert (outcomes.counts(0), outcomes.counts(1)) == ((0, 0, 0, 1), (0, 0, 1, 0))


@pytest.mark.parametrize(("positives", "class_ids"), [([3], [0]), ([0], [3]), ([-1], [0])])
def test_a_class_that_there_is_not(positives, class_ids):
    outcomes = ConfusionCounts(3)
    outcomes.put(key(0), [1], [1])
    with pytest.raises(ValueError, match=r"no class (3|-1) among 3"):
        outcomes.put(key(0), positives, class_ids)
    assert outcomes.counts(1) == (1, 0, 0, 0)


CLASS_IDS = st.lists(st.integers(0, CLASSES - 1), max_size=4)


@given(
    st.lists(st.tuples(st.integers(0, 9), st.none() | st.tuples(CLASS_IDS, CLASS_IDS)), max_size=40),
    st.sets(st.integers(0, CLASSES - 1)),
)
def test_against_counting_class_by_class(steps, apart):
    outcomes, kept = ConfusionCounts(CLASSES), {}
    for number, what in steps:
        kept.pop(number, None)
        if what is None:
            outcomes.remove(key(number))
        else:
            outcomes.put(key(number), *what)
            if what[1]:
                kept[number] = what
    tables = []
    for class_id in range(CLASSES):
        pairs = [(class_id in positives, class_id in class_ids) for positives, class_ids in kept.values()]
        tables.append([pairs.count(pair) for pair in ((True, True), (True, False), (False, True), (False, False))])
        assert outcomes.counts(class_id) == tuple(tables[-1])
    others = [table for class_id, table in enumerate(tables) if class_id not in apart]
    assert outcomes.rest(apart) == tuple(sum(column) for column in zip([0] * 4, *others, strict=True))
    assert outcomes.count == len(kept)
    right = [set(positives) == set(class_ids) for positives, class_ids in kept.values()]
    accuracy = outcomes.accuracy()
    assert accuracy is None if not kept else accuracy.share == sum(right) / len(right)
    if kept:
        assert dict(accuracy.classes) == {each: tuple(table) for each, table in enumerate(tables) if any(table[:3])}
