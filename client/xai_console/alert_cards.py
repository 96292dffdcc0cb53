"""What deserves a look, as cards with their section of the runbook, and a list of all alerts."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping, Sequence
from typing import Final

from nicegui import ui

from xai_client import ModelInfo, SampleFilter
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
from xai_console.figures import number, percent
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


def show_alerts(page: Page, judged: Mapping[str, Judged]) -> None:
    """Shows what alerts hold now, and all that there are.

    Args:
        page: What it is on.
        judged: What each alert that can be told from here holds of.
    """
    for name, cases in judged.items():
        if cases:
            _card(page, alerts()[name], cases)
    with card(classes="" if any(judged.values()) else "calm"):
        if not any(judged.values()):
            with div("row"):
                ui.icon("check_circle").props('aria-hidden="true"').classes("good")
                text(page.say("drift.calm"))
        with Folded(page.say("drift.alerts", count=len(alerts()))) as expansion:
            place = div("scroll")
        expansion.on_value_change(lambda: fill_once(place, lambda: _list(page, judged)))
        expansion.props("dense").classes("alerts")


def _card(page: Page, alert: Alert, cases: Sequence[Case]) -> None:
    say = page.say
    with card(classes="alert"):
        with div("row").props('role="alert"'):
            ui.icon("warning").props('aria-hidden="true"').classes("warn")
            text(telling.alert_summary(alert, cases, say), tag="h2")
            text(alert.name, "tag tag-warn")
        for each in cases:
            if each.now is not None:
                text(_figure(page, each, each.now), "number", "p")
        if alert.after:
            text(say("drift.after", after=alert.after), "hint", "p")
        with Folded(say("drift.runbook")).props("dense default-opened").classes("runbook"):
            Markup(join(*_runbook(page, alert))).classes("stack")


def _figure(page: Page, case: Case, now: float) -> str:
    """The figure that an alert is about: a goodness where it is of an explainer, else a share."""
    say, write = page.say, number if case.labels else percent
    if case.before is None:
        return say("drift.case.now", now=write(now))
    what = " · ".join(case.labels.values()) or say("drift.outliers")
    return say("drift.case", what=what, now=write(now), before=write(case.before))


def _runbook(page: Page, alert: Alert) -> list[Html]:
    parts = {"means": alert.means, "look_at": alert.look_at, "do": alert.do}
    return [
        tag("div", tag("h3", page.say(f"drift.runbook.{key}")), tag("p", prose(said), lang="en"))
        for key, said in parts.items()
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


def _list(page: Page, judged: Mapping[str, Judged]) -> None:
    say = page.say
    head = table_head([say("drift.alert"), say("drift.now")], 2)
    rows = (
        tag(
            "tr",
            tag("td", tag("b", each.name), tag("div", telling.alert_meaning(each, say))),
            tag("td", _state(page, judged, each)),
        )
        for each in alerts().values()
    )
    Markup(tag("table", head, tag("tbody", *rows), classes="table"))


def _state(page: Page, judged: Mapping[str, Judged], alert: Alert) -> Html | str:
    if alert.name not in judged:
        return page.say("drift.alert.elsewhere")
    cases = judged[alert.name]
    if cases is None:
        return page.say("drift.alert.unknown")
    return (
        tag("span", page.say("drift.alert.holds"), classes="tag tag-warn") if cases else page.say("drift.alert.clear")
    )
