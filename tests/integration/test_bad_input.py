"""Whatever a caller sends, it gets an error that names the field, and the server is unharmed."""

import io
import struct
import zlib

import grpc
import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration
from PIL import Image

from xai_client import Client, InvalidRequestError, MessageTooLargeError
from xai_proto import explanation_pb2 as pb

SHAPE = (3, 224, 224)


def tensor(array, dtype=pb.DATA_TYPE_FLOAT32, **changes):
    return pb.Tensor(**{"dtype": dtype, "shape": array.shape, "data": array.tobytes(), **changes})


def model_input(shape=SHAPE, dtype=np.float32, kind=pb.DATA_TYPE_FLOAT32, **changes):
    return pb.Image(model_input=tensor(np.zeros(shape, dtype), kind, **changes))


def pixels(shape=(8, 8, 3), dtype=np.uint8, kind=pb.DATA_TYPE_UINT8, **changes):
    return pb.Image(pixels=tensor(np.zeros(shape, dtype), kind, **changes))


def not_finite(value):
    array = np.zeros(SHAPE, np.float32)
    array[1, 2, 3] = value
    return pb.Image(model_input=tensor(array))


def with_shape(shape, data=b""):
    return pb.Image(pixels=pb.Tensor(dtype=pb.DATA_TYPE_UINT8, shape=shape, data=data))


def png_bomb(side):
    """A tiny PNG file of a great grey picture."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes((side + 1) * side), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def jpeg():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture
def good(stub, photo):
    """A good request, which has to be answered after the bad one as before it."""
    request = pb.PredictRequest(images=[pb.Image(encoded=photo)], top_k=1)
    yield request
    (prediction,) = stub.Predict(request, timeout=60).predictions
    assert prediction.classes[0].class_id == 282
    assert prediction.classes[0].probability == pytest.approx(0.386, abs=0.01)


# ------------------------------------------------------------------------------------------------ pictures

IMAGES = {
    "no source": (pb.Image(), "PICTURE", ""),
    "no bytes": (pb.Image(encoded=b""), "PICTURE", ".encoded"),
    "a text": (pb.Image(encoded=b"Hello, I am a picture."), "PICTURE", ".encoded"),
    "a PDF": (pb.Image(encoded=b"%PDF-1.7\n" + bytes(100)), "PICTURE", ".encoded"),
    "a JPEG cut short": (pb.Image(encoded=jpeg()[:-400]), "PICTURE", ".encoded"),
    "only the start of a JPEG": (pb.Image(encoded=jpeg()[:3]), "PICTURE", ".encoded"),
    "a PNG with a broken header": (pb.Image(encoded=b"\x89PNG\r\n\x1a\n" + bytes(40)), "PICTURE", ".encoded"),
    "a WebP without content": (pb.Image(encoded=b"RIFF\x04\0\0\0WEBP"), "PICTURE", ".encoded"),
    "a bomb": (pb.Image(encoded=png_bomb(10_000)), "PICTURE_TOO_LARGE", ".encoded"),
    "a batch": (model_input((1, *SHAPE)), "TENSOR", ".model_input"),
    "channels last": (model_input((224, 224, 3)), "TENSOR", ".model_input"),
    "another size": (model_input((3, 224, 225)), "TENSOR", ".model_input"),
    "grey": (model_input((1, 224, 224)), "TENSOR", ".model_input"),
    "a scalar": (model_input(()), "TENSOR", ".model_input"),
    "an input of bytes": (model_input(dtype=np.uint8, kind=pb.DATA_TYPE_UINT8), "TENSOR", ".model_input"),
    "no dtype": (model_input(dtype=np.float32, kind=pb.DATA_TYPE_UNSPECIFIED), "TENSOR", ".model_input.dtype"),
    "an unknown dtype": (model_input(kind=77), "TENSOR", ".model_input.dtype"),
    "too little data": (model_input(data=bytes(4 * 3 * 224 * 224 - 1)), "TENSOR", ".model_input.data"),
    "too much data": (model_input(data=bytes(4 * 3 * 224 * 224 + 4)), "TENSOR", ".model_input.data"),
    "no data": (model_input(data=b""), "TENSOR", ".model_input.data"),
    "NaN": (not_finite(np.nan), "TENSOR", ".model_input"),
    "infinity": (not_finite(-np.inf), "TENSOR", ".model_input"),
    "pixels of floats": (pixels(dtype=np.float32, kind=pb.DATA_TYPE_FLOAT32), "TENSOR", ".pixels"),
    "pixels with alpha": (pixels((8, 8, 4)), "TENSOR", ".pixels"),
    "pixels of rank 2": (pixels((8, 8)), "TENSOR", ".pixels"),
    "no pixels": (pixels((0, 8, 3)), "TENSOR", ".pixels.shape"),
    "pixels of other length": (pixels(data=bytes(191)), "TENSOR", ".pixels.data"),
    "a negative size": (with_shape([-1, 8, 3]), "TENSOR", ".pixels.shape"),
    "two negative sizes": (with_shape([-8, -8, 3], bytes(192)), "TENSOR", ".pixels.shape"),
    "a size beyond all memory": (with_shape([2**62, 2**62, 3]), "TENSOR", ".pixels.data"),
    # NumPy itself cannot hold these.
    "sizes that only a zero makes possible": (with_shape([2**62, 2**62, 0]), "TENSOR", ".pixels"),
    "forty dimensions": (with_shape([1] * 40, b"x"), "TENSOR", ".pixels"),
}


@pytest.mark.parametrize("case", IMAGES)
def test_image(case, good, stub, refused):
    image, reason, path = IMAGES[case]
    refusal = refused(stub.Predict, pb.PredictRequest(images=[good.images[0], image]))
    if case in ("sizes that only a zero makes possible", "forty dimensions"):
        # Whether the shape or the whole tensor is named makes no difference to the caller.
        assert refusal.fields in ((f"images[1]{path}",), (f"images[1]{path}.shape",)), refusal.message
        path = refusal.fields[0].removeprefix("images[1]")
    refusal.check("INVALID_ARGUMENT", reason, f"images[1]{path}")


# ------------------------------------------------------------------------------------------------ requests


def one(**fields):
    """A request for one explanation, by gradcam unless said otherwise."""
    return {"explanations": [pb.ExplanationRequest(**{"explainer": "gradcam", **fields})]}


def targets(**fields):
    return one(targets=pb.Targets(**fields))


ASKED = "explanations[0]"
CLASSES = f"{ASKED}.targets.class_ids"
INVALID, UNKNOWN, PARAMETER = "INVALID_REQUEST", "UNKNOWN_EXPLAINER", "PARAMETER"
GRADCAM = pb.GradCamParameters
GRADIENT = pb.GradientParameters

REQUESTS = {
    "top_k 0": ({"top_k": 0}, INVALID, "top_k"),
    "top_k -1": ({"top_k": -1}, INVALID, "top_k"),
    "top_k 1,001": ({"top_k": 1001}, INVALID, "top_k"),
    "top_k 10,000": ({"top_k": 10_000}, INVALID, "top_k"),
    "an id with a space": ({"request_id": "not good"}, INVALID, "request_id"),
    "an id with a line break": ({"request_id": "good\n"}, INVALID, "request_id"),
    "an id beyond ASCII": ({"request_id": "größe"}, INVALID, "request_id"),
    "an id of 129 characters": ({"request_id": "x" * 129}, INVALID, "request_id"),
    "no explainer": (one(explainer=""), UNKNOWN, f"{ASKED}.explainer"),
    "an unknown explainer": (one(explainer="lime"), UNKNOWN, f"{ASKED}.explainer"),
    "an explainer in capitals": (one(explainer="GradCAM"), UNKNOWN, f"{ASKED}.explainer"),
    "an unknown layer": (one(gradcam=GRADCAM(layer="layer4")), "UNKNOWN_LAYER", f"{ASKED}.gradcam.layer"),
    "a layer without a picture": (
        one(gradcam=GRADCAM(layer="classifier")),
        "UNKNOWN_LAYER",
        f"{ASKED}.gradcam.layer",
    ),
    "a layer's name of 600 characters": (one(gradcam=GRADCAM(layer="x" * 600)), PARAMETER, f"{ASKED}.gradcam.layer"),
    "parameters of another explainer": (one(gradient=GRADIENT()), PARAMETER, f"{ASKED}.gradient"),
    "bad parameters of another explainer": (one(rise=pb.RiseParameters(mask_count=5)), PARAMETER, f"{ASKED}.rise"),
    "an unknown normalization": (one(gradcam=GRADCAM(normalization=9)), PARAMETER, f"{ASKED}.gradcam.normalization"),
    "an unknown aggregation": (
        one(explainer="gradient", gradient=GRADIENT(aggregation=9)),
        PARAMETER,
        f"{ASKED}.gradient.aggregation",
    ),
    "an unknown encoding": (one(encoding=99), INVALID, f"{ASKED}.encoding"),
    "a class below 0": (targets(class_ids=[-1]), "TARGET", f"{CLASSES}[0]"),
    "a class too high": (targets(class_ids=[282, 1000]), "TARGET", f"{CLASSES}[1]"),
    "a class twice": (targets(class_ids=[5, 6, 5]), "TARGET", f"{CLASSES}[2]"),
    "too many classes": (targets(class_ids=range(17)), "TARGET", CLASSES),
    "classes and a count": (targets(class_ids=[1], top_count=1), "TARGET", f"{ASKED}.targets"),
    "a count and a probability": (targets(top_count=1, min_probability=0.5), "TARGET", f"{ASKED}.targets"),
    "no target": (targets(top_count=0), "TARGET", f"{ASKED}.targets.top_count"),
    "a count below 0": (targets(top_count=-3), "TARGET", f"{ASKED}.targets.top_count"),
    "a count too high": (targets(top_count=17), "TARGET", f"{ASKED}.targets.top_count"),
    "probability 0": (targets(min_probability=0), "TARGET", f"{ASKED}.targets.min_probability"),
    "a probability above 1": (targets(min_probability=1.01), "TARGET", f"{ASKED}.targets.min_probability"),
    "a probability of NaN": (targets(min_probability=np.nan), "TARGET", f"{ASKED}.targets.min_probability"),
    "no budget": (one(budget=Duration()), INVALID, f"{ASKED}.budget"),
    "a budget below 0": (one(budget=Duration(seconds=-1)), INVALID, f"{ASKED}.budget"),
    "an empty condition": (one(condition=pb.Condition()), INVALID, f"{ASKED}.condition"),
    "a top probability below 0": (
        one(condition=pb.Condition(top_probability_below=0)),
        INVALID,
        f"{ASKED}.condition.top_probability_below",
    ),
    "a top probability of NaN": (
        one(condition=pb.Condition(top_probability_below=np.nan)),
        INVALID,
        f"{ASKED}.condition.top_probability_below",
    ),
    "a top probability above 1": (
        one(condition=pb.Condition(top_probability_below=1.01)),
        INVALID,
        f"{ASKED}.condition.top_probability_below",
    ),
    "a percentile above 100": (
        one(condition=pb.Condition(top_probability_below=0.5, ood_percentile_below=101)),
        INVALID,
        f"{ASKED}.condition.ood_percentile_below",
    ),
    "one name twice": (
        {"explanations": [pb.ExplanationRequest(explainer=each, name="a") for each in ("gradcam", "gradient")]},
        INVALID,
        "explanations[1].name",
    ),
    "the default name twice": (
        {"explanations": [pb.ExplanationRequest(explainer="gradcam") for _ in range(2)]},
        INVALID,
        "explanations[1].name",
    ),
    "a name that is another's default": (
        {"explanations": [pb.ExplanationRequest(explainer="gradient", name="gradcam"), *one()["explanations"]]},
        INVALID,
        "explanations[1].name",
    ),
    "too many explanations": (
        {"explanations": [pb.ExplanationRequest(explainer="gradcam", name=f"{index}") for index in range(17)]},
        INVALID,
        "explanations",
    ),
}


@pytest.mark.parametrize("case", REQUESTS)
def test_request(case, good, stub, refused):
    fields, reason, path = REQUESTS[case]
    refusal = refused(stub.Predict, pb.PredictRequest(images=good.images, **fields))
    refusal.check("INVALID_ARGUMENT", reason, path)


@pytest.mark.parametrize("count", [0, 17])
def test_number_of_images(count, good, stub, refused):
    refusal = refused(stub.Predict, pb.PredictRequest(images=[good.images[0]] * count))
    refusal.check("INVALID_ARGUMENT", INVALID, "images")


def test_the_choice_of_the_server_takes_no_parameters(good, stub, refused):
    fields = one(explainer="auto", rise=pb.RiseParameters(mask_count=64))
    refusal = refused(stub.Predict, pb.PredictRequest(images=good.images, **fields))
    refusal.check("INVALID_ARGUMENT", "PARAMETER", f"{ASKED}.rise")
    fields = one(explainer="auto", budget=Duration(nanos=1))
    refused(stub.Predict, pb.PredictRequest(images=good.images, **fields)).check(
        "FAILED_PRECONDITION", "PRECONDITION", f"{ASKED}.budget"
    )


def test_the_id_of_a_refused_request_is_kept_if_it_can_be(good, stub, refused):
    refusal = refused(stub.Predict, pb.PredictRequest(images=good.images, top_k=0, request_id="mine"))
    assert refusal.info["request_id"] == refusal.metadata["x-request-id"] == "mine"
    refusal = refused(stub.Predict, pb.PredictRequest(images=good.images, request_id="not good"))
    assert refusal.info["request_id"] == refusal.metadata["x-request-id"]
    assert " " not in refusal.info["request_id"]


def test_a_message_over_the_limit(good, stub, refused):
    refusal = refused(stub.Predict, pb.PredictRequest(images=[pb.Image(encoded=bytes(16 * 2**20))]))
    assert refusal.code == "RESOURCE_EXHAUSTED"
    assert "larger than max" in refusal.message


def test_a_message_that_is_none(good, server, refused):
    lines = len(server.other_output)
    with grpc.insecure_channel(server.grpc) as channel:
        call = channel.unary_unary("/xai.v1.ExplanationService/Predict")
        refusal = refused(call, b"\xff\xff\xff\xff")
    assert refusal.code in ("UNKNOWN", "INTERNAL", "INVALID_ARGUMENT")
    assert server.other_output[lines:] == []


def test_a_method_that_is_none(good, server, refused):
    with grpc.insecure_channel(server.grpc) as channel:
        refusal = refused(channel.unary_unary("/xai.v1.ExplanationService/Explain"), b"")
    assert refusal.code == "UNIMPLEMENTED"


def test_refusals_are_typed_in_the_sdk(good, server):
    with Client(server.grpc, timeout=60) as client:
        with pytest.raises(InvalidRequestError) as caught:
            client.predict(good.images[0].encoded, explain=["lime"])
        assert (caught.value.reason, caught.value.field) == (UNKNOWN, f"{ASKED}.explainer")
        with pytest.raises(MessageTooLargeError):
            client.predict(b"\xff\xd8\xff" + bytes(16 * 2**20))


def test_nothing_of_it_reached_the_log_as_a_failure(server, good):
    """Runs after all of the above: whatever was sent, the server called it the caller's fault."""
    assert [entry for entry in server.log if entry["event"] == "request_failed"] == []
    assert server.other_output == []
    assert server.process.poll() is None
