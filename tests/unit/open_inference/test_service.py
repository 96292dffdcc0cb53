"""The Open Inference Protocol on the core, without a transport: the answers are those of the core's own requests."""

import io
import time

import numpy as np
import pytest
from PIL import Image
from toys import only

from xai_sidecar.errors import NotFoundError, ShuttingDownError, SidecarError
from xai_sidecar.open_inference.messages import InferRequest, InputTensor, RequestedOutput
from xai_sidecar.open_inference.service import OpenInference
from xai_sidecar.serving.plan import Condition, Targets
from xai_sidecar.serving.requests import EncodedPicture, ExplanationRequest, ModelInput, Pixels, PredictRequest

PIXELS = np.random.default_rng(5).integers(0, 256, (2, 12, 10, 3), np.uint8)
OFF = only("occlusion", "rise", "rise_plus")


def itself(message):
    return message


@pytest.fixture
def service(serve):
    return OpenInference(serve(0.0005, *OFF)[0].core)


@pytest.fixture
def inputs(picture):
    return np.stack([picture(seed).array for seed in range(2)])


def asked(inputs, *outputs, **fields):
    tensor = InputTensor("model_input", "FP32", inputs.shape, inputs.tobytes())
    outputs = [each if isinstance(each, RequestedOutput) else RequestedOutput(each) for each in outputs]
    return InferRequest("", [tensor], outputs, **fields)


async def infer(service, request):
    deadline = time.monotonic() + 60
    return await service.infer(request, itself, request_id="made-up", deadline=deadline)


async def outputs_of(service, request):
    return {each.name: each for each in (await infer(service, request)).outputs}


async def core_answer(service, images, *explanations, **fields):
    return await service._core.predict(PredictRequest(images, explanations, **fields), itself)


async def test_a_prediction_has_what_costs_nothing(service, inputs):
    response = await infer(service, asked(inputs, id="mine"))
    want = await core_answer(service, [ModelInput(each) for each in inputs])
    assert (response.id, response.model_version) == ("mine", want.model_version)
    assert response.parameters == {"request_id": "mine", "sampled": False}
    by_name = {each.name: each for each in response.outputs}
    assert list(by_name) == ["probabilities", "logits", "labels"]
    classes = len(service._core.state.model.labels)
    assert by_name["probabilities"].shape == by_name["logits"].shape == (2, classes)
    assert by_name["labels"].shape == (2, min(5, classes))
    for row, one in enumerate(want.predictions):
        for score in one.classes:
            assert by_name["probabilities"].elements[row, score.class_id] == np.float32(score.probability)
            assert by_name["logits"].elements[row, score.class_id] == np.float32(score.logit)
    assert by_name["labels"].elements == [score.label.encode() for one in want.predictions for score in one.classes]


async def test_outputs_come_in_the_order_they_are_asked_for_and_no_others(service, inputs):
    response = await infer(service, asked(inputs, "class_ids", "logits", parameters={"top_k": 2}))
    assert [each.name for each in response.outputs] == ["class_ids", "logits"]
    want = np.argsort(-response.outputs[1].elements, axis=1)[:, :2]
    np.testing.assert_array_equal(response.outputs[0].elements, want)
    assert response.outputs[0].datatype == "INT32"


async def test_files_and_pixels(service):
    files = []
    for each in PIXELS:
        file = io.BytesIO()
        Image.fromarray(each).save(file, "PNG")
        files.append(file.getvalue())
    requests = [
        (InputTensor("image", "BYTES", (2,), values=files), [EncodedPicture(each) for each in files]),
        (InputTensor("image", "BYTES", (2, 1), values=files), [EncodedPicture(each) for each in files]),
        (InputTensor("image", "UINT8", PIXELS.shape, PIXELS.tobytes()), [Pixels(each) for each in PIXELS]),
        (InputTensor("image", "UINT8", PIXELS.shape, values=PIXELS.tolist()), [Pixels(each) for each in PIXELS]),
    ]
    for tensor, images in requests:
        found = await outputs_of(service, InferRequest("", [tensor], [RequestedOutput("logits")]))
        want = await core_answer(service, images)
        np.testing.assert_array_equal(found["logits"].elements, [one.logits for one in want.predictions])


async def test_half_precision_inputs(service, inputs):
    half = inputs.astype(np.float16)
    tensor = InputTensor("model_input", "FP16", half.shape, half.tobytes())
    found = await outputs_of(service, InferRequest("", [tensor]))
    want = await outputs_of(service, asked(half.astype(np.float32)))
    np.testing.assert_array_equal(found["logits"].elements, want["logits"].elements)


async def test_explanations_are_those_of_the_core(service, inputs):
    settings = {"class_ids": "3,0", "seed": 7, "masks": 64.0, "tolerance": 0}
    found = await outputs_of(
        service,
        asked(
            inputs,
            RequestedOutput("saliency.rise", settings),
            "standard_error.rise",
            "status.rise",
            "class_ids.rise",
            RequestedOutput("saliency.fine", {"explainer": "occlusion", "window_size": 2, "top_count": 1}),
        ),
    )
    want = await core_answer(
        service,
        [ModelInput(each) for each in inputs],
        ExplanationRequest("rise", "rise", {"masks": 64, "tolerance": 0}, Targets((3, 0)), seed=7),
        ExplanationRequest("occlusion", "fine", {"window_size": 2}, Targets(top_count=1)),
    )
    for row, one in enumerate(want.predictions):
        rise, fine = one.explanations
        for column, each in enumerate(rise.maps):
            np.testing.assert_array_equal(found["saliency.rise"].elements[row, column], each.values)
            assert found["standard_error.rise"].elements[row, column] == np.float32(each.standard_error)
            assert found["status.rise"].elements[2 * row + column] == each.status.name.encode()
        assert found["class_ids.rise"].elements[row].tolist() == [3, 0]
        np.testing.assert_array_equal(found["saliency.fine"].elements[row, 0], fine.maps[0].values)
    facts = found["saliency.rise"].parameters
    assert (facts["explainer"], facts["seed"], facts["truncated"]) == ("rise", 7, False)
    assert found["saliency.fine"].parameters["explainer"] == "occlusion"
    assert set(facts["status"].split(",")) == {
        each.status.name for one in want.predictions for each in one.explanations[0].maps
    }


async def test_pictures_with_different_numbers_of_targets(service, inputs):
    found = await outputs_of(service, asked(inputs, "probabilities"))
    ranked = -np.sort(-found["probabilities"].elements, axis=1)
    least = float(ranked[0, 1]) * 0.999  # at least two targets of the first picture
    names = [f"{kind}.occlusion" for kind in ("class_ids", "status", "saliency")]
    wanted = [RequestedOutput(name, {"min_probability": least}) for name in names]
    found = await outputs_of(service, asked(inputs, *wanted))
    counts = (ranked >= least).sum(axis=1)
    assert counts[0] >= 2
    assert counts[1] != counts[0]
    for row, count in enumerate(counts):
        ids = found["class_ids.occlusion"].elements[row]
        assert (ids[:count] >= 0).all()
        assert (ids[count:] == -1).all()
        assert np.isnan(found["saliency.occlusion"].elements[row, count:]).all()
        assert np.isfinite(found["saliency.occlusion"].elements[row, :count]).all()
        width = len(ids)
        left = found["status.occlusion"].elements[row * width + count : (row + 1) * width]
        assert set(left) <= {b"NONE"}


async def test_an_explanation_whose_condition_does_not_hold(service, inputs):
    settings = {"top_probability_below": 0.0001}
    found = await outputs_of(
        service, asked(inputs, RequestedOutput("saliency.rise", settings), "status.rise", "class_ids.rise")
    )
    assert found["saliency.rise"].shape[:2] == (2, 1)
    assert np.isnan(found["saliency.rise"].elements).all()
    assert found["status.rise"].elements == [b"SKIPPED"] * 2
    assert (found["class_ids.rise"].elements == -1).all()
    assert "not below 0.0001" in found["saliency.rise"].parameters["status_message"]
    want = await core_answer(service, [ModelInput(inputs[0])], ExplanationRequest("rise", condition=Condition(0.0001)))
    assert want.predictions[0].explanations[0].message in found["saliency.rise"].parameters["status_message"]


async def test_explanations_by_a_setting_of_the_request(service, inputs):
    response = await infer(service, asked(inputs, parameters={"explain": "occlusion, auto", "top_count": 2}))
    assert [each.name for each in response.outputs] == [
        *("probabilities", "logits", "labels"),
        *("saliency.occlusion", "status.occlusion", "saliency.auto", "status.auto"),
    ]
    assert response.outputs[3].shape[:2] == (2, 2)


async def test_classification(service, inputs):
    found = await outputs_of(
        service, asked(inputs, RequestedOutput("probabilities", {"classification": 2}), "class_ids")
    )
    whole = (await outputs_of(service, asked(inputs)))["probabilities"].elements
    labels = service._core.state.model.labels
    best = found["class_ids"].elements[:, :2]
    want = [f"{whole[row, each]:.6f}:{each}:{labels[each]}".encode() for row in range(2) for each in best[row]]
    assert found["probabilities"].elements == want
    assert (found["probabilities"].datatype, found["probabilities"].shape) == ("BYTES", (2, 2))


async def test_an_id_that_logs_cannot_carry_comes_back_all_the_same(service, inputs):
    response = await infer(service, asked(inputs, id="a request of mine"))
    assert response.id == "a request of mine"
    assert response.parameters["request_id"] == "made-up"


async def test_versions(service, inputs):
    version = service._core.state.model.version
    response = await infer(service, asked(inputs, model_version=version))
    assert response.model_version == version
    with pytest.raises(NotFoundError, match=f"no version '1' of .* but {version}") as caught:
        await infer(service, asked(inputs, model_version="1"))
    assert caught.value.field == "model_version"
    assert service.model_ready("", version)
    with pytest.raises(NotFoundError) as caught:
        service.model_metadata("", "1")
    assert caught.value.field == "version"


WRONG = [
    ({"inputs": []}, "inputs", "There are 0 inputs"),
    ({"inputs": [("pixels", "UINT8")]}, "inputs[0].name", "no input 'pixels'. Send image"),
    ({"inputs": [("image", "FP32")]}, "inputs[0].datatype", "Send it as BYTES or UINT8"),
    ({"outputs": ["softmax"]}, "outputs[0].name", "no output 'softmax'. There are probabilities"),
    ({"outputs": ["logits", "logits"]}, "outputs[1].name", "asked for twice"),
    ({"outputs": ["saliency.lime"]}, "outputs[0].name", "no explainer 'lime' here. There are: "),
    ({"outputs": [("saliency.rise", {"explainer": "lime"})]}, "outputs[0].name", "no explainer 'lime'"),
    ({"outputs": ["logits", ("saliency.rise", {"masks": 3})]}, "outputs[1].parameters.masks", "greater than"),
    ({"outputs": [("saliency.rise", {"mask": 3})]}, "outputs[0].parameters", "no parameter 'mask'. It has "),
    ({"outputs": [("saliency.rise", {"top_count": 99})]}, "outputs[0].parameters.top_count", "99; give 1 to"),
    ({"outputs": [("saliency.rise", {"class_ids": "1,x"})]}, "outputs[0].parameters.class_ids", 'as in "281,282"'),
    ({"outputs": [("saliency.rise", {"class_ids": 99})]}, "outputs[0].parameters.class_ids", "no class 99"),
    ({"outputs": [("saliency.rise", {"budget_seconds": -1})]}, "outputs[0].parameters.budget_seconds", "more than 0"),
    ({"outputs": [("saliency.rise", {"seed": -1})]}, "outputs[0].parameters.seed", "from 0 to 2^64"),
    ({"outputs": [("logits", {"classification": -1})]}, "outputs[0].parameters.classification", "-1; give 1 or more"),
    ({"outputs": [("logits", {"masks": 3})]}, "outputs[0].parameters.masks", "There are: classification"),
    (
        {"outputs": [("saliency.rise", {"masks": 32}), ("status.rise", {"masks": 64})]},
        "outputs[1].parameters.masks",
        "give it 32 and 64",
    ),
    ({"outputs": ["ood_score"]}, "outputs", "no OoD net"),
    ({"parameters": {"top_k": 99}}, "parameters.top_k", "top_k is 99"),
    ({"parameters": {"top_k": "all"}}, "parameters.top_k", "'all'; give a whole number"),
    ({"parameters": {"topk": 2}}, "parameters.topk", "There are: top_k, explain"),
    ({"parameters": {"top_count": 2}}, "parameters.top_count", "none is asked for"),
    ({"parameters": {"explain": "rise", "top_count": 99}}, "parameters.top_count", "99; give 1 to"),
    ({"parameters": {"explain": "lime"}}, "parameters.explain", "no explainer 'lime'"),
    ({"parameters": {"explain": 3}}, "parameters.explain", "give a text"),
    ({"model_name": "other"}, "model_name", "no model 'other'"),
]


@pytest.mark.parametrize(("change", "field", "says"), WRONG, ids=[each[1] + each[2][:9] for each in WRONG])
async def test_what_is_wrong_is_named_with_its_cure(service, inputs, change, field, says):
    fields = {"model_name": "", "inputs": asked(inputs).inputs, **change}
    if change.get("inputs"):
        fields["inputs"] = [InputTensor(*each, (1,), b"x") for each in change["inputs"]]
    if "outputs" in change:
        fields["outputs"] = [
            RequestedOutput(each) if isinstance(each, str) else RequestedOutput(*each) for each in change["outputs"]
        ]
    with pytest.raises(SidecarError) as caught:
        await infer(service, InferRequest(**fields))
    assert caught.value.field == field
    assert says in caught.value.message
    assert caught.value.code != "INTERNAL"


@pytest.mark.parametrize(
    ("tensor", "field", "says"),
    [
        (InputTensor("image", "BYTES", (1,), values=[b"no picture"]), "inputs[0][0]", "are no JPEG, PNG"),
        (InputTensor("image", "BYTES", (2, 2), values=[b""] * 4), "inputs[0].shape", "[n, 1]"),
        (InputTensor("image", "BYTES", (10**9,), b""), "inputs[0].shape", "1,000,000,000 pictures; send 1 to"),
        (InputTensor("image", "UINT8", (12, 10, 3), bytes(360)), "inputs[0].shape", "[n, height, width, channels]"),
        (InputTensor("image", "UINT8", (1, 12, 10, 2), bytes(240)), "inputs[0][0]", "(height, width, 3) or"),
        (InputTensor("model_input", "FP32", (1, 9, 9, 9), bytes(4 * 729)), "inputs[0][0]", "shape"),
        (InputTensor("model_input", "FP32", (3, 4), bytes(48)), "inputs[0].shape", "[n, channels, height, width]"),
        (InputTensor("image", "UINT8", (1, 2, 2, 3), bytes(3)), "inputs[0]", "takes 12 bytes"),
        (
            InputTensor("image", "UINT8", (1, 2, 2, 3), bytes(12), parameters={"shared_memory_region": "x"}),
            "inputs[0].parameters.shared_memory_region",
            "It has none",
        ),
    ],
)
async def test_inputs_that_are_wrong(service, tensor, field, says):
    with pytest.raises(SidecarError) as caught:
        await infer(service, InferRequest("", [tensor]))
    assert (caught.value.field, caught.value.code) == (field, "INVALID_ARGUMENT")
    assert says in caught.value.message


async def test_a_model_input_that_is_not_finite(service, inputs):
    inputs[1, 0, 0, 0] = np.nan
    with pytest.raises(SidecarError) as caught:
        await infer(service, asked(inputs))
    assert caught.value.field == "inputs[0][1]"


async def test_the_request_can_say_how_long_its_caller_waits(service, inputs):
    request = asked(inputs, RequestedOutput("saliency.rise", {"masks": 20_000}), parameters={"timeout": 50_000})
    with pytest.raises(SidecarError) as caught:
        await infer(service, request)
    assert caught.value.code == "DEADLINE_EXCEEDED"


def test_metadata(service):
    found = service.model_metadata("", "")
    model = service._core.state.model
    assert (found.name, found.versions) == (model.config.model.name, (model.version,))
    assert [(each.name, each.datatype) for each in found.inputs] == [("image", "BYTES"), ("model_input", "FP32")]
    spec = model.input
    assert found.inputs[1].shape == (-1, spec.channels, spec.height, spec.width)
    outputs = {each.name: (each.datatype, each.shape) for each in found.outputs}
    assert outputs["probabilities"] == ("FP32", (-1, len(model.labels)))
    assert outputs["saliency.rise"] == ("FP32", (-1, -1, spec.height, spec.width))
    assert "status.auto" in outputs
    assert "saliency.gradcam" not in outputs  # it is off
    assert "ood_score" not in outputs


async def test_every_output_in_the_metadata_can_be_had_and_is_as_described(service, inputs):
    metadata = service.model_metadata("", "")
    found = await outputs_of(service, asked(inputs, *[each.name for each in metadata.outputs]))
    for each in metadata.outputs:
        assert (found[each.name].datatype, len(found[each.name].shape)) == (each.datatype, len(each.shape)), each
        for size, said in zip(found[each.name].shape, each.shape, strict=True):
            assert said in (-1, size)


async def test_before_the_model_is_loaded(service, inputs):
    service._core.state = None
    assert not service.is_ready()
    assert service.is_alive()
    assert not service.model_ready("anything", "")
    for call in (lambda: service.model_metadata("", ""), lambda: infer(service, asked(inputs))):
        with pytest.raises(ShuttingDownError):
            found = call()
            await found
