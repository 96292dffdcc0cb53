"""The same net twice, normalised by the config and by itself: what covers pictures, or adds noise, must not differ."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from xai_sidecar.config import parse_config
from xai_sidecar.engine.backend import Layer
from xai_sidecar.engine.batching import masked
from xai_sidecar.engine.work import Featured, drive
from xai_sidecar.explainers.activations import sigmoid
from xai_sidecar.explainers.base import Context, MapStatus
from xai_sidecar.explainers.discovery import installed_explainers
from xai_sidecar.imaging import decode, prepare
from xai_sidecar.metrics.discovery import installed_metrics
from xai_sidecar.metrics.instance import ExplainerCall, Instance
from xai_sidecar.metrics.robustness import noise
from xai_sidecar.ood.extraction import FeatureExtraction
from xai_sidecar.ood.pictures import Pictures
from xai_sidecar.picture_units import PictureUnits
from xai_sidecar.serving.model import served_model

SIDE, CLASSES, HIDDEN, TARGET = 16, 4, 6, 2
STATISTICS = {3: ((0.4, 0.55, 0.3), (0.2, 0.15, 0.35)), 1: ((0.3,), (0.2,))}
PLAIN = {"mean": 0.0, "std": 1.0}
NET = np.random.default_rng(3)
MIX = {channels: NET.normal(0, 0.6, (HIDDEN, channels)) for channels in STATISTICS}
HEAD = NET.normal(0, 0.05, (CLASSES, HIDDEN, SIDE, SIDE))


class Net:
    """relu(a mix of the channels), then a weight for each place; float64, so that only its inputs are rounded."""

    def __init__(self, channels, inside):
        mean, std = (np.array(each) for each in STATISTICS[channels])
        self.mix, self.bias = MIX[channels], np.zeros(HIDDEN)
        if inside:  # W (x - mean) / std = (W / std) x - (W / std) mean
            self.mix = self.mix / std
            self.bias = -self.mix @ mean
        self.seen = []

    def run(self, kind, rows):
        masking = kind.name.startswith("masked")
        inputs = masked(*rows) if masking else rows[0]
        self.seen.append(inputs)
        mixed = np.einsum("kc,nchw->nkhw", self.mix, inputs.astype(np.float64)) + self.bias[:, None, None]
        activations = np.maximum(mixed, 0)
        logits = np.einsum("jkhw,nkhw->nj", HEAD, activations).astype(np.float32)
        if kind.name == "layer_gradient":
            return activations.astype(np.float32), HEAD[rows[1]].astype(np.float32), logits
        if "ood" in kind.name:
            scores = activations.std(axis=(1, 2, 3)).astype(np.float32)
            return scores, np.full(len(inputs), 50, np.float32), logits
        return (logits,)


def sides(channels):
    """Of the net normalised by the config, then of the one that does it itself: run, model input, model."""
    mean, std = STATISTICS[channels]
    picture = np.random.default_rng(5).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    picture[4:12, 4:12] = (250, 20, 130)
    file = io.BytesIO()
    Image.fromarray(picture).convert("RGB" if channels == 3 else "L").save(file, "PNG")
    for inside in (False, True):
        given = PLAIN if inside else {"mean": list(mean), "std": list(std)}
        config = parse_config({"model": {"factory": "a:b", "input": {"size": SIDE, "channels": channels, **given}}}, [])
        backend = SimpleNamespace(
            class_count=CLASSES,
            layers={"mixed": Layer("mixed", HIDDEN, SIDE, SIDE)},
            default_layer="mixed",
            ood=SimpleNamespace(),
            version="1",
        )
        model = served_model(config, backend)
        yield Net(channels, inside), prepare(decode(file.getvalue(), 10**6), model.input).array, model


def maps_of(net, image, model, name, **given):
    explainer = installed_explainers()[name]
    parameters = explainer.resolve(explainer.parameters_type(**given), model.facts)
    context = Context(sigmoid, 7, model.facts.units)
    made = drive(explainer.explain(image, np.array([TARGET, 0], np.int32), parameters, context), net.run)
    assert set(made.statuses) <= {MapStatus.OK, MapStatus.UNRELIABLE}  # there are few masks
    return made.maps


COVERING = [
    ("occlusion", {"fill": "zero"}),
    ("occlusion", {"fill": "mean"}),
    ("occlusion", {"fill": "blur"}),
    ("rise", {"mask_count": 64}),
    ("rise_plus", {"mask_count": 64, "estimator": "plain"}),
]


@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize(("name", "given"), COVERING, ids=lambda value: value if isinstance(value, str) else None)
def test_maps_are_the_same(channels, name, given):
    outside, inside = (maps_of(*side, name, **given) for side in sides(channels))
    np.testing.assert_allclose(inside, outside, rtol=0, atol=2e-5 * abs(outside).max())


def scores_of(net, image, model, name, explaining, **given):
    explainer = installed_explainers()[explaining]
    parameters = explainer.resolve(
        explainer.parameters_type(**({"mask_count": 64} if explaining == "rise" else {})), model.facts
    )
    (saliency, _) = maps_of(net, image, model, "occlusion")
    subject = Instance(image, TARGET, saliency, ExplainerCall(explainer, parameters, 11), objects=[(4, 4, 12, 12)])
    benchmark = installed_metrics()[name]
    measured = benchmark.measure(subject, benchmark.parameters_type(**given), Context(sigmoid, 13, model.facts.units))
    return drive(measured, net.run).value


@pytest.mark.parametrize("channels", [3, 1])
@pytest.mark.parametrize("explaining", ["gradcam", "occlusion", "rise"])
@pytest.mark.parametrize(
    ("name", "given"),
    [
        *(
            (name, {"protocol": protocol})
            for name, metric in installed_metrics().items()
            if "protocol" in metric.parameters_type.model_fields
            for protocol in ("srg", "mindspore_xai", "rise")
        ),
        *(("faithfulness/srg", {"fill": fill}) for fill in ("blurred", "mean_colour", "black")),
        ("robustness", {"draw_count": 3}),
        ("class_sensitivity", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(map(str, value.values())),
)
def test_scores_are_the_same(channels, explaining, name, given):
    outside, inside = (scores_of(*side, name, explaining, **given) for side in sides(channels))
    assert inside == pytest.approx(outside, abs=2e-5)
    assert 0 < abs(outside) < 1


@pytest.mark.parametrize(("channels", "colour"), [(3, [0.485, 0.456, 0.406]), (1, [0.5])])
def test_what_is_covered_has_the_mean_colour(channels, colour):
    """By hand: a picture all of whose pixels are deleted is of that colour, however the net wants it."""
    for net, image, model in sides(channels):
        subject = Instance(image, TARGET, np.arange(SIDE * SIDE, dtype=np.float32).reshape(SIDE, SIDE))
        benchmark = installed_metrics()["faithfulness/deletion_auc"]
        values = benchmark.parameters_type(protocol="rise")
        drive(benchmark.measure(subject, values, Context(sigmoid, 1, model.facts.units)), net.run)
        spec = model.input
        deleted = net.seen[-1][-1] * np.array(spec.std)[:, None, None] + np.array(spec.mean)[:, None, None]
        expected = np.broadcast_to(np.array(colour)[:, None, None], deleted.shape)
        np.testing.assert_allclose(deleted, expected, atol=1e-6)


def test_noise_is_a_part_of_the_pictures_range():
    """MindSpore XAI's 0.2 of an input normalised as ImageNet's is about 0.045 of the range from 0 to 1."""
    assert np.mean([0.229, 0.224, 0.225]) * 0.2 == pytest.approx(0.045, abs=3e-4)
    drawn = noise((3, 20, 30), 0.045, 1, 2)
    units = PictureUnits((0.4,), (0.2, 0.5, 1.0))
    added = units.difference(drawn)
    assert added.dtype == np.float32
    assert abs(added).max(axis=(1, 2)) == pytest.approx([0.225, 0.09, 0.045], rel=0.02)
    np.testing.assert_allclose(added[1], drawn[1] * 2, rtol=1e-6)


def test_a_mean_of_the_mean_colour_covers_by_zero():
    assert PictureUnits((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), (0.485, 0.456, 0.406)).fill == 0.0
    fill = PictureUnits((0.5,), (0.25,), (0.25, 0.5, 1.0)).fill
    assert (fill.shape, fill.dtype, fill.ravel().tolist()) == ((3, 1, 1), np.float32, [-1, 0, 2])


def test_outliers_for_the_ood_net_are_the_same_pictures(tmp_path):
    paths = []
    for number in range(3):
        paths.append(tmp_path / f"{number}.png")
        pixels = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        Image.fromarray(pixels).save(paths[-1])
    made = []
    for _, _, model in sides(3):
        spec, seen = model.input, []

        def featured(inputs, seen=seen):
            seen.append(inputs)
            return Featured(inputs.mean(axis=(2, 3)), inputs.mean(axis=(2, 3)))

        classifier = SimpleNamespace(version="1", labels=("a",), class_count=1, spec=spec, featured=featured)
        arguments = (lambda line: None, lambda step: None, lambda: False)
        FeatureExtraction(
            Pictures(tmp_path, tuple(paths), None), classifier, tmp_path / str(len(made)), *arguments
        ).outliers(paths, 3, 5)
        std, mean = (np.array(each)[:, None, None] for each in (spec.std, spec.mean))
        made.append([inputs * std + mean for inputs in seen])
    assert len(made[0]) == 3
    for outside, inside in zip(*made, strict=True):
        np.testing.assert_allclose(inside, outside, atol=1e-6)
