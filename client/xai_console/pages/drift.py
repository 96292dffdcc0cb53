"""Drift: what is other now than it was, of the pictures, the predictions and the maps."""

from __future__ import annotations

from typing import Final

from nicegui import background_tasks, ui
from nicegui.element import Element

from xai_client import MapDrift, ModelInfo, QualityHistory, XaiError
from xai_console.alert_cards import gather_evidence, show_alerts
from xai_console.alerts import judge
from xai_console.charts import Chart
from xai_console.drift_charts import SHAPES, class_mix, deciles, has_gaps, shapes, traffic
from xai_console.figures import duration, number, percent
from xai_console.markup import Html, Markup, table_head, tag
from xai_console.page import Entry, Page
from xai_console.parts import card, div, text, toggle, trouble

_BINS: Final = 60
_SPANS: Final = {"900": 900.0, "3600": 3600.0, "86400": 86400.0}


async def build(page: Page, info: ModelInfo) -> None:
    """Makes the page."""
    seconds = None if info.run else _span(page)
    if info.run:
        text(page.say("drift.whole"), "note", "p")
    # No scores are drawn here: to read those by a single metric takes least, as none cannot be asked for.
    metrics = list(info.evaluator.metrics)[:1] if info.evaluator is not None else ()
    past = await page.source.quality_history(seconds=seconds, bins=_BINS, reference_seconds=seconds, metrics=metrics)
    alerts = None if info.run else div("stack alerts-place")
    _figures(page, past)
    with div("halves"):
        with card(page.say("drift.traffic"), page.say("drift.traffic.how")):
            Chart(traffic(page, past), label=page.say("drift.traffic"))
        with card(page.say("drift.confidence"), page.say("drift.confidence.how")):
            Chart(deciles(page, past), label=page.say("drift.confidence"))
        with card(page.say("drift.mix"), page.say("drift.mix.how")):
            mix = class_mix(page, past)
            Chart(mix, classes="chart-tall", label=page.say("drift.mix"))
            if has_gaps(mix):
                text(page.say("drift.mix.gaps"), "hint", "p")
        with card(page.say("drift.shapes"), page.say("drift.shapes.how")):
            _shapes(page, past)
    if alerts is not None:  # no Prometheus watches a run
        client, maps = ui.context.client, div("contents")
        judging = background_tasks.create(_judge(page, info, alerts, maps), context=client)
        client.on_delete(judging.cancel)


async def _judge(page: Page, info: ModelInfo, alerts: Element, maps: Element) -> None:
    """Shows what deserves a look, once the page is open: it takes the history of a day."""
    await ui.context.client.connected()
    with alerts:
        try:
            evidence = await gather_evidence(page.source, info)
        except XaiError as error:
            trouble(error, page.say)
            return
        show_alerts(page, judge(evidence), evidence.quality.alerts)
    with maps, card(page.say("drift.maps"), page.say("drift.maps.how")):
        _map_drift(page, {name: each.drift for name, each in evidence.quality.explainers.items()})


def _span(page: Page) -> float:
    """The seconds that are compared with as many before them, which the viewer may choose."""
    span = page.state.get("span", "3600")
    span = span if span in _SPANS else "3600"
    spans = {key: duration(page.say, value) for key, value in _SPANS.items()}
    with div("row"):
        text(page.say("drift.windows"), "hint")
        toggle(page.say("drift.window"), spans, span, lambda value: _reload(page, value))
    return _SPANS[span]


def _reload(page: Page, span: str) -> None:
    page.remember(span=span)
    ui.navigate.reload()


def _figures(page: Page, past: QualityHistory) -> None:
    """What a glance should tell: now, and in the reference window."""
    now, before, unknown = past.current, past.reference, page.say("not_measured")
    figures = [
        ("drift.samples", f"{now.sample_count:,}", f"{before.sample_count:,}" if before else ""),
        ("drift.probability", percent(now.mean_probability), percent(before.mean_probability) if before else ""),
    ]
    if now.ood_count:
        figures.append(
            (
                "drift.outliers",
                percent(now.outlier_share),
                percent(before.outlier_share) if before and before.ood_count else unknown,
            )
        )
    if now.labelled_count:
        right = percent(now.right_share)
        was = percent(before.right_share) if before and before.labelled_count else unknown
        figures.append(("drift.right", right, was))
    if past.truncated or past.reference_truncated:
        cut = now if past.truncated or before is None else before
        text(page.say("drift.truncated", count=f"{cut.sample_count:,}"), "note", "p")
    with div("figures"):
        for key, value, reference in figures:
            with card(classes="figure"):
                text(page.say(key), "hint", "p")
                text(value if now.sample_count else unknown, "big number", "p")
                if before is not None:
                    before_text = reference if before.sample_count else unknown
                    text(page.say("drift.before", value=before_text), "hint number", "p")


def _shapes(page: Page, past: QualityHistory) -> None:
    there = {name.partition("/")[0] for _, name in past.shapes}
    names = {each: page.say(f"shape.{each}") for each in SHAPES if each != "agreement" or each in there}
    shown = toggle(page.say("drift.shapes"), names, SHAPES[0], lambda each: chart.show(shapes(past, each)))
    shown.classes("wrap")
    chart = Chart(shapes(past, SHAPES[0]), label=page.say("drift.shapes"))


def _map_drift(page: Page, drift: dict[str, tuple[MapDrift, ...]]) -> None:
    say = page.say
    rows = sorted(((name, each) for name, many in drift.items() for each in many), key=lambda row: -row[1].ratio)
    if not rows:
        text(say("drift.maps.none"), "hint", "p")
        return
    names = "filter.explainer", "drift.statistic", "drift.source", "drift.reference", "drift.now", "drift.ratio"
    head = table_head([say(each) for each in names], 3)
    with div("scroll tall"):
        Markup(tag("table", head, tag("tbody", *(_drift_row(page, *row) for row in rows)), classes="table"))


def _drift_row(page: Page, explainer: str, drift: MapDrift) -> Html:
    known, _, other = drift.statistic.partition("/")
    label = page.say.either(f"shape.{known}", known)
    rest = f"· {other}" if other else ""
    ratio = tag("span", number(drift.ratio, 2), classes="tag tag-bad number" if drift.drifted else "number")
    return tag(
        "tr",
        tag("td", explainer),
        tag("td", f"{label} {rest} {drift.class_label}".strip()),
        tag("td", page.say.either(f"drift.source.{drift.source}", drift.source)),
        tag("td", number(drift.reference_mean), classes="num number"),
        tag("td", number(drift.current_mean), classes="num number"),
        tag("td", ratio, classes="num"),
    )


ENTRY: Final = Entry("/drift", "drift", "trending_up", build, of_samples=True)
