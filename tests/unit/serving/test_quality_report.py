"""The alerts that stand beside the quality of explanations."""

from types import SimpleNamespace

import pytest

from xai_sidecar.evaluator.comparison import Advantage, Verdict
from xai_sidecar.evaluator.live_quality import State
from xai_sidecar.serving.quality_report import _alerts

BEATS, DOES_NOT = (Verdict(Advantage("control/blob", mean, 0.1)) for mean in (0.2, 0.05))


@pytest.mark.parametrize(
    ("verdicts", "told"),
    [
        ({}, False),
        ({"gradcam": DOES_NOT}, False),  # RISE, which takes long, is not compared yet
        ({"gradcam": DOES_NOT, "rise": DOES_NOT}, True),
        ({"gradcam": DOES_NOT, "rise": BEATS}, False),
        ({"gradcam": BEATS}, False),
    ],
)
def test_nobody_beats_the_controls_only_where_all_were_compared(verdicts, told):
    summary = SimpleNamespace(verdicts=verdicts, state=State.WORKING, sample_count=12, last_sample=1.0)
    shown = SimpleNamespace(
        quality=SimpleNamespace(outlier_share=0.0),
        evaluated=SimpleNamespace(explainers={"gradcam": None, "rise": None}),
    )
    found = _alerts(shown, SimpleNamespace(quality=summary, explainers=()))
    assert [each.name for each in found] == ["XaiNoExplainerBeatsControls"] * told


def test_a_server_without_traffic_raises_no_alert_of_another_meaning():
    """XaiEvaluatorStale is about samples that wait and are not measured; here there are none."""
    summary = SimpleNamespace(verdicts={"gradcam": BEATS}, state=State.NO_TRAFFIC, sample_count=0, last_sample=1.0)
    shown = SimpleNamespace(
        quality=SimpleNamespace(outlier_share=None), evaluated=SimpleNamespace(explainers={"gradcam": None})
    )
    assert not list(_alerts(shown, SimpleNamespace(quality=summary, explainers=())))
