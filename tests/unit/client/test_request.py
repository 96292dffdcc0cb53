"""Requests are built right from every kind of argument, and wrong arguments are refused before anything is sent."""

import io
from datetime import timedelta

import numpy as np
import pytest
from google.protobuf.json_format import MessageToDict
from PIL import Image

from xai_client import ArgumentError, Explain, ImageError, ParameterError, XaiError
from xai_client.picture import to_message, to_picture
from xai_client.request import check_images, parse_parameter, predict_request, stream_request
from xai_proto import explanation_pb2 as pb


def build(*explain):
    return list(predict_request([b"x"], list(explain), top_k=None, ood=False, request_id="r").explanations)


# ------------------------------------------------------------------------------------------------- images


def test_paths_and_bytes_are_sent_as_they_are(cat, jpeg):
    for image in (cat, str(cat), jpeg, bytearray(jpeg), memoryview(jpeg)):
        assert to_message(image) == pb.Image(encoded=jpeg)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_a_pil_image_arrives_without_loss(mode):
    source = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8))
    image = Image.new("I;16", (7, 5), 700) if mode == "I;16" else source.convert(mode)
    received = Image.open(io.BytesIO(to_message(image).encoded))
    assert received.format == "PNG"
    wanted = image.convert("RGB") if mode == "CMYK" else image
    assert np.array_equal(np.asarray(received.convert(wanted.mode)), np.asarray(wanted))


def test_a_pil_image_is_turned_upright_once():
    pixels = np.zeros((2, 4, 3), np.uint8)
    pixels[0, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", exif=exif)
    received = Image.open(io.BytesIO(to_message(Image.open(buffer)).encoded))
    assert received.size == (2, 4)
    assert received.getexif().get(0x0112, 1) == 1
    assert np.asarray(received)[0, 1].tolist() == [255, 255, 255]
    assert np.asarray(received).sum() == 3 * 255


def test_uint8_arrays_are_pixels():
    colour = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    message = to_message(colour).pixels
    assert (message.dtype, list(message.shape), message.data) == (pb.DATA_TYPE_UINT8, [2, 3, 3], colour.tobytes())
    grey = np.arange(6, dtype=np.uint8).reshape(2, 3)
    for array in (grey, grey[:, :, None]):
        message = to_message(array).pixels
        assert (list(message.shape), message.data) == ([2, 3, 1], grey.tobytes())


def test_strided_pixels_are_sent_in_their_order():
    array = np.arange(24, dtype=np.uint8).reshape(4, 2, 3)[::-2, :, ::-1]
    assert np.frombuffer(to_message(array).pixels.data, np.uint8).reshape(2, 2, 3).tolist() == array.tolist()


@pytest.mark.parametrize(
    ("dtype", "wire", "number"),
    [
        ("<f4", "<f4", pb.DATA_TYPE_FLOAT32),
        (">f4", "<f4", pb.DATA_TYPE_FLOAT32),
        ("<f2", "<f2", pb.DATA_TYPE_FLOAT16),
        (">f2", "<f2", pb.DATA_TYPE_FLOAT16),
    ],
)
def test_float_arrays_are_model_inputs(dtype, wire, number):
    array = np.linspace(-2, 2, 24).reshape(3, 2, 4).astype(dtype)
    message = to_message(array).model_input
    assert (message.dtype, list(message.shape)) == (number, [3, 2, 4])
    assert np.array_equal(np.frombuffer(message.data, wire).reshape(3, 2, 4), array)


@pytest.mark.parametrize(
    "image",
    [
        None,
        7,
        [[1, 2]],
        b"",
        np.zeros((2, 3, 4), np.uint8),
        np.zeros((0, 3, 3), np.uint8),
        np.zeros((4,), np.uint8),
        np.zeros((2, 3), np.float32),
        np.zeros((2, 3, 3), np.float64),
        np.zeros((2, 3, 3), bool),
        Image.new("F", (2, 2)),
        Image.new("RGB", (0, 2)),
    ],
    ids=lambda image: repr(image).partition(" at 0x")[0],
)
def test_what_is_no_image_is_refused_with_the_kinds_that_are(image):
    with pytest.raises(ImageError) as caught:
        to_message(image)
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, XaiError)


def test_a_request_has_its_images_in_their_order(jpeg):
    images = [np.ones((3, 2, 2), np.float32), jpeg, np.ones((2, 2), np.uint8), Image.new("L", (2, 2), 7)]
    request = predict_request(images, (), top_k=None, ood=False, request_id="")
    assert list(request.images) == [to_message(image) for image in images]
    assert [image.WhichOneof("source") for image in request.images] == ["model_input", "encoded", "pixels", "encoded"]


def test_a_missing_file_is_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        to_message(tmp_path / "none.jpg")


def test_a_single_image_is_not_taken_for_many(jpeg):
    for images in ("cat.jpg", jpeg, Image.new("L", (1, 1)), []):
        with pytest.raises(ArgumentError):
            check_images(images)
    assert check_images(iter([jpeg, jpeg])) == [jpeg, jpeg]


def test_pictures_to_draw_on_are_upright_rgb_on_white():
    clear = np.zeros((1, 2, 4), np.uint8)
    clear[0, 1] = (10, 20, 30, 255)
    assert np.asarray(to_picture(Image.fromarray(clear))).tolist() == [[[255, 255, 255], [10, 20, 30]]]
    assert np.asarray(to_picture(np.full((1, 1), 9, np.uint8))).tolist() == [[[9, 9, 9]]]
    assert np.asarray(to_picture(np.full((1, 1, 1), 9, np.uint8))).tolist() == [[[9, 9, 9]]]
    assert np.asarray(to_picture(Image.new("I;16", (1, 1), 0x8001))).tolist() == [[[0x80, 0x80, 0x80]]]


@pytest.mark.parametrize("encoding", ["JPEG", "PNG", "GIF", "TIFF", "WEBP"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9], ids=["empty", "begun", "half", "nearly whole"])
def test_what_is_cut_off_is_refused_in_words(encoding, share):
    """However far its reader comes; some of the last bytes may not be needed."""
    noise = np.random.default_rng(1).integers(0, 256, (40, 30, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, encoding)
    whole = buffer.getvalue()
    with pytest.raises(ImageError, match="cannot be decoded: ") as caught:
        to_picture(whole[: int(share * len(whole))])
    assert "object at" not in str(caught.value)


def test_what_is_no_picture_to_draw_on_is_refused():
    with pytest.raises(ImageError, match="these bytes are no picture; send a JPEG or a PNG"):
        to_picture(b"no picture")
    with pytest.raises(ImageError, match="the picture itself, not a float32 array"):
        to_picture(np.zeros((3, 2, 2), np.float32))


# ------------------------------------------------------------------------------------------- explanations

ALL_PARAMETERS = {
    "gradient": {"aggregation": "sum_abs", "normalization": "max"},
    "deconvolution": {"aggregation": "max_abs", "normalization": "none"},
    "guided_backprop": {"aggregation": "SUM_ABS", "normalization": "max"},
    "gradcam": {"layer": "layer4.2", "normalization": "max"},
    "occlusion": {"window_size": 32, "stride": 8, "fill": "blur", "normalization": "none"},
    "rise": {
        "masks": 1000,
        "grid_size": 8,
        "keep_probability": 0.25,
        "tolerance": 0.5,
        "normalization": "max",
        "estimator": "plain",
    },
    "rise_plus": {
        "masks": 1000,
        "grid_size": 8,
        "keep_probability": 0.25,
        "tolerance": 0.5,
        "normalization": "max",
        "estimator": "plain",
    },
}
RISE = pb.RiseParameters(
    mask_count=1000,
    grid_size=8,
    keep_probability=0.25,
    tolerance=0.5,
    normalization=pb.NORMALIZATION_MAX,
    estimator=pb.RISE_ESTIMATOR_PLAIN,
)
ALL_MESSAGES = {
    "gradient": pb.GradientParameters(aggregation=pb.CHANNEL_AGGREGATION_SUM_ABS, normalization=pb.NORMALIZATION_MAX),
    "deconvolution": pb.DeconvolutionParameters(
        aggregation=pb.CHANNEL_AGGREGATION_MAX_ABS, normalization=pb.NORMALIZATION_NONE
    ),
    "guided_backprop": pb.GuidedBackpropParameters(
        aggregation=pb.CHANNEL_AGGREGATION_SUM_ABS, normalization=pb.NORMALIZATION_MAX
    ),
    "gradcam": pb.GradCamParameters(layer="layer4.2", normalization=pb.NORMALIZATION_MAX),
    "occlusion": pb.OcclusionParameters(
        window_size=32, stride=8, fill=pb.OCCLUSION_FILL_BLUR, normalization=pb.NORMALIZATION_NONE
    ),
    "rise": RISE,
    "rise_plus": pb.RisePlusParameters(rise=RISE),
}


def leaves(message):
    for field in message.fields:
        yield from leaves(field.message_type) if field.message_type else [field.name]


def test_the_cases_name_every_explainer_and_parameter_of_the_contract():
    fields = {each.name: each for each in pb.ExplanationRequest.DESCRIPTOR.oneofs_by_name["parameters"].fields}
    contract = {
        name: sorted("masks" if leaf == "mask_count" else leaf for leaf in leaves(field.message_type))
        for name, field in fields.items()
    }
    assert contract == {name: sorted(parameters) for name, parameters in ALL_PARAMETERS.items()}


@pytest.mark.parametrize("explainer", ALL_PARAMETERS)
def test_parameters_of_every_explainer(explainer):
    (message,) = build(Explain(explainer, **ALL_PARAMETERS[explainer]))
    assert message.WhichOneof("parameters") == explainer
    assert getattr(message, explainer) == ALL_MESSAGES[explainer]


@pytest.mark.parametrize("explainer", ALL_PARAMETERS)
def test_an_unknown_parameter_is_refused_with_the_known_ones(explainer):
    with pytest.raises(ParameterError) as caught:
        Explain(explainer, speed=3)
    assert isinstance(caught.value, ValueError)
    assert caught.value.field == "speed"
    for name in ALL_PARAMETERS[explainer]:
        assert name in caught.value.message


@pytest.mark.parametrize(
    ("explainer", "name", "value"),
    [
        ("rise", "masks", 10.5),
        ("rise", "masks", "many"),
        ("rise", "masks", True),
        ("rise", "masks", 2**31),
        ("rise", "tolerance", "small"),
        ("rise", "tolerance", False),
        ("rise", "normalization", "unspecified"),
        ("rise", "normalization", 2),
        ("gradcam", "layer", 4),
        ("occlusion", "fill", "purple"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(explainer, name, value):
    with pytest.raises(ParameterError, match=name):
        Explain(explainer, **{name: value})


def test_masks_have_the_contracts_name_besides_but_not_both():
    for explainer in ("rise", "rise_plus"):
        by_either = [build(Explain(explainer, **{name: 5})) for name in ("masks", "mask_count")]
        assert by_either[0] == by_either[1]
        with pytest.raises(ParameterError, match="masks and mask_count are the same") as caught:
            Explain(explainer, masks=5, mask_count=5)
        assert caught.value.field == "masks"
    with pytest.raises(ParameterError, match="occlusion has no parameter 'masks'"):
        Explain("occlusion", mask_count=5)


def test_numpy_numbers_are_numbers_and_none_is_the_default():
    (message,) = build(Explain("rise", masks=np.int64(5), tolerance=np.float32(0.5), grid_size=None))
    assert message.rise == pb.RiseParameters(mask_count=5, tolerance=0.5)
    assert not message.rise.HasField("grid_size")


def test_an_explainer_of_somebody_elses_is_sent_by_its_name():
    (message,) = build("lime")
    assert message == pb.ExplanationRequest(explainer="lime", name="lime")


def test_every_other_field_of_an_explanation():
    (message,) = build(
        Explain(
            "rise",
            name="mine",
            targets=[np.int64(3), 1],
            budget=1.5,
            seed=2**64 - 1,
            encoding="png",
            top_probability_below=0.5,
            ood_percentile_below=25,
        )
    )
    wanted = pb.ExplanationRequest(
        explainer="rise",
        name="mine",
        seed=2**64 - 1,
        encoding=pb.MAP_ENCODING_PNG,
        targets=pb.Targets(class_ids=[3, 1]),
    )
    wanted.budget.FromMilliseconds(1500)
    wanted.condition.top_probability_below = 0.5
    wanted.condition.ood_percentile_below = 25
    assert message == wanted


def test_each_way_to_name_targets():
    one, probable, top, default = build(
        Explain("rise", targets=4), Explain("rise", min_probability=0.25), Explain("rise", top_count=3), "rise"
    )
    assert one.targets == pb.Targets(class_ids=[4])
    assert probable.targets == pb.Targets(min_probability=0.25)
    assert top.targets == pb.Targets(top_count=3)
    assert not default.HasField("targets")
    assert not default.HasField("seed")
    assert default.WhichOneof("parameters") is None


@pytest.mark.parametrize(
    "arguments",
    [
        {"targets": []},
        {"targets": ["cat"]},
        {"targets": -1},
        {"targets": 1, "top_count": 2},
        {"budget": 0},
        {"budget": float("nan")},
        {"budget": "long"},
        {"seed": -1},
        {"seed": 2**64},
        {"seed": 1.5},
        {"encoding": "jpeg"},
        {"min_probability": "high"},
    ],
    ids=str,
)
def test_other_wrong_arguments_are_refused(arguments):
    with pytest.raises(ArgumentError):
        Explain("rise", **arguments)


def test_budgets_may_be_timedeltas():
    (message,) = build(Explain("rise", budget=timedelta(milliseconds=250)))
    assert message.budget.ToMilliseconds() == 250


def test_names_are_made_unique_and_given_ones_kept():
    messages = build("gradcam", Explain("rise", name="gradcam-2"), "gradcam", Explain("gradcam", layer="a"))
    assert [each.name for each in messages] == ["gradcam", "gradcam-2", "gradcam-3", "gradcam-4"]
    messages = build("gradcam", Explain("rise", name="gradcam"))
    assert [each.name for each in messages] == ["gradcam-2", "gradcam"]
    with pytest.raises(ArgumentError, match="same"):
        build(Explain("rise", name="same"), Explain("gradcam", name="same"))


def test_one_explain_serves_many_requests():
    explain = Explain("rise", masks=5)
    assert [each.name for each in build(explain, explain)] == ["rise", "rise-2"]
    assert [each.name for each in build(explain)] == ["rise"]


def test_a_single_name_is_one_explanation():
    for explain in ("rise", Explain("rise")):
        request = predict_request([b"x"], explain, top_k=3, ood=True, request_id="r")
        assert [each.explainer for each in request.explanations] == ["rise"]
        assert (request.top_k, request.ood, request.request_id) == (3, True, "r")
    assert not predict_request([b"x"], (), top_k=None, ood=False, request_id="r").HasField("top_k")


def test_explainers_and_top_k_of_wrong_types_are_refused():
    for wrong in (7, "", None):
        with pytest.raises(ArgumentError):
            Explain(wrong)
    with pytest.raises(ArgumentError, match="top_k"):
        predict_request([b"x"], (), top_k="five", ood=False, request_id="r")


# -------------------------------------------------------------------------------------------------- others


def test_stream_request_holds_the_interval():
    inner = pb.PredictRequest(request_id="r")
    message = stream_request(inner, 0.5)
    assert message.request == inner
    assert message.progress_interval.ToMilliseconds() == 500
    assert not stream_request(inner, None).HasField("progress_interval")


def test_parameters_are_read_from_text_as_their_type():
    assert parse_parameter("rise", "masks", "10") == 10
    assert parse_parameter("rise_plus", "tolerance", "1e-2") == 0.01
    assert parse_parameter("gradcam", "layer", "4") == "4"
    assert parse_parameter("occlusion", "fill", "mean") == "mean"
    for explainer, name, text in (("rise", "masks", "1.5"), ("rise", "speed", "1"), ("auto", "masks", "16")):
        with pytest.raises(ParameterError):
            parse_parameter(explainer, name, text)
    for name, kind in (("masks", "whole number"), ("mask_count", "whole number"), ("tolerance", "number")):
        with pytest.raises(ParameterError, match=f"is a {kind}, not 'many'"):
            parse_parameter("rise", name, "many")


def test_parameters_of_explainers_of_others_go_by_name():
    values = {"count": 3, "share": 0.25, "how": "fast", "on": True, "sizes": [1, [2.5, "x"]], "more": {"a": False}}
    (message,) = build(Explain("lime", **values, left_out=None, seed=4))
    assert message.WhichOneof("parameters") is None
    assert MessageToDict(message.named_parameters) == values
    assert message.seed == 4
    (message,) = build(Explain("lime", count=np.int64(3), share=np.float32(0.25), sizes=np.arange(2), pair=(None, 1)))
    named = {"count": 3, "share": 0.25, "sizes": [0, 1], "pair": [None, 1]}
    assert MessageToDict(message.named_parameters) == named
    (message,) = build(Explain("lime"))
    assert not message.HasField("named_parameters")


@pytest.mark.parametrize("value", [2**53 + 1, -(2**60), b"bytes", object(), [1, {2}], 1j])
def test_values_that_no_struct_takes_are_refused_by_name(value):
    with pytest.raises(ParameterError) as caught:
        Explain("lime", segments=value)
    assert caught.value.field == "segments"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-0.5", -0.5),
        ("true", True),
        ("null", None),
        ('"3"', "3"),
        ("three", "three"),
        ("", ""),
        ("[1]", [1]),
    ],
)
def test_parameters_of_explainers_of_others_are_read_from_text_as_json(text, value):
    parsed = parse_parameter("lime", "segments", text)
    assert (parsed, type(parsed)) == (value, type(value))


def test_auto_takes_no_parameters_and_says_why():
    (message,) = build(Explain("auto", budget=2))
    assert (message.explainer, message.name) == ("auto", "auto")
    with pytest.raises(ParameterError, match="auto takes no parameters"):
        Explain("auto", masks=5)
