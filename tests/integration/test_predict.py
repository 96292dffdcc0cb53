"""Predictions and explanations over a real socket: do they say what the net says, whatever the form and the company?"""

import asyncio
import concurrent.futures
import io
import re

import grpc
import numpy as np
import pytest
from PIL import Image

from xai_client import AsyncClient, Client, Explain
from xai_proto import explanation_pb2 as pb
from xai_proto import explanation_pb2_grpc as pb_grpc
from xai_sidecar import imaging
from xai_sidecar.explainers.discovery import installed_explainers
from xai_sidecar.zoo.sample import sample_picture

SPEC = imaging.InputSpec(3, 224, 224, 256, 256, False, "bicubic", (127 / 255,) * 3, (128 / 255,) * 3)
# From efficientnet-lite-pytorch, the package of the weights.
CAT = {282: 0.386, 285: 0.356, 281: 0.169}


def predict(stub, *images, **fields):
    return stub.Predict(pb.PredictRequest(images=images, **fields), timeout=60)


def explain(stub, image, **fields):
    return predict(stub, image, explanations=[pb.ExplanationRequest(**fields)]).predictions[0].explanations[0]


def tensor(array, dtype):
    return pb.Tensor(dtype=dtype, shape=array.shape, data=np.ascontiguousarray(array).tobytes())


def logits(prediction):
    return np.array([score.logit for score in sorted(prediction.classes, key=lambda score: score.class_id)])


@pytest.fixture(scope="module")
def cat(photo):
    return pb.Image(encoded=photo)


# ------------------------------------------------------------------------------------------------ predictions


def test_top_five_of_a_photograph(stub, cat):
    (prediction,) = predict(stub, cat).predictions
    assert [score.class_id for score in prediction.classes[:3]] == list(CAT)
    assert len(prediction.classes) == 5
    for score in prediction.classes[:3]:
        assert score.probability == pytest.approx(CAT[score.class_id], abs=0.01)
    assert prediction.classes[0].label == "tiger cat"
    probabilities = [score.probability for score in prediction.classes]
    assert probabilities == sorted(probabilities, reverse=True)
    assert not prediction.explanations
    assert not prediction.HasField("ood")


def test_all_classes_are_a_softmax_of_the_logits(stub, cat):
    (prediction,) = predict(stub, cat, top_k=1000).predictions
    assert sorted(score.class_id for score in prediction.classes) == list(range(1000))
    exponents = np.exp(logits(prediction) - logits(prediction).max())
    probabilities = [score.probability for score in sorted(prediction.classes, key=lambda score: score.class_id)]
    np.testing.assert_allclose(probabilities, exponents / exponents.sum(), rtol=1e-5)
    assert sum(probabilities) == pytest.approx(1, abs=1e-5)


def test_picture_and_region(stub, cat):
    (prediction,) = predict(stub, cat).predictions
    assert (prediction.picture.width, prediction.picture.height) == (451, 300)
    region = prediction.region
    # 224 of 256 pixels of the shorter side, in the middle.
    assert (region.bottom - region.top) == pytest.approx(300 * 224 / 256)
    assert (region.top + region.bottom) / 2 == pytest.approx(150)
    assert (region.left + region.right) / 2 == pytest.approx(451 / 2, abs=1)


def test_several_images_come_back_in_order(stub, cat):
    others = [pb.Image(encoded=sample_picture(name).read_bytes()) for name in ("coffee", "camera", "motorcycle_left")]
    response = predict(stub, *others, cat, others[0], top_k=1)
    assert [one.classes[0].class_id for one in response.predictions] == [967, 872, 665, 282, 967]


def test_a_prediction_is_the_same_again(stub, cat):
    first, second = (predict(stub, cat, top_k=1000).predictions[0] for _ in range(2))
    np.testing.assert_allclose(logits(first), logits(second), atol=1e-5)


def test_model_input_is_what_the_server_would_have_prepared(stub, cat, photo):
    prepared = imaging.prepare(imaging.decode(photo, 10_000_000), SPEC)
    image = pb.Image(model_input=tensor(prepared.array, pb.DATA_TYPE_FLOAT32))
    own, theirs = (predict(stub, one, top_k=1000).predictions[0] for one in (image, cat))
    np.testing.assert_allclose(logits(own), logits(theirs), atol=1e-4)
    assert not own.HasField("picture")
    assert not own.HasField("region")
    assert (theirs.region.left, theirs.region.bottom) == (prepared.region.left, prepared.region.bottom)


def test_half_precision_model_input(stub, cat, photo):
    prepared = imaging.prepare(imaging.decode(photo, 10_000_000), SPEC)
    image = pb.Image(model_input=tensor(prepared.array.astype(np.float16), pb.DATA_TYPE_FLOAT16))
    own, theirs = (predict(stub, one, top_k=1000).predictions[0] for one in (image, cat))
    np.testing.assert_allclose(logits(own), logits(theirs), atol=0.05)


def test_pixels_are_prepared_as_a_file_is(stub, cat, photo):
    pixels = np.asarray(Image.open(io.BytesIO(photo)))
    image = pb.Image(pixels=tensor(pixels, pb.DATA_TYPE_UINT8))
    own, theirs = (predict(stub, one, top_k=1000).predictions[0] for one in (image, cat))
    np.testing.assert_allclose(logits(own), logits(theirs), atol=1e-4)
    assert own.picture == theirs.picture
    assert own.region == theirs.region


def test_answers_do_not_depend_on_the_company(server, stub, photo, connect, map_of):
    """Rows of other callers share the batches, and padding fills them; nobody may notice."""
    picture = Image.open(io.BytesIO(photo))
    pictures = [picture.rotate(15 * turn).crop((20, 10, 420, 290)) for turn in range(12)]
    images = [pb.Image(pixels=tensor(np.asarray(one), pb.DATA_TYPE_UINT8)) for one in pictures]
    explanations = [pb.ExplanationRequest(explainer="gradcam", targets=pb.Targets(class_ids=[282]))]
    requests = [
        pb.PredictRequest(images=[image], top_k=1000, explanations=explanations if index % 3 == 0 else [])
        for index, image in enumerate(images)
    ]
    alone = [stub.Predict(request, timeout=60) for request in requests]

    def ask(index):
        with connect(server.grpc) as own:
            return [own.Predict(requests[(index + turn) % 12], timeout=120) for turn in range(2)]

    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(ask, range(24)))
    for index, pair in enumerate(answers):
        for turn, answer in enumerate(pair):
            expected, got = alone[(index + turn) % 12].predictions[0], answer.predictions[0]
            np.testing.assert_allclose(logits(got), logits(expected), atol=1e-4)
            for one, other in zip(expected.explanations, got.explanations, strict=True):
                want = map_of(one.maps[0])
                np.testing.assert_allclose(map_of(other.maps[0]), want, atol=1e-4 * want.max())
    assert len({tuple(logits(one.predictions[0]).round(3)) for one in alone}) == 12, "the pictures were not different"


# ------------------------------------------------------------------------------------------------ the calls themselves


@pytest.mark.parametrize(
    ("in_request", "in_metadata", "expected"),
    [
        ("from-request.1", None, "from-request.1"),
        ("", "from:metadata_2", "from:metadata_2"),
        ("both", "other", "both"),
        ("", None, "[0-9a-f]{32}"),
        ("", "not fit for a log", "[0-9a-f]{32}"),
        ("", "", "[0-9a-f]{32}"),
    ],
)
def test_request_id(stub, cat, in_request, in_metadata, expected):
    metadata = None if in_metadata is None else [("x-request-id", in_metadata)]
    request = pb.PredictRequest(images=[cat], request_id=in_request)
    response, call = stub.Predict.with_call(request, timeout=60, metadata=metadata)
    assert re.fullmatch(expected, response.request_id)
    assert dict(call.trailing_metadata())["x-request-id"] == response.request_id


def test_model_info_says_what_was_configured(stub, cat):
    info = stub.GetModelInfo(pb.GetModelInfoRequest(), timeout=60).model
    assert (info.name, info.class_count, len(info.labels), info.labels[282]) == (
        "efficientnet-lite0",
        1000,
        1000,
        "tiger cat",
    )
    assert (info.activation, info.device) == (pb.ACTIVATION_SOFTMAX, "cpu")
    # Which of them is the fastest is for the machine to say, and may differ from batch size to batch size.
    assert re.fullmatch(r"((^|, )(openvino|onnxruntime)(-in-parts)? \d+\.\d+\.\d+)+", info.engine)
    assert info.engine_note == ""
    assert info.version == predict(stub, cat).model_version != ""
    taken = info.input
    assert (taken.channels, taken.height, taken.width, taken.resize_height, taken.resize_width) == (
        3,
        224,
        224,
        256,
        256,
    )
    assert (taken.stretch, taken.interpolation) == (False, "bicubic")
    assert list(taken.mean) == pytest.approx([127 / 255] * 3)
    assert list(taken.std) == pytest.approx([128 / 255] * 3)
    assert [batch.batch_size for batch in info.batches] == [1, 4]
    assert all(0 < batch.duration.ToNanoseconds() < 10e9 for batch in info.batches)
    limits = info.limits
    assert (limits.max_image_count, limits.max_pixel_count, limits.max_message_bytes) == (16, 50_000_000, 16 * 2**20)
    assert (limits.max_explanation_count, limits.max_target_count) == (16, 16)
    assert info.ood.training_sample_count == 40
    assert 1_700_000_000 < info.ood.training_time.seconds <= info.ready_time.seconds
    assert set(info.ood.auroc) == {"noise", "shuffled", "masked"}
    assert all(0.8 < value <= 1 for value in info.ood.auroc.values())
    assert info.server_version


PASSES = {
    "gradient": 1,
    "guided_backprop": 1,
    "deconvolution": 1,
    "gradcam": 1,
    "occlusion": 1 + 32 * 32,
    "rise": 1000,
    "rise_plus": 1002,
}
NORMALIZATION = {"normalization": ("none", None, None, ["none", "max"])}
AGGREGATION = {"aggregation": ("max_abs", None, None, ["max_abs", "sum_abs"])}
RISE = {
    "masks": (1000, 16, 100_000, []),
    "grid_size": (7, 2, 16, []),
    "keep_probability": (0.5, 0.01, 0.99, []),
    "tolerance": (0, 0, 0.5, []),
    "estimator": ("regression", None, None, ["regression", "plain"]),
}
PARAMETERS = {
    "gradient": AGGREGATION,
    "guided_backprop": AGGREGATION,
    "deconvolution": AGGREGATION,
    "gradcam": {"layer": ("head", None, None, ["head"])},
    "occlusion": {
        "window_size": (7, 1, 224, []),
        "stride": (7, 1, 224, []),
        "fill": ("zero", None, None, ["zero", "mean", "blur"]),
    },
    "rise": RISE,
    "rise_plus": RISE,
}


def test_model_info_describes_the_explainers(stub):
    info = stub.GetModelInfo(pb.GetModelInfoRequest(), timeout=60).model
    # Where the machine gains by bfloat16, 24 masks are scored in both precisions.
    passes = {one.name: one.cost.pass_count - 24 * (one.precision == "bfloat16") for one in info.explainers}
    assert list(passes) == list(installed_explainers())
    assert passes.items() >= PASSES.items()
    for one in info.explainers:
        assert one.available
        assert one.unavailable_reason == ""
        assert one.precision in (("float32", "bfloat16") if one.name in ("rise", "rise_plus") else ("float32",))
        assert one.description
        assert 0 < one.cost.duration.ToNanoseconds() < 3600e9
        assert all(parameter.description for parameter in one.parameters)
        found = {each.name: described(each) for each in one.parameters}
        assert found == {**PARAMETERS.get(one.name, found), **NORMALIZATION}


def described(parameter):
    """Default, least, greatest and choices of a parameter."""
    kind = parameter.default_value.WhichOneof("kind")
    default = kind and getattr(parameter.default_value, kind)
    types = {pb.PARAMETER_TYPE_STRING: str, pb.PARAMETER_TYPE_INTEGER: float, pb.PARAMETER_TYPE_NUMBER: float}
    assert default is None or isinstance(default, types[parameter.type])
    least, greatest = (
        getattr(parameter, name) if parameter.HasField(name) else None for name in ("minimum", "maximum")
    )
    return default, least, greatest, list(parameter.choices)


def test_a_server_that_samples_nothing_takes_no_ground_truth(stub, refused):
    refusal = refused(stub.ReportGroundTruth, pb.ReportGroundTruthRequest(request_id="a", labels=["tiger cat"]))
    assert (refusal.code, refusal.domain, refusal.reason) == ("FAILED_PRECONDITION", "xai-sidecar", "PRECONDITION")
    assert "evaluator.sample_rate" in refusal.message
    assert refusal.info["request_id"] == refusal.metadata["x-request-id"] != ""


async def test_many_calls_on_one_asynchronous_channel(server, photo):
    async with grpc.aio.insecure_channel(server.grpc) as channel:
        stub = pb_grpc.ExplanationServiceStub(channel)
        request = pb.PredictRequest(images=[pb.Image(encoded=photo)], top_k=1)
        answers = await asyncio.gather(*(stub.Predict(request, timeout=60) for _ in range(32)))
    assert {answer.predictions[0].classes[0].class_id for answer in answers} == {282}
    assert len({answer.request_id for answer in answers}) == 32


# ------------------------------------------------------------------------------------------------ through the SDK


def test_the_sdk_against_the_wire(server, stub, cat, photo, map_of):
    wanted = ["gradcam", Explain("gradient", name="fine", top_count=2, normalization="max", encoding="float16")]
    with Client(server.grpc, timeout=60) as client:
        prediction = client.predict(photo, explain=wanted, top_k=3)
    raw = predict(stub, cat, top_k=3).predictions[0]
    assert [(one.class_id, one.label) for one in prediction.classes] == [(o.class_id, o.label) for o in raw.classes]
    assert tuple(prediction.region) == (raw.region.left, raw.region.top, raw.region.right, raw.region.bottom)
    assert list(prediction.explanations) == ["gradcam", "fine"]
    want = map_of(explain(stub, cat, explainer="gradcam").maps[0])
    np.testing.assert_allclose(prediction.explanations["gradcam"].saliency, want, atol=1e-4 * want.max())
    fine = prediction.explanations["fine"]
    assert (fine.explainer, fine.targets, fine.passes) == ("gradient", (282, 285), 2)
    assert fine.saliencies.shape == (2, 224, 224)
    assert fine.saliencies.max(axis=(1, 2)).tolist() == [1, 1]
    assert fine.overlay(photo).size == (451, 300)


def test_the_sdk_takes_pictures_in_every_form(server, photo, tmp_path):
    path = tmp_path / "cat.png"
    path.write_bytes(photo)
    opened = Image.open(io.BytesIO(photo)).convert("RGB")
    ready = imaging.prepare(imaging.decode(photo, 10_000_000), SPEC).array
    with Client(server.grpc, timeout=60) as client:
        answers = client.predict_many([path, str(path), photo, opened, np.asarray(opened), ready], top_k=1)
    assert [one.classes[0].class_id for one in answers] == [282] * 6
    assert [one.classes[0].logit for one in answers] == pytest.approx([answers[0].classes[0].logit] * 6, abs=1e-4)
    assert answers[-1].region is None


async def test_the_asynchronous_sdk(server, photo):
    async with AsyncClient(server.grpc, timeout=60) as client:
        info = await client.model_info()
        answers = await asyncio.gather(*(client.predict(photo, explain=["gradcam"], top_k=1) for _ in range(4)))
    assert info.name == "efficientnet-lite0"
    assert [one.explanations["gradcam"].targets for one in answers] == [(282,)] * 4
