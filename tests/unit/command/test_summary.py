"""What `xai-sidecar check` says of a model."""

import re
from dataclasses import replace
from types import SimpleNamespace

from xai_sidecar.command.summary import summary
from xai_sidecar.serving.explanation_costs import ExplanationCosts
from xai_sidecar.serving.model import WeightDependence


def row(text, name):
    return re.search(rf"(?m)^{name} +(.*)$", text).group(1)


def test_what_becomes_of_maps_without_what_was_learnt(make_model):
    costs = ExplanationCosts(SimpleNamespace(usual_slowdown=lambda label: 1.0))
    model = replace(make_model(), weight_dependence={"gradcam": WeightDependence(-0.625, 0.125, 4)})
    lines = summary(model, costs).splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("gradcam "))
    assert lines[place + 1].strip() == "with the weights in disorder, entropy of the map −62%, correlation with it 0.12"
    assert "disorder" not in summary(make_model(), costs)


def test_an_explanation_takes_its_passes_and_what_comes_on_top(make_model):
    """A pass takes 30 ms here: occlusion 25 of them, Grad-CAM one."""
    slowdown = {}
    costs = ExplanationCosts(SimpleNamespace(usual_slowdown=lambda label: slowdown.get(label, 1.0)))
    text = summary(make_model(), costs)
    assert row(text, "occlusion") == "750.0 ms for one target"
    assert row(text, "gradcam") == "30.0 ms for one target at layer late"
    assert row(text, "rise_plus").startswith("not available: ")
    slowdown["occlusion"] = 1.5
    text = summary(make_model(), costs)
    assert row(text, "occlusion") == "1125.0 ms for one target"
    assert row(text, "gradcam") == "30.0 ms for one target at layer late"
