"""Writes dashboards/xai-sidecar.json. Change the dashboard here, then run this file; a test compares the two.

Grafana 11 reads it, by provisioning or by "Import dashboard".
"""

import json
from pathlib import Path

from panels import (
    HERE,
    TARGET,
    WHAT,
    WHO,
    banded,
    heatmap,
    laid_out,
    lines,
    number,
    override,
    panel,
    quantile,
    quantiles,
    rate,
    table,
    variable,
    yes_or_no,
)

OUT = Path(__file__).parent / "dashboards" / "xai-sidecar.json"


def overview():
    """Whether it works, and what it does."""
    quality = {"min": 0, "max": 1, "decimals": 2}
    return [
        number("Up", [(f"up{{{TARGET}}}", "{{instance}}")], defaults=yes_or_no("up", "down")),
        number("Ready", [(f"xai_ready{{{HERE}}}", "{{instance}}")], defaults=yes_or_no("ready", "not ready")),
        number("Images/s", [(f"sum(rate(xai_images_total{{{HERE}}}[$__rate_interval]))", "images")], unit="short"),
        table("Model", [(f"xai_model_info{{{HERE}}}", "")], width=12, height=5),
        lines(
            "Requests/s by code",
            [(rate("xai_requests_total", "method, code") + " > 0", "{{method}} {{code}}")],
            unit="reqps",
        ),
        lines("Request duration", quantiles("xai_request_duration_seconds", "method"), unit="s"),
        panel(
            "bargauge",
            "Composite quality",
            [(f"avg by (explainer) (xai_quality_composite{{{WHO}}})", "{{explainer}}")],
            instant=True,
            defaults=quality,
            options={"orientation": "horizontal", "displayMode": "basic"},
            text="What auto goes by; 1 is best.",
        ),
        lines("Images/s", [(rate("xai_images_total", "instance"), "{{instance}}")]),
        lines(
            "Explanations/s by end",
            [(rate("xai_explanations_total", "explainer, status", WHO), "{{explainer}} {{status}}")],
        ),
        lines(
            "Under way",
            [
                (f"sum(xai_open_images{{{HERE}}})", "pictures"),
                (f"sum(xai_open_explanations{{{HERE}}})", "explanations"),
            ],
        ),
    ]


def quality():
    """How good the explanations are."""
    return [
        banded(
            "Score: $metric",
            "xai_quality_score",
            text="Mean over the rolling window, with 1.96 standard errors. Some metrics are better when lower.",
            repeat="metric",
            repeatDirection="h",
            maxPerRow=3,
        ),
        banded(
            "Goodness: $metric",
            "xai_quality_goodness",
            goodness=True,
            text="The same mapped to [0, 1]; 1 is best.",
            repeat="metric",
            repeatDirection="h",
            maxPerRow=3,
        ),
        lines(
            "Skill: $metric",
            [(f"xai_quality_skill{{{WHAT}}}", "{{explainer}}")],
            text="0 is no better than the best control, a map that knows nothing of the model; 1 is all that can be.",
            repeat="metric",
            repeatDirection="h",
            maxPerRow=3,
        ),
        lines("Samples in the window", [(f"xai_quality_samples{{{WHAT}}}", "{{explainer}} {{metric}}")], width=12),
        lines(
            "Age of the last score",
            [(f"time() - (xai_quality_last_success_timestamp_seconds{{{WHAT}}} > 0)", "{{explainer}} {{metric}}")],
            unit="s",
            width=12,
        ),
    ]


def classes():
    """The same by class, and how right the model is."""
    labels = f'{WHAT}, class=~"$class"'
    one = f'{HERE}, class=~"$class"'
    share = {"bounds": {"min": 0, "max": 1}, "unit": "percentunit", "width": 6}
    hit = f'sum by (class) (xai_outcomes{{{one}, outcome="tp"}})'

    def of(outcomes):
        return f'{hit} / sum by (class) (xai_outcomes{{{one}, outcome=~"{outcomes}"}})'

    return [
        table(
            "Score by class",
            [(f"xai_quality_class_score{{{labels}}}", ""), (f"xai_quality_class_samples{{{labels}}}", "")],
            width=12,
            height=9,
            names={"Value #A": "score", "Value #B": "samples"},
            defaults={"color": {"mode": "continuous-GrYlRd"}},
            overrides=[
                override("byName", "score", {"custom.cellOptions": {"type": "color-background"}, "decimals": 3})
            ],
        ),
        lines(
            "Precision by class",
            [(of("tp|fp"), "{{class}}")],
            text="Of kept samples with known labels.",
            height=9,
            **share,
        ),
        lines(
            "Recall by class",
            [(of("tp|fn"), "{{class}}")],
            text="Of kept samples with known labels.",
            height=9,
            **share,
        ),
        lines(
            "Score by class over time",
            [(f"xai_quality_class_score{{{labels}}}", "{{class}} {{explainer}} {{metric}}")],
            width=12,
        ),
        lines("Outcomes", [(f"sum by (class, outcome) (xai_outcomes{{{one}}})", "{{class}} {{outcome}}")], width=6),
        lines("Ground truth/s", [(rate("xai_ground_truth_reports_total", "result"), "{{result}}")], width=6),
    ]


def drift():
    """Whether maps lie otherwise than they did."""
    key = "{{explainer}} {{statistic}} {{class}} ({{source}})"
    return [
        lines(
            "Drift of maps",
            [(f"xai_map_drift{{{WHO}}}", key)],
            text="Distance from the reference window, over what chance may do: drift from 1 on.",
            bounds={"min": 0},
            width=12,
        ),
        lines(
            "Statistics of maps",
            [
                (f'xai_map_statistic{{{WHO}, window="current"}}', key),
                (f'xai_map_statistic{{{WHO}, window="reference"}}', f"{key}, reference"),
            ],
            text="Gini index, centre, mass in the border, agreement between explainers, likeness to the class's mean.",
            width=12,
        ),
    ]


def ood():
    """How far the traffic is from what the model was trained on."""
    return [
        heatmap("OoD percentile", "xai_ood_percentile", text="Low is unlike the training pictures.", width=9),
        heatmap("OoD score", "xai_ood_score", width=9),
        lines(
            "Out of distribution",
            [
                (f"xai_ood_outlier_share{{{HERE}}}", "{{instance}}: of the window's samples"),
                (
                    f"{rate('xai_ood_beyond_threshold_total', 'instance')}"
                    f" / {rate('xai_ood_scored_total', 'instance')}",
                    "{{instance}}: of the pictures now",
                ),
            ],
            unit="percentunit",
            bounds={"min": 0, "max": 1},
            width=6,
        ),
    ]


def latency():
    """Where time goes."""
    fast = f'{HERE}, le="10.0"'
    return [
        lines(
            "Explanation duration, p95",
            [(quantile(0.95, "xai_explanation_duration_seconds", "explainer", WHO), "{{explainer}}")],
            unit="s",
        ),
        lines(
            "Explanations over 10 s",
            [
                (
                    f"1 - {rate('xai_explanation_duration_seconds_bucket', 'job', fast)}"
                    f" / {rate('xai_explanation_duration_seconds_count', 'job')}",
                    "{{job}}",
                )
            ],
            unit="percentunit",
            text="The alerts are about this share; at most 5 % should be.",
            bounds={"min": 0, "max": 1},
        ),
        lines("Wait for the device by lane", quantiles("xai_queue_wait_seconds", "lane"), unit="s"),
        lines(
            "Launch duration by kind, p95",
            [(quantile(0.95, "xai_launch_duration_seconds", "kind"), "{{kind}}")],
            unit="s",
        ),
        lines("Maps/s by status", [(rate("xai_maps_total", "explainer, status", WHO), "{{explainer}} {{status}}")]),
        lines("Jobs/s by end", [(rate("xai_jobs_total", "lane, outcome"), "{{lane}} {{outcome}}")]),
    ]


def device():
    """What the device does."""
    rows, padding = rate("xai_launch_rows_total", "kind"), rate("xai_launch_padding_rows_total", "kind")
    return [
        lines(
            "Busy share by lane",
            [(rate("xai_device_busy_seconds_total", "lane"), "{{lane}}")],
            stacked=True,
            unit="percentunit",
            text="One device is 100 %; several instances add up.",
            bounds={"min": 0},
        ),
        lines("Rows/s by kind", [(rows, "{{kind}}")], unit="rowsps"),
        lines("Padding", [(f"{padding} / ({rows} + {padding})", "{{kind}}")], unit="percentunit"),
        lines("Launches/s by kind", [(rate("xai_launches_total", "kind"), "{{kind}}")]),
        lines("Slice overruns/s", [(rate("xai_slice_overruns_total", "kind"), "{{kind}}")]),
        lines("Rows that wait", [(f"sum by (lane) (xai_queue_rows{{{HERE}}})", "{{lane}}")], stacked=True),
    ]


def evaluator():
    """Whether the evaluator keeps up."""
    return [
        number("Evaluator", [(f"xai_evaluator_state{{{HERE}}} == 1", "{{instance}}: {{state}}")], name=True),
        number(
            "Last round ago",
            [(f"time() - (xai_evaluator_last_round_timestamp_seconds{{{HERE}}} > 0)", "{{instance}}")],
            unit="s",
        ),
        number(
            "Last sample ago",
            [(f"time() - (xai_evaluator_last_sample_timestamp_seconds{{{HERE}}} > 0)", "{{instance}}")],
            unit="s",
        ),
        number("Interval", [(f"xai_evaluator_interval_seconds{{{HERE}}}", "{{instance}}")], unit="s"),
        number("Store", [(f"xai_store_bytes{{{HERE}}}", "{{instance}}")], unit="bytes"),
        number("Store failures", [(f"sum(increase(xai_store_failures_total{{{HERE}}}[$__range]))", "failures")]),
        lines("Samples/s by event", [(rate("xai_samples_total", "event"), "{{event}}")]),
        lines(
            "Samples that wait",
            [
                (f"xai_evaluator_pending_samples{{{HERE}}}", "{{instance}}: samples"),
                (f"xai_evaluator_pending_bytes{{{HERE}}}", "{{instance}}: memory"),
            ],
            overrides=[override("byRegexp", "/memory$/", {"unit": "bytes", "custom.axisPlacement": "right"})],
        ),
        lines(
            "Failures/s by reason",
            [
                (
                    rate("xai_evaluation_failures_total", "explainer, metric, reason", WHO) + " > 0",
                    "{{explainer}} {{metric}} {{reason}}",
                )
            ],
        ),
        lines("Evaluations/s", [(rate("xai_evaluations_total", "explainer, metric", WHO), "{{explainer}} {{metric}}")]),
        lines(
            "Time of an evaluation",
            [
                (
                    f"{rate('xai_evaluation_seconds_total', 'explainer, metric', WHO)}"
                    f" / {rate('xai_evaluations_total', 'explainer, metric', WHO)}",
                    "{{explainer}} {{metric}}",
                )
            ],
            unit="s",
        ),
        lines(
            "Passes/s for evaluation",
            [(rate("xai_evaluation_passes_total", "explainer, metric", WHO), "{{explainer}} {{metric}}")],
            stacked=True,
        ),
    ]


def auto():
    """What `auto` takes."""
    return [
        lines(
            "Auto choices/s",
            [(rate("xai_auto_choices_total", "explainer, reason", WHO), "{{explainer}} {{reason}}")],
            stacked=True,
            width=12,
        ),
        lines(
            "Composite quality",
            [(f"xai_quality_composite{{{WHO}}}", "{{explainer}}")],
            text="With the controls: maps that know nothing of the model, which an explainer has to beat.",
            bounds={"min": 0, "max": 1},
            width=12,
        ),
        number(
            "Beats the controls",
            [(f"xai_quality_beats_controls{{{WHO}}}", "{{instance}}: {{explainer}}")],
            defaults=yes_or_no("yes", "no"),
            width=24,
        ),
    ]


ROWS = {
    "Overview": overview,
    "Quality by explainer and metric": quality,
    "Classes": classes,
    "Drift": drift,
    "Out of distribution": ood,
    "Latency": latency,
    "Device": device,
    "Evaluator": evaluator,
    "Auto": auto,
}


def dashboard():
    """The whole dashboard, as Grafana's JSON has it."""
    return {
        "uid": "xai-sidecar",
        "title": "xai-sidecar",
        "tags": ["xai-sidecar"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "",
        "annotations": {"list": []},
        "links": [],
        "templating": {
            "list": [
                {
                    "name": "datasource",
                    "type": "datasource",
                    "query": "prometheus",
                    "label": "Data source",
                    "current": {},
                },
                variable("job", "xai_ready"),
                variable("instance", 'xai_ready{job=~"$job"}'),
                variable("model", 'xai_ready{job=~"$job", instance=~"$instance"}'),
                variable("explainer", f"xai_quality_samples{{{HERE}}}"),
                variable("metric", f"xai_quality_samples{{{WHO}}}"),
                variable("class", f'{{__name__=~"xai_quality_class_samples|xai_outcomes", {HERE}}}'),
            ]
        },
        "panels": laid_out(ROWS),
    }


def text():
    """The file's text."""
    return json.dumps(dashboard(), indent=2) + "\n"


if __name__ == "__main__":
    OUT.write_text(text())
