"""Alerts that are told without Prometheus: under the conditions of its rules, and no others."""

import contextlib
import hashlib
import json
import math
import re
from collections import Counter
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import yaml

from xai_client import MapDrift, MetricInfo, QualityAlert, Standing
from xai_console import alert_cards, telling
from xai_console import alerts as module
from xai_console.alert_cards import gather_evidence, prose
from xai_console.alerts import CONDITIONS, TEXTS, Case, Evidence, alerts, judge, standard_error
from xai_console.words import LANGUAGES, Words
from xai_sidecar.evaluator.comparison import goodness
from xai_sidecar.evaluator.intervals import t_value
from xai_sidecar.metrics.discovery import built_in_metrics

DEPLOY = Path(__file__).parents[3] / "deploy"
RULES = {
    rule["alert"]: rule
    for group in yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
    if "alert" in rule
}
EN, ZH = Words("en"), Words("zh")
CHINESE = json.loads(Path(module.__file__).with_name("alerts.zh.json").read_text())
NOW = 1_000_000_000.0
WEIGHTY, WEAK = (Standing(eligible=each, objection="", advantage=None) for each in (True, False))
SRG = "faithfulness/srg"


def measure(goodness=0.8, half_width=0.02, count=50, ago=7200.0):
    updated = None if ago is None else datetime.fromtimestamp(NOW - ago, timezone.utc)
    return SimpleNamespace(goodness=goodness, confidence_half_width=half_width, sample_count=count, update_time=updated)


def explainer(quality=None, standing=WEIGHTY, drift=(), is_control=False):
    return SimpleNamespace(quality=quality or {}, standing=standing, drift=drift, is_control=is_control)


def drift(ratio):
    return MapDrift("concentration", "requests", "", 0.5, 0.4, ratio)


def window(with_ood=0, share=math.nan):
    return SimpleNamespace(ood_count=with_ood, outlier_share=share)


def evidence(explainers=None, share=None, with_ood=500, before=None, scores=None, sampled=0, done=0):
    metrics = {SRG: MetricInfo(SRG, "", True, -1.0, 1.0), "down": MetricInfo("down", "", False, 0.0, 2.0)}
    quality = SimpleNamespace(
        explainers=explainers or {"gradcam": explainer()},
        outlier_share=share,
        evaluator=SimpleNamespace(metrics=metrics, window=86400.0),
    )
    history = SimpleNamespace(
        current=before or window(), scores={series: (each,) for series, each in (scores or {}).items()}
    )
    return Evidence(quality, history, with_ood, sampled, done, "cats", NOW)


def holds(name, **given):
    return judge(evidence(**given))[name]


# ------------------------------------------------------------------------------------------------- every alert


def test_every_alert_is_told_or_named():
    assert list(alerts("en")) == list(alerts("zh")) == list(CHINESE) == list(RULES)
    assert set(CONDITIONS) <= set(RULES)
    for name, each in alerts("en").items():
        assert each.summary == RULES[name]["annotations"]["summary"]
        assert each.after == RULES[name].get("for", "")
        assert all((each.means, each.look_at, each.do))


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", RULES)
def test_an_alert_is_told_with_what_it_holds_of(name, language):
    each = alerts(language)[name]
    meaning = telling.alert_meaning(each)
    assert each.means.replace("`", "").startswith(meaning)
    assert meaning.endswith(".。"[language == "zh"])
    labels = set(re.findall(r"\$labels\.(\w+)", alerts("en")[name].summary))
    said = telling.alert_summary(each, [Case(dict.fromkeys(labels, "this"))])
    assert "{{" not in said
    assert said.count("this") == len(labels)


@pytest.mark.parametrize("name", RULES)
def test_the_chinese_of_an_alert_is_that_of_its_english(name):
    english = "\n".join(getattr(alerts("en")[name], key) for key in TEXTS)
    digest = hashlib.sha256(english.encode()).hexdigest()[:12]
    assert CHINESE[name]["of"] == digest, (
        f"the English texts of {name} are others than those that alerts.zh.json translates: "
        f'translate what has changed, then have it say "of": "{digest}"'
    )


@pytest.mark.parametrize("text", ["summary", "means", "look_at", "do"])
@pytest.mark.parametrize("name", RULES)
def test_the_chinese_of_an_alert_has_the_code_links_panels_and_numbers_of_its_english(name, text):
    english, chinese = (getattr(alerts(language)[name], text) for language in LANGUAGES)
    assert re.search(r"[\u4e00-\u9fff]", chinese)
    assert marked(chinese) == marked(english)


def marked(text):
    """How often each piece of code, link, name of a panel, and number stands in it."""
    pieces = re.compile(r"`[^`]+`|\[[^\]]+\]\([^)]*\)|\*[^*]+\*|{{[^}]*}}|Xai\w+|\d+(?:\.\d+)?(?: %)?")
    return Counter(pieces.findall(text))


@pytest.mark.parametrize(
    ("name", "conditions"),
    [
        ("XaiQualityFell", ["> {FALL}", "> {STANDARD_ERRORS} * (", ">= {LEAST_SCORES}"]),
        ("XaiNoExplainerBeatsControls", ["max by (job, instance, model) (xai_quality_beats_controls) == 0"]),
        ("XaiMapsDrifted", ["xai_map_drift >= 1"]),
        (
            "XaiOodShareRose",
            [
                "> {RISE} * instance:xai_ood_outlier_share:last_week",
                "xai_ood_outlier_share > {RISEN_SHARE}",
                "increase(xai_ood_scored_total[1d]) >= {LEAST_WITH_OOD}",
            ],
        ),
        (
            "XaiOodShareHigh",
            ["xai_ood_outlier_share > {HIGH_SHARE}", "increase(xai_ood_scored_total[1d]) >= {LEAST_WITH_OOD}"],
        ),
        (
            "XaiNothingScored",
            ['increase(xai_samples_total{{event="sampled"}}[1h]) >= {LEAST_SAMPLED}', '"scored|no_positive"'],
        ),
    ],
)
def test_conditions_are_those_of_the_rules(name, conditions):
    for each in conditions:
        assert each.format(**vars(module)) in RULES[name]["expr"]


# -------------------------------------------------------------------------------------------- what holds, and not


def test_nothing_holds_where_nothing_is_wrong():
    ordinary = evidence(share=0.05, before=window(with_ood=100, share=0.05))
    assert {name for name, cases in judge(ordinary).items() if cases} == set()


@pytest.mark.parametrize(
    ("was", "now", "half_width", "count", "fallen"),
    [
        (0.8, 0.6, 0.02, 50, [(0.6, 0.9)]),  # the mean of 0.8 in -1 to 1
        (0.8, 0.84, 0.02, 50, [(0.84, 0.9)]),
        (0.8, 0.86, 0.001, 50, []),  # by less than 0.05
        (0.8, 0.8, 0.1, 50, []),  # within three standard errors
        (0.8, 0.95, 0.02, 50, []),
        (0.8, 0.6, math.nan, 50, [(0.6, 0.9)]),  # all scores are the same: there is no error
        (0.8, 0.6, 0.02, 14, None),
    ],
)
def test_quality_falls_where_it_is_lower_than_a_week_ago_beyond_chance(was, now, half_width, count, fallen):
    scores = {("gradcam", SRG): SimpleNamespace(mean=was, confidence_half_width=half_width, sample_count=count)}
    found = holds("XaiQualityFell", explainers={"gradcam": explainer({SRG: measure(now, half_width)})}, scores=scores)
    if fallen is None:
        assert found is None
    else:
        assert [(each.now, pytest.approx(each.before)) for each in found] == fallen
        assert all(each.labels == {"explainer": "gradcam", "metric": SRG} for each in found)


def test_quality_of_controls_falls_for_nobody():
    scores = {("control/blob", SRG): SimpleNamespace(mean=0.8, confidence_half_width=0.01, sample_count=50)}
    blob = explainer({SRG: measure(0.1)}, is_control=True)
    assert holds("XaiQualityFell", explainers={"control/blob": blob}, scores=scores) is None


def test_lower_is_better_where_the_metric_says_so():
    scores = {("gradcam", "down"): SimpleNamespace(mean=0.2, confidence_half_width=0.01, sample_count=50)}
    (found,) = holds("XaiQualityFell", explainers={"gradcam": explainer({"down": measure(0.5)})}, scores=scores)
    assert found.before == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("standings", "wrong"),
    [((WEAK, WEAK), True), ((WEAK, WEIGHTY), False), ((WEAK, None), False), ((None, None), False)],
)
def test_nobody_beats_the_controls_once_all_were_compared(standings, wrong):
    explainers = {str(number): explainer(standing=each) for number, each in enumerate(standings)}
    explainers["control/blob"] = explainer(standing=None, is_control=True)
    assert holds("XaiNoExplainerBeatsControls", explainers=explainers) == [Case({"model": "cats"})] * wrong


def test_maps_have_drifted_from_a_ratio_of_1_on():
    explainers = {"gradcam": explainer(drift=(drift(1.0), drift(0.99))), "rise": explainer(drift=(drift(0.5),))}
    (found,) = holds("XaiMapsDrifted", explainers=explainers)
    assert found.labels == {"explainer": "gradcam", "statistic": "concentration"}


@pytest.mark.parametrize(
    ("share", "was", "with_ood", "counted_before", "rose", "high"),
    [
        (0.25, 0.1, 50, 50, True, False),
        (0.31, 0.1, 50, 50, True, True),
        (0.31, 0.2, 50, 50, False, True),
        (0.3, 0.2, 50, 50, False, False),
        (0.09, 0.01, 50, 50, False, False),
        (0.9, 0.1, 49, 50, False, False),  # too few of the day
        (0.9, 0.1, 50, 49, None, True),  # too few of a week ago
        (None, 0.1, 50, 50, False, False),
    ],
)
def test_outliers_are_many_or_more_than_twice_as_many(share, was, with_ood, counted_before, rose, high):
    given = {"share": share, "with_ood": with_ood, "before": window(with_ood=counted_before, share=was)}
    found = judge(evidence(**given))
    assert (found["XaiOodShareRose"] is None) == (rose is None)
    assert bool(found["XaiOodShareRose"]) == bool(rose)
    assert bool(found["XaiOodShareHigh"]) == high


@pytest.mark.parametrize(
    ("sampled", "done", "scored_ago", "wrong"),
    [
        (10, 0, 7200.0, True),
        (10, 0, None, True),
        (9, 0, 7200.0, False),
        (10, 1, 7200.0, False),
        (10, 0, 60.0, False),  # a sample of before was scored
    ],
)
def test_nothing_is_scored_though_samples_are_taken(sampled, done, scored_ago, wrong):
    explainers = {"gradcam": explainer({SRG: measure(ago=scored_ago)})}
    found = holds("XaiNothingScored", explainers=explainers, sampled=sampled, done=done)
    assert bool(found) == wrong


class Source:
    """A server that counts its samples: when each came, its state, its OoD percentile."""

    samples = (
        (NOW - 60, "scored", 3.0),
        (NOW - 120, "no_positive", None),
        (NOW - 3500, "pending", 0.0),
        (NOW - 3700, "scored", 50.0),
        (NOW - 86_300, "scored", 99.0),
        (NOW - 86_500, "scored", 99.0),
    )

    async def quality(self):
        return "quality"

    async def quality_history(self, **asked):
        return asked

    async def list_samples(self, where, **_):
        least = where.min_ood_percentile
        found = [
            time
            for time, state, percentile in self.samples
            if time >= where.start
            and (not where.states or state in where.states)
            and (least is None or (percentile is not None and percentile >= least))
        ]
        return SimpleNamespace(total_count=len(found))


async def test_evidence_is_of_the_last_hour_of_the_last_day_and_of_a_week_ago(monkeypatch):
    monkeypatch.setattr(alert_cards, "time", SimpleNamespace(time=lambda: NOW))
    explainers = dict.fromkeys(("gradcam", "rise"))
    info = SimpleNamespace(name="cats", evaluator=SimpleNamespace(window=43_200.0), explainers=explainers)
    found = await gather_evidence(Source(), info)
    asked = {"seconds": 43_200.0, "bins": 1, "ago": 7 * 86_400.0, "explainers": ["gradcam", "rise"]}
    assert found == Evidence("quality", asked, 4, 3, 2, "cats", NOW)


# ------------------------------------------------------------------------------- what the server tells itself


@pytest.fixture
def shown(monkeypatch):
    """Has alerts shown in no browser; returns the texts of each card, and the state of each alert in the list."""

    def shown(judged, served, say=EN):
        cards = []

        @contextlib.contextmanager
        def card(**_):
            cards.append([])
            yield

        lists = {}
        monkeypatch.setattr(alert_cards, "card", card)
        monkeypatch.setattr(alert_cards, "text", lambda content, *_, **__: cards[-1].append(content))
        monkeypatch.setattr(alert_cards, "fill_once", lambda _, make: make())
        monkeypatch.setattr(alert_cards, "_state", lambda *given: lists.update({given[-1].name: state(*given)}) or "")
        folded = MagicMock()
        folded.return_value.__enter__.return_value.on_value_change = lambda act: act()
        for name, made in {"Folded": folded, "div": MagicMock(), "ui": MagicMock(), "Markup": MagicMock()}.items():
            monkeypatch.setattr(alert_cards, name, made)
        alert_cards.show_alerts(SimpleNamespace(say=say), judged, served)
        return cards[:-1], lists

    state = alert_cards._state
    return shown


HIGH = QualityAlert("XaiOodShareHigh", "42 % of the pictures are unlike.", "List the outliers first.")
LATER = QualityAlert("XaiOfALaterServer", "Something is wrong.", "See to it.")


def test_what_both_tell_is_one_card_with_what_either_says(shown):
    (card,), states = shown(judge(evidence(share=0.42)), [HIGH])
    assert card[0] == telling.alert_summary(alerts("en")["XaiOodShareHigh"], [Case({})])
    assert "XaiOodShareHigh" in card
    assert "42.0 % now" in card
    assert HIGH.advice in card
    assert any("30 min" in each for each in card)
    assert "holds" in states["XaiOodShareHigh"]
    assert list(states) == list(RULES)


@pytest.mark.parametrize("told", [HIGH, QualityAlert("XaiNotReady", "It is not.", "Wait."), LATER])
def test_what_the_server_alone_tells_holds(shown, told):
    (card,), states = shown(judge(evidence(share=0.1)), [told])
    assert card[0] == told.summary
    assert {told.name, told.advice} <= set(card)
    assert "holds" in states.get(told.name, "holds")
    assert sum("holds" in each for each in states.values()) == (told.name in RULES)


def test_what_the_server_does_not_tell_holds_by_its_condition(shown):
    (card,), states = shown(judge(evidence(share=0.42)), [])
    assert card[1] == "XaiOodShareHigh"
    assert "holds" in states["XaiOodShareHigh"]
    assert shown(judge(evidence(share=0.1)), []) == ([], {**states, "XaiOodShareHigh": "does not hold"})


def test_all_that_the_server_tells_has_words_in_chinese(shown):
    names = re.findall(r'"(Xai\w+)"', (DEPLOY.parent / "sidecar/xai_sidecar/serving/quality_report.py").read_text())
    assert names
    for each in names:
        assert each in RULES
        (card,), _ = shown({}, [QualityAlert(each, "what", "to do")], ZH)
        assert all(re.search(r"[\u4e00-\u9fff]", words) for words in card if words != each)


# ---------------------------------------------------------------------------------------------------- figures


@pytest.mark.parametrize("name", built_in_metrics())
def test_goodness_is_the_servers(name):
    metric = built_in_metrics()[name]
    low, high = metric.value_range
    info = MetricInfo(name, "", metric.higher_is_better, low, high)
    for share in (-0.5, 0.0, 0.3, 1.0):
        mean = low + share * (high - low)
        assert module._goodness(info, mean) == pytest.approx(goodness(metric, mean))


@pytest.mark.parametrize("count", [15, 20, 50, 500])
def test_a_standard_error_is_got_back_from_its_interval(count):
    assert standard_error(0.1 * t_value(count - 1), count) == pytest.approx(0.1, rel=2e-3)


def test_the_runbook_is_shown_with_its_marks():
    text = "See *Goodness* and [XaiDown](#xaidown): `a < b`, <b>."
    assert prose(text) == "See <em>Goodness</em> and XaiDown: <code>a &lt; b</code>, &lt;b&gt;."
