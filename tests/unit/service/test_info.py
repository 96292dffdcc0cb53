"""The description of the model."""

from xai_proto import explanation_pb2 as pb
from xai_sidecar.engine.backend import OodInfo
from xai_sidecar.service.info import model_info


def test_the_version_tells_apart_what_gives_other_answers(make_model):
    assert make_model().version == make_model().version
    for change in ("model.activation=sigmoid", "model.input.mean=0.5", "model.input.interpolation=nearest"):
        assert make_model(change).version != make_model().version
    assert make_model("server.max_images=3").version == make_model().version


def test_model_info(make_model):
    model = make_model("explainers.gradient.enabled=false", "model.activation=sigmoid")
    info = model_info(model, 1_700_000_000.5)
    assert (info.version, info.device, info.engine) == (model.version, "cpu", "none 1.0")
    assert info.activation == pb.ACTIVATION_SIGMOID
    assert (info.input.height, info.input.width) == (6, 8)
    assert info.ready_time.ToMilliseconds() == 1_700_000_000_500
    assert [(one.batch_size, one.duration.ToMilliseconds()) for one in info.batches] == [(1, 10), (4, 20)]
    explainers = {one.name: one for one in info.explainers}
    assert list(explainers) == [
        "gradient", "guided_backprop", "deconvolution", "gradcam", "occlusion", "rise", "rise_plus"
    ]  # fmt: skip
    gradient, gradcam = explainers["gradient"], explainers["gradcam"]
    assert (gradient.available, gradient.HasField("cost")) == (False, False)
    assert (gradcam.available, gradcam.cost.duration.ToMilliseconds()) == (True, 30)
    layer = {one.name: one for one in gradcam.parameters}["layer"]
    assert (layer.default_value.string_value, list(layer.choices)) == ("late", ["late"])
    rise = {one.name: one for one in explainers["rise"].parameters}
    assert (rise["mask_count"].default_value.number_value, rise["mask_count"].minimum) == (1000, 16)
    assert rise["mask_count"].type == rise["grid_size"].type == pb.PARAMETER_TYPE_INTEGER
    assert (rise["grid_size"].default_value.number_value, rise["grid_size"].maximum) == (6, 6)
    assert (rise["tolerance"].default_value.number_value, rise["tolerance"].maximum) == (0, 0.5)
    assert list(rise["estimator"].choices) == ["regression", "plain"]
    assert explainers["rise"].cost.pass_count == 1000
    assert not explainers["rise_plus"].available
    assert explainers["occlusion"].cost.pass_count == 1 + 4 * 6  # windows of 3 x 3 on 6 x 8, and the whole
    assert not info.HasField("ood")


def test_model_info_with_an_ood_net(make_model):
    model = make_model(ood=OodInfo(100, 1_700_000_000.5, {"noise": 0.9}))
    info = model_info(model, 0)
    assert info.ood.training_sample_count == 100
    assert info.ood.training_time.ToMilliseconds() == 1_700_000_000_500
    assert dict(info.ood.auroc) == {"noise": 0.9}
    assert {one.name: one for one in info.explainers}["rise_plus"].available


def test_layers_that_may_be_asked_for(make_model):
    def choices(*overrides):
        info = model_info(make_model(*overrides), 0)
        (gradcam,) = (one for one in info.explainers if one.name == "gradcam")
        return list({one.name: one for one in gradcam.parameters}["layer"].choices)

    assert choices() == ["late"]
    assert choices("explainers.gradcam.layers=['early']") == ["late", "early"]
    assert choices("explainers.gradcam.compile_on_demand=true") == ["early", "late"]
