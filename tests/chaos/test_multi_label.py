"""A multi-label model from end to end: classes that saturate, pictures on which there are none, a mean colour."""

import numpy as np
import pytest

from xai_client import Client, Explain
from xai_sidecar.engine.batching import in_batches
from xai_sidecar.engine.work import drive
from xai_sidecar.explainers.activations import sigmoid
from xai_sidecar.explainers.base import Context
from xai_sidecar.explainers.rise import Rise, RiseParameters
from xai_sidecar.picture_units import PictureUnits

SATURATED, NOTHING = [30, 60, 5, 2, -3], [-1, -0.5, -3, -2, -4]
UNITS = PictureUnits((0.4,) * 3, (0.2,) * 3, (0.1, 0.5, 0.9))


@pytest.fixture(scope="module")
def server(start_misbehaving, tmp_path_factory):
    store = tmp_path_factory.mktemp("multi_label") / "store.sqlite"
    with start_misbehaving(
        "model.activation=sigmoid",
        "model.input.mean=0.4",
        "model.input.std=0.2",
        "model.input.mean_colour=[0.1, 0.5, 0.9]",
        "evaluator.sample_rate=1",
        "evaluator.interval_seconds=0.2",
        "evaluator.device_share=1",
        "evaluator.metrics=['class_sensitivity']",
        f"evaluator.store=sqlite:///{store}",
    ) as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    with Client(server.grpc, timeout=20) as client:
        yield client


@pytest.fixture(scope="module")
def input_of(misbehaving):
    """A model input of which the model says these logits, but for rounding."""

    def input_of(logits):
        weights = misbehaving.WEIGHTS.reshape(misbehaving.CLASSES, -1).astype(np.float64)
        found = np.linalg.lstsq(weights, np.array(logits, np.float64), rcond=None)[0]
        return found.reshape(misbehaving.SHAPE).astype(np.float32)

    return input_of


def test_saturated_classes_are_told_apart_by_their_logits(client, input_of):
    prediction = client.predict(input_of(SATURATED), explain=["gradcam", Explain("rise", masks=64, top_count=2)])
    assert [each.class_id for each in prediction.classes] == [1, 0, 2, 3, 4]
    assert prediction.classes[0].probability == prediction.classes[1].probability == 1
    assert {name: each.targets for name, each in prediction.explanations.items()} == {"gradcam": (1,), "rise": (1, 0)}


def test_a_class_that_is_not_there_is_explained_only_if_it_is_asked_for(
    server, client, input_of, read_metrics, eventually
):
    def counted(name, *labels):
        return read_metrics(server.http)[(name, *labels)]

    before = counted("xai_images_without_positive_total"), counted("xai_samples_total", "no_positive")
    asked = [Explain("auto", name="auto"), "gradcam", Explain("gradcam", name="top", top_count=1)]
    prediction = client.predict(input_of(NOTHING), explain=asked)
    for name in ("auto", "gradcam"):
        explanation = prediction.explanations[name]
        assert (explanation.status, explanation.targets, explanation.passes) == ("skipped", (), 0)
        assert "No class reaches the probability of 0.5" in explanation.status_message
        assert "class_ids or top_count" in explanation.status_message
    assert prediction.explanations["top"].targets == (1,)
    events = list(client.stream(input_of(NOTHING), explain=["gradcam"]))
    assert [each.explanation.status for each in events if hasattr(each, "explanation")] == ["skipped"]
    assert counted("xai_images_without_positive_total") == before[0] + 2
    eventually(lambda: counted("xai_samples_total", "no_positive") == before[1] + 2, 20)


def test_rise_covers_with_the_mean_colour(client, misbehaving, input_of):
    image = input_of([0.5, 1, -0.5, 2, 0])
    explain = [Explain("rise", masks=256, seed=5, targets=3, estimator="plain", grid_size=4)]
    served = client.predict(image, explain=explain).explanations["rise"].saliency
    parameters = RiseParameters(mask_count=256, grid_size=4, estimator="plain")
    run = in_batches(misbehaving.Arithmetic().run, 8)

    def expected(units):
        return drive(Rise().explain(image, np.array([3], np.int32), parameters, Context(sigmoid, 5, units)), run).maps[
            0
        ]

    np.testing.assert_array_equal(served, expected(UNITS))
    assert abs(served - expected(PictureUnits())).max() > 0.01 * abs(served).max()
