"""The report of a run: one HTML file that needs nothing beside it and can be sent."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from PIL import Image

from xai_client.colours import ColourScale
from xai_client.overlay import draw
from xai_client.picture import to_picture
from xai_sidecar.evaluator.comparison import goodness
from xai_sidecar.evaluator.controls import CONTROLS
from xai_sidecar.metrics.discovery import installed_metrics
from xai_sidecar.runner.charts import bars, legend, radar
from xai_sidecar.runner.examples import ShownMap, galleries
from xai_sidecar.runner.results import ScoreRow, name_of, ranked
from xai_sidecar.runner.session import RunResult

_CLASSES = 15
_STOPS = 17
"""Colours of a scale that a browser is told; between them it goes straight."""


def report(result: RunResult, found: Mapping[str, Any], rows: Iterable[ScoreRow]) -> str:
    """The report of a run, as HTML.

    Args:
        result: The run; the pictures shown are those that its store keeps.
        found: Its `summary`.
        rows: Its scores.
    """
    metrics = list(dict.fromkeys(row["metric"] for row in found["scores"]))
    names = ranked(found)
    weights = result.config.evaluator.auto.weights
    lead = max((name for name in metrics), key=lambda name: weights.get(name, 0.0), default="")
    parts = [
        _head(result, found),
        _table(found, names, metrics),
        _profile(found, names, metrics),
        _by_class(found, names, lead),
    ]
    explainer = next((name for name in names if name not in CONTROLS), "")
    if explainer and lead:
        values = {(row.name, row.target): row.value for row in rows if (row.explainer, row.metric) == (explainer, lead)}
        shown = galleries(result.store, values, explainer, lead)
        parts += [_gallery(result, title, some, lead) for title, some in shown if some]
        parts.insert(
            4, f"<p>Maps below are by <b>{escape(explainer)}</b>, which measured best, ordered by {escape(lead)}.</p>"
        )
    title = escape(f"{result.config.model.name}: explanations measured")
    style = files("xai_sidecar.runner").joinpath("report.css").read_text()
    body = "\n".join(parts)
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{title}</title><style>{style}</style><body>{body}</body></html>\n"
    )


def _head(result: RunResult, found: Mapping[str, Any]) -> str:
    record = result.folder.record()
    skipped = f", {len(found['skipped']):,} could not be read" if found["skipped"] else ""
    accuracy = found["accuracy"]
    right = (
        f" The model is right on {accuracy['share']:.1%} of {accuracy['pictures']:,} labelled pictures."
        if accuracy
        else ""
    )
    ood = found["ood"]
    unlike = f" {ood['share']:.1%} are unlike its training pictures." if ood and ood["share"] is not None else ""
    winners = [name for name, beats in found["beats_controls"].items() if beats]
    best = (
        f"Better than maps that know nothing of the model, beyond chance: {', '.join(winners)}."
        if winners
        else "No explainer beats maps that know nothing of the model beyond chance."
    )
    return (
        f"<h1>{escape(str(record['model']))}</h1>"
        f"<p>{found['pictures']:,} pictures of {escape(str(record['data']))}{skipped};"
        f" version {escape(str(record['model_version']))}.{right}{unlike}</p><p><b>{escape(best)}</b></p>"
    )


def _table(found: Mapping[str, Any], names: Sequence[str], metrics: Sequence[str]) -> str:
    cells = {(row["explainer"], row["metric"]): row for row in found["scores"]}
    arrows = {metric: "↑" if installed_metrics()[metric].higher_is_better else "↓" for metric in metrics}
    header = "".join(
        f"<th>{escape(metric.rpartition('/')[2].replace('_', ' '))} {arrows[metric]}</th>" for metric in metrics
    )
    rows = "".join(_row(name, found, cells, metrics) for name in names)
    return (
        "<h2>Which explainer to trust</h2><p>Mean, its 95 % interval, and the number of maps. Controls, shaded, are"
        " maps that know nothing of the model: what does not beat them is worth nothing.</p>"
        f'<div class="wide"><table><tr><th></th><th>composite ↑</th>{header}</tr>{rows}</table></div>'
    )


def _row(
    name: str, found: Mapping[str, Any], cells: Mapping[tuple[str, str], Mapping[str, Any]], metrics: Sequence[str]
) -> str:
    kind = "control" if name in CONTROLS else ""
    scores = "".join(_cell(cells.get((name, metric))) for metric in metrics)
    composite = _number(found["composites"].get(name))
    return f'<tr class="{kind}"><td>{escape(name)}</td><td>{composite}</td>{scores}</tr>'


def _cell(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return '<td class="pale">not measured</td>'
    bounds = "" if row["low"] is None else f"{row['low']:.3f} … {row['high']:.3f}"
    return f"<td>{row['mean']:.3f}<small>{bounds}</small><small>n = {row['count']:,}</small></td>"


def _number(value: float | None) -> str:
    return '<span class="pale">–</span>' if value is None else f"{value:.3f}"


def _profile(found: Mapping[str, Any], names: Sequence[str], metrics: Sequence[str]) -> str:
    """A radar of goodness, from three metrics on."""
    if len(metrics) < 3:
        return ""
    values = {
        name: {
            row["metric"].rpartition("/")[2].replace("_", " "): goodness(
                installed_metrics()[row["metric"]], row["mean"]
            )
            for row in found["scores"]
            if row["explainer"] == name
        }
        for name in names
        if name not in CONTROLS
    }
    axes = [metric.rpartition("/")[2].replace("_", " ") for metric in metrics]
    said = "<h2>Profile</h2><p>1, outside, is the best that a metric could give.</p>"
    return f"{said}{radar(values, axes)}<div>{legend(list(values))}</div>"


def _by_class(found: Mapping[str, Any], names: Sequence[str], lead: str) -> str:
    """The metric that leads, of the classes with the most maps."""
    rows = [row for row in found["by_class"] if row["metric"] == lead and row["explainer"] not in CONTROLS]
    if not rows:
        return ""
    counts: dict[str, int] = {}
    for row in rows:
        counts[row["label"]] = max(counts.get(row["label"], 0), row["count"])
    labels = sorted(counts, key=lambda label: -counts[label])[:_CLASSES]
    values = {
        f"{label} ({counts[label]:,})": {
            name: row["mean"] for name in names for row in rows if (row["label"], row["explainer"]) == (label, name)
        }
        for label in labels
    }
    low, high = installed_metrics()[lead].value_range
    shown = [name for name in names if name not in CONTROLS]
    more = f", the {_CLASSES} with the most maps" if len(counts) > _CLASSES else ""
    return f"<h2>{escape(lead)} by class{more}</h2>{bars(values, low, high)}<div>{legend(shown)}</div>"


def _gallery(result: RunResult, title: str, shown: Iterable[ShownMap], lead: str) -> str:
    labels = result.evaluated.labels
    figures = []
    for each in shown:
        sample, truth, value = each.example.sample, each.example.truth, each.example.value
        said = escape(labels[sample.target])
        known = f"<br>truth: {escape(', '.join(labels[class_id] for class_id in truth))}" if truth else ""
        score = "" if value is None else f"<br>{escape(lead.rpartition('/')[2])} {value:.3f}"
        part = "" if each.on_objects is None else f"<br>{each.on_objects:.0%} of it on the objects"
        figures.append(
            f"<figure>{_overlay(each)}<figcaption><b>{said}</b> {sample.probability:.1%}{known}{score}{part}"
            f"<br>{escape(name_of(sample.key))}</figcaption></figure>"
        )
    return f'<h2>{escape(title)}</h2><div class="row">{"".join(figures)}</div>'


def _overlay(shown: ShownMap) -> str:
    """A map on its picture, or by itself where that is not kept."""
    saliency, frame = shown.map.saliency, shown.example.sample.frame
    if not shown.thumbnail:
        picture, region = Image.new("RGB", (saliency.shape[1], saliency.shape[0]), (128, 128, 128)), None
    else:
        picture, box = to_picture(shown.thumbnail), frame.region
        full = frame.picture_size or (frame.width, frame.height)
        across, down = (new / old for new, old in zip(picture.size, full, strict=True))
        region = None if box is None else (box.left * across, box.top * down, box.right * across, box.bottom * down)
    drawn = draw(picture, saliency, region, None)
    buffer = io.BytesIO()
    drawn.image.save(buffer, "JPEG", quality=82)
    content = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="" src="data:image/jpeg;base64,{content}">{_legend(drawn.scale)}'


def _legend(scale: ColourScale) -> str:
    """What the colours of a map mean."""
    stops = ",".join(f"rgb({red} {green} {blue})" for red, green, blue in scale.shown(_STOPS).tolist())
    marks = "".join(f"<span>{escape(mark)}</span>" for mark in scale.marks())
    return (
        f'<div class="scale" style="background:linear-gradient(to right,{stops})"></div><div class="ends">{marks}</div>'
    )
