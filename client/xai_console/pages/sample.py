"""One sample: its picture, its maps side by side, their scores, and what they stand on."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from nicegui import background_tasks, ui
from nicegui.element import Element

from xai_client import ModelInfo, Sample, SampleFilter, SampleSummary, XaiError
from xai_console import sample_picture
from xai_console.chosen_sample import chosen_sample, named
from xai_console.class_choice import ClassChoice, chosen_class
from xai_console.contrast import Contrast
from xai_console.gallery import Gallery
from xai_console.masking import Masking
from xai_console.overlay import Look, Overlay, Scene
from xai_console.page import Entry, Page, address
from xai_console.parts import Folded, card, div, fill_once, text
from xai_console.sample_cards import FlagTag
from xai_console.sample_maps import SampleMaps, quick_explainers
from xai_console.sample_scores import leading_hint, metric_order
from xai_console.times import Moment
from xai_console.truth_form import TruthForm


async def build(page: Page, info: ModelInfo) -> None:
    """Makes the page."""
    sample = await chosen_sample(page)
    if sample is not None:
        _SamplePage(page, info, sample)


class _SamplePage:
    """The page, and the calls that it makes."""

    def __init__(self, page: Page, info: ModelInfo, sample: Sample) -> None:
        self._page, self._info = page, info
        self._shown = sample_picture.shown(sample, page.console.shelf)
        self._gallery = Gallery(page)
        target = chosen_class(page, info, sample.summary, "class")
        self._maps = SampleMaps(page, info, self._gallery, sample, self._shown, target, self._tell)
        self._tasks: list[asyncio.Task[None]] = []
        self._head(sample.summary)
        with div("split"):
            with div("stack"):
                self._side(sample)
            with div("stack"), card(page.say("maps"), leading_hint(page.say, metric_order(page, info))):
                self._gallery.controls()
                self._hanging = div("stack")
        self._hang()
        below = div("contents")
        ui.context.client.on_delete(self._stop)
        self._tasks.append(background_tasks.create(self._watch(), context=ui.context.client))
        self._tasks.append(background_tasks.create(self._follow(below, sample), context=ui.context.client))

    # -------------------------------------------------------------------------------------------- what it is

    def _head(self, summary: SampleSummary) -> None:
        say = self._page.say
        with div("row sample-title-row"):
            text(say("sample.back"), tag="a").props('href="/"')
            text(summary.classes[0].label if summary.classes else summary.id, "big", "h2")
            self._flag = FlagTag(say, summary)
            Moment(summary.time).classes("hint number")
            text(say(f"sample_state.{summary.state}"), "tag")
            if self._info.run:
                text(summary.request_id, "hint")
            div("grow")
            if self._maps.sample.input_png and not self._info.run:
                text(say("sample.explain_again"), tag="a").props(f'href="{address("/explain", named(summary))}"')
            text(say("evidence.link"), tag="a").props(f'href="{address("/evidence", named(summary))}"')

    def _side(self, sample: Sample) -> None:
        say, summary = self._page.say, sample.summary
        with card(say("picture")):
            if self._shown.url is None:
                text(say("sample.no_picture.how"), "hint", "p")
            scene = Scene(self._shown.url, self._shown.size, self._shown.region, label=say("picture"))
            self._picture = Overlay(scene, Look(mode="picture", frame=True), say, legend=False)
        with card(say("prediction"), say("prediction.how")):
            self._classes = ClassChoice(self._page, self._info.labels, summary.classes, self._choose)
            self._classes.press(self._maps.target)
            if summary.ood_percentile is not None:
                text(say("ood", percentile=f"{summary.ood_percentile:.0f}"), "hint", "p")
        self._truth = TruthForm(self._page, self._info, sample, self._picture)

    async def _follow(self, below: Element, sample: Sample) -> None:
        """Adds what stands below the maps once the page is open: nobody sees it before."""
        await ui.context.client.connected()
        with below:
            Contrast(self._page, self._info, sample, self._shown)
            Masking(self._page, self._info, sample)

    # -------------------------------------------------------------------------------------------------- maps

    def _hang(self) -> None:
        """Shows the maps that there are; of a picture that is not measured yet, those that the server makes at once."""
        say, explanations = self._page.say, self._maps.sample.explanations
        self._maps.clear()
        self._hanging.clear()
        with self._hanging:
            if not explanations:
                text(say("sample.unmeasured"), "note", "p")
            with div("tiles"):
                made = [name for name, made in explanations.items() if not made.is_control]
                self._maps.hang(made or quick_explainers(self._info))
            controls = [name for name, made in explanations.items() if made.is_control]
            if controls:
                self._hang_controls(controls)

    def _hang_controls(self, names: list[str]) -> None:
        """Shows controls as soon as somebody wants to see them."""
        with Folded(self._page.say("sample.controls")) as expansion:
            tiles = div("tiles")
        expansion.on_value_change(lambda: fill_once(tiles, lambda: self._maps.hang(names)))
        expansion.props("dense").classes("controls")

    def _tell(self, class_id: int, words: str) -> None:
        self._classes.tell(class_id, words)

    def _choose(self, class_id: int) -> None:
        """Shows the maps of a class."""
        self._page.remember(**{"class": class_id})
        self._maps.choose(class_id)
        self._classes.press(class_id)

    # ---------------------------------------------------------------------------------------------- watching

    def _stop(self) -> None:
        self._maps.stop()
        for task in self._tasks:
            task.cancel()

    async def _watch(self) -> None:
        """Shows new scores as soon as they are there, until cancelled."""
        where = SampleFilter(request_id=self._maps.sample.summary.request_id)
        while True:
            with contextlib.suppress(XaiError):
                events = self._page.source.watch_samples(where, map_of="")
                async with contextlib.aclosing(events):
                    async for each in events:
                        if each.events or each.lagged:
                            await self._refresh()
            await asyncio.sleep(2.0)

    async def _refresh(self) -> None:
        """Reads the sample anew, and shows what is new of it."""
        summary = self._maps.sample.summary
        sample = await self._page.source.sample(summary.request_id, summary.image_index)
        self._flag.show(sample.summary)
        self._truth.show(sample)
        if not self._maps.refresh(sample):
            self._hang()


ENTRY: Final = Entry("/sample", "sample", "image", build, listed=False)
