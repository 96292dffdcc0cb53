"""`xai-client predict`: what to explain, when, and what is saved of it."""

import json

import numpy as np
import pytest
from PIL import Image

from xai_proto import explanation_pb2 as pb

MAP = [[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0], [8.0, 9.0, 10.0, 11.0]]
"""What the fake server answers with."""


def test_conditions_and_counts_reach_the_request(run, cat, fake):
    options = ["--if-top-probability-below=0.5", "--if-ood-percentile-below=2.5", "--explain=gradcam"]
    assert run("predict", cat, *options, "--top-count=3")[0] == 0
    assert run("predict", cat, *options, "--min-probability=0.25")[0] == 0
    several, probable = (request.explanations[0] for request in fake.requests("Predict"))
    assert several.condition == probable.condition == pb.Condition(top_probability_below=0.5, ood_percentile_below=2.5)
    assert several.targets == pb.Targets(top_count=3)
    assert probable.targets == pb.Targets(min_probability=0.25)


def test_targets_by_label(run, cat, fake, described_model):
    described_model.labels[:] = ["cat", "crane", "tiger cat", "crane"]
    fake.script = [pb.GetModelInfoResponse(model=described_model)]
    assert run("predict", cat, "--explain", "rise", "--target", "tiger cat", "--target", 0)[0] == 0
    assert list(fake.requests("Predict")[0].explanations[0].targets.class_ids) == [2, 0]
    for label, told in (
        ("tigercat", "the model has no class 'tigercat'; did you mean 'tiger cat'?"),
        ("zebra", "the model has no class 'zebra'; 'xai-client info --json' lists the labels"),
        ("crane", "--target 'crane' is the label of classes 1, 3; give an id"),
    ):
        fake.script = [pb.GetModelInfoResponse(model=described_model)]
        assert run("predict", cat, "--explain", "rise", "--target", label) == (2, "", f"xai-client: {told}\n")
    assert len(fake.requests("Predict")) == 1


def test_ids_alone_ask_for_no_labels(run, cat, fake):
    run("predict", cat, "--explain", "rise", "--target", 3)
    assert [each.method for each in fake.received] == ["Predict"]


@pytest.mark.parametrize("watch", [False, True])
def test_maps_as_arrays(run, cat, fake, answer, tmp_path, watch):
    """Of both targets, as they were sent; none where a map was withheld."""

    def respond(request):
        response = answer(request)
        for each in response.predictions[0].explanations[1].maps:
            each.status = pb.MAP_STATUS_NOT_FINITE
            each.ClearField("map")
        return response

    fake.script = [(lambda request: events_of(respond(request.request))) if watch else respond]
    options = [
        "--explain",
        "rise,gradient",
        "--target",
        3,
        "--target",
        1,
        "--npy",
        "--out",
        "maps",
        *["--watch"] * watch,
    ]
    status, out, _ = run("predict", cat, *options)
    assert status == 3  # one of them was withheld
    assert sorted(path.name for path in (tmp_path / "maps").iterdir()) == [
        f"cat.rise.{target}.{kind}" for target in (1, 3) for kind in ("npy", "png")
    ]
    for target in (1, 3):
        array = np.load(tmp_path / "maps" / f"cat.rise.{target}.npy")
        assert array.dtype == np.float32
        assert array.tolist() == MAP
        assert f"rise: the map of class {target} (label {target}) as an array: maps/cat.rise.{target}.npy" in out
    assert "gradient: the map of class 3 (label 3) was withheld: it had values that are NaN or infinite" in out


@pytest.mark.parametrize("watch", [False, True])
def test_a_panel_of_the_picture_and_its_maps(run, cat, fake, answer, tmp_path, watch):
    fake.script = [lambda request: events_of(answer(request.request))] * watch
    options = ["--explain=rise,gradient", "--panel", "--out=maps", *["--watch"] * watch]
    status, out, _ = run("predict", cat, *options)
    assert status == 0
    assert "side by side: maps/cat.panel.png" in out
    with Image.open(tmp_path / "maps" / "cat.panel.png") as panel, Image.open(cat) as picture:
        assert panel.width == 3 * (320 + 16) + 16
        assert panel.height > 320 * picture.height / picture.width
    (document,) = map(json.loads, run("predict", cat, *options[:3], "--json")[1].splitlines())
    assert document["panel"] == "maps/cat.panel.png"
    assert "panel" not in json.loads(run("predict", cat, "--explain=rise", "--json")[1])


def test_a_panel_does_not_overwrite_a_picture(run, cat, tmp_path):
    taken = tmp_path / "cat.panel.png"
    taken.write_bytes(cat.read_bytes())
    status, _, err = run("predict", cat, taken, "--explain=rise", "--panel")
    assert (status, taken.read_bytes()) == (2, cat.read_bytes())
    assert "the panel cat.panel.png would overwrite a picture to be predicted; choose another --out" in err


def events_of(response):
    """The same as a stream."""
    explanations = list(response.predictions[0].explanations)
    del response.predictions[0].explanations[:]
    yield pb.PredictStreamResponse(predicted=response)
    for each in explanations:
        yield pb.PredictStreamResponse(explained=pb.ExplanationUpdate(explanation=each))
    yield pb.PredictStreamResponse(finished=pb.StreamFinished())


@pytest.mark.parametrize("watch", [False, True])
def test_maps_in_json(run, cat, fake, answer, watch):
    if watch:
        fake.script = [lambda request: events_of(answer(request.request))] * 2
    watching = ["--watch"] * watch
    plain, whole = (
        run("predict", cat, "--explain", "rise", "--json", *watching, *more)[1].splitlines()
        for more in ([], ["--values", "--npy"])
    )

    def maps(lines):
        documents = [json.loads(line) for line in lines]
        (found,) = (each for each in documents if "maps" in each) if watch else documents[0]["explanations"]
        return found["maps"]

    (one,) = maps(whole)
    assert (one["values"], one["npy"]) == (MAP, "cat.rise.npy")
    assert not {"values", "npy"} & set(maps(plain)[0])


def test_colours(run, cat, tmp_path):
    pictures = []
    for options in ([], ["--colormap", "inferno"], ["--alpha", 0], ["--alpha", 0.75]):
        assert run("predict", cat, "--explain", "rise", "--no-legend", *options)[0] == 0
        pictures.append(np.asarray(Image.open(tmp_path / "cat.rise.png")).tolist())
    plain, inferno, clear, default = pictures
    assert plain == default
    assert plain != inferno
    colours = np.asarray(Image.open(cat).convert("RGB")).astype(float)
    grey = colours @ [0.299, 0.587, 0.114]
    assert np.abs(clear - (0.2 * colours + 0.8 * grey[..., np.newaxis])).max() <= 1.5, "the map would stand on this"


def test_a_map_of_zeros_says_so(run, cat, fake, answer):
    def respond(request):
        response = answer(request)
        response.predictions[0].explanations[0].maps[0].status = pb.MAP_STATUS_ALL_ZERO
        return response

    fake.script = [respond]
    assert "rise: the map of class 7 (label 7) is 0 everywhere" in run("predict", cat, "--explain", "rise")[1]


def test_further_commands_go_to_the_same_server(run, cat, fake, answer, monkeypatch):
    def respond(request):
        response = answer(request)
        response.request_id, response.sampled = "r-7", True
        return response

    monkeypatch.delenv("XAI_SERVER")
    fake.script = [respond]
    out = run("predict", cat, "--server", fake.address)[1]
    assert f"xai-client feedback r-7 --label LABEL --server {fake.address}\n" in out
