"""OoD scores over the wire, what is counted of a call for everything, and the command line that asks for both."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from xai_client import Client
from xai_proto import explanation_pb2 as pb
from xai_sidecar.ood.head import load_head
from xai_sidecar.zoo.sample import sample_picture

NAMES = ("gradient", "guided_backprop", "deconvolution", "gradcam", "occlusion", "rise", "rise_plus")


@pytest.fixture(scope="module")
def cat(photo):
    return pb.Image(encoded=photo)


@pytest.fixture(scope="module")
def run(server, tmp_path_factory):
    """Runs xai-client against the shared server; returns what it printed, and the folder where it ran."""

    def run(command, *arguments):
        folder = tmp_path_factory.mktemp("client")
        whole = [sys.executable, "-m", "xai_client", command, *arguments, "--server", server.grpc]
        done = subprocess.run(whole, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout, folder

    return run


# ------------------------------------------------------------------------------------------------ scores


def test_a_photograph_is_more_of_an_inlier_than_noise(stub, cat, ood_checkpoint):
    noise = np.random.default_rng(0).integers(0, 256, (300, 451, 3), np.uint8)
    pixels = pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=noise.shape, data=noise.tobytes())
    request = pb.PredictRequest(images=[cat, pb.Image(pixels=pixels)], ood=True)
    photograph, other = stub.Predict(request, timeout=60).predictions
    head = load_head(ood_checkpoint)
    for one in (photograph, other):
        assert -1 <= one.ood.score <= 1
        assert 0 <= one.ood.percentile <= 100
        lower = (head.reference_scores < np.float32(one.ood.score)).mean()
        assert one.ood.percentile == pytest.approx(100 * lower)
    assert photograph.ood.score > other.ood.score + 0.1
    assert photograph.ood.percentile > other.ood.percentile


def test_a_score_changes_nothing_of_the_prediction(stub, cat):
    scored, plain = (stub.Predict(pb.PredictRequest(images=[cat], ood=ood), timeout=60) for ood in (True, False))
    assert scored.predictions[0].HasField("ood")
    assert not plain.predictions[0].HasField("ood")
    logits = [[one.logit for one in response.predictions[0].classes] for response in (scored, plain)]
    assert logits[0] == pytest.approx(logits[1], abs=1e-4)
    assert scored.model_version == plain.model_version


def test_the_same_picture_scores_the_same_in_company(stub, cat):
    coffee = pb.Image(encoded=sample_picture("coffee").read_bytes())
    alone = stub.Predict(pb.PredictRequest(images=[cat], ood=True), timeout=60).predictions[0]
    many = stub.Predict(pb.PredictRequest(images=[coffee, cat, coffee, cat, coffee], ood=True), timeout=60)
    scores = [one.ood.score for one in many.predictions]
    assert scores[1::2] == pytest.approx([alone.ood.score] * 2, abs=1e-5)
    assert scores[::2] == pytest.approx([scores[0]] * 3, abs=1e-5)
    assert abs(scores[0] - alone.ood.score) > 1e-3


# ------------------------------------------------------------------------------------------------ metrics


def test_everything_is_counted(server, stub, cat, read_metrics, eventually):
    rise = pb.RiseParameters(mask_count=64)
    parameters = {
        "occlusion": {"occlusion": pb.OcclusionParameters(window_size=112, stride=112)},
        "rise": {"rise": rise},
        "rise_plus": {"rise_plus": pb.RisePlusParameters(rise=rise)},
    }
    targets = pb.Targets(top_count=2)
    asked = [pb.ExplanationRequest(explainer=name, targets=targets, **parameters.get(name, {})) for name in NAMES]
    rows = {
        "ood_score": 1,
        "input_gradient": 3 * 2,
        "layer_gradient": 2,
        "masked_forward": 1 + 4 + 64,
        "masked_ood_score": 2 + 64,
    }
    before = read_metrics(server.http)
    stub.Predict(pb.PredictRequest(images=[cat], explanations=asked, ood=True), timeout=120)

    def counted(*key):
        return read_metrics(server.http)[key] - before.get(key, 0)  # histograms appear with their first event

    # A launch is counted just after its callers have been answered.
    eventually(lambda: all(counted("xai_launch_rows_total", kind) >= count for kind, count in rows.items()))
    for kind in (*rows, "forward", "features"):
        assert counted("xai_launch_rows_total", kind) == rows.get(kind, 0)
    for kind, count in rows.items():
        launches = counted("xai_launches_total", kind)
        assert count / 4 <= launches <= count
        assert counted("xai_launch_duration_seconds_count", kind) == launches
        assert counted("xai_launch_rows_total", kind) + counted("xai_launch_padding_rows_total", kind) >= launches
    for name in NAMES:
        assert counted("xai_explanations_total", name, "complete") == 1
        assert counted("xai_explanations_total", name, "truncated") == 0
        assert counted("xai_explanation_duration_seconds_count", name) == 1
        assert sum(counted("xai_maps_total", name, status) for status in ("ok", "unreliable")) == 2
        assert counted("xai_maps_total", name, "all_zero") == counted("xai_maps_total", name, "no_ood_range") == 0
    assert counted("xai_images_total") == 1
    assert counted("xai_requests_total", "OK", "Predict") == 1


# ------------------------------------------------------------------------------------------------ the command line


def test_the_command_line_explains_by_rise(run, server, photo):
    picture = str(sample_picture("chelsea"))
    options = ["--explain", "rise", "--param", "rise.masks=64", "--seed", "5", "--ood", "--target", "282"]
    printed, folder = run("predict", picture, *options, "--no-legend")
    with Client(server.grpc, timeout=60) as client:
        asked = client.predict(photo, ood=True)
    assert f"ood score {asked.ood_score:.4g}, percentile {asked.ood_percentile:.1f}" in printed
    (row,) = (line.replace(", unreliable", "").split() for line in printed.splitlines() if line.startswith("rise "))
    assert row[:5] == ["rise", "complete", "282", "tiger", "cat"]
    assert row[5] == "64"
    assert 0 < float(row[6]) < 10
    assert ("unreliable" in printed) == (float(row[6]) > 0.7)
    assert row[7] == "chelsea.rise.png"
    with Image.open(folder / row[7]) as overlay:
        assert overlay.size == (451, 300)
    printed, _ = run("predict", picture, *options, "--json")
    told = json.loads(printed)
    (explanation,) = told["explanations"]
    assert (explanation["seed"], explanation["passes"], explanation["parameters"]["masks"]) == (5, 64, 64)
    assert explanation["maps"][0]["standard_error"] == pytest.approx(float(row[6]), rel=0.01)
    assert told["ood_score"] == pytest.approx(asked.ood_score, abs=1e-5)


def test_the_command_line_describes_everything(run):
    printed, _ = run("info")
    assert re.search(r"(?m)^runs on +cpu with (onnxruntime|openvino) \d", printed)
    auroc = r"trained on 40 pictures; AUROC [\d.]+ against masked, [\d.]+ against noise, [\d.]+ against shuffled"
    assert re.search(rf"(?m)^ood +{auroc}$", printed)
    sections = {name: printed.split(f"\n\n{name}  ")[1].split("\n\n")[0] for name in NAMES}
    assert "not available" not in printed
    reduced = ", in bfloat16 where that does for the picture"
    for name, passes in zip(NAMES, (1, 1, 1, 1, 1025, 1000, 1002), strict=True):
        cost = r"[\d.e+-]+ s now, [\d.e+-]+ s on an idle device"
        told = [rf"{passes} pass(es)?, {cost}\n"]
        if name in ("rise", "rise_plus"):  # where the machine gains by bfloat16, 24 masks are scored in both precisions
            told.append(rf"{passes + 24} passes, {cost}{reduced}\n")
        assert any(re.match(each, sections[name]) for each in told)
        assert re.search(r"(?m)^  normalization +string +none, max +none +\w", sections[name])
    for name in ("rise", "rise_plus"):
        for row in (
            r"masks +integer +16 .. 100000 +1000",
            r"grid_size +integer +2 .. 16 +7",
            r"keep_probability +number +0.01 .. 0.99 +0.5",
            r"tolerance +number +0 .. 0.5 +0",
            r"estimator +string +regression, plain +regression",
        ):
            assert re.search(rf"(?m)^  {row} +\w", sections[name])
    for row in (
        r"window_size +integer +1 .. 224 +7",
        r"stride +integer +1 .. 224 +7",
        r"fill +string +zero, mean, blur",
    ):
        assert re.search(rf"(?m)^  {row} ", sections["occlusion"])


def test_what_info_lists_can_be_given(run):
    """The names of parameters are those that `--param` takes."""
    printed, _ = run("info", "--json")
    rise = json.loads(printed)["explainers"]["rise"]["parameters"]
    values = {"masks": 16, "grid_size": 3, "keep_probability": 0.4, "tolerance": 0.5}
    values |= {"estimator": "plain", "normalization": "max"}
    options = [option for name in rise for option in ("--param", f"rise.{name}={values[name]}")]
    printed, _ = run("predict", str(sample_picture("chelsea")), "--explain", "rise", *options, "--json")
    used = json.loads(printed)["explanations"][0]["parameters"]
    assert used == {name: values[name] for name in rise}
