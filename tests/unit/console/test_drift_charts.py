"""What the charts of drift show."""

from datetime import datetime, timezone
from types import SimpleNamespace

import pytest

from xai_client import HistoryPoint, QualityHistory, TrafficFigures
from xai_console.drift_charts import class_mix, has_gaps, shapes, traffic
from xai_console.words import Words

PAGE = SimpleNamespace(say=Words("en"))


def window(shares, *, samples=1000, at=0):
    """What was predicted in a while; of the rest of the samples, the classes are not listed."""
    classes = {each: round(1000 * share) for each, share in shares.items()}
    labels = {each: f"class {each}" for each in shares}
    return TrafficFigures(at, samples, 0.5, (), 0, 0.0, 0.0, classes, labels, 0, 0, shares=shares)


def history(current, reference=None, **others):
    start = datetime.fromtimestamp(1000, timezone.utc)
    made = {"scores": {}, "shapes": {}, "traffic": (), **others}
    return QualityHistory(start=start, bin_seconds=60.0, bin_count=3, current=current, reference=reference, **made)


def drawn(mix):
    """The bars by name, and what is written where there is none, with its place."""
    bars = {each["name"]: each["data"] for each in mix["series"] if each["type"] == "bar"}
    written = {each["name"]: each["data"] for each in mix["series"] if each["type"] == "scatter"}
    return bars, {name: [(each["name"], each["value"]) for each in data] for name, data in written.items()}


def test_a_class_that_a_window_does_not_list_is_a_gap_with_the_most_it_can_be():
    now, before = window({1: 0.6, 2: 0.2, 3: 0.0503}), window({1: 0.9, 4: 0.1})
    mix = class_mix(PAGE, history(now, before))
    assert mix["yAxis"]["data"] == ["class 1", "class 2", "class 4", "class 3"]
    bars, written = drawn(mix)
    assert bars["Now"] == [0.6, 0.2, "-", 0.0503]
    assert bars["Before"] == [0.9, 0.0, 0.1, 0.0]  # all of that window are listed: there were none of these
    assert written == {"Now": [("≤ 0.0503", [0, 2])]}
    assert has_gaps(mix)


@pytest.mark.parametrize(
    ("shares", "most"),
    [({1: 0.6, 2: 0.39}, "≤ 0.01"), ({1: 0.6, 2: 0.3}, "≤ 0.1"), ({1: 0.99, 2: 0.00501}, "≤ 0.005"), ({}, "≤ 1")],
)
def test_what_is_not_listed_is_no_more_than_the_least_listed_nor_than_what_is_left(shares, most):
    mix = class_mix(PAGE, history(window(shares), window({7: 1.0})))
    assert drawn(mix)[1] == {"Now": [(most, [0, mix["yAxis"]["data"].index("class 7")])]}


def test_where_all_classes_are_listed_there_is_no_gap():
    mix = class_mix(PAGE, history(window({1: 0.9, 2: 0.1}), window({3: 1.0})))
    assert list(drawn(mix)[0].values()) == [[0.0, 0.9, 0.1], [1.0, 0.0, 0.0]]
    assert not has_gaps(mix)
    assert not has_gaps(class_mix(PAGE, history(window({}, samples=0))))


def test_the_time_of_samples_that_are_not_looked_at_is_not_shown_as_one_without_samples():
    found = window({1: 1.0}, at=1), window({1: 1.0}, at=2)
    bars, *_ = traffic(PAGE, history(found[0], traffic=found, truncated=True))["series"]
    ((start, end),) = bars["markArea"]["data"]
    assert (start["xAxis"], end["xAxis"]) == (1_000_000, 1_120_000)  # up to the end of a bin of which a part is seen
    bars, *_ = traffic(PAGE, history(found[0], traffic=found))["series"]
    assert "markArea" not in bars


def test_agreement_has_a_line_for_each_pair_and_its_reference():
    points = tuple(HistoryPoint(number, 5, 0.25 * number, 0.1) for number in range(3))
    past = history(
        window({}),
        shapes={("gradcam", "agreement/rise"): points, ("gradcam", "border"): points[:1]},
        reference_shapes={("gradcam", "agreement/rise"): HistoryPoint(0, 9, 0.75, 0.1)},
    )
    (line,) = shapes(past, "agreement")["series"]
    assert line["name"] == "gradcam · rise"
    assert line["data"] == [[1_000_000.0, 0.0], [1_060_000.0, 0.25], [1_120_000.0, 0.5]]
    assert "0.75" in str(line["markLine"])
    (border,) = shapes(past, "border")["series"]
    assert (border["name"], border["markLine"]["data"]) == ("gradcam", [])
    assert shapes(past, "centre_x") == {}
