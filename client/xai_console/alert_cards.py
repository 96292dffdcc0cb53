"""What deserves a look, as cards with their section of the runbook, and a list of all alerts."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Container, Mapping, Sequence
from typing import Final

from nicegui import ui

from xai_client import ModelInfo, QualityAlert, SampleFilter
from xai_console import telling
from xai_console.alerts import (
    DAY_SECONDS,
    HOUR_SECONDS,
    WEEK_SECONDS,
    Alert,
    Case,
    Evidence,
    Judged,
    alerts,
)
from xai_console.figures import duration, number, percent
from xai_console.markup import Html, Markup, join, table_head, tag
from xai_console.page import Page
from xai_console.parts import Folded, card, div, fill_once, text
from xai_console.source import Source

_DONE: Final = ("scored", "no_positive")
_MARKED: Final = re.compile(r"`([^`]+)`|\*([^*]+)\*|\[([^\]]+)\]\([^)]*\)")


async def gather_evidence(source: Source, info: ModelInfo) -> Evidence:
    """Asks for what alerts are judged by.

    Args:
        source: Whom to ask.
        info: The model.

    Raises:
        XaiError: A call failed.
    """
    now = time.time()
    window = DAY_SECONDS if info.evaluator is None else info.evaluator.window
    hour = now - HOUR_SECONDS
    quality, before, with_ood, sampled, done = await asyncio.gather(
        source.quality(),
        # Of the explainers alone: no alert compares controls, and the whole of a day is much to read.
        source.quality_history(seconds=window, bins=1, ago=WEEK_SECONDS, explainers=list(info.explainers)),
        _count(source, SampleFilter(start=now - DAY_SECONDS, min_ood_percentile=0.0)),
        _count(source, SampleFilter(start=hour)),
        _count(source, SampleFilter(start=hour, states=_DONE)),
    )
    return Evidence(quality, before, with_ood, sampled, done, info.name, now)


async def _count(source: Source, where: SampleFilter) -> int:
    listed = await source.list_samples(
        where, order="newest_first", score_of=None, page_size=1, page_token="", map_of=""
    )
    return listed.total_count or 0


def show_alerts(page: Page, judged: Mapping[str, Judged], served: Sequence[QualityAlert]) -> None:
    """Shows what alerts hold now, each once, and all that there are.

    Args:
        page: What it is on.
        judged: What each alert that can be told from here holds of.
        served: What the server tells itself, which holds whatever is told from here.
    """
    told = {each.name: each for each in served}
    holding = [name for name in {**judged, **told} if name in told or judged[name]]
    for name in holding:
        _card(page, name, judged.get(name) or (), told.get(name))
    with card(classes="" if holding else "calm"):
        if not holding:
            with div("row"):
                ui.icon("check_circle").props('aria-hidden="true"').classes("good")
                text(page.say("drift.calm"))
        with Folded(page.say("drift.alerts", count=len(alerts(page.say.language)))) as expansion:
            place = div("scroll")
        expansion.on_value_change(lambda: fill_once(place, lambda: _list(page, judged, holding)))
        expansion.props("dense").classes("alerts")


def _card(page: Page, name: str, cases: Sequence[Case], told: QualityAlert | None) -> None:
    """An alert that holds of cases, or that the server tells; one of a later server has no runbook here."""
    say, alert = page.say, alerts(page.say.language).get(name)
    own = telling.alert_summary(alert, cases) if alert is not None and cases else ""
    with card(classes="alert"):
        with div("row").props('role="alert"'):
            ui.icon("warning").props('aria-hidden="true"').classes("warn")
            text(own or (telling.served_summary(told, say) if told is not None else name), tag="h2")
            text(name, "tag tag-warn")
        for each in cases:
            if each.now is not None:
                text(_figure(page, each, each.now), "number", "p")
        if told is not None:
            text(telling.served_advice(told, say), tag="p")
        if alert is None:
            return
        if alert.after:
            text(say("drift.after", after=duration(say, _seconds(alert.after))), "hint", "p")
        with Folded(say("drift.runbook")).props("dense default-opened").classes("runbook"):
            Markup(join(*_runbook(page, alert))).classes("stack")


def _figure(page: Page, case: Case, now: float) -> str:
    """The figure that an alert is about: a goodness where it is of an explainer, else a share."""
    say, write = page.say, number if case.labels else percent
    if case.before is None:
        return say("drift.case.now", now=write(now))
    what = " · ".join(case.labels.values()) or say("drift.outliers")
    return say("drift.case", what=what, now=write(now), before=write(case.before))


def _seconds(after: str) -> float:
    """Prometheus' way to write a length of time, such as "30m"."""
    return float(after[:-1]) * {"m": 60, "h": 3600}[after[-1]]


def _runbook(page: Page, alert: Alert) -> list[Html]:
    parts = {"means": alert.means, "look_at": alert.look_at, "do": alert.do}
    return [
        tag("div", tag("h3", page.say(f"drift.runbook.{key}")), tag("p", prose(said))) for key, said in parts.items()
    ]


def prose(markdown: str) -> Html:
    """A paragraph of the runbook: code, emphasis, and links as their words, whose ends the console does not have."""
    pieces: list[str | Html] = []
    end = 0
    for found in _MARKED.finditer(markdown):
        code, emphasis, link = found.groups()
        marked = tag("code", code) if code else tag("em", emphasis) if emphasis else link
        pieces += [markdown[end : found.start()], marked]
        end = found.end()
    return join(*pieces, markdown[end:])


def _list(page: Page, judged: Mapping[str, Judged], holding: Container[str]) -> None:
    say = page.say
    head = table_head([say("drift.alert"), say("drift.now")], 2)
    rows = (
        tag(
            "tr",
            tag("td", tag("b", each.name), tag("div", telling.alert_meaning(each))),
            tag("td", _state(page, judged, holding, each)),
        )
        for each in alerts(say.language).values()
    )
    Markup(tag("table", head, tag("tbody", *rows), classes="table"))


def _state(page: Page, judged: Mapping[str, Judged], holding: Container[str], alert: Alert) -> Html | str:
    if alert.name in holding:
        return tag("span", page.say("drift.alert.holds"), classes="tag tag-warn")
    if alert.name not in judged:
        return page.say("drift.alert.elsewhere")
    return page.say("drift.alert.unknown" if judged[alert.name] is None else "drift.alert.clear")
