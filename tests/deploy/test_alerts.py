"""The alerts: Prometheus takes them, each is tested both ways, has a runbook, and uses series that there are."""

import importlib
import re
import subprocess

import pytest
import yaml


@pytest.fixture(scope="module")
def folder(queries):
    return queries.ALERTS.parent


@pytest.fixture(scope="module")
def cases(folder):
    """Every expectation of the rule tests, as (alert, what fires)."""
    files = sorted(folder.glob("*_test.yml"))
    assert [file.name for file in files] == ["alerts_test.yml", "alerts_weekly_test.yml"]
    groups = [group for file in files for group in yaml.safe_load(file.read_text())["tests"]]
    return [(case["alertname"], case["exp_alerts"]) for group in groups for case in group["alert_rule_test"]]


def run(promtool, folder, *arguments):
    return subprocess.run([promtool, *arguments], cwd=folder, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize(
    "arguments",
    [
        ("check", "config", "prometheus.yml"),
        ("check", "rules", "alerts.yml"),
        ("test", "rules", "alerts_test.yml"),
        ("test", "rules", "alerts_weekly_test.yml"),
    ],
    ids=" ".join,
)
def test_promtool_agrees(promtool, folder, arguments):
    done = run(promtool, folder, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "FAILED" not in done.stdout + done.stderr


def test_a_wrong_alert_is_noticed(promtool, folder, tmp_path):
    for name, change in (("alerts.yml", (" > 0.9\n", " > 0.99\n")), ("alerts_test.yml", ("", ""))):
        text = (folder / name).read_text()
        assert change[0] in text
        (tmp_path / name).write_text(text.replace(*change))
    done = run(promtool, tmp_path, "test", "rules", "alerts_test.yml")
    assert done.returncode != 0
    assert "XaiDeviceSaturated" in done.stdout + done.stderr


def test_an_alert_is_made_to_fire_and_not_to_fire(alert, cases):
    fires = [bool(expected) for name, expected in cases if name == alert["alert"]]
    assert set(fires) == {True, False}


def test_an_alert_says_what_there_is_to_know(alert, queries):
    assert alert["labels"]["severity"] in ("critical", "warning")
    notes = alert["annotations"]
    assert set(notes) == {"summary", "description", "runbook_url"}
    assert "$value" in notes["description"], "the numbers"
    path, _, anchor = notes["runbook_url"].partition("#")
    assert path == "deploy/RUNBOOK.md"
    headings = re.findall(r"^## (\w+)$", (queries.DEPLOY / "RUNBOOK.md").read_text(), re.MULTILINE)
    assert alert["alert"] in headings
    assert anchor == alert["alert"].lower()


def test_the_runbook_has_no_other_alerts(queries):
    headings = re.findall(r"^## (Xai\w+)$", (queries.DEPLOY / "RUNBOOK.md").read_text(), re.MULTILINE)
    assert headings == [rule["alert"] for rule in queries.rules() if "alert" in rule]


def test_every_series_of_the_rules_exists(queries, exposed):
    rules = queries.rules()
    used = {name for rule in rules for name in queries.series_names(rule["expr"])}
    assert len(used) > 15
    assert used - exposed.names() == {"up"}
    recorded = {rule["record"] for rule in rules if "record" in rule}
    assert recorded == {name for rule in rules for name in queries.recorded_names(rule["expr"])}


def test_the_bucket_of_the_service_level_exists(queries, exposed):
    assert any('le="10.0"' in rule["expr"] for rule in queries.rules())
    labels = {"explainer": "rise", "le": "10.0", "model": "cats"}
    assert exposed.registry.get_sample_value("xai_explanation_duration_seconds_bucket", labels) is not None


def test_label_values_of_the_rules_exist(queries, exposed):
    """So that none is a typing error, and all that counters are asked for by name begin at 0."""
    asked = {
        (name, label, value)
        for rule in queries.rules()
        for name, matchers in re.findall(r"\b(xai_\w+)\{([^}]+)\}", rule["expr"])
        for label, values in re.findall(r'(\w+)=~?"([^"]+)"', matchers)
        for value in values.split("|")
    }
    assert {("xai_evaluations_total", "result", "failed"), ("xai_samples_total", "event", "no_positive")} < asked
    shown = {
        (one.name, *pair) for family in exposed.fresh.collect() for one in family.samples for pair in one.labels.items()
    }
    assert asked <= shown


def test_all_series_of_the_rules_keep_the_model(queries):
    for rule in queries.rules():
        for labels in re.findall(r"\b(?:by|on) \(([^)]+)\)", rule["expr"]):
            assert "model" in labels.split(", "), rule["expr"]


def test_a_running_prometheus_evaluates_them(queries, scraped):
    names = {rule.get("alert") or rule["record"] for rule in queries.rules()}

    def evaluated():
        found = scraped.rules()
        assert {rule["name"] for rule in found} == names
        return all(rule["health"] == "ok" for rule in found)

    scraped.wait(evaluated, 15)
    # Half of what is exposed here is slow, which is more than six times 5 % and less than 14.4 times.
    fired = scraped.wait(lambda: [one for one in scraped.alerts() if one["state"] == "firing"], 15)
    assert [one["labels"]["alertname"] for one in fired] == ["XaiExplanationsSlowing"]


def test_the_console_has_what_the_script_writes(queries):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(queries.ALERTS.parent)
        script = importlib.import_module("for_console")
    assert script.OUT.read_text() == script.text(), "run deploy/prometheus/for_console.py"
