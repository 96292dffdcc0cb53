"""A classifier that was trained so that a mark in a corner decides: what the sidecar makes of it, and who is told.

The same pictures are sent twice, the second time with the best explainer broken, so that nothing else changes.
"""

import functools
import importlib.util
import itertools
import math
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from xai_client import Client


def load(path):
    spec = importlib.util.spec_from_file_location(f"flaw_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


traffic = load(Path(__file__).with_name("traffic.py"))
COMPARED, COUNT, DRIFT_WINDOW, FAITHFULNESS, LOCALIZATION, METRICS = (
    traffic.COMPARED,
    traffic.COUNT,
    traffic.DRIFT_WINDOW,
    traffic.FAITHFULNESS,
    traffic.LOCALIZATION,
    traffic.METRICS,
)
COMPARED_BY = tuple(itertools.product(COMPARED, METRICS))
GOOD = ("gradcam", "occlusion")
HELD_OUT = 150

ALERTS = Path(__file__).parents[2] / "deploy" / "prometheus" / "alerts.yml"
ALERT = "XaiQualityFell"
DRIFTED = "XaiMapsDrifted"
SERIES = ("xai_quality_goodness", "xai_quality_goodness_standard_error", "xai_quality_samples")
HOUR = 3600
WEEK = 7 * 24 * HOUR


def z_value(better, worse, explainer, metric, other=""):
    """By how many standard errors of the difference an explainer, or another one, is worse in the second quality."""
    pairs = ((better, explainer), (worse, other or explainer))
    one, two = (quality.goodness(name, metric) for quality, name in pairs)
    error = math.hypot(*(quality.value("goodness_standard_error", name, metric) for quality, name in pairs))
    if one == two:
        return 0.0
    return (one - two) / error if error else math.copysign(math.inf, one - two)


@dataclass
class Story:
    """All that happened, in this order.

    Attributes:
        address: Of the server's /metrics.
        recognised: The parts of held-out pictures that are taken for the class of their mark, for the class named after
            their shape, and, once their marks are taken away, for the class that these were of.
        steady: How far the maps of an explainer that callers asked for have drifted, by statistic, while no picture had
            a mark.
        drifted: The same once all have one.
        drift_alarms: What Prometheus had the alert for by then.
        first_auto: The explanation by `auto` before anything was measured.
        naive: The quality where the shapes were reported as what matters.
        healthy: The quality with the marks reported instead.
        healthy_auto: The explanation by `auto` then.
        quiet: What Prometheus had the alert for, before an explainer was broken.
        broken: The name of the explainer that was broken.
        ill: The quality after that.
        ill_auto: The explanation by `auto` then.
        alarmed: What Prometheus had the alert for after that.
        last_metrics: /metrics at the end.
    """

    address: str
    recognised: tuple = ()
    steady: object = None
    drifted: object = None
    drift_alarms: object = None
    first_auto: object = None
    naive: object = None
    healthy: object = None
    healthy_auto: object = None
    quiet: object = None
    broken: str = ""
    ill: object = None
    ill_auto: object = None
    alarmed: object = None
    last_metrics: object = None


@pytest.fixture(scope="module")
def story(checkpoint, pictures, prometheus, start_breakable, only, read_metrics, eventually, tmp_path_factory):
    folder = tmp_path_factory.mktemp("story")
    traffic.without_salt(folder / "store.sqlite")
    config = traffic.config(checkpoint, folder / "store.sqlite", pictures.CLASSES)
    (folder / "sidecar.toml").write_text(config)
    broken, database = folder / "broken", folder / "prometheus"
    *several, last = pictures.draw_many(7, COUNT + 1)
    with (
        start_breakable(folder / "sidecar.toml", broken, *only(*COMPARED)) as server,
        Client(server.grpc, timeout=60) as client,
    ):
        caller = traffic.Caller(server, client, pictures.CLASSES, read_metrics, eventually)
        told = Story(address=server.http)
        told.recognised = recognised(caller, pictures)
        told.steady, told.drifted = drift(caller, pictures)
        told.first_auto = caller.auto(last)

        # What a person takes for the evidence: the shape that the class is named after.
        sent = [caller.send(picture, picture.shape) for picture in several]
        told.naive = caller.settled()
        # What is the evidence.
        for request_id, picture in zip(sent, several, strict=True):
            caller.report(request_id, picture, picture.mark)
        told.healthy = caller.settled()
        told.healthy_auto = caller.auto(last)

        backfill(prometheus, database, server.http, told.healthy)
        with prometheus.prometheus(database, [server.http], rules=[ALERTS]) as watcher:
            watcher.wait(lambda: len(watcher.query("instance:xai_quality_goodness:last_week")) == len(COMPARED_BY))
            told.quiet = alarms(watcher)
            told.drift_alarms = [each["labels"] for each in watcher.alerts() if each["labels"]["alertname"] == DRIFTED]
            told.broken = told.healthy_auto.explainer
            broken.write_text(told.broken)
            for picture in several:
                caller.send(picture, picture.mark)
            told.ill = caller.settled()
            told.ill_auto = caller.auto(last)
            told.alarmed = alarms(watcher)
            told.last_metrics = read_metrics(server.http)
        assert server.terminate() == 0
    return told


def recognised(caller, pictures):
    """See `Story.recognised`."""
    marked, plain = (pictures.draw_many(99, HELD_OUT, marked=each) for each in (True, False))
    with_marks, without = caller.classes(marked), caller.classes(plain)
    same = [
        (found == picture.label, found == picture.kind, bare == picture.label)
        for picture, found, bare in zip(marked, with_marks, without, strict=True)
    ]
    return tuple(sum(column) / HELD_OUT for column in zip(*same, strict=True))


def drift(caller, pictures):
    """See `Story.steady` and `Story.drifted`: the maps of a reference window, of a current one, and of another."""
    plain, marked = pictures.draw_many(98, 2 * DRIFT_WINDOW, marked=False), pictures.draw_many(97, DRIFT_WINDOW)
    caller.explain(plain, "gradcam")
    steady = caller.eventually(lambda: caller.drift("gradcam"))
    caller.explain(marked, "gradcam")
    return steady, caller.eventually(lambda: (found := caller.drift("gradcam")) and found != steady and found)


def backfill(prometheus, folder, address, quality):
    """Has a database begin with the hours of a week ago that the alert looks at."""
    now = int(time.time())
    lines = []
    for name in SERIES:
        lines.append(f"# TYPE {name} gauge")
        for explainer, metric in COMPARED_BY:
            labels = f'job="{prometheus.JOB}",instance="{address}",model="flawed"'
            labels += f',explainer="{explainer}",metric="{metric}"'
            value = quality.metrics[name, explainer, metric]
            lines += [
                f"{name}{{{labels}}} {value:.9f} {at}" for at in range(now - WEEK - 7 * HOUR, now - WEEK + HOUR, 120)
            ]
    folder.mkdir()
    (folder / "week.txt").write_text("\n".join([*lines, "# EOF", ""]))
    promtool = [prometheus.binary("promtool"), "tsdb", "create-blocks-from", "openmetrics"]
    done = subprocess.run([*promtool, folder / "week.txt", folder / "data"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def alarms(watcher):
    """What the alert is about, as (explainer, metric), once the present metrics have been scraped and judged."""
    watcher.wait_for_scrapes()
    scraped = watcher.value("sum_over_time(up[1h])")
    watcher.wait_for_scrapes(scraped + 2)
    for _ in range(2):
        watcher.wait(functools.partial(judged_since, watcher, judged(watcher)))
    labels = [alert["labels"] for alert in watcher.alerts()]
    return {(each["explainer"], each["metric"]) for each in labels if each["alertname"] == ALERT}


def judged(watcher):
    """When the alert's rule was evaluated for the last time."""
    return next(rule["lastEvaluation"] for rule in watcher.rules() if rule["name"] == ALERT)


def judged_since(watcher, before):
    """Whether it was evaluated again."""
    return judged(watcher) != before


# ------------------------------------------------------------------------------------------------


def test_the_mark_decides(story):
    by_mark, by_shape, without_mark = story.recognised
    assert by_mark >= 0.95
    most = 1 / 3 + 3 * math.sqrt(1 / 3 * 2 / 3 / HELD_OUT)  # by chance
    assert by_shape <= most
    assert without_mark <= most


def test_the_maps_give_the_flaw_away(story):
    """They are faithful, and where a person expects the evidence they are not; they are where it is."""
    for name in GOOD:
        assert story.naive.goodness(name, LOCALIZATION) <= 0.25
        assert story.healthy.goodness(name, LOCALIZATION) >= 0.9
        assert z_value(story.healthy, story.naive, name, LOCALIZATION) > 3
        for metric in FAITHFULNESS:
            assert story.naive.goodness(name, metric) >= 0.6
    for name, metric in itertools.product(COMPARED, FAITHFULNESS):
        assert story.healthy.value("score", name, metric) == story.naive.value("score", name, metric)


def test_the_mass_in_the_border_gives_it_away(story):
    """Nobody has to report anything, nor is a pass spent: the maps move to the corners once there are marks."""
    assert max(story.steady.values()) < 1
    assert story.drifted["border"] > 1
    assert story.last_metrics["xai_map_statistic", "", "gradcam", "requests", "border", "reference"] < 0.5
    borders = [each for each in story.drift_alarms if each["statistic"] == "border"]
    assert [(each["explainer"], each["source"]) for each in borders] == [("gradcam", "requests")]


@pytest.mark.parametrize("metric", METRICS)
def test_a_good_explainer_is_told_from_a_broken_one(story, metric):
    assert story.broken in GOOD
    assert z_value(story.healthy, story.ill, story.broken, metric) > 3
    for name in GOOD:
        if name != story.broken:
            assert z_value(story.ill, story.ill, name, metric, story.broken) > 3


def test_the_good_beat_the_controls_and_the_broken_one_does_not(story):
    for quality, good in ((story.healthy, set(GOOD)), (story.ill, set(GOOD) - {story.broken})):
        for name in GOOD:
            standing = quality.info.explainers[name].standing
            assert standing.eligible == (name in good), (name, standing)
            assert quality.metrics["xai_quality_beats_controls", name] == standing.eligible
    assert "does not beat control/" in story.ill.info.explainers[story.broken].standing.objection
    for explanation in (story.healthy_auto, story.ill_auto):
        advantage = explanation.choice.advantage
        assert advantage.mean > advantage.confidence_half_width > 0
        assert f"It beats {advantage.over}, its closest control, by " in explanation.choice.reason


def test_noise_explains_nothing_whatever_is_reported(story):
    for quality in (story.naive, story.healthy, story.ill):
        found = quality.info.evaluator.controls
        assert set(found) == {"control/random", "control/fixed", "control/blob", "control/edges"}
        for name in ("control/random", "control/fixed"):
            (srg,) = (each for each in found[name].quality if each.metric == "faithfulness/srg")
            assert abs(srg.mean) < 2 * srg.confidence_half_width


@pytest.mark.parametrize("metric", METRICS)
def test_the_others_are_as_good_as_before(story, metric):
    for name in COMPARED:
        if name != story.broken:
            # Where a map is flat, another sample of the same picture has another order of pixels.
            assert story.ill.goodness(name, metric) == pytest.approx(story.healthy.goodness(name, metric), abs=2e-3)


def test_auto_begins_without_measurements(story):
    choice = story.first_auto.choice
    assert (story.first_auto.explainer, choice.kind, choice.composite_score) == ("gradcam", "fallback", None)


@pytest.mark.parametrize("when", ["healthy", "ill"])
def test_auto_chooses_the_best(story, when):
    quality, explanation = getattr(story, when), getattr(story, f"{when}_auto")
    composites = {name: quality.composite(name) for name in COMPARED}
    best = max(composites, key=composites.get)
    assert explanation.explainer == best, composites
    assert explanation.choice.kind == "best"
    assert explanation.choice.reason.startswith(f"{best} has the best composite score, ")
    assert explanation.choice.composite_score == pytest.approx(composites[best], abs=1e-6)


def test_auto_changes_its_choice(story):
    assert story.healthy_auto.explainer == story.broken
    assert story.ill_auto.explainer in set(GOOD) - {story.broken}
    expected = {
        ("gradcam", "fallback"): 1,
        (story.broken, "best"): 1,
        (story.ill_auto.explainer, "best"): 1,
    }
    counted = {key[1:]: count for key, count in story.last_metrics.items() if key[0] == "xai_auto_choices_total"}
    assert {key: count for key, count in counted.items() if count} == expected


@pytest.mark.parametrize("when", ["naive", "healthy", "ill"])
def test_callers_are_told_the_same_as_prometheus(story, when):
    quality = getattr(story, when)
    for name in COMPARED:
        measures = {measure.metric: measure for measure in quality.info.explainers[name].quality}
        assert set(measures) == set(METRICS)
        for metric, measure in measures.items():
            assert measure.sample_count == quality.value("samples", name, metric) == COUNT
            assert measure.mean == pytest.approx(quality.value("score", name, metric), abs=1e-6)
            assert measure.goodness == pytest.approx(quality.goodness(name, metric), abs=1e-6)
        composite = quality.metrics["xai_quality_composite", name]
        assert quality.info.explainers[name].composite_score == pytest.approx(composite, abs=1e-6)
        assert composite == pytest.approx(quality.composite(name), abs=1e-6)


def test_the_alert_is_about_the_broken_explainer_alone(story):
    """In a Prometheus that scrapes the server, and has the healthy scores of a week ago, it is pending at once."""
    assert story.quiet == set()
    assert story.alarmed == {(story.broken, metric) for metric in METRICS}


@pytest.mark.parametrize("after_the_week", ["healthy", "ill"])
def test_the_alert_fires_half_an_hour_later(story, after_the_week, prometheus, tmp_path):
    """As Prometheus plays it through: a week of the healthy scores, then two hours of these."""
    labels = f'job="{prometheus.JOB}",instance="{story.address}",model="flawed"'
    then, now = story.healthy.metrics, getattr(story, after_the_week).metrics
    series = [
        {
            "series": f'{name}{{{labels},explainer="{explainer}",metric="{metric}"}}',
            "values": f"{then[name, explainer, metric]:.9f}x2016 {now[name, explainer, metric]:.9f}x40",
        }
        for name in SERIES
        for explainer, metric in COMPARED_BY
    ]
    alert = f'{ALERT}",alertstate="firing",severity="warning",{labels},explainer="{story.broken}'
    fired = [{"labels": f'ALERTS{{alertname="{alert}",metric="{metric}"}}', "value": 1} for metric in METRICS]
    expression = f'ALERTS{{alertname="{ALERT}",alertstate="firing"}}'
    expected = [
        {"expr": expression, "eval_time": "1w", "exp_samples": []},
        {"expr": expression, "eval_time": "1w2h", "exp_samples": fired if after_the_week == "ill" else []},
    ]
    groups = [group["name"] for group in yaml.safe_load(ALERTS.read_text())["groups"]]
    rules = {
        "rule_files": [str(ALERTS)],
        "evaluation_interval": "10m",
        "group_eval_order": groups,
        "tests": [{"interval": "5m", "input_series": series, "promql_expr_test": expected}],
    }
    (tmp_path / "week.yml").write_text(yaml.safe_dump(rules))
    command = [prometheus.binary("promtool"), "test", "rules", tmp_path / "week.yml"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
