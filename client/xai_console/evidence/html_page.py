"""A sample as one HTML file that needs nothing else: no server, no network, no other file."""

from __future__ import annotations

import base64
import html
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np

from xai_client import ModelInfo, Sample
from xai_console.colour_data import colour_data
from xai_console.evidence.record import record
from xai_console.figures import number, percent
from xai_console.overlay import Look
from xai_console.ranges import scale_by
from xai_console.sample_scores import score_lines
from xai_console.words import Words

_HERE: Final = Path(__file__).parent
_DRAWING: Final = _HERE.parent / "components" / "saliency" / "index.js"
_POLICY: Final = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"


def html_page(sample: Sample, info: ModelInfo, server: str, say: Words) -> str:
    """The file.

    Args:
        sample: The sample.
        info: The model.
        server: Where it came from.
        say: The words to use.
    """
    drawing = _DRAWING.read_text(encoding="utf-8").replace("export ", "")
    script = f"{drawing}\n{(_HERE / 'evidence.js').read_text(encoding='utf-8')}"
    title = sample.summary.classes[0].label if sample.summary.classes else sample.summary.id
    return f"""<!doctype html>
<html lang="{say.language}">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)} · {html.escape(sample.summary.id)}</title>
<style>{(_HERE / "evidence.css").read_text(encoding="utf-8")}</style>
</head>
<body>
<main>
<h1>{html.escape(title)}</h1>
{_facts(sample, info, server, say)}
<section id="maps"></section>
<h2>{html.escape(say("evidence.record"))}</h2>
<pre>{html.escape(json.dumps(record(sample, info, server), indent=2, ensure_ascii=False))}</pre>
</main>
<script type="application/json" id="data">{_embedded(_data(sample, say))}</script>
<script>{script}</script>
</body>
</html>
"""


def _facts(sample: Sample, info: ModelInfo, server: str, say: Words) -> str:
    summary = sample.summary
    classes = ", ".join(f"{each.label} {percent(each.probability)}" for each in summary.classes[:5])
    truth = ", ".join(summary.truth.labels) if summary.truth is not None and summary.truth.labels else "–"
    rows = {
        "evidence.sample": summary.id,
        "evidence.time": summary.time.isoformat(timespec="seconds"),
        "prediction": classes,
        "truth": truth,
        "evidence.ood": number(summary.ood_percentile),
        "evidence.model": f"{info.name} {summary.model_version}",
        "evidence.server": f"{server} · xai-sidecar {sample.server_version}",
    }
    cells = [f"<tr><th>{html.escape(say(key))}</th><td>{html.escape(value)}</td></tr>" for key, value in rows.items()]
    return f"<table>{''.join(cells)}</table>"


def _data(sample: Sample, say: Words) -> dict[str, Any]:
    width, height = sample.summary.frame
    png = base64.b64encode(sample.input_png).decode() if sample.input_png else ""
    maps = []
    for explainer, made in sample.explanations.items():
        lines = score_lines(say, made, {})
        beside = [each.values for each in made.maps if each.values is not None]
        for place, each in enumerate(made.maps):
            values = each.values
            others = [other for other in beside if other is not values]
            maps.append(
                {
                    "title": explainer,
                    "label": each.label,
                    "note": say.either(f"map.{each.withheld}", each.withheld),
                    "rows": height,
                    "columns": width,
                    "values": None if values is None else _base64(values),
                    "scale": None if values is None else asdict(scale_by("auto", values, others)),
                    "lines": lines if place == 0 else [],
                }
            )
    words = {key: say(f"overlay.{key}") for key in ("for", "against")}
    words.update({key: say(key) for key in ("opacity", "threshold")})
    return {
        "picture": f"data:image/png;base64,{png}" if png else None,
        "size": [width, height],
        "maps": maps,
        "colours": colour_data(),
        "look": asdict(Look()),
        "words": words,
    }


def _base64(values: Any) -> str:
    return base64.b64encode(np.ascontiguousarray(values, "<f4").tobytes()).decode()


def _embedded(data: dict[str, Any]) -> str:
    """JSON that cannot end the element it stands in."""
    return json.dumps(data).replace("<", "\\u003c")
