"""What dashboard.py is made of: panels, variables, and how panels are laid out."""

from xai_sidecar.explainers.discovery import built_in_explainers

EXPLAINERS = tuple(built_in_explainers())
"""Those with a band of 1.96 standard errors: each needs one of its own, in the colour of its line."""

TARGET = 'job=~"$job", instance=~"$instance"'
"""Of series that Prometheus makes itself, which know no model."""

HERE = f'{TARGET}, model=~"$model"'
WHO = f'{HERE}, explainer=~"$explainer"'
WHAT = f'{WHO}, metric=~"$metric"'
SOURCE = {"type": "prometheus", "uid": "$datasource"}
WIDTH = 24


def rate(name, by, labels=HERE):
    """The rate of a counter, summed by labels."""
    return f"sum by ({by}) (rate({name}{{{labels}}}[$__rate_interval]))"


def quantile(share, name, by, labels=HERE):
    """A quantile of a histogram, by labels."""
    return f"histogram_quantile({share}, {rate(f'{name}_bucket', f'le, {by}', labels)})"


def quantiles(name, by, labels=HERE):
    """The usual three."""
    return [(quantile(share, name, by, labels), f"p{100 * share:g} {{{{{by}}}}}") for share in (0.5, 0.95, 0.99)]


def panel(kind, title, queries, *, width=8, height=8, unit="short", text="", instant=False, **more):
    """A panel.

    Args:
        kind: Grafana's name of the plugin.
        title: Above it.
        queries: (expression, legend) of each.
        width: Of the 24 columns.
        height: In rows of about 30 pixels.
        unit: Grafana's name of the unit.
        text: What the panel shows, in a sentence.
        instant: Whether only the latest values count.
        **more: Further keys. `defaults`, `overrides` and `format` go where Grafana wants them.
    """
    form = more.pop("format", "time_series")
    return {
        "type": kind,
        "title": title,
        "description": text,
        "datasource": SOURCE,
        "gridPos": {"h": height, "w": width, "x": 0, "y": 0},
        "targets": [
            {
                "refId": chr(ord("A") + place),
                "datasource": SOURCE,
                "expr": expression,
                "legendFormat": legend,
                "instant": instant,
                "range": not instant,
                "format": form,
            }
            for place, (expression, legend) in enumerate(queries)
        ],
        "fieldConfig": {
            "defaults": {"unit": unit, **more.pop("defaults", {})},
            "overrides": more.pop("overrides", []),
        },
        **more,
    }


def lines(title, queries, *, stacked=False, **more):
    """Lines over time."""
    custom = {"fillOpacity": 40, "stacking": {"mode": "normal"}} if stacked else {"fillOpacity": 0}
    defaults = {
        "custom": {"lineWidth": 1, "showPoints": "auto", "spanNulls": False, **custom},
        **more.pop("bounds", {}),
    }
    options = {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return panel("timeseries", title, queries, defaults=defaults, options=options, **more)


def number(title, queries, *, name=False, **more):
    """The latest values, in large print."""
    options = {
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "textMode": "name" if name else "auto",
        "colorMode": "background" if "mappings" in more.get("defaults", {}) else "value",
    }
    return panel("stat", title, queries, instant=True, options=options, **{"width": 4, "height": 5, **more})


def table(title, queries, **more):
    """The latest values with their labels; several queries are joined by the labels that they share."""
    hidden = {"Time": True, "__name__": True}
    names = more.pop("names", {})
    return panel(
        "table",
        title,
        queries,
        instant=True,
        format="table",
        transformations=[
            {"id": "merge", "options": {}},
            {"id": "organize", "options": {"excludeByName": hidden, "renameByName": names}},
        ],
        **more,
    )


def heatmap(title, name, **more):
    """How a histogram's values are spread, over time."""
    return panel(
        "heatmap",
        title,
        [(f"sum by (le) (increase({name}_bucket{{{HERE}}}[$__rate_interval]))", "{{le}}")],
        format="heatmap",
        options={
            "calculate": False,
            "color": {"mode": "scheme", "scheme": "Oranges", "steps": 64},
            "yAxis": {"axisPlacement": "left"},
            "tooltip": {"mode": "single", "yHistogram": True},
        },
        **more,
    )


def banded(title, name, *, goodness=False, **more):
    """A mean of each explainer, with a band of 1.96 standard errors, in which the true mean is 95 times in 100."""
    error = f"1.96 * {name}_standard_error{{{WHAT}}}"
    mean = f"{name}{{{WHAT}}}"
    overrides = []
    for explainer in EXPLAINERS:
        below = f"{explainer} low"
        overrides.append(
            override("byName", f"{explainer} high", {"custom.fillBelowTo": below, "custom.fillOpacity": 15})
        )
    overrides.append(
        override(
            "byRegexp",
            "/ (low|high)$/",
            {"custom.lineWidth": 0, "custom.hideFrom": {"legend": True, "tooltip": True, "viz": False}},
        )
    )
    low, high, bounds = f"{mean} - {error}", f"{mean} + {error}", {}
    if goodness:  # which ends at 0 and 1, and so does what it may be
        low, high, bounds = f"clamp_min({low}, 0)", f"clamp_max({high}, 1)", {"min": 0, "max": 1}
    queries = [(mean, "{{explainer}}"), (low, "{{explainer}} low"), (high, "{{explainer}} high")]
    return lines(title, queries, overrides=overrides, bounds=bounds, **more)


def override(matcher, options, properties):
    """Field settings for the series that a matcher finds, as byName and byRegexp do."""
    return {
        "matcher": {"id": matcher, "options": options},
        "properties": [{"id": key, "value": value} for key, value in properties.items()],
    }


def yes_or_no(yes, no):
    """Shows 1 and 0 as words, in green and red."""
    values = {"1": {"text": yes, "color": "green", "index": 0}, "0": {"text": no, "color": "red", "index": 1}}
    return {"mappings": [{"type": "value", "options": values}]}


def laid_out(rows):
    """All panels, in rows that fill from the left. Rows are functions that return panels, by title."""
    panels, y = [], 0
    for title, make in rows.items():
        panels.append(
            {
                "type": "row",
                "title": title,
                "collapsed": False,
                "panels": [],
                "gridPos": {"h": 1, "w": WIDTH, "x": 0, "y": y},
            }
        )
        x, y, tallest = 0, y + 1, 0
        for one in make():
            place = one["gridPos"]
            alone = "repeat" in one  # what is repeated fills lines of its own
            if x and (alone or x + place["w"] > WIDTH):
                x, y, tallest = 0, y + tallest, 0
            place.update(x=x, y=y)
            x, tallest = (WIDTH if alone else x + place["w"]), max(tallest, place["h"])
            panels.append(one)
        y += tallest
    for number_, one in enumerate(panels, 1):
        one["id"] = number_
    return panels


def variable(name, series, label=None):
    """A choice of label values, of which several or all can be taken."""
    query = f"label_values({series}, {label or name})"
    return {
        "name": name,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "definition": query,
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        **({} if name == "metric" else {"allValue": ".*"}),  # panels are repeated for each metric
        "current": {"text": ["All"], "value": ["$__all"]},
    }
