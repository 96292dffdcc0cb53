"""Requests from their bytes: what is a picture of it, and what it costs to find that out and to parse it."""

import random

import numpy as np
import pytest
from cpu_time import least_cpu_seconds

from xai_proto import explanation_pb2 as pb
from xai_sidecar.errors import InvalidRequestError
from xai_sidecar.rpc.messages import MOST_REST_BYTES, Reader, blob_bytes, blobs_of

SIZE = 16 * 2**20
"""The largest message by default."""

KINDS = (pb.PredictRequest, pb.PredictStreamRequest, pb.ReportGroundTruthRequest, pb.GetModelInfoRequest)


def varint(number):
    data = b""
    while number >= 0x80:
        data += bytes([number & 0x7F | 0x80])
        number >>= 7
    return data + bytes([number])


def field(number, data):
    """A field of bytes, texts, packed numbers or a message."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def blobs_in(data, kind):
    return blob_bytes(data, blobs_of(kind.DESCRIPTOR))


def test_what_is_a_picture_or_a_mask():
    tensor = pb.Tensor(dtype=1, shape=[3, 2**62, 5], data=b"t" * 1000)
    images = [pb.Image(encoded=b"e" * 200), pb.Image(pixels=tensor), pb.Image(model_input=tensor), pb.Image()]
    explanation = pb.ExplanationRequest(explainer="rise", seed=2**64 - 1, rise={"tolerance": 0.5})
    explanation.named_parameters.update({"text": "n" * 100, "inside": {"list": [1, {"deeper": "n" * 100}]}})
    request = pb.PredictRequest(images=images, explanations=[explanation], top_k=-1, request_id="e" * 300)
    assert blobs_in(request.SerializeToString(), pb.PredictRequest) == 2200
    stream = pb.PredictStreamRequest(request=request, progress_interval={"seconds": -5})
    assert blobs_in(stream.SerializeToString(), pb.PredictStreamRequest) == 2200
    box = pb.Region(left=1, top=2, right=3, bottom=4)
    objects = [pb.GroundTruthObject(mask_png=b"m" * 70, label="m" * 70), pb.GroundTruthObject(box=box)]
    report = pb.ReportGroundTruthRequest(objects=objects, boxes=[box], class_ids=[1, -1], image_index=-1)
    assert blobs_in(report.SerializeToString(), pb.ReportGroundTruthRequest) == 70
    for kind in KINDS:
        assert blobs_in(b"", kind) == 0


def test_fields_that_the_contract_does_not_have_are_no_pictures():
    unknown = field(99, b"x" * 1000) + varint(98 << 3) + varint(5) + varint(97 << 3 | 1) + b"12345678"
    unknown += varint(96 << 3 | 5) + b"1234"
    data = unknown + field(1, field(1, b"e" * 10)) + unknown
    assert pb.PredictRequest.FromString(data).images[0].encoded == b"e" * 10
    assert blobs_in(data, pb.PredictRequest) == 10


@pytest.mark.parametrize("seed", range(5))
def test_whatever_it_finds_of_nonsense_is_within_it(seed):
    chance = random.Random(seed)
    whole = pb.PredictRequest(images=[pb.Image(encoded=b"e" * 90)] * 3, request_id="abc").SerializeToString()
    for _ in range(300):
        data = bytearray(whole[: chance.randrange(len(whole))])
        for _ in range(chance.randrange(4)):
            if data:
                data[chance.randrange(len(data))] = chance.randrange(256)
        for kind in KINDS:
            assert 0 <= blobs_in(bytes(data), kind) <= len(data)
    assert blobs_in(b"\xff" * 100, pb.PredictRequest) == 0
    assert blobs_in(varint(1 << 3 | 2) + b"\xff" * 9 + b"\x01" + b"x", pb.PredictRequest) == 0, "longer than there is"


HOSTILE = {
    "empty pictures": (pb.PredictRequest, b"\x0a\x00"),
    "pictures of nothing": (pb.PredictRequest, field(1, field(1, b""))),
    "pictures of a byte": (pb.PredictRequest, field(1, field(1, b"x"))),
    "empty tensors": (pb.PredictRequest, field(1, field(3, b""))),
    "empty explanations": (pb.PredictRequest, b"\x1a\x00"),
    "streams of pictures": (pb.PredictStreamRequest, field(1, b"\x0a\x00")),
    "empty boxes": (pb.ReportGroundTruthRequest, b"\x22\x00"),
    "empty objects": (pb.ReportGroundTruthRequest, b"\x32\x00"),
    "masks of nothing": (pb.ReportGroundTruthRequest, field(6, field(3, b""))),
    "empty labels": (pb.ReportGroundTruthRequest, b"\x1a\x00"),
    "class ids": (pb.ReportGroundTruthRequest, b"\x28\x01"),
    "unknown fields": (pb.GetModelInfoRequest, varint(99 << 3) + b"\x00"),
    "groups": (pb.GetModelInfoRequest, varint(99 << 3 | 3) + varint(99 << 3 | 4)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_messages_of_very_many_parts_are_refused_unparsed(name):
    kind, part = HOSTILE[name]
    reader, data = Reader(kind), part * (SIZE // len(part))

    def refused():
        with pytest.raises(InvalidRequestError, match="Besides pictures and masks, the message has"):
            reader.read(data)

    assert least_cpu_seconds(refused) < 0.05


@pytest.mark.parametrize("name", HOSTILE)
def test_the_most_that_is_parsed_takes_little_time(name):
    """Where parsing 16 MiB of the same takes up to 0.8 s."""
    kind, part = HOSTILE[name]
    reader, data = Reader(kind), part * (MOST_REST_BYTES // len(part))
    assert least_cpu_seconds(lambda: reader.read(data)) < 0.05


@pytest.mark.parametrize(
    ("kind", "inside"),
    [
        (pb.PredictRequest, lambda data: field(1, field(3, field(2, data)))),  # a shape
        (pb.PredictRequest, lambda data: field(5, data)),  # a request id
        (pb.ReportGroundTruthRequest, lambda data: field(3, data)),  # a label
        (pb.ReportGroundTruthRequest, lambda data: field(5, data)),  # class ids
        (pb.ReportGroundTruthRequest, lambda data: field(6, field(2, data))),  # a polygon
    ],
)
def test_single_parts_that_are_very_long(kind, inside):
    with pytest.raises(InvalidRequestError, match="Besides pictures and masks"):
        Reader(kind).read(inside(b"\x01" * MOST_REST_BYTES * 2))


def test_pictures_and_masks_may_be_large():
    pixels = np.zeros((3, 1000, 1000), np.float32).tobytes()
    tensor = pb.Tensor(dtype=1, shape=[3, 1000, 1000], data=pixels)
    request = pb.PredictRequest(images=[pb.Image(model_input=tensor)], request_id="mine")
    assert Reader(pb.PredictRequest).read(request.SerializeToString()) == request
    masks = [pb.GroundTruthObject(mask_png=b"m" * 150_000)] * 100
    report = pb.ReportGroundTruthRequest(objects=masks, request_id="mine")
    assert Reader(pb.ReportGroundTruthRequest).read(report.SerializeToString()) == report
    many = pb.PredictRequest(images=[pb.Image(encoded=b"e" * 1000)] * 1024)  # as many as a config may allow
    assert Reader(pb.PredictRequest).read(many.SerializeToString()) == many
    corners = pb.Polygon(points=[pb.Point(x=0.1, y=0.2)] * 10_000)
    outlined = pb.ReportGroundTruthRequest(objects=[pb.GroundTruthObject(polygon=corners)])
    assert Reader(pb.ReportGroundTruthRequest).read(outlined.SerializeToString()) == outlined
