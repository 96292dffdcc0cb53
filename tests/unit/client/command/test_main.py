"""The command line: what it sends, prints, writes, and with which status it exits."""

import json
import math
import signal

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from PIL import Image

from xai_proto import explanation_pb2 as pb


def picture_failure(failure, reason):
    return failure(
        grpc.StatusCode.INVALID_ARGUMENT, "cannot be\ndecoded", (error_details_pb2.ErrorInfo(reason=reason),)
    )


def test_predict_prints_the_classes(run, cat, fake):
    status, out, err = run("predict", cat, "--top-k", 2, "--ood")
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"{cat}  40 x 30"
    assert lines[2] == "ood score -1.5, percentile 12.0"
    assert lines[3].split() == ["class", "probability", "logit", "label"]
    assert lines[4].split() == ["7", "75.00%", "3.500", "tabby", "cat"]
    (request,) = fake.requests("Predict")
    assert (request.top_k, request.ood) == (2, True)


def test_predict_writes_overlays_of_the_pictures_size(run, cat, tmp_path):
    explained = ("--explain", "gradcam,rise", "--explain", "auto", "--no-legend")
    status, out, _ = run("predict", cat, *explained, "--out", tmp_path / "a" / "b")
    assert status == 0
    for name in ("gradcam", "rise", "auto"):
        path = tmp_path / "a" / "b" / f"cat.{name}.png"
        assert Image.open(path).size == (40, 30)
        (line,) = [line for line in out.splitlines() if line.startswith(name)]
        assert str(path) in line
        assert line.split()[1] == "complete"


def test_overlays_say_below_what_they_show(run, cat, tmp_path):
    assert run("predict", cat, "--explain", "gradcam")[0] == 0
    told = np.asarray(Image.open(tmp_path / "cat.gradcam.png"))
    assert run("predict", cat, "--explain", "gradcam", "--no-legend")[0] == 0
    plain = np.asarray(Image.open(tmp_path / "cat.gradcam.png"))
    assert plain.shape == (30, 40, 3)
    np.testing.assert_array_equal(told[:30, :40], plain)
    assert (told[30:] < 128).any(), "there are words below"


def test_overlays_go_to_the_working_directory_by_default(run, cat, tmp_path):
    assert run("predict", cat, "--explain", "gradcam")[0] == 0
    assert (tmp_path / "cat.gradcam.png").exists()


def test_options_reach_the_request(run, cat, fake):
    status, _, _ = run(
        "predict",
        cat,
        "--explain=gradcam,rise",
        "--param=gradcam.layer=blocks.3=x",
        "--param=rise.masks=12",
        "--param=rise.normalization=max",
        "--seed=5",
        "--target=3",
        "--target=1",
        "--timeout=9",
        "--budget=2.5",
    )
    assert status == 0
    gradcam, rise = fake.requests("Predict")[0].explanations
    assert gradcam.gradcam == pb.GradCamParameters(layer="blocks.3=x")
    assert rise.rise == pb.RiseParameters(mask_count=12, normalization=pb.NORMALIZATION_MAX)
    assert gradcam.seed == rise.seed == 5
    assert list(gradcam.targets.class_ids) == list(rise.targets.class_ids) == [3, 1]
    assert gradcam.budget.ToMilliseconds() == rise.budget.ToMilliseconds() == 2500
    assert fake.received[0].time_remaining < 9.1


def test_several_targets_give_several_files(run, cat, tmp_path):
    status, out, _ = run("predict", cat, "--explain", "rise", "--target", 3, "--target", 1)
    assert status == 0
    for target in (3, 1):
        assert (tmp_path / f"cat.rise.{target}.png").exists()
        assert f"{target} label {target}" in out


def test_pictures_of_the_same_stem_do_not_overwrite_each_other(run, cat, tmp_path):
    other = tmp_path / "cat.png"
    Image.new("RGB", (8, 8)).save(other)
    assert run("predict", cat, other, "--explain", "rise", "--no-legend")[0] == 0
    assert Image.open(tmp_path / "cat.rise.png").size == (40, 30)
    assert Image.open(tmp_path / "cat-2.rise.png").size == (8, 8)


def test_json_is_one_line_for_each_picture(run, cat, tmp_path):
    other = tmp_path / "dog.png"
    Image.new("RGB", (8, 8)).save(other)
    status, out, _ = run("predict", cat, other, "--explain", "rise", "--json")
    assert status == 0
    first, second = map(json.loads, out.splitlines())
    assert (first["image"], second["image"]) == (str(cat), str(other))
    assert first["classes"][0] == {"class_id": 7, "label": "tabby cat", "probability": 0.75, "logit": 3.5}
    assert first["picture_size"] == {"width": 40, "height": 30}
    (explanation,) = first["explanations"]
    assert (explanation["name"], explanation["status"], explanation["elapsed_seconds"]) == ("rise", "complete", 1.5)
    assert explanation["maps"][0]["overlay"] == "cat.rise.png"
    assert (first["ood_score"], first["sampled"], explanation["choice"]) == (None, False, None)


def test_what_was_sampled_says_how_to_report(run, cat, fake, answer):
    def respond(request):
        response = answer(request)
        response.request_id, response.sampled = "r-7", True
        return response

    fake.script = [respond] * 2
    lines = run("predict", cat)[1].splitlines()
    assert lines[1:3] == [
        "model v1  request r-7",
        "sampled  tell what it really shows with: xai-client feedback r-7 --label LABEL",
    ]
    assert json.loads(run("predict", cat, "--json")[1])["sampled"] is True
    assert "xai-client feedback" not in run("predict", cat)[1]


@pytest.mark.parametrize(
    ("composite", "line"),
    [
        (0.71249, "auto: chose gradcam (composite 0.712): It has the best score."),
        (None, "auto: chose gradcam: It has the best score."),
    ],
)
def test_what_auto_chose_and_why(run, cat, fake, answer, composite, line):
    def respond(request):
        response = answer(request)
        explanation = response.predictions[0].explanations[0]
        explanation.explainer = "gradcam"
        explanation.auto_choice.CopyFrom(
            pb.AutoChoice(
                reason="It has the best score.", kind=pb.AUTO_CHOICE_KIND_BEST_OF_CLASS, composite_score=composite
            )
        )
        return response

    fake.script = [respond] * 2
    lines = run("predict", cat, "--explain", "auto,rise")[1].splitlines()
    assert line in lines
    assert not any("rise: chose" in each for each in lines)
    assert any(each.startswith("auto (gradcam)  complete") for each in lines)
    auto, rise = json.loads(run("predict", cat, "--explain", "auto,rise", "--json")[1])["explanations"]
    assert (auto["name"], auto["explainer"], rise["choice"]) == ("auto", "gradcam", None)
    assert auto["choice"] == {
        "reason": "It has the best score.",
        "kind": "best_of_class",
        "composite_score": composite,
        "advantage": None,
    }


def test_withheld_and_skipped_maps_are_reported_not_drawn(run, cat, fake, answer, tmp_path):
    def respond(request):
        response = answer(request)
        first, second = response.predictions[0].explanations
        first.maps[0].status = pb.MAP_STATUS_ZERO_GRADIENT
        first.maps[0].ClearField("map")
        second.status = pb.EXPLANATION_STATUS_SKIPPED
        second.status_message = "top probability is 0.75"
        del second.maps[:]
        return response

    fake.script = [respond]
    status, out, _ = run("predict", cat, "--explain", "gradient,rise")
    assert status == 3
    gradient, rise, note = out.splitlines()[-4:-1]
    assert "zero_gradient" in gradient
    assert gradient.endswith("withheld")
    assert "skipped" in rise
    assert rise.endswith("top probability is 0.75")
    assert note.startswith("gradient: the map of class 7 (label 7) was withheld: the class has no gradient")
    assert list(tmp_path.glob("*.png")) == []


@pytest.mark.parametrize("has_map", [True, False])
def test_what_a_budget_cut_short_says_so(run, cat, fake, answer, has_map):
    def respond(request):
        response = answer(request)
        (rise,) = response.predictions[0].explanations
        rise.status, rise.truncated = pb.EXPLANATION_STATUS_TRUNCATED, True
        rise.status_message = "its budget of 1 s ended it"
        if not has_map:
            del rise.maps[:]
        return response

    fake.script = [respond] * 2
    status, out, _ = run("predict", cat, "--explain", "rise", "--budget", 1)
    assert status == (0 if has_map else 3)
    assert "rise         truncated" in out
    assert ("cat.rise.png" in out) is has_map
    assert out.count("its budget of 1 s ended it") == 1
    (explanation,) = json.loads(run("predict", cat, "--explain", "rise", "--json")[1])["explanations"]
    assert (explanation["status"], explanation["truncated"]) == ("truncated", True)
    assert explanation["status_message"] == "its budget of 1 s ended it"
    assert len(explanation["maps"]) == has_map


def test_only_what_was_skipped_may_lack_a_map(run, cat, fake, answer):
    def respond(request):
        response = answer(request)
        (explanation,) = response.predictions[0].explanations
        explanation.status = pb.EXPLANATION_STATUS_SKIPPED
        del explanation.maps[:]
        return response

    fake.script = [respond]
    assert run("predict", cat, "--explain", "rise")[0] == 0


def test_a_picture_that_fails_outweighs_a_map_that_lacks(run, cat, fake, answer, failure):
    def respond(request):
        response = answer(request)
        response.predictions[0].explanations[0].status = pb.EXPLANATION_STATUS_TRUNCATED
        del response.predictions[0].explanations[0].maps[:]
        return response

    for script in ([respond, picture_failure(failure, "PICTURE")], [picture_failure(failure, "PICTURE"), respond]):
        fake.script = script
        assert run("predict", cat, cat, "--explain", "rise")[0] == 1


def test_what_is_unreliable_is_drawn_and_warned_of(run, cat, fake, answer):
    def respond(request):
        response = answer(request)
        (one,) = response.predictions[0].explanations[0].maps
        one.status, one.standard_error, one.standard_error_bound = pb.MAP_STATUS_UNRELIABLE, 1.5, 0.7
        return response

    fake.script = [respond] * 2
    status, out, _ = run("predict", cat, "--explain", "rise")
    assert status == 0
    assert "complete, unreliable" in out
    assert "cat.rise.png" in out
    told = "the map of class 7 (label 7) is unreliable: mostly noise, its standard error of 1.5 is above 0.7"
    assert f"rise: warning: {told}" in out
    ((one,),) = (
        each["maps"] for each in json.loads(run("predict", cat, "--explain", "rise", "--json")[1])["explanations"]
    )
    assert (one["status"], one["reliable"], one["standard_error_bound"]) == ("unreliable", False, pytest.approx(0.7))
    assert one["warning"].startswith(told)


def test_a_bad_picture_is_reported_and_the_others_still_done(run, cat, fake, failure, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    fake.script = [picture_failure(failure, "PICTURE")]
    status, out, err = run("predict", broken, cat)
    assert status == 1
    assert err.startswith(f"xai-client: {broken}: ")
    assert "cannot be decoded" in err
    assert "request " in err
    assert len(err.splitlines()) == 1
    assert "tabby cat" in out


def test_an_empty_file_is_reported_and_the_others_still_done(run, cat, tmp_path):
    empty = tmp_path / "empty.jpg"
    empty.touch()
    status, out, err = run("predict", empty, cat)
    assert status == 1
    assert err.startswith(f"xai-client: {empty}: the image is empty")
    assert "tabby cat" in out


OPTIONS = [
    ("--target", 281),
    ("--top-count", 2),
    ("--min-probability", 0.5),
    ("--seed", 0),
    ("--budget", 2),
    ("--if-top-probability-below", 0.5),
    ("--if-ood-percentile-below", 5),
    ("--colormap", "turbo"),
    ("--alpha", 0),
    ("--npy",),
    ("--panel",),
    ("--values", "--json"),
]


@pytest.mark.parametrize("option", OPTIONS, ids=str)
def test_what_is_for_explanations_wants_some(run, cat, option):
    status, _, err = run("predict", cat, *option)
    assert status != 0
    assert f"{option[0]} is for explanations; name explainers with --explain" in err


def test_no_overlay_overwrites_a_picture(run, cat, tmp_path):
    other = tmp_path / f"{cat.stem}.gradcam.png"
    other.write_bytes(cat.read_bytes())
    status, _, err = run("predict", cat, other, "--explain", "gradcam", "--out", tmp_path)
    assert status != 0
    assert "would overwrite a picture" in err
    assert other.read_bytes() == cat.read_bytes()


def test_any_other_fault_ends_it_with_one_line(run, cat, fake, failure):
    fake.script = [picture_failure(failure, "UNKNOWN_EXPLAINER")]
    status, out, err = run("predict", cat, cat, "--explain", "nothing")
    assert (status, out) == (1, "")
    assert len(err.splitlines()) == 1
    assert len(fake.received) == 1


def test_no_server(run, cat):
    status, _, err = run("predict", cat, "--server", "127.0.0.1:1", "--timeout", 5)
    assert status == 1
    assert "127.0.0.1:1" in err
    assert "Traceback" not in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["predict"],
        ["predict", "none.jpg"],
        ["predict", "CAT", "--param", "rise.masks"],
        ["predict", "CAT", "--explain", "rise", "--param", "rise.masks=5", "--param", "rise.masks=6"],
        ["predict", "CAT", "--explain", "rise", "--param", "rise.masks=5", "--param", "rise.mask_count=5"],
        ["predict", "CAT", "--explain", "rise", "--target", "1", "--top-count", "2"],
        ["predict", "CAT", "--explain", "rise", "--top-count", "2", "--min-probability", "0.5"],
        ["predict", "CAT", "--explain", "rise", "--alpha", "1.5"],
        ["predict", "CAT", "--explain", "rise", "--alpha", "nan"],
        ["predict", "CAT", "--explain", "rise", "--colormap", "rainbow"],
        ["predict", "CAT", "--explain", "rise", "--values"],
        ["predict", "CAT", "--param", "rise.masks=5"],
        ["predict", "CAT", "--explain", "rise", "--param", "rise.masks=many"],
        ["predict", "CAT", "--explain", "rise", "--param", "rise.speed=5"],
        ["predict", "CAT", "--explain", "rise", "--seed", "-1"],
        ["predict", "CAT", "--explain", "rise", "--budget", "0"],
        ["predict", "CAT", "--explain", "rise", "--budget", "nan", "--watch"],
        ["predict", "CAT", "--timeout", "0"],
        ["predict", "CAT", "--server", "nowhere"],
        ["predict", "CAT", "--top-k", "five"],
        ["unknown"],
    ],
    ids=" ".join,
)
def test_wrong_commands_exit_with_2_and_send_nothing(run, cat, fake, argv):
    status, out, err = run(*[cat if each == "CAT" else each for each in argv])
    assert (status, out) == (2, "")
    assert err
    assert "Traceback" not in err
    assert fake.received == []


def test_an_unwritable_folder_is_one_line_before_the_call(run, fake, cat, tmp_path):
    (tmp_path / "file").write_text("")
    status, _, err = run("predict", cat, "--explain", "rise", "--out", tmp_path / "file" / "x")
    assert status == 1
    assert (
        err
        == f"xai-client: no files can be written to {tmp_path / 'file' / 'x'}: Not a directory; choose another --out\n"
    )
    assert fake.received == []


def test_a_folder_of_pictures_is_named_as_one(run, fake, tmp_path):
    told = f"{tmp_path} is a folder; name the pictures in it, as in {tmp_path}/*.jpg"
    assert run("predict", tmp_path) == (2, "", f"xai-client: {told}\n")
    assert fake.received == []


def test_a_folder_is_made_when_there_is_a_file_to_write(run, cat, tmp_path):
    run("predict", cat, "--out", tmp_path / "a" / "b")
    assert not (tmp_path / "a").exists()
    assert list(tmp_path.iterdir()) == [cat]


def test_help_shows_examples(run):
    predict, feedback = "xai-client predict cat.jpg --explain gradcam,rise", "xai-client feedback REQUEST_ID --label"
    for argv, example in ((["--help"], predict), (["predict", "--help"], predict), (["feedback", "--help"], feedback)):
        status, out, _ = run(*argv)
        assert status == 0
        assert example in out


def test_info(run):
    status, out, err = run("info")
    assert (status, err) == (0, "")
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "model lite0 version abc123" in lines
    assert "rise 4000 passes, 2.5 s" in lines
    assert "masks integer 1 .. 32000 4000 Most masks to spend." in lines
    assert "normalization string none, max none Scaling." in lines
    assert "not available: there is no OoD net" in lines
    assert "quality 1 % of the requests are sampled; up to date with 50 pictures in the last 24 h" in lines
    assert "rise 0.625 0.250 ±0.125 (50)" in lines
    assert "covered with the mean colour 0.25, 0.5, 0.75" in lines
    assert "weights Of lite0.ckpt, all 240 parameters." in lines
    assert "stem 16 x 112 x 112 compiled when asked for" in lines
    assert "head 320 x 7 x 7 the default" in lines


def test_info_json(run):
    status, out, _ = run("info", "--json")
    assert status == 0
    info = json.loads(out)
    assert info["explainers"]["rise"]["parameters"]["masks"]["maximum"] == 32000
    assert info["input"]["mean_colour"] == [0.25, 0.5, 0.75]
    assert info["ready_time"] == "2024-05-01T12:00:00+00:00"
    assert info["explainers"]["rise"]["composite_score"] == 0.625
    assert info["explainers"]["rise"]["quality"] == [
        {
            "metric": "faithfulness/deletion_auc",
            "mean": 0.25,
            "confidence_half_width": 0.125,
            "sample_count": 50,
            "higher_is_better": False,
            "update_time": "2024-05-02T00:00:00+00:00",
            "goodness": 0.75,
            "interval": None,
            "skill": None,
        }
    ]
    assert info["evaluator"] == {
        "sample_rate": 0.01,
        "state": "up_to_date",
        "last_sample_time": "2024-05-02T01:02:03+00:00",
        "window": 86400,
        "window_sample_count": 50,
        "note": "Objects were reported for none of them.",
        "metrics": {
            "faithfulness/deletion_auc": {
                "name": "faithfulness/deletion_auc",
                "description": "How fast the probability falls.",
                "higher_is_better": False,
                "minimum": 0,
                "maximum": 1,
            }
        },
        "accuracy": {
            "picture_count": 4,
            "share": 0.75,
            "classes": [
                {
                    "class_id": 1,
                    "label": "dog",
                    "true_positives": 3,
                    "false_positives": 1,
                    "false_negatives": 0,
                    "true_negatives": 0,
                    "precision": 0.75,
                    "recall": 1.0,
                }
            ],
        },
        "controls": {},
    }


def test_what_json_has_no_number_for_is_null(run, fake, described_model):
    described_model.explainers[0].quality[0].confidence_half_width = math.nan
    described_model.ClearField("evaluator")
    fake.script = [pb.GetModelInfoResponse(model=described_model)]
    info = json.loads(run("info", "--json")[1], parse_constant=pytest.fail)
    assert info["explainers"]["rise"]["quality"][0]["confidence_half_width"] is None
    assert info["evaluator"] is None


def test_ctrl_c_is_quiet(run, cat, monkeypatch):
    def interrupt(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("xai_client.client.Client.predict", interrupt)
    assert run("predict", cat) == (130, "", "")


def test_a_real_ctrl_c_ends_a_call_under_way(fake, cat, spawn):
    process = None

    def interrupt(request):
        process.send_signal(signal.SIGINT)
        process.wait(10)
        return pb.PredictResponse()

    fake.script = [interrupt]
    process = spawn("predict", cat)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (130, b"", b"")


@pytest.mark.parametrize("label_count", [1, 20_000])
def test_a_broken_pipe_is_quiet(fake, described_model, label_count, spawn):
    # Little output breaks when it is flushed, much while it is printed.
    described_model.labels.extend(["label"] * label_count)
    fake.script = [pb.GetModelInfoResponse(model=described_model)]
    process = spawn("info", "--json")
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(20) == 141


def test_labels_that_the_terminal_cannot_show(fake, cat, answer, spawn):
    def respond(request):
        response = answer(request)
        response.predictions[0].classes[0].label = "chaton \u732b"
        return response

    fake.script = [respond]
    process = spawn("predict", cat, PYTHONIOENCODING="ascii")
    out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, b"")
    assert b"chaton \\u732b" in out


def test_an_overlay_shows_the_map(run, cat, tmp_path):
    run("predict", cat, "--explain", "rise", "--no-legend")
    pixels = np.asarray(Image.open(tmp_path / "cat.rise.png")).astype(int)
    # The map grows from the top left to the bottom right, on the picture with a fifth of its colours.
    plain, hot = pixels[0, 0], pixels[-1, -1]
    assert np.abs(plain - [109, 115, 121]).max() < 8
    assert np.abs(hot - [109, 115, 121]).max() > 60
