"""Which explainer `auto` means."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xai_sidecar.evaluator.choice import Candidate, Reason, choose, composites
from xai_sidecar.evaluator.comparison import goodness, goodness_error
from xai_sidecar.evaluator.quality_table import QualityRow, QualityTable, quality_table
from xai_sidecar.evaluator.weighted import ScoreStatistics
from xai_sidecar.metrics.discovery import installed_metrics

NAIVE, DELETION, INSERTION = "faithfulness/naive", "faithfulness/deletion_auc", "faithfulness/insertion_auc"
IOSR, ROBUSTNESS = "localization/iosr", "robustness"


def known(table, count=50):
    """Estimates from means by explainer, metric, and class if there is one; a pair is mean and count."""

    def estimates(explainer, metric, target):
        found = table.get((explainer, metric) if target is None else (explainer, metric, target))
        if found is None:
            return None
        mean, samples = found if isinstance(found, tuple) else (found, count)
        return ScoreStatistics(mean, None, samples, 0.0)

    return estimates


def auto(
    table, *, seconds=None, weights=None, min_samples=20, budget=None, fallback="rise", target=0, names=("a", "b", "c")
):
    seconds = seconds or dict.fromkeys(names, 0.1)
    candidates = [Candidate(name, took) for name, took in seconds.items()]
    weights = weights or {DELETION: 1, INSERTION: 1}
    return choose(candidates, known(table), weights, min_samples, budget, fallback, target)


@pytest.mark.parametrize(
    ("metric", "mean", "expected", "error"),
    [
        # Ranges: naive -1 to 1, all others 0 to 1; of deletion_auc less is better.
        (NAIVE, -1, 0, 0.05),
        (NAIVE, 0.5, 0.75, 0.05),
        (NAIVE, 1, 1, 0.05),
        (DELETION, 0.25, 0.75, 0.1),
        (DELETION, 0, 1, 0.1),
        (INSERTION, 0.25, 0.25, 0.1),
        (IOSR, 1 + 1e-12, 1, 0.1),
        (ROBUSTNESS, -1e-12, 0, 0.1),
    ],
)
def test_goodness(metric, mean, expected, error):
    assert goodness(installed_metrics()[metric], mean) == expected
    assert goodness_error(installed_metrics()[metric], 0.1) == pytest.approx(error)
    assert goodness_error(installed_metrics()[metric], None) is None


def test_the_table():
    one, other = ScoreStatistics(0.25, 0.1, 30, 5.0), ScoreStatistics(0.5, None, 1, 6.0)
    have = {("rise", DELETION, None): one, ("rise", NAIVE, None): other, ("gradcam", NAIVE, None): one}
    table = quality_table(["rise", "occlusion", "gradcam"], [NAIVE, DELETION], lambda *which: have.get(which))
    assert table == QualityTable(
        (
            QualityRow("rise", NAIVE, other, True, 0.75, None),
            QualityRow("rise", DELETION, one, False, 0.75, 0.1),
            QualityRow("gradcam", NAIVE, one, True, 0.625, 0.05),
        )
    )


def test_the_best_of_the_classes_together():
    # a: 1 - 0.12 = 0.88 and 0.54, so 0.71; b: 0.6 and 0.7, so 0.65; c: 0.5 and 0.5.
    table = {("a", DELETION): (0.12, 300), ("a", INSERTION): (0.54, 212), ("b", DELETION): 0.4, ("b", INSERTION): 0.7}
    table |= {("c", DELETION): 0.5, ("c", INSERTION): 0.5}
    choice = auto(table, budget=0.5)
    assert (choice.explainer, choice.reason, choice.composite) == ("a", Reason.BEST, pytest.approx(0.71))
    assert choice.explanation == (
        "a has the best composite score, 0.71 of 1 (deletion_auc 0.88, insertion_auc 0.54; 212 samples or more), "
        "of the 3 explainers that fit the budget of 500 ms."
    )
    assert auto(table).explanation.endswith("of the 3 explainers.")


def test_weights_count():
    table = {("a", NAIVE): 1.0, ("a", INSERTION): 0.2, ("b", NAIVE): -0.2, ("b", INSERTION): 0.9}
    # a: (3 * 1 + 0.2) / 4; b: (3 * 0.4 + 0.9) / 4. The other way round: (1 + 0.6) / 4 and (0.4 + 2.7) / 4.
    for_naive = auto(table, weights={NAIVE: 3, INSERTION: 1})
    assert (for_naive.explainer, for_naive.composite) == ("a", pytest.approx(0.8))
    for_insertion = auto(table, weights={NAIVE: 1, INSERTION: 3})
    assert (for_insertion.explainer, for_insertion.composite) == ("b", pytest.approx(0.775))
    only = auto(table, weights={NAIVE: 0, INSERTION: 2})
    assert (only.explainer, only.composite) == ("b", pytest.approx(0.9))


def test_the_slow_are_out_and_the_budget_may_be_used_up():
    table = {("a", INSERTION): 0.9, ("b", INSERTION): 0.5, ("c", INSERTION): 0.1}
    seconds = {"a": 1.0, "b": 0.5, "c": 0.1}
    for budget, best in [(None, "a"), (1.0, "a"), (0.99, "b"), (0.5, "b"), (0.49, "c")]:
        assert auto(table, seconds=seconds, budget=budget).explainer == best


def test_the_slow_do_not_narrow_the_metrics():
    table = {("a", DELETION): 0.0, ("b", DELETION): 0.5, ("b", INSERTION): 0.2, ("c", DELETION): 0.9}
    table |= {("c", INSERTION): 0.9}
    seconds = {"a": 9.0, "b": 0.1, "c": 0.1}
    # b: (0.5 + 0.2) / 2; c: (0.1 + 0.9) / 2. By deletion alone b would be better.
    choice = auto(table, seconds=seconds, budget=1.0)
    assert (choice.explainer, choice.composite) == ("c", pytest.approx(0.5))


def test_all_are_compared_by_the_metrics_that_all_have():
    # By what each has, b would come to 0.9; by deletion, which both have, a is better.
    table = {("a", DELETION): 0.15, ("b", DELETION): 0.2, ("b", INSERTION): 1.0}
    choice = auto(table, names=("a", "b"))
    assert (choice.explainer, choice.composite) == ("a", pytest.approx(0.85))


def test_too_few_samples_are_not_known():
    table = {("a", INSERTION): (0.9, 19), ("b", INSERTION): (0.5, 20), ("c", INSERTION): (0.4, 21)}
    choice = auto(table)
    assert (choice.explainer, choice.reason) == ("b", Reason.BEST)
    assert choice.explanation == (
        "b has the best composite score, 0.50 of 1 (insertion_auc 0.50; 20 samples or more), "
        "of the 2 measured enough out of 3 explainers."
    )
    assert auto(table, min_samples=19).explainer == "a"


def test_without_a_common_metric_those_with_the_fewest_leave_the_last_first():
    weights = {DELETION: 1, INSERTION: 1, NAIVE: 1}
    table = {("a", DELETION): 0.9, ("b", INSERTION): 0.9, ("c", DELETION): 0.5, ("c", NAIVE): 0.0}
    # b leaves, being the last of those with one; then a and c have deletion: 0.1 and 0.5.
    choice = auto(table, weights=weights)
    assert (choice.explainer, choice.composite) == ("c", pytest.approx(0.5))
    assert composites(["c", "b", "a", "d"], known(table), weights, 20) == {
        "a": pytest.approx(0.1),
        "b": None,
        "c": pytest.approx(0.5),
        "d": None,
    }


def test_the_only_one_that_is_known_is_chosen_even_if_it_is_bad():
    choice = auto({("b", INSERTION): 0.01}, budget=2.5)
    assert (choice.explainer, choice.reason, choice.composite) == ("b", Reason.BEST, pytest.approx(0.01))
    assert choice.explanation == (
        "Of the 3 explainers that fit the budget of 2.5 s, b is the only one measured enough. "
        "Its composite score is 0.01 of 1 (insertion_auc 0.01; 50 samples or more)."
    )


def test_maps_that_must_not_be_believed_count_as_the_worst():
    """Of a, 50 samples have scores and 50 have none: 0.9 becomes 0.45, less than b's 0.6."""
    table = {("a", DELETION): 0.1, ("a", INSERTION): 0.9, ("b", DELETION): 0.4, ("b", INSERTION): 0.6}
    assert auto(table).explainer == "a"
    choice = auto({**table, ("a", "explain"): (0.0, 50)})
    assert (choice.explainer, choice.composite) == ("b", pytest.approx(0.6))
    told = composites(["a", "b", "c"], known({**table, ("a", "explain"): (0.0, 50)}), {DELETION: 1, INSERTION: 1}, 20)
    assert told == {"a": pytest.approx(0.45), "b": pytest.approx(0.6), "c": None}
    few = auto({**table, ("a", "explain"): (0.0, 10)})
    assert (few.explainer, few.composite) == ("a", pytest.approx(0.9 * 50 / 60))
    assert "83 % of its maps can be believed" in few.explanation


def test_of_a_class_those_of_that_class_count():
    table = {("a", DELETION): 0.1, ("b", DELETION): 0.4, ("a", DELETION, 3): 0.1, ("b", DELETION, 3): 0.4}
    lost = {("a", "explain"): (0.0, 500)}
    assert auto({**table, **lost}, target=3, weights={DELETION: 1}).explainer == "a"
    assert auto({**table, ("a", "explain", 3): (0.0, 500)}, target=3, weights={DELETION: 1}).explainer == "b"


def test_the_only_one_that_fits():
    table = {("a", INSERTION): 0.9, ("b", INSERTION): 0.25}
    choice = auto(table, seconds={"a": 1.0, "b": 0.01}, budget=0.0125)
    assert choice.explanation == (
        "b is the only explainer that fits the budget of 12.5 ms. "
        "Its composite score is 0.25 of 1 (insertion_auc 0.25; 50 samples or more)."
    )


def test_the_best_of_the_class():
    table = {("a", INSERTION): 0.9, ("b", INSERTION): 0.5, ("a", INSERTION, 7): 0.3, ("b", INSERTION, 7): (0.4, 20)}
    choice = auto(table, target=7, names=("a", "b"))
    assert (choice.explainer, choice.reason, choice.composite) == ("b", Reason.BEST_OF_CLASS, pytest.approx(0.4))
    assert choice.explanation == (
        "b has the best composite score for this class, 0.40 of 1 (insertion_auc 0.40; 20 samples or more), "
        "of the 2 explainers."
    )
    other = auto(table, target=8, names=("a", "b"))
    assert (other.explainer, other.reason) == ("a", Reason.BEST)


@pytest.mark.parametrize("lack", [("a", DELETION, 7), ("b", INSERTION, 7)])
@pytest.mark.parametrize("samples", [0, 19])
def test_a_class_counts_only_if_everything_of_it_is_known_of_all(lack, samples):
    table = {(name, metric): mean for name, mean in [("a", 0.4), ("b", 0.5)] for metric in (DELETION, INSERTION)}
    table = table | {(*which, 7): 1 - mean for which, mean in table.items()}
    table |= {("a", INSERTION): 0.9, ("a", INSERTION, 7): 0.1}
    assert auto(table, target=7).reason is Reason.BEST_OF_CLASS
    table[lack] = (table[lack], samples)
    choice = auto(table, target=7)
    assert (choice.explainer, choice.reason, choice.composite) == ("a", Reason.BEST, pytest.approx(0.75))


def test_equals_the_cheaper_then_the_first_by_name():
    table = {(name, INSERTION): 0.5 for name in "abc"}
    assert auto(table, seconds={"c": 0.2, "a": 0.3, "b": 0.2}).explainer == "b"
    assert auto(table, seconds={"c": 0.2, "a": 0.3, "b": 0.21}).explainer == "c"


SECONDS = {"gradcam": 0.05, "rise": 2.0, "occlusion": 0.4}
LITTLE = "Too little is measured yet (20 samples of each metric are needed)"


@pytest.mark.parametrize(
    ("seconds", "budget", "fallback", "chosen", "explanation"),
    [
        (SECONDS, None, "rise", "rise", f"{LITTLE}: the configured default."),
        (SECONDS, 2.0, "rise", "rise", f"{LITTLE}: the configured default."),
        (
            SECONDS,
            1.0,
            "rise",
            "gradcam",
            f"{LITTLE}, and the configured default, rise, is too slow: the cheapest one.",
        ),
        (
            SECONDS,
            1.0,
            "gradient",
            "gradcam",
            f"{LITTLE}, and the configured default, gradient, cannot be used: the cheapest one.",
        ),
        (
            SECONDS,
            0.02,
            "rise",
            "rise",
            "There is no explainer that fits the budget of 20 ms: the configured default.",
        ),
        (
            SECONDS,
            0.02,
            "gradient",
            "gradcam",
            "There is no explainer that fits the budget of 20 ms, and the configured default, gradient, cannot be "
            "used: the cheapest one.",
        ),
        (
            {"b": 1.0, "a": 1.0},
            None,
            "c",
            "a",
            f"{LITTLE}, and the configured default, c, cannot be used: the cheapest one.",
        ),
    ],
)
def test_where_nothing_is_known(seconds, budget, fallback, chosen, explanation):
    # What is known of those too slow, or by other metrics, is no help.
    table = {("rise", INSERTION): 0.9} if budget is not None and budget < 2 else {}
    table |= {("gradcam", ROBUSTNESS): 0.9, ("occlusion", INSERTION): (0.9, 19)}
    choice = auto(table, seconds=seconds, budget=budget, fallback=fallback)
    assert (choice.explainer, choice.reason, choice.composite) == (chosen, Reason.FALLBACK, None)
    assert choice.explanation == explanation


def test_there_is_something_to_choose_from():
    with pytest.raises(ValueError, match="nothing to choose from"):
        choose([], known({}), {INSERTION: 1}, 20, None, "rise", 0)


MEASURED = [NAIVE, DELETION, INSERTION, ROBUSTNESS]
CELL = st.none() | st.tuples(st.floats(0, 1), st.sampled_from([19, 20]))
ROW = st.fixed_dictionaries(dict.fromkeys(MEASURED, CELL))


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.tuples(ROW, st.sampled_from([0.1, 0.2, 0.3])), min_size=1),
    st.fixed_dictionaries(dict.fromkeys(MEASURED, st.sampled_from([0, 0.5, 2]))),
    st.sampled_from([None, 0.05, 0.2]),
)
def test_nobody_who_is_comparable_is_better(rows, weights, budget):
    table = {(name, metric): cell for name, (row, _) in rows.items() for metric, cell in row.items()}
    seconds = {name: took for name, (_, took) in rows.items()}
    choice = auto(table, seconds=seconds, weights=weights, budget=budget, fallback="a")
    fitting = [name for name, took in seconds.items() if budget is None or took <= budget]
    scores = composites(fitting, known(table), weights, 20)
    assert scores.keys() == set(fitting)
    measured = {name: score for name, score in scores.items() if score is not None}
    if not measured:
        cells = [table[name, metric] for name in fitting for metric in MEASURED if weights[metric]]
        assert not any(cell and cell[1] >= 20 for cell in cells)
        assert (choice.reason, choice.composite) == (Reason.FALLBACK, None)
        assert choice.explainer in (fitting or seconds)
        return
    assert choice.reason is Reason.BEST
    assert choice.composite == measured[choice.explainer] == max(measured.values())
    # By hand: the metrics that all who have a composite have.
    common = [metric for metric in MEASURED if weights[metric]]
    common = [metric for metric in common if all((table[name, metric] or (0, 0))[1] >= 20 for name in measured)]
    total = 0.0
    for metric in common:
        mean = table[choice.explainer, metric][0]
        total += weights[metric] * {NAIVE: (mean + 1) / 2, DELETION: 1 - mean}.get(metric, mean)
    assert math.isclose(choice.composite, total / sum(weights[metric] for metric in common), abs_tol=1e-12)
