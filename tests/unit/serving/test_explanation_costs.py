"""What explanations take as a whole, worked out by hand."""

import pytest

from xai_sidecar.engine.work import Kind
from xai_sidecar.serving.explanation_costs import ExplanationCosts

KIND = Kind("masked_forward")


class Dispatcher:
    """10 ms a row as things are; runs nothing."""

    explaining = 0
    explain_share = 1.0

    def seconds(self, kind, row_count):
        return 0.01 * row_count


def test_before_anything_is_measured_it_is_the_passes():
    costs = ExplanationCosts(Dispatcher())
    assert costs.seconds("rise", KIND, 100) == pytest.approx(1.0)
    assert costs.ratio("rise") == 1


def test_what_comes_on_top_is_learned_for_each_explainer():
    costs = ExplanationCosts(Dispatcher())
    costs.ran("rise", 2, 3.0)
    assert costs.ratio("rise") == pytest.approx(1.5)
    assert costs.seconds("rise", KIND, 1000) == pytest.approx(15.0)
    costs.ran("rise", 1, 2.5)
    assert costs.ratio("rise") == pytest.approx(0.7 * 1.5 + 0.3 * 2.5)
    assert costs.ratio("occlusion") == 1


def test_one_that_was_held_up_changes_little():
    costs = ExplanationCosts(Dispatcher())
    costs.ran("rise", 1, 1.2)
    costs.ran("rise", 1, 1000.0)
    assert costs.ratio("rise") == pytest.approx(0.7 * 1.2 + 0.3 * 8)


def test_others_and_predictions_take_their_part():
    device = Dispatcher()
    costs = ExplanationCosts(device)
    device.explaining = 1
    assert costs.seconds("rise", KIND, 100) == pytest.approx(2.0)
    device.explain_share = 0.5
    assert costs.seconds("rise", KIND, 100) == pytest.approx(4.0)


def test_what_was_tried_at_start_counts_until_a_whole_one_has_been_run():
    costs = ExplanationCosts(Dispatcher())
    costs.tried("rise", 0.2, 0.3)
    assert costs.ratio("rise") == pytest.approx(1.5)
    assert costs.seconds("rise", KIND, 1000) == pytest.approx(15.0)
    costs.ran("rise", 1, 1.2)
    assert costs.ratio("rise") == pytest.approx(1.2), "and nothing of the trial any more"


def test_alone_is_without_what_runs():
    device = Dispatcher()
    device.explaining, device.explain_share = 3, 0.5
    costs = ExplanationCosts(device)
    costs.tried("rise", 0.2, 0.3)
    assert costs.alone("rise", KIND, 100) == pytest.approx(1.5)
    assert costs.beside_predictions(1.5) == pytest.approx(3.0)
    assert costs.seconds("rise", KIND, 100) == pytest.approx(1.5 * 4 / 0.5)
