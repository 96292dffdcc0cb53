"""`xai-client feedback`: what it sends, prints, and with which status it exits."""

import io
import json

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from PIL import Image

from xai_proto import explanation_pb2 as pb


@pytest.fixture
def mask(tmp_path):
    """A file of 4 x 2 pixels with one that belongs to the object."""
    pixels = np.zeros((2, 4), np.uint8)
    pixels[1, 2] = 255
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    return "mask.png"


def test_everything_reaches_the_request(run, fake, mask):
    status, out, err = run(
        "feedback",
        "r-1",
        "--label=tabby, cat",
        "--label=a=b",
        "--class-id=7",
        "--class-id=8",
        "--box=1,2,3,4.5",
        "--box=tabby, cat=10,20,200,180",
        "--polygon=a=b=0,0,4,0,0,3",
        f"--mask={mask}",
        f"--mask=a=b={mask}",
        "--image-index=2",
        "--timeout=9",
    )
    assert (status, err) == (0, "")
    (request,) = fake.requests("ReportGroundTruth")
    assert (request.request_id, request.image_index) == ("r-1", 2)
    assert (list(request.labels), list(request.class_ids)) == (["tabby, cat", "a=b"], [7, 8])
    assert not request.boxes
    first, second, third, fourth, fifth = request.objects
    assert first == pb.GroundTruthObject(box=pb.Region(left=1, top=2, right=3, bottom=4.5))
    assert second == pb.GroundTruthObject(box=pb.Region(left=10, top=20, right=200, bottom=180), label="tabby, cat")
    assert [(point.x, point.y) for point in third.polygon.points] == [(0, 0), (4, 0), (0, 3)]
    assert [each.label for each in (third, fourth, fifth)] == ["a=b", "", "a=b"]
    for each in (fourth, fifth):
        pixels = np.asarray(Image.open(io.BytesIO(each.mask_png)))
        assert [tuple(index) for index in np.argwhere(pixels)] == [(1, 2)]
    assert fake.received[0].time_remaining < 9.1
    assert out == (
        "request r-1, picture 2: label tabby, cat; label a=b; class 7; class 8; 1 box; 1 box of tabby, cat;"
        " 1 polygon of a=b; 1 mask; 1 mask of a=b  reported\n"
    )


def test_a_file_whose_name_holds_a_sign_of_equality(run, fake, mask, tmp_path):
    (tmp_path / mask).rename(tmp_path / "a=b.png")
    assert run("feedback", "r", "--mask", "a=b.png")[0] == 0
    assert fake.requests("ReportGroundTruth")[0].objects[0].label == ""


def test_several_of_a_kind_are_counted(run):
    out = run("feedback", "r", "--box=1,2,3,4", "--box=1,2,3,5", "--polygon=1,2,3,4,5,7", "--polygon=1,2,3,4,5,8")[1]
    assert out == "request r, picture 0: 2 boxes; 2 polygons  reported\n"


def test_what_changed_nothing_says_so(run, fake):
    fake.script = [pb.ReportGroundTruthResponse()] * 2
    assert run("feedback", "r", "--label", "cat") == (
        0,
        "request r, picture 0: label cat  nothing changed: the same had been reported before\n",
        "",
    )
    assert json.loads(run("feedback", "r", "--label", "cat", "--json")[1])["changed"] is False


def test_json(run, mask):
    arguments = ["--label", "cat", "--box", "1,2,3,4", "--polygon", "cat=0,0,4,0,0,3", "--mask", mask]
    status, out, err = run("feedback", "r", *arguments, "--json")
    assert (status, err, len(out.splitlines())) == (0, "", 1)
    assert json.loads(out) == {
        "request_id": "r",
        "image_index": 0,
        "labels": ["cat"],
        "class_ids": [],
        "objects": [
            {"shape": "box", "label": None, "box": [1, 2, 3, 4]},
            {"shape": "polygon", "label": "cat", "polygon": [[0, 0], [4, 0], [0, 3]]},
            {"shape": "mask", "label": None, "mask": "mask.png"},
        ],
        "changed": True,
        "warnings": [],
    }


def test_what_may_not_be_meant_is_said_but_no_failure(run, fake):
    told = "objects[0]: The box from (0, 0) to (9, 9) lies outside what the model saw."
    fake.script = [pb.ReportGroundTruthResponse(changed=True, warnings=[told])] * 2
    status, out, err = run("feedback", "r", "--box", "0,0,9,9")
    assert (status, err) == (0, "")
    assert out.splitlines()[1:] == [f"warning: {told}"]
    assert json.loads(run("feedback", "r", "--box", "0,0,9,9", "--json")[1])["warnings"] == [told]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["r"],
        ["bad id", "--label=cat"],
        ["r", "--label="],
        ["r", "--class-id=cat"],
        ["r", "--class-id=-1"],
        ["r", "--label=cat", "--image-index=-1"],
        ["r", "--box=1,2,3"],
        ["r", "--box=1,2,3,x"],
        ["r", "--box=1,2,3,nan"],
        ["r", "--box=1,2,1,4"],
        ["r", "--box=cat=1,2,3"],
        ["r", "--box==1,2,3,4"],
        ["r", "--polygon=1,2,3,4"],
        ["r", "--polygon=1,2,3,4,5"],
        ["r", "--polygon="],
        ["r", "--mask=none.png"],
        ["r", "--mask=cat=none.png"],
        ["r", "--label=dog", "--box=cat=1,2,3,4"],
        ["r", "--label=cat", "--timeout=0"],
    ],
    ids=" ".join,
)
def test_wrong_commands_exit_with_2_and_send_nothing(run, fake, arguments):
    status, out, err = run("feedback", *arguments)
    assert (status, out) == (2, "")
    assert err
    assert "Traceback" not in err
    assert fake.received == []


def test_a_file_that_is_no_mask_is_one_line(run, fake, tmp_path):
    (tmp_path / "mask.png").write_bytes(b"no picture")
    status, out, err = run("feedback", "r", "--mask", "mask.png")
    assert (status, out, len(err.splitlines())) == (1, "", 1)
    assert "PNG" in err
    assert fake.received == []


def test_what_the_server_says_of_a_request_that_it_does_not_know(run, fake, failure):
    cure = "request_id: 'r' was not sampled; only requests whose response has `sampled` take a report"
    reason = error_details_pb2.ErrorInfo(reason="NOT_SAMPLED")
    fake.script = [failure(grpc.StatusCode.NOT_FOUND, cure, (reason,))]
    status, out, err = run("feedback", "r", "--label", "cat")
    assert (status, out, len(err.splitlines())) == (1, "", 1)
    assert err.startswith(f"xai-client: {cure} [NOT_FOUND/NOT_SAMPLED, request ")
