"""What explanations take as a whole, worked out by hand."""

import pytest

from xai_sidecar.engine.work import Kind
from xai_sidecar.serving.explanation_costs import ExplanationCosts

KIND = Kind("masked_forward")


class Dispatcher:
    """10 ms a row as measured at start, and what comes on top; runs nothing."""

    explaining = 0
    explain_share = 1.0
    slowdown = 1.5

    def explaining_seconds(self, label, kind, row_count):
        return 0.01 * row_count * (self.slowdown if label == "rise" else 1)

    def usual_slowdown(self, label):
        return self.slowdown if label == "rise" else 1.0


def test_each_explainer_has_a_rate_of_its_own():
    costs = ExplanationCosts(Dispatcher())
    assert costs.seconds("rise", KIND, 100) == pytest.approx(1.5)
    assert costs.seconds("occlusion", KIND, 100) == pytest.approx(1.0)
    assert (costs.ratio("rise"), costs.ratio("occlusion")) == (1.5, 1.0)


def test_others_and_predictions_take_their_part():
    device = Dispatcher()
    costs = ExplanationCosts(device)
    device.explaining = 1
    assert costs.seconds("rise", KIND, 100) == pytest.approx(3.0)
    device.explain_share = 0.5
    assert costs.seconds("rise", KIND, 100) == pytest.approx(6.0)


def test_alone_is_without_what_runs():
    device = Dispatcher()
    device.explaining, device.explain_share = 3, 0.5
    costs = ExplanationCosts(device)
    assert costs.alone("rise", KIND, 100) == pytest.approx(1.5)
    assert costs.beside_predictions(1.5) == pytest.approx(3.0)
    assert costs.seconds("rise", KIND, 100) == pytest.approx(1.5 * 4 / 0.5)
