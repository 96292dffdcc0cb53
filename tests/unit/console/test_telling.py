"""What the server tells in English is in Chinese, too, where its kind is known, and as it was where it is not."""

import re
from types import SimpleNamespace

import pytest

from xai_client import AutoChoice, ImageError, NotFoundError, Standing, UnavailableError, XaiError, errors
from xai_client.types import Advantage
from xai_console import telling
from xai_console.words import Words
from xai_console.words.told import TOLD
from xai_sidecar.evaluator.controls import CONTROLS
from xai_sidecar.explainers.discovery import built_in_explainers
from xai_sidecar.metrics.discovery import built_in_metrics

CHINESE = re.compile(r"[\u4e00-\u9fff]")
EN, ZH = Words("en"), Words("zh")
BEATS = Advantage("control/blob", 0.3, 0.1)


def test_all_that_the_server_has_of_its_own_is_told():
    parameters = {
        f"parameter.{name}" for each in built_in_explainers().values() for name in each.parameters_type.model_fields
    }
    wanted = {*built_in_explainers(), *built_in_metrics(), *CONTROLS, *parameters}
    assert wanted <= set(TOLD)
    assert all(CHINESE.search(text) for text in TOLD.values())


def test_what_is_not_known_is_told_as_it_is():
    assert ZH.told("theirs", "Somebody's explainer.") == "Somebody's explainer."
    assert EN.told("gradcam", "In English.") == "In English."
    assert CHINESE.search(ZH.told("gradcam", "In English."))


@pytest.mark.parametrize(
    "failure", [UnavailableError("nobody there"), NotFoundError("no such sample"), ImageError("no picture")]
)
def test_an_error_keeps_its_own_words(failure):
    assert telling.error(failure, EN) == failure.message
    assert CHINESE.search(telling.error(failure, ZH))
    assert failure.message in telling.error(failure, ZH)


def test_every_status_of_a_call_is_told():
    codes = {each.code for each in vars(errors).values() if isinstance(each, type) and issubclass(each, XaiError)}
    assert {"UNKNOWN", ""} < codes
    assert {f"error.{code}" for code in codes} <= set(TOLD)


@pytest.mark.parametrize(("status", "known"), [("skipped", "已跳过"), ("truncated", "提前结束")])
def test_why_there_is_no_map_is_told_in_the_servers_words_where_it_has_any(status, known):
    said = SimpleNamespace(status=status, status_message="The probability is 0.2.")
    assert telling.status(said, EN) == said.status_message
    assert telling.status(said, ZH) == f"{known}：{said.status_message}"
    silent = SimpleNamespace(status=status, status_message="")
    assert telling.status(silent, EN) == EN(f"status.{status}")
    assert telling.status(silent, ZH) == ZH(f"status.{status}")


@pytest.mark.parametrize("kind", ["best", "best_of_class", "fallback"])
@pytest.mark.parametrize("advantage", [BEATS, None])
def test_a_choice_is_told_with_its_figures(kind, advantage):
    made = AutoChoice("rise is the best.", kind, None if kind == "fallback" else 0.9, advantage)
    assert telling.choice(made, EN) == made.reason
    told = telling.choice(made, ZH)
    assert CHINESE.search(told)
    assert made.reason not in told
    if kind != "fallback":
        assert "0.9" in told
        assert ("control/blob" in told) == (advantage is not None)


def test_an_objection_is_of_chance_or_of_a_veto():
    by_chance = Standing(eligible=False, objection="does not beat it", advantage=Advantage("control/blob", 0.05, 0.1))
    vetoed = Standing(eligible=False, objection="is worse than noise by robustness", advantage=BEATS)
    assert "control/blob" in telling.objection(by_chance, ZH)
    assert "robustness" in telling.objection(vetoed, ZH)
    assert telling.objection(vetoed, EN) == vetoed.objection
