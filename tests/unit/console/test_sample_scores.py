"""The scores of a map: one leads, none is lost, and what was not measured is no number."""

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from xai_client.samples import SampleExplanation, SampleScore
from xai_console.overlay import Badge
from xai_console.sample_scores import leading_hint, metric_order, score_badge, score_lines
from xai_console.words import Words

SRG, ROAD, POINTING = "faithfulness/srg", "faithfulness/road", "localization/pointing_game"
SAY = Words("en")


def made(**scores):
    now = datetime(2026, 1, 1, tzinfo=UTC)
    kept = {
        metric: SampleScore(metric, value, "ok" if value is not None else "no_objects", higher, value, now, 1, {}, True)
        for metric, value, higher in ((SRG, scores.get("srg", 0.5), True), (POINTING, scores.get("pointing"), True))
    }
    kept["other/length"] = SampleScore("other/length", 3.0, "ok", False, 0.1, now, 1, {}, True)
    return SampleExplanation("gradcam", False, (), True, {}, None, 1, kept, {})


@pytest.mark.parametrize(
    ("order", "badge", "lines"),
    [
        ([SRG, POINTING], Badge("0.5 ↑", "SRG: 0.5 ↑"), ["Pointing game", "length"]),
        (
            [POINTING, SRG],
            Badge("needs objects in the truth", "Pointing game: needs objects in the truth"),
            ["SRG", "length"],
        ),
        ([ROAD, SRG, POINTING], Badge("not measured", "ROAD: not measured"), ["SRG", "Pointing game", "length"]),
        ([], None, ["SRG", "Pointing game", "length"]),
    ],
)
def test_the_first_metric_stands_in_the_corner_and_all_others_below(order, badge, lines):
    assert score_badge(SAY, made(), {}, order) == badge
    assert [name for name, _ in score_lines(SAY, made(), {}, order)] == lines
    assert dict(score_lines(SAY, made(), {}, order))["length"] == "3 ↓"


def test_a_map_that_is_not_measured_has_no_number():
    assert score_badge(SAY, None, {}, [SRG]) == Badge("not measured", "SRG: not measured")
    assert score_badge(SAY, made(srg=0.0), {SRG: 0.25}, [SRG]) == Badge("0.25 → 0 ↑", "SRG: 0.25 → 0 ↑")


def test_the_metric_by_which_samples_are_in_order_leads():
    info = SimpleNamespace(evaluator=SimpleNamespace(metrics={SRG: 0, ROAD: 0, POINTING: 0}))
    for state, order in (
        ({}, [SRG, ROAD, POINTING]),
        ({"metric": POINTING}, [POINTING, SRG, ROAD]),
        ({"metric": "none/such"}, [SRG, ROAD, POINTING]),
    ):
        assert metric_order(SimpleNamespace(state=state), info) == order
    assert metric_order(SimpleNamespace(state={}), SimpleNamespace(evaluator=None)) == []
    assert leading_hint(SAY, [POINTING, SRG]) == "In the corner of each map: Pointing game"
    assert leading_hint(SAY, []) == ""
