"""Requests as plans: defaults filled in, everything else refused with the path of the field."""

import math

import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct
from toys import only

from xai_proto import explanation_pb2 as pb
from xai_sidecar import errors
from xai_sidecar.engine.backend import OodTraining
from xai_sidecar.rpc import decode
from xai_sidecar.rpc.decode import read_interval
from xai_sidecar.rpc.parameters import contract_paths
from xai_sidecar.serving.checking import check_request
from xai_sidecar.serving.plan import Targets
from xai_sidecar.serving.request_ids import valid_request_id
from xai_sidecar.serving.requests import MapEncoding

IMAGE = pb.Image(encoded=b"anything")


def read_request(message, model):
    """A message of the contract, checked by the core; errors name the contract's fields."""
    with contract_paths(message):
        return check_request(decode.read_request(message), model)


def request(*explanations, **fields):
    asked = [pb.ExplanationRequest(**{"explainer": "gradcam", **each}) for each in explanations]
    return pb.PredictRequest(images=[IMAGE], explanations=asked, **fields)


def test_defaults(model):
    asked = read_request(request({}), model)
    (plan,) = asked.plans
    assert asked.top_k == 4  # as many classes as there are
    assert asked.encodings == (MapEncoding.FLOAT32,)
    assert (plan.name, plan.explainer.name, plan.parameters.layer) == ("gradcam", "gradcam", "late")
    assert plan.targets == Targets()
    assert plan.targets.by_default


def test_what_is_given_is_taken(make_model):
    model = make_model("explainers.gradcam.layers=['early']")
    parameters = pb.GradCamParameters(layer="early", normalization=pb.NORMALIZATION_MAX)
    asked = read_request(
        request(
            {"gradcam": parameters, "targets": pb.Targets(class_ids=[3, 0]), "encoding": pb.MAP_ENCODING_PNG},
            {"name": "other", "targets": pb.Targets(min_probability=0.25)},
            {"explainer": "gradient", "targets": pb.Targets(top_count=2)},
            top_k=1,
        ),
        model,
    )
    one, other, last = asked.plans
    assert asked.top_k == 1
    assert asked.encodings[:2] == (MapEncoding.PNG, MapEncoding.FLOAT32)
    assert (one.parameters.layer, one.parameters.normalization, one.targets.class_ids) == ("early", "max", (3, 0))
    assert (other.name, other.targets.min_probability) == ("other", 0.25)
    assert (last.name, last.targets.top_count) == ("gradient", 2)


def test_the_configs_defaults_hold_where_the_request_says_nothing(make_model):
    model = make_model(
        "explainers.gradcam.layer=early", "explainers.gradcam.layers=['late']", "explainers.gradcam.normalization=max"
    )
    plain = read_request(request({}), model).plans[0].parameters
    partly = read_request(request({"gradcam": pb.GradCamParameters(layer="late")}), model).plans[0].parameters
    undone = pb.GradCamParameters(normalization=pb.NORMALIZATION_NONE)
    undone = read_request(request({"gradcam": undone}), model).plans[0].parameters
    assert (plain.layer, plain.normalization) == ("early", "max")
    assert (partly.layer, partly.normalization) == ("late", "max")
    assert (undone.layer, undone.normalization) == ("early", "none")


@pytest.mark.parametrize(
    ("asked", "kind", "field"),
    [
        (pb.PredictRequest(), errors.InvalidRequestError, "images"),
        (pb.PredictRequest(images=[IMAGE] * 17), errors.InvalidRequestError, "images"),
        (request(top_k=0), errors.InvalidRequestError, "top_k"),
        (request(top_k=5), errors.InvalidRequestError, "top_k"),
        (request(request_id="a b"), errors.InvalidRequestError, "request_id"),
        (request(ood=True), errors.PreconditionError, "ood"),
        (request({"explainer": "x"}), errors.UnknownExplainerError, "explanations[0].explainer"),
        (request({}, {}), errors.InvalidRequestError, "explanations[1].name"),
        (request({"encoding": 99}), errors.InvalidRequestError, "explanations[0].encoding"),
        (
            request({}, {"name": "b", "targets": pb.Targets(class_ids=[4])}),
            errors.TargetError,
            "explanations[1].targets.class_ids[0]",
        ),
        (
            request({"targets": pb.Targets(class_ids=[1, 1])}),
            errors.TargetError,
            "explanations[0].targets.class_ids[1]",
        ),
        # Four classes: five most probable ones cannot be had.
        (request({"targets": pb.Targets(top_count=5)}), errors.TargetError, "explanations[0].targets.top_count"),
        (request({"gradient": pb.GradientParameters()}), errors.ParameterError, "explanations[0].gradient"),
        (
            request({"gradcam": pb.GradCamParameters(layer="x")}),
            errors.UnknownLayerError,
            "explanations[0].gradcam.layer",
        ),
        (
            request({"gradcam": pb.GradCamParameters(normalization=7)}),
            errors.ParameterError,
            "explanations[0].gradcam.normalization",
        ),
    ],
)
def test_refused(model, asked, kind, field):
    with pytest.raises(errors.SidecarError) as caught:
        read_request(asked, model)
    assert type(caught.value) is kind
    assert caught.value.field == field


def test_explainers_that_are_not_to_be_had(make_model):
    usable = ["gradient", "guided_backprop", "deconvolution", "occlusion", "rise"]
    others = only("gradcam", *usable)
    for model, told in (
        (make_model(*others, "explainers.gradcam.enabled=false"), "explainers.gradcam.enabled = true"),
        (make_model(*others, layers=()), "No layer with a spatial output"),
    ):
        with pytest.raises(errors.PreconditionError, match=told) as caught:
            read_request(request({}), model)
        assert caught.value.field == "explanations[0].explainer"
        assert f"Usable here: {', '.join(usable)}." in caught.value.message


def test_perturbing_explainers(make_model):
    model = make_model("explainers.rise.masks=500", "explainers.occlusion.fill=mean")
    rise = pb.RiseParameters(grid_size=3, keep_probability=0.3, tolerance=0.1, estimator=pb.RISE_ESTIMATOR_PLAIN)
    asked = read_request(
        request(
            {"explainer": "rise", "rise": rise, "seed": 7},
            {"explainer": "rise", "name": "as configured"},
            {"explainer": "occlusion", "occlusion": pb.OcclusionParameters(window_size=2)},
        ),
        model,
    )
    given, configured, occlusion = (plan.parameters for plan in asked.plans)
    assert (given.masks, given.grid_size, given.keep_probability) == (500, 3, 0.3)
    assert (given.tolerance, given.estimator) == (0.1, "plain")
    assert (configured.masks, configured.grid_size, configured.tolerance) == (500, 6, 0)
    assert (occlusion.window_size, occlusion.stride, occlusion.fill) == (2, 1, "mean")
    assert asked.plans[0].seed == 7
    assert asked.plans[1].seed != read_request(request({"explainer": "rise"}), model).plans[0].seed


def test_a_configured_stride_yields_to_the_window_of_a_request(make_model):
    model = make_model("explainers.occlusion.stride=4", "explainers.occlusion.window_size=5")
    smaller = {"explainer": "occlusion", "occlusion": pb.OcclusionParameters(window_size=2)}
    assert read_request(request(smaller), model).plans[0].parameters.stride == 1
    plain = {"explainer": "occlusion", "occlusion": pb.OcclusionParameters(fill=pb.OCCLUSION_FILL_MEAN)}
    assert read_request(request(plain), model).plans[0].parameters.stride == 4


def test_a_configured_tolerance_can_be_switched_off(make_model):
    model = make_model("explainers.rise.tolerance=0.3")
    off = {"explainer": "rise", "rise": pb.RiseParameters(tolerance=0)}
    assert read_request(request(off), model).plans[0].parameters.tolerance == 0
    assert read_request(request({"explainer": "rise"}), model).plans[0].parameters.tolerance == 0.3


def test_too_many_passes(make_model):
    model = make_model("server.max_passes=2000")
    read_request(request({"explainer": "rise"}, {"explainer": "gradcam"}), model)
    with pytest.raises(errors.InvalidRequestError, match="2,500") as caught:
        read_request(request({"explainer": "gradcam"}, {"explainer": "rise", "rise": {"mask_count": 2499}}), model)
    assert caught.value.field == "explanations[1]"
    two = request({"explainer": "rise"}, {"explainer": "gradcam"})
    two.images.append(IMAGE)
    with pytest.raises(errors.InvalidRequestError, match="2,002"):
        read_request(two, model)


def test_rise_plus_and_ood_scores(make_model):
    parameters = pb.RisePlusParameters(rise=pb.RiseParameters(mask_count=64))
    wanted = {"explainer": "rise_plus", "rise_plus": parameters}
    with pytest.raises(errors.PreconditionError, match="train-ood") as caught:
        read_request(request(wanted), make_model())
    assert caught.value.field == "explanations[0].explainer"
    with pytest.raises(errors.PreconditionError, match="train-ood") as caught:
        read_request(request(ood=True), make_model())
    assert caught.value.field == "ood"
    model = make_model(ood=OodTraining(100, 1.7e9, {"noise": 0.9}))
    asked = read_request(request(wanted, ood=True), model)
    assert asked.ood
    assert asked.plans[0].parameters.masks == 64
    parameters.rise.grid_size = 17
    with pytest.raises(errors.ParameterError) as caught:
        read_request(request(wanted), model)
    assert caught.value.field == "explanations[0].rise_plus.rise.grid_size"


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"explainer": "rise", "rise": pb.RiseParameters(mask_count=15)}, "rise.mask_count"),
        ({"explainer": "rise", "rise": pb.RiseParameters(mask_count=0)}, "rise.mask_count"),
        ({"explainer": "rise", "rise": pb.RiseParameters(keep_probability=1)}, "rise.keep_probability"),
        ({"explainer": "rise", "rise": pb.RiseParameters(keep_probability=float("nan"))}, "rise.keep_probability"),
        ({"explainer": "rise", "rise": pb.RiseParameters(tolerance=0.6)}, "rise.tolerance"),
        ({"explainer": "rise", "rise": pb.RiseParameters(estimator=9)}, "rise.estimator"),
        ({"explainer": "rise", "rise": pb.RiseParameters(grid_size=7)}, "rise.grid_size"),
        ({"explainer": "occlusion", "occlusion": pb.OcclusionParameters(window_size=7)}, "occlusion.window_size"),
        ({"explainer": "occlusion", "occlusion": pb.OcclusionParameters(window_size=2, stride=3)}, "occlusion.stride"),
        ({"explainer": "occlusion", "rise": pb.RiseParameters()}, "rise"),
    ],
)
def test_parameters_out_of_range(asked, field, model):
    with pytest.raises(errors.ParameterError) as caught:
        read_request(request(asked), model)
    assert caught.value.field == f"explanations[0].{field}"


def named(explainer, **values):
    """A request by named parameters; `...` stands for a value that is none."""
    struct = Struct()
    for name, value in values.items():
        if value is ...:
            struct.fields[name].Clear()
        else:
            struct.update({name: value})
    return request({"explainer": explainer, "named_parameters": struct})


@pytest.mark.parametrize(
    ("explainer", "values"),
    [
        ("gradient", {"aggregation": "sum_abs", "normalization": "max"}),
        ("gradcam", {"layer": "late", "normalization": "none"}),
        ("occlusion", {"window_size": 2, "stride": 1, "fill": "blur"}),
        ("rise", {"masks": 32, "grid_size": 3, "keep_probability": 0.25, "tolerance": 0.125, "estimator": "plain"}),
    ],
)
def test_named_parameters_are_those_of_the_typed_message(model, explainer, values):
    field = pb.ExplanationRequest.DESCRIPTOR.fields_by_name[explainer]
    typed = field.message_type._concrete_class()
    for name, value in values.items():
        name = {"masks": "mask_count"}.get(name, name)
        enum = typed.DESCRIPTOR.fields_by_name[name].enum_type
        if enum is not None:
            value = next(each.number for each in enum.values if each.name.endswith(f"_{value.upper()}"))
        setattr(typed, name, value)
    expected = read_request(request({"explainer": explainer, explainer: typed}), model).plans[0].parameters
    parameters = read_request(named(explainer, **values), model).plans[0].parameters
    assert parameters == expected
    assert {name: getattr(parameters, name) for name in values} == values
    assert {name: type(value) for name, value in parameters} == {name: type(value) for name, value in expected}


def test_named_parameters_that_are_null_are_not_set(model):
    parameters = read_request(named("occlusion", window_size=None, stride=1), model).plans[0].parameters
    assert (parameters.window_size, parameters.stride) == (3, 1)


@pytest.mark.parametrize(
    ("explainer", "values", "field", "message"),
    [
        ("rise", {"mask_count": 32}, "", "rise has no parameter 'mask_count'. It has normalization, masks,"),
        ("rise", {"masks": 32.5}, ".masks", "32.5"),
        ("rise", {"masks": math.inf}, ".masks", "inf"),
        ("rise", {"masks": "32"}, ".masks", "'32'"),
        ("rise", {"masks": True}, ".masks", "True"),
        ("rise", {"masks": None}, ".masks", "None"),
        ("rise", {"masks": [32, {"a": None}]}, ".masks", r"\[32, {'a': None}\]"),
        ("rise", {"masks": ...}, ".masks", "no value"),
        ("rise", {"tolerance": math.nan}, ".tolerance", "nan"),
        ("rise", {"estimator": "plainer"}, ".estimator", "'plainer'"),
        ("gradcam", {"layer": "none"}, ".layer", "'none'"),
        ("gradcam", {"layer": "x" * 8192}, "", "8,192"),
        ("auto", {"masks": 32}, "", "takes no parameters"),
    ],
)
def test_named_parameters_that_are_refused(model, explainer, values, field, message):
    with pytest.raises(errors.SidecarError, match=message) as caught:
        read_request(named(explainer, **values), model)
    assert (caught.value.field, caught.value.code) == (f"explanations[0].named_parameters{field}", "INVALID_ARGUMENT")


def test_named_and_typed_parameters_exclude_each_other(model):
    for both in ({"named_parameters": {}}, {"named_parameters": {"masks": 32}}):
        wanted = {"explainer": "rise", "rise": pb.RiseParameters(), **both}
        with pytest.raises(errors.ParameterError, match="Both rise and named_parameters") as caught:
            read_request(request(wanted), model)
        assert caught.value.field == "explanations[0].named_parameters"


def test_layers_compiled_at_start(make_model):
    three = ("first", "second", "third")
    model = make_model("explainers.gradcam.layers=['second']", layers=three)
    first, second, third = (request({"gradcam": pb.GradCamParameters(layer=layer)}) for layer in three)
    with pytest.raises(errors.PreconditionError, match=r"third, second, .* explainers\.gradcam\.layers") as caught:
        read_request(first, model)
    assert caught.value.field == "explanations[0].gradcam.layer"
    for asked, layer in ((second, "second"), (third, "third")):
        assert read_request(asked, model).plans[0].kind.layer == layer
    read_request(first, make_model("explainers.gradcam.compile_on_demand=true", layers=three))


@pytest.mark.parametrize("good", ["a", "A-Z_0.9:x", "x" * 128])
def test_request_ids_that_can_be_logged(good):
    assert valid_request_id(good)


@pytest.mark.parametrize("bad", ["", " ", "a b", "a\n", "ä", "x" * 129, "a/b", "a\x00", "{}"])
def test_request_ids_that_cannot(bad):
    assert not valid_request_id(bad)


# ------------------------------------------------------------------------------------------------ budgets


RISE = pb.RiseParameters(mask_count=100)


@pytest.fixture
def budgeted(model):
    """The plan of RISE with 100 masks and a budget. A row takes 30 ms: the first map 0.96 s, all of them 3 s."""

    def budgeted(seconds=0, nanos=0, **explanation):
        budget = Duration(seconds=seconds, nanos=nanos)
        wanted = {"explainer": "rise", "rise": RISE, "budget": budget, **explanation}
        return read_request(request({"name": "before"}, wanted), model).plans[1]

    return budgeted


def test_budgets(budgeted, model):
    assert read_request(request({"explainer": "rise"}), model).plans[0].budget_seconds is None
    assert budgeted(1).budget_seconds == 1
    assert budgeted(1, 500_000_000).budget_seconds == 1.5
    assert budgeted(3600).budget_seconds == 3600
    assert budgeted(0, 240_000_000).budget_seconds == 0.24, "just enough for the first map"
    # An exact method has its first map when it has its last: one pass.
    assert budgeted(0, 30_000_000, explainer="gradcam", rise=None).budget_seconds == 0.03


@pytest.mark.parametrize(("seconds", "nanos"), [(0, 0), (0, -1), (-1, 0), (-1, -1), (-315_576_000_000, 0)])
def test_budgets_that_are_none(budgeted, seconds, nanos):
    with pytest.raises(errors.InvalidRequestError, match="more than 0") as caught:
        budgeted(seconds, nanos)
    assert type(caught.value) is errors.InvalidRequestError
    assert caught.value.field == "explanations[1].budget"


@pytest.mark.parametrize(
    ("seconds", "nanos"),
    [(-1, 999_999_999), (1, -1), (2**62, 0), (-(2**63), 0), (315_576_000_001, 0), (1, 10**9), (0, 2**31 - 1)],
)
def test_durations_that_are_none(budgeted, seconds, nanos):
    with pytest.raises(errors.InvalidRequestError, match="are no Duration") as caught:
        budgeted(seconds, nanos)
    assert caught.value.field == "explanations[1].budget"
    stream = pb.PredictStreamRequest(progress_interval=Duration(seconds=seconds, nanos=nanos))
    with pytest.raises(errors.InvalidRequestError, match="are no Duration") as caught:
        read_interval(stream)
    assert caught.value.field == "progress_interval"
    assert budgeted(315_576_000_000, 999_999_999).budget_seconds == pytest.approx(3.15576e11)


@pytest.mark.parametrize("nanos", [1, 200_000_000, 239_999_999])
def test_a_budget_below_the_first_maps_cost_says_what_it_would_take(budgeted, nanos):
    with pytest.raises(errors.PreconditionError) as caught:
        budgeted(0, nanos)
    assert caught.value.field == "explanations[1].budget"
    assert "less than the 240 ms that the first map takes" in caught.value.message
    assert "all of it takes 3 s" in caught.value.message
    assert f"The budget of {nanos / 1e6:.3g} ms" in caught.value.message


def test_a_budget_goes_by_the_fewest_targets(budgeted):
    gradcam = {"explainer": "gradcam", "rise": None}
    three = {**gradcam, "targets": pb.Targets(top_count=3)}
    assert budgeted(0, 90_000_000, **three).budget_seconds == 0.09
    with pytest.raises(errors.PreconditionError, match=r"less than the 90 ms .* all of it takes 90 ms"):
        budgeted(0, 89_000_000, **three)
    some = {**gradcam, "targets": pb.Targets(min_probability=0.1)}
    assert budgeted(0, 30_000_000, **some).counts.first == 1


# ------------------------------------------------------------------------------------------------ conditions


OOD = OodTraining(100, 1.7e9, {"noise": 0.9})


def conditioned(**fields):
    return request({}, {"name": "b", "condition": pb.Condition(**fields)})


def test_conditions(make_model):
    model = make_model(ood=OOD)
    plain, one = read_request(conditioned(top_probability_below=0.25), model).plans
    assert plain.condition.always
    assert (one.condition.top_probability_below, one.condition.ood_percentile_below) == (0.25, None)
    both = read_request(conditioned(top_probability_below=1, ood_percentile_below=100), model).plans[1].condition
    assert (both.top_probability_below, both.ood_percentile_below) == (1, 100)


def test_a_condition_compares_in_the_precision_of_the_wire(model):
    """The caller's 0.9 is the model's 0.9, hence not above it."""
    condition = read_request(conditioned(top_probability_below=0.9), model).plans[1].condition
    assert condition.failure(float(np.float32(0.9)), None)
    assert not condition.failure(float(np.nextafter(np.float32(0.9), np.float32(0))), None)
    assert condition.failure(0.95, None).endswith("is 0.95, not below 0.9.")


@pytest.mark.parametrize("value", [0, -0.5, 1.0001, float("nan"), float("inf"), float("-inf")])
def test_probabilities_out_of_range(make_model, value):
    with pytest.raises(errors.InvalidRequestError, match="at most 1") as caught:
        read_request(conditioned(top_probability_below=value), make_model(ood=OOD))
    assert caught.value.field == "explanations[1].condition.top_probability_below"


@pytest.mark.parametrize("value", [0, -0.5, 100.1, float("nan"), float("inf"), float("-inf")])
def test_percentiles_out_of_range(make_model, value):
    wanted = conditioned(top_probability_below=0.5, ood_percentile_below=value)
    with pytest.raises(errors.InvalidRequestError, match="at most 100") as caught:
        read_request(wanted, make_model(ood=OOD))
    assert caught.value.field == "explanations[1].condition.ood_percentile_below"


def test_an_empty_condition(model):
    with pytest.raises(errors.InvalidRequestError, match="empty") as caught:
        read_request(conditioned(), model)
    assert caught.value.field == "explanations[1].condition"


def test_a_percentile_takes_an_ood_net(make_model):
    wanted = conditioned(ood_percentile_below=5)
    with pytest.raises(errors.PreconditionError, match=r"Leave the condition out, or train one .* train-ood") as caught:
        read_request(wanted, make_model())
    assert caught.value.field == "explanations[1].condition.ood_percentile_below"
    asked = read_request(wanted, make_model(ood=OOD))
    assert (asked.ood, asked.needs_ood) == (False, True)


def test_when_ood_scores_are_needed(make_model):
    model = make_model(ood=OOD)
    assert not read_request(conditioned(top_probability_below=0.5), model).needs_ood
    assert not read_request(request(), model).needs_ood
    assert read_request(request(ood=True), model).needs_ood


# ------------------------------------------------------------------------------------------------ progress


@pytest.mark.parametrize(
    ("duration", "interval"),
    [
        (None, 0.25),
        (Duration(seconds=1, nanos=500_000_000), 1.5),
        (Duration(seconds=3600), 3600),
        (Duration(nanos=21_000_000), 0.021),
        (Duration(nanos=20_000_000), 0.02),
        (Duration(nanos=19_999_999), 0.02),  # the shortest
        (Duration(nanos=1), 0.02),
    ],
)
def test_the_interval_of_progress(duration, interval):
    assert read_interval(pb.PredictStreamRequest(progress_interval=duration)) == pytest.approx(interval, rel=1e-12)


@pytest.mark.parametrize(
    "duration", [Duration(), Duration(nanos=-1), Duration(seconds=-1), Duration(seconds=3600, nanos=1)]
)
def test_intervals_out_of_range(duration):
    with pytest.raises(errors.InvalidRequestError, match="at most 3600") as caught:
        read_interval(pb.PredictStreamRequest(progress_interval=duration))
    assert caught.value.field == "progress_interval"
