"""Quality: which explainer to trust, by what measure, and how sure that is."""

from __future__ import annotations

import asyncio
from typing import Final

from nicegui import background_tasks, ui

from xai_client import ModelInfo, Quality, QualityHistory, XaiError
from xai_console import telling
from xai_console.charts import Chart
from xai_console.figures import duration
from xai_console.page import Entry, Page
from xai_console.parts import card, div, empty, select, text
from xai_console.quality_charts import by_class, class_names, history, radar
from xai_console.quality_table import QualityTable
from xai_console.sample_scores import metric_name

_AGAIN_SECONDS: Final = 10.0
_SPANS: Final = {3600: 60, 6 * 3600: 72, 24 * 3600: 96, 7 * 24 * 3600: 84}


async def build(page: Page, info: ModelInfo) -> None:
    """Makes the page."""
    quality = await page.source.quality()
    _QualityPage(page, quality, whole=bool(info.run)).start()


class _QualityPage:
    """The page; of the whole of an offline run, or of a server as time goes by."""

    def __init__(self, page: Page, quality: Quality, *, whole: bool) -> None:
        self._page, self._quality, self._whole = page, quality, whole
        self._span = int(page.number("span", 3600, 3600, 7 * 24 * 3600))
        self._span = self._span if self._span in _SPANS else 3600
        self._history: QualityHistory | None = None
        measured = any(each.quality for each in quality.explainers.values())
        self._auto()
        if not measured:
            empty(
                "hourglass_empty",
                page.say("quality.empty"),
                [page.say("quality.empty.how", count=quality.min_sample_count)],
            )
        self._table = QualityTable(page, quality, self._weighed)
        with div("halves"):
            with card(page.say("quality.radar"), page.say("quality.radar.how")):
                self._no_radar = text(page.say("quality.radar.empty"), "hint", "p")
                self._radar = Chart({}, label=page.say("quality.radar"))
            with card(page.say("quality.over_time")):
                self._over_time()
        with card(page.say("quality.classes"), page.say("quality.classes.how")), div("halves"):
            self._class_charts()
        self._draw()

    def start(self) -> None:
        """Fetches the history, which the rest of the page does not wait for, and keeps all of it fresh."""
        background_tasks.create(self._remember(), context=ui.context.client)
        ui.timer(_AGAIN_SECONDS, self._refresh, immediate=False)

    async def _refresh(self) -> None:
        try:
            self._quality = await self._page.source.quality()
        except XaiError:
            return  # the banner says so
        self._table.show(self._quality)
        self._tell_auto()
        self._draw()
        await self._remember()

    # ------------------------------------------------------------------------------------------------- auto

    def _auto(self) -> None:
        with card(classes="auto"), div("row auto-row"):
            ui.icon("auto_awesome").props('aria-hidden="true"')
            self._auto_name = text("", "big", "h2")
            self._auto_why = text("", "hint")
        self._tell_auto()

    def _tell_auto(self) -> None:
        choice = self._quality.auto_choice
        self._auto_name.set_text(self._page.say("quality.auto", name=self._quality.auto_explainer or "–"))
        self._auto_why.set_text("" if choice is None else telling.choice(choice, self._page.say))

    # ----------------------------------------------------------------------------------------------- charts

    def _weighed(self) -> None:
        profile = radar(self._page, self._quality, self._table.weights)
        self._no_radar.set_visibility(not profile)
        self._radar.show(profile)

    def _draw(self) -> None:
        self._weighed()
        one, other = str(self._explainer.value or ""), str(self._metric.value or "")
        self._by_explainer.show(by_class(self._page, self._quality, explainer=one))
        self._by_metric.show(by_class(self._page, self._quality, metric=other))

    def _class_charts(self) -> None:
        say = self._page.say
        names = {name: name for name, each in self._quality.explainers.items() if not each.is_control}
        metrics = {name: metric_name(self._page.say, name) for name in self._quality.evaluator.metrics}
        if not class_names(self._quality):
            text(say("quality.classes.empty"), "hint", "p")
        with div("stack"):
            first = self._quality.auto_explainer if self._quality.auto_explainer in names else next(iter(names), None)
            self._explainer = select(say("filter.explainer"), names, first, self._draw)
            self._by_explainer = Chart({}, label=say("quality.classes"))
        with div("stack"):
            best = next((name for name in (*self._quality.weights, *metrics) if name in metrics), None)
            self._metric = select(say("filter.metric"), metrics, best, self._draw)
            self._by_metric = Chart({}, label=say("quality.classes"))

    def _over_time(self) -> None:
        say = self._page.say
        counted = self._quality.weights or self._quality.evaluator.metrics
        metrics = {name: metric_name(say, name) for name in counted}
        spans = {span: duration(say, span) for span in _SPANS}
        with div("row"):
            self._history_metric = select(say("filter.metric"), metrics, next(iter(metrics), None), self._show_history)
            if not self._whole:
                select(say("filter.hours"), spans, self._span, lambda event: self._set_span(event.value))
        self._history_chart = Chart({}, label=say("quality.over_time"))

    async def _set_span(self, span: int) -> None:
        self._span = span
        self._page.remember(span=span)
        await self._remember()

    async def _remember(self) -> None:
        try:
            seconds = None if self._whole else self._span
            self._history = await self._page.source.quality_history(seconds=seconds, bins=_SPANS[self._span])
        except (XaiError, asyncio.CancelledError):
            return
        self._show_history()

    def _show_history(self) -> None:
        if self._history is not None:
            self._history_chart.show(history(self._history, str(self._history_metric.value or "")))


ENTRY: Final = Entry("/quality", "quality", "insights", build, of_samples=True)
