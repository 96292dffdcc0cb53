"""The queries of the dashboard and of the alerts, to be run against a real Prometheus."""

import json
import re
from pathlib import Path
from typing import NamedTuple

import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
DASHBOARD = DEPLOY / "grafana" / "dashboards" / "xai-sidecar.json"
ALERTS = DEPLOY / "prometheus" / "alerts.yml"

_VARIABLE = re.compile(r"\$\{?(\w+)")
_SERIES = re.compile(r"(?<![\w:])(?:xai_\w+|up)\b(?![\w:(])")


class Query(NamedTuple):
    """A query of a panel.

    Attributes:
        panel: The panel's title, or `variable` and its name.
        letter: Which of the panel's queries.
        expression: In PromQL, without variables.
    """

    panel: str
    letter: str
    expression: str

    def __str__(self):
        return f"{self.panel}/{self.letter}"


def dashboard():
    """The dashboard's JSON."""
    return json.loads(DASHBOARD.read_text())


def panels():
    """All panels with queries, those in collapsed rows included."""
    for panel in dashboard()["panels"]:
        for one in (panel, *panel.get("panels", ())):
            if one["type"] != "row":
                yield one


def variables():
    """The label variables: by name, the query and the label that are behind its values."""
    for variable in dashboard()["templating"]["list"]:
        if variable["type"] == "query":
            found = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"])
            yield variable["name"], found[1], found[2]


def dashboard_queries(rate_interval="4s", time_range="1h", **chosen):
    """All queries of the dashboard, its variables replaced as Grafana does.

    Args:
        rate_interval: For $__rate_interval.
        time_range: For $__range.
        **chosen: Regular expressions for the label variables: job, instance, explainer, metric, class. Not given: all.

    Returns:
        A list of `Query`. Those of variables are their series, without the label_values around.
    """
    values = {name: ".*" for name, _, _ in variables()} | chosen
    values |= {"__rate_interval": rate_interval, "__range": time_range}

    def replaced(expression):
        return _VARIABLE.sub(lambda match: values[match[1]], expression)

    queries = [Query(f"variable {name}", label, replaced(series)) for name, series, label in variables()]
    for panel in panels():
        queries += [Query(panel["title"], target["refId"], replaced(target["expr"])) for target in panel["targets"]]
    return queries


def rules():
    """All rules of the alerts file, recording ones included, as dicts."""
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def series_names(expression):
    """The names of the series in an expression, without recorded ones."""
    return set(_SERIES.findall(expression))


def recorded_names(expression):
    """The names of recorded series in an expression."""
    return set(re.findall(r"\b(?:instance|job):\w+:\w+", expression))
