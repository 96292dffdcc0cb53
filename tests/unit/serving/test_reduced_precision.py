"""What the config and the backend say of a precision below float32, and what becomes of it."""

from types import SimpleNamespace

import pytest

from xai_sidecar.engine.backend import Layer
from xai_sidecar.engine.work import Forward, Kind, MaskedForward, MaskedOodScore
from xai_sidecar.serving.planning import plan_explanation
from xai_sidecar.serving.requests import ExplanationRequest

REDUCED = Kind("masked_forward", precision="bfloat16")


@pytest.fixture
def reducing(make_model):
    """Makes a model whose backend has bfloat16; takes overrides of the config."""

    def reducing(*overrides, ood=None):
        backend = SimpleNamespace(
            device="cpu",
            engine="none 1.0",
            engine_note="",
            version="abc",
            class_count=4,
            layers={"late": Layer("late", 2, 3, 4)},
            default_layer="late",
            ood=ood,
            reduced_precision="bfloat16",
            costs=lambda kind: {1: 0.01} if kind.precision else {1: 0.02},
        )
        return make_model(*overrides, backend=backend)

    return reducing


def plan_of(model, **parameters):
    return plan_explanation(ExplanationRequest("rise", parameters=parameters), model)


def test_the_kinds_that_sample_are_prepared_in_both(reducing):
    assert REDUCED in reducing().kinds
    scored = reducing(ood=SimpleNamespace()).facts.reduced
    assert scored == {kind: Kind(kind.name, precision="bfloat16") for kind in (MaskedForward.kind, MaskedOodScore.kind)}
    assert {kind.name for kind in reducing().kinds if kind.precision} == {"masked_forward"}


def test_a_plan_counts_the_time_of_the_precision_that_it_may_use(reducing):
    model = reducing()
    plan, fine = plan_of(model), plan_of(model, tolerance=0.1)
    assert (plan.kind, plan.first_kind, plan.reduced) == (REDUCED, MaskedForward.kind, REDUCED)
    assert plan.counts.most == 1024
    assert (fine.kind, fine.first_kind, fine.reduced) == (MaskedForward.kind, MaskedForward.kind, None)
    assert fine.counts.most == 1000
    assert model.expected_seconds(model.explainers["rise"]) == pytest.approx(1024 * 0.01)


def test_a_budget_is_held_to_the_first_passes_which_are_in_float32(reducing):
    with pytest.raises(Exception, match="160 ms that the first map takes"):
        plan_explanation(ExplanationRequest("rise", budget_seconds=0.1), reducing())


def test_float32_alone_where_the_config_says_so_or_the_backend_failed(reducing, make_model):
    failed = reducing().without({REDUCED: "bfloat16 gains little here."})
    for model in (reducing("explainers.precision=float32"), failed, make_model()):
        assert not any(kind.precision for kind in model.kinds)
        assert plan_of(model).kind == MaskedForward.kind
        assert not model.explainers["rise"].unavailable
        assert Forward.kind in model.kinds
