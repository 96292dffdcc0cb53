"""Which maps a report shows."""

from xai_sidecar.evaluator.records import Frame, SampleKey, SampleRecord
from xai_sidecar.runner.report import Example, _chosen


def example(name, target, probability, predicted, truth, value):
    record = SampleRecord(SampleKey(name, 0), 1.0, "m", Frame(8, 8), target, probability, predicted)
    return Example(record, value, truth)


EXAMPLES = [
    example("right", 1, 0.9, (1,), (1,), 0.5),
    example("right, hardly by it", 1, 0.8, (1,), (1,), 0.1),
    example("wrong and sure", 2, 0.95, (2,), (1,), 0.4),
    example("wrong", 2, 0.5, (2,), (3,), 0.6),
    example("true and not predicted", 1, 0.03, (2,), (1,), 0.01),
    example("probable and not predicted", 3, 0.3, (2,), (1,), 0.02),
    example("nobody knows", 2, 0.99, (2,), (), 0.9),
    example("no score", 2, 0.97, (2,), (1,), None),
]


def shown(lead):
    return {title: [each.sample.key.request_id for each in some] for title, some in _chosen(EXAMPLES, lead)}


def test_what_is_right_or_wrong_was_predicted():
    lists = shown("faithfulness/srg")
    assert lists["Where the explanation fits best"] == ["nobody knows", "wrong", "right"]
    worst = ["true and not predicted", "probable and not predicted", "right, hardly by it"]
    assert lists["Where it fits worst"] == worst
    assert lists["Wrong, and sure of it"] == ["no score", "wrong and sure", "wrong"]
    hardly = lists["Right, though the prediction hardly depends on what the map shows"]
    assert hardly == ["right, hardly by it", "right"]


def test_where_less_is_better_the_lists_are_the_other_way_round():
    lists = shown("faithfulness/deletion_auc")
    assert lists["Where the explanation fits best"][0] == "true and not predicted"
    assert lists["Where it fits worst"][0] == "nobody knows"
