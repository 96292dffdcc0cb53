"""Explainers and metrics are found where they are: in modules of their own, and in installed packages."""

import itertools
import re
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from toys import EXPLAINER, METRIC, only, write_package

from xai_sidecar.config.explainers import explainers_section
from xai_sidecar.config.metrics import metric_parameters_section
from xai_sidecar.engine.work import Kind, drive
from xai_sidecar.errors import ConfigError
from xai_sidecar.explainers.base import ModelFacts
from xai_sidecar.explainers.discovery import built_in_explainers, installed_explainers
from xai_sidecar.metrics.discovery import built_in_metrics, installed_metrics
from xai_sidecar.serving.description import describe
from xai_sidecar.serving.evaluation import start_evaluation

NUMBERS = itertools.count()


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs a package of one module, which is named after it and the group; returns its name."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(source, group="explainers", attribute="Toy"):
        name = f"toys_{next(NUMBERS)}"
        write_package(tmp_path, name, attribute, **{group: source})
        return name

    return install


def explainers():
    return installed_explainers.__wrapped__()  # not those of this process, which are looked for once


def metrics():
    return installed_metrics.__wrapped__()


def test_the_built_in_ones_are_in_their_order():
    names = ["gradient", "guided_backprop", "deconvolution", "gradcam", "occlusion", "rise", "rise_plus"]
    assert [name for name in built_in_explainers() if name in names] == names
    names = [
        "faithfulness/naive",
        "faithfulness/deletion_auc",
        "faithfulness/insertion_auc",
        "localization/pointing_game",
        "localization/iosr",
        "class_sensitivity",
        "robustness",
    ]
    assert [name for name in built_in_metrics() if name in names] == names
    for name, extension in (*built_in_explainers().items(), *built_in_metrics().items()):
        assert extension.name == name
        assert extension.version >= 1


def test_the_mappings_cannot_be_changed():
    for found in (installed_explainers(), built_in_explainers(), installed_metrics(), built_in_metrics()):
        with pytest.raises(TypeError):
            found["another"] = next(iter(found.values()))


def test_those_of_packages_come_after_the_built_in_ones(install):
    install(EXPLAINER.replace('"toy"', '"late"'))
    install(EXPLAINER.replace('"toy"', '"early"').replace("description =", "order = 1; description ="))
    install(METRIC, "metrics")
    assert list(explainers()) == [*built_in_explainers(), "early", "late"]
    assert list(metrics()) == [*built_in_metrics(), "toys/toy"]
    assert explainers()["late"].parameters_type().factor == 1


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("from pydantic", "import nothing_of_that_name\nfrom pydantic", "ModuleNotFoundError: No module named"),
        ("from pydantic", "raise SystemExit(3)\nfrom pydantic", "SystemExit: 3"),
        ("class Toy(", "class Tay(", "AttributeError: module"),
        (
            "class Toy(Explainer[ToyParameters])",
            "class Toy",
            "no subclass of xai_sidecar.explainers.base.Explainer",
        ),
        ("def _compute", "def compute", "TypeError: "),
        ("name = ", "title = ", "Its name is None; give it one"),
        ('"toy"', '"Toy!"', "Its name is 'Toy!'; give it one"),
        ('"toy"', '"toys/toy"', "Its name is 'toys/toy'; give it one"),
        ('"toy"', '"auto"', "The name 'auto' is taken"),
        ('"toy"', '"model_dump"', "The name 'model_dump' is taken"),
        ("description = ", "explanation = ", "toy has no description"),
        ('name = "toy"', 'name, version = "toy", "1.0"', "version of toy is '1.0'; give a whole number"),
        ('name = "toy"', 'name, order = "toy", "first"', "order of toy is 'first'; give a whole number"),
        ("parameters_type = ToyParameters", "parameters_type = dict", "no subclass of xai_sidecar.explainers.base.Exp"),
        ("default=1, ", "", "parameter 'factor' of toy has no default"),
        (', description="What it is multiplied by."', "", "parameter 'factor' of toy has no description"),
        ("default=1", "default=-1", "default of the parameter 'factor' of toy is none: Input should be greater"),
        ("default=1", "default=None", "default of the parameter 'factor' of toy is none: Input should be a valid"),
        (
            "factor: float = Field(default=1, gt=0, le=100",
            "factor: list[int] = Field(default=[]",
            "parameter 'factor' is none of integer, number, string, boolean",
        ),
        ("factor: float", "enabled: float", "parameter 'enabled' has the name of something else"),
        ("factor: float", "seed: float", "parameter 'seed' has the name of something else"),
        (
            "factor: float = Field(default=1, gt=0, le=100",
            'layer: str = Field(default=""',
            "subclass of LayerParameters",
        ),
        ("def kind(", "def __init__(self, more): ...\n\n    def kind(", "TypeError: "),
    ],
)
def test_a_broken_explainer_is_refused_by_its_package(install, old, new, said):
    assert EXPLAINER.count(old) >= 1
    name = install(EXPLAINER.replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        explainers()
    source = f"the package {name} 1.5, by its entry point xai_sidecar.explainers: plaything = {name}_explainers:Toy,"
    assert source in str(caught.value)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("(0, 1)", "(1, 1)", "value_range is (1, 1)"),
        ("(0, 1)", "(0, float('inf'))", "value_range is (0, inf)"),
        ("value_range = (0, 1)", "", "AttributeError: "),
        ("higher_is_better = True", "higher_is_better = None", "higher_is_better is neither"),
        ('"toys/toy"', '"explain"', "The name 'explain' is taken"),
        ('"toys/toy"', '"a/b/c"', "Its name is 'a/b/c'"),
    ],
)
def test_a_broken_metric_is_refused_by_its_package(install, old, new, said):
    name = install(METRIC.replace(old, new, 1), "metrics")
    with pytest.raises(ConfigError) as caught:
        metrics()
    source = f"the package {name} 1.5, by its entry point xai_sidecar.metrics: plaything = {name}_metrics:Toy,"
    assert source in str(caught.value)
    assert said in str(caught.value)


@pytest.fixture
def anew():
    """Has this process look for explainers again, now and after the test."""

    def forget():
        installed_explainers.cache_clear()
        explainers_section.cache_clear()

    forget()
    yield
    forget()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("return Forward.kind", "return Forward.sort", "AttributeError: type object 'Forward' has no attribute 'sort'"),
        (
            "def kind(",
            "def resolve(self, parameters, model): return 1 / 0\n\n    def kind(",
            "ZeroDivisionError: div",
        ),
        ("(self, target_count, parameters, model)", "(self)", "TypeError: Toy.pass_counts() takes 1 pos"),
    ],
)
def test_one_that_fails_with_the_model_is_refused_by_its_module(install, anew, make_model, old, new, said):
    name = install(EXPLAINER.replace(old, new, 1))
    with pytest.raises(ConfigError) as caught:
        make_model()
    assert caught.value.field == "explainers.toy"
    assert caught.value.message.startswith(f"this explainer of {name}_explainers fails with this model: {said}")
    assert make_model("explainers.toy.enabled=false").explainers["toy"].unavailable


@pytest.fixture
def metrics_anew():
    """Has this process look for metrics again, now and after the test."""

    def forget():
        installed_metrics.cache_clear()
        metric_parameters_section.cache_clear()

    forget()
    yield
    forget()


def test_a_metric_that_fails_with_the_model_is_refused_by_its_module(install, metrics_anew, make_model):
    name = install(METRIC.replace("return 0", "return 1 / 0"), "metrics")
    with pytest.raises(ConfigError) as caught:
        start_evaluation(make_model("evaluator.sample_rate=1"), None, CollectorRegistry())
    assert caught.value.field == "evaluator.metrics"
    assert caught.value.message.startswith(f"the metric toys/toy of {name}_metrics fails with this model: ZeroDiv")


def test_what_a_metric_asks_for_is_compiled_at_start(install, metrics_anew, make_model):
    kind = Kind("input_gradient")
    asking = METRIC.replace("needs = ", 'kinds = frozenset({Kind("input_gradient")}); needs = ')
    install(asking.replace("from xai", "from xai_sidecar.engine.work import Kind\nfrom xai", 1), "metrics")
    off = only("gradcam", "occlusion", "rise", "rise_plus")
    assert kind not in make_model(*off).kinds
    model = make_model(*off, "evaluator.sample_rate=1")
    assert kind in model.kinds
    with pytest.raises(ConfigError, match="toys/toy cannot be measured: It does not compile") as caught:
        model.without({kind: "It does not compile."})
    assert caught.value.field == "evaluator.metrics"
    assert make_model("evaluator.sample_rate=1", "evaluator.metrics=['robustness']").without({}).explainers


def test_layers_are_those_of_whatever_explains_a_layer(install, anew, make_model, make_quality):
    source = EXPLAINER.replace("ExplainerParameters", "LayerParameters").replace(
        "import Forward", "import Forward, Kind"
    )
    install(source.replace("Forward.kind", 'Kind("layer_gradient", parameters.layer or "early")'))

    def layers(*overrides):
        layers = describe(make_model(*only("gradcam", "toy"), *overrides), 0, make_quality().summary()).layers
        return {one.layer.name: (one.available, one.compiled, one.is_default) for one in layers}

    assert layers() == {"early": (True, True, True), "late": (True, True, True)}
    of_the_toy = layers("explainers.gradcam.enabled=false")
    assert of_the_toy == {"early": (True, True, True), "late": (False, False, False)}
    on_demand = layers("explainers.gradcam.enabled=false", "explainers.toy.compile_on_demand=true")
    assert on_demand == {"early": (True, True, True), "late": (True, False, False)}


@pytest.mark.parametrize("made", ["[None]", "[:, None]", "[None, :-1]", "[None, None]"])
def test_maps_of_another_shape_than_the_picture_are_never_handed_out(install, made):
    install(EXPLAINER.replace("np.stack([factor * channel] * len(targets))", f"channel{made}"))
    explainer, image = explainers()["toy"], np.ones((3, 4, 5), np.float32)
    steps = explainer.explain(image, np.zeros(1, np.int32), explainer.parameters_type())
    if made == "[None]":
        assert drive(steps, lambda kind, rows: rows).maps.shape == (1, 4, 5)
        return
    with pytest.raises(ValueError, match=r"toy made maps of shape .* where they have \(1, 4, 5\)"):
        drive(steps, lambda kind, rows: rows)


def test_two_of_a_name_are_refused(install):
    name = install(EXPLAINER.replace('"toy"', '"rise"'))
    with pytest.raises(ConfigError, match=f"{name} 1.5, .* the explainer 'rise', which xai-sidecar itself brings, too"):
        explainers()


def test_two_packages_with_the_same_name_are_refused(install):
    one, other = install(METRIC, "metrics"), install(METRIC, "metrics")
    with pytest.raises(ConfigError, match=f"{other} 1.5, .* 'toys/toy', which the package {one} 1.5, .* brings, too"):
        metrics()


def test_the_example_of_the_documentation_works(install):
    text = (Path(__file__).parents[2] / "docs" / "extending.md").read_text()
    install(re.search(r"```python\n(# channels.py.*?)```", text, re.DOTALL).group(1), attribute="Channel")
    explainer = explainers()["channel"]
    image, targets = np.random.default_rng(0).random((3, 4, 5), np.float32), np.array([1, 0], np.int32)
    steps = explainer.explain(image, targets, explainer.parameters_type(channel=2))
    rows = []

    def run(kind, inputs):
        rows.extend(inputs[0])
        return (np.zeros((len(inputs[0]), 2), np.float32),)

    np.testing.assert_array_equal(drive(steps, run).maps, np.stack([image[2], image[2]]))
    assert len(rows) == explainer.pass_counts(2, explainer.parameters_type(), ModelFacts(4, 5)).most
