"""The dashboard: it is what its script writes, and a real Prometheus answers all of its queries."""

import importlib
import json
import math
from collections import Counter
from pathlib import Path

import pytest

from xai_sidecar.explainers.discovery import installed_explainers
from xai_sidecar.metrics.discovery import installed_metrics

GRAFANA = Path(__file__).parents[2] / "deploy" / "grafana"


@pytest.fixture(scope="module")
def script():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(GRAFANA)
        yield importlib.import_module("dashboard")


@pytest.fixture
def answer(queries, scraped):
    """The values of a panel's query by some of their labels."""

    def answer(panel, letter, *labels, **chosen):
        every = {(query.panel, query.letter): query.expression for query in queries.dashboard_queries(**chosen)}
        result = scraped.query(every[panel, letter])
        return {tuple(series[label] for label in labels): value for series, value in result}

    return answer


def test_the_file_is_what_the_script_writes(script, queries):
    assert queries.DASHBOARD.read_text() == script.text(), "run deploy/grafana/dashboard.py"


def test_a_query_has_an_answer(dashboard_query, scraped):
    assert len(scraped.query(dashboard_query.expression)) > 0, dashboard_query.expression


def test_every_series_of_the_dashboard_exists(queries, exposed):
    used = {name for query in queries.dashboard_queries() for name in queries.series_names(query.expression)}
    assert len(used) > 40
    assert used - exposed.names() == {"up"}


def test_the_names_are_found(queries):
    expression = 'sum by (job) (rate(xai_images_total{job=~"xai_job"}[5m])) / instance:xai_some:rate5m > up'
    assert queries.series_names(expression) >= {"xai_images_total", "up"}
    assert "xai_some" not in queries.series_names(expression)
    assert queries.recorded_names(expression) == {"instance:xai_some:rate5m"}


def test_all_variables_are_used_and_have_the_right_values(queries, scraped):
    labels = {name: (series, label) for name, series, label in queries.variables()}
    assert set(labels) == {"job", "instance", "model", "explainer", "metric", "class"}
    every = json.dumps(queries.dashboard())
    for name in labels:
        assert f'=~\\"${name}\\"' in every, name
    by_name = {query.panel: query for query in queries.dashboard_queries()}

    def values(name):
        query = by_name[f"variable {name}"]
        return {series[query.letter] for series, _ in scraped.query(query.expression)}

    assert values("job") == {"xai-sidecar"}
    assert values("model") == {"cats"}
    assert values("explainer") == set(installed_explainers())
    assert values("metric") == set(installed_metrics())
    assert values("class") == {"cat", "dog"}, "those with figures, by score or by truth"


def test_known_answers(answer):
    assert set(answer("Up", "A").values()) == {1}
    assert answer("Padding", "A", "kind")[("forward",)] == pytest.approx(2 / 8)
    assert answer("Precision by class", "A", "class")[("cat",)] == 6 / 8
    assert answer("Recall by class", "A", "class")[("cat",)] == 6 / 10
    assert math.isnan(answer("Recall by class", "A", "class")[("dog",)]), "there was none"
    assert answer("Time of an evaluation", "A", "explainer", "metric")["rise", "robustness"] == pytest.approx(0.25)
    assert answer("Composite quality", "A", "explainer")[("deconvolution",)] == 0.5 + 2 / 32
    assert answer("Explanations over 10 s", "A", "job")[("xai-sidecar",)] == pytest.approx(0.5, abs=0.1)
    assert answer("Out of distribution", "B", "instance").popitem()[1] == pytest.approx(0.25, abs=0.1)
    assert answer("Evaluator", "A", "state") == {("working",): 1}
    assert answer("Drift of maps", "A", "explainer", "statistic", "source") == {("gradcam", "border", "requests"): 0.5}
    assert answer("Statistics of maps", "B", "statistic") == {("border",): 0.125}
    assert answer("Score by class", "B", "class", explainer="rise", metric="robustness")[("cat",)] == 40


@pytest.mark.parametrize(("panel", "mean", "error"), [("Score", 0.25, 0.0625), ("Goodness", 0.625, 0.03125)])
def test_the_band_is_1_96_standard_errors(answer, queries, panel, mean, error):
    title = next(one["title"] for one in queries.panels() if one["title"].startswith(f"{panel}: "))
    for letter, value in (("A", mean), ("B", mean - 1.96 * error), ("C", mean + 1.96 * error)):
        found = answer(title, letter, "explainer", metric="robustness")
        assert found == {(explainer,): pytest.approx(value) for explainer in installed_explainers()}


def test_a_choice_of_variables_narrows_the_answer(answer):
    assert answer(
        "Samples in the window", "A", "explainer", "metric", explainer="rise|gradcam", metric="robustness"
    ) == {
        ("rise", "robustness"): 100,
        ("gradcam", "robustness"): 100,
    }
    assert answer("Samples in the window", "A", job="another") == {}


def test_panels_do_not_overlap_and_have_ids_of_their_own(queries):
    panels = queries.dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = Counter(
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    )
    assert max(taken.values()) == 1
    assert {x for x, _ in taken} == set(range(24))


def test_every_panel_uses_the_chosen_source(queries):
    for panel in queries.panels():
        assert {one["datasource"]["uid"] for one in (panel, *panel["targets"])} == {"$datasource"}
        for target in panel["targets"]:
            known = ["job", "instance", *(["model"] if "xai_" in target["expr"] else [])]
            assert all(f'{name}=~"${name}"' in target["expr"] for name in known), target["expr"]
