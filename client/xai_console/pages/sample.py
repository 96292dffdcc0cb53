"""One sample: its picture, its maps side by side, their scores, and what they stand on."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from nicegui import background_tasks, ui
from nicegui.element import Element

from xai_client import Explain, Explained, Explanation, ModelInfo, Progress, Sample, SampleFilter, XaiError
from xai_console import sample_picture
from xai_console.chosen_sample import chosen_sample
from xai_console.contrast import Contrast
from xai_console.gallery import Gallery
from xai_console.masking import Masking
from xai_console.overlay import Look, Overlay, Scene
from xai_console.page import Entry, Page, address
from xai_console.parts import Folded, card, div, report, text
from xai_console.prediction import ClassList
from xai_console.sample_cards import FLAGS, outcome_of
from xai_console.sample_scores import score_lines
from xai_console.sign_in import MAKES_MAPS, lacking, role_needed
from xai_console.tiles import Line, Tile
from xai_console.times import Moment
from xai_console.truth_form import TruthForm

_QUICK: Final = 2
"""Passes up to which an explanation is asked for without being told to."""


async def build(page: Page, info: ModelInfo) -> None:
    """Makes the page."""
    sample = await chosen_sample(page)
    if sample is not None:
        _SamplePage(page, info, sample)


class _SamplePage:
    """The page, and the calls that it makes."""

    def __init__(self, page: Page, info: ModelInfo, sample: Sample) -> None:
        self._page, self._info, self._sample = page, info, sample
        self._shown = sample_picture.shown(sample, page.console.shelf)
        self._gallery = Gallery(page)
        self._tiles: dict[str, Tile] = {}
        self._before: dict[str, dict[str, float]] = {}
        self._explained: dict[tuple[str, int], Explanation] = {}  # made for the viewer, by explainer and class
        self._tasks: list[asyncio.Task[None]] = []
        self._metrics = list(info.evaluator.metrics) if info.evaluator is not None else []
        classes = sample.summary.classes
        self._target = int(page.number("class", classes[0].class_id if classes else 0, 0, 1e9))
        self._head()
        with div("split"):
            with div("stack"):
                self._side()
            with div("stack"):
                self._maps()
        below = div("contents")
        ui.context.client.on_delete(self._stop)
        self._tasks.append(background_tasks.create(self._watch(), context=ui.context.client))
        self._tasks.append(background_tasks.create(self._follow(below), context=ui.context.client))

    # -------------------------------------------------------------------------------------------- what it is

    def _head(self) -> None:
        say, summary = self._page.say, self._sample.summary
        with div("row sample-title-row"):
            text(say("sample.back"), tag="a").props('href="/"')
            text(summary.classes[0].label if summary.classes else summary.id, "big", "h2")
            flag = outcome_of(summary)
            self._flag = text(say(f"flag.{flag}"), f"tag tag-{FLAGS[flag]}")
            Moment(summary.time).classes("hint number")
            text(say(f"sample_state.{summary.state}"), "tag")
            if self._info.run:
                text(summary.request_id, "hint")
            div("grow")
            named = {"request": summary.request_id, "index": summary.image_index}
            if self._sample.input_png and not self._info.run:
                text(say("sample.explain_again"), tag="a").props(f'href="{address("/explain", named)}"')
            text(say("evidence.link"), tag="a").props(f'href="{address("/evidence", named)}"')

    def _side(self) -> None:
        say, summary = self._page.say, self._sample.summary
        with card(say("picture")):
            if self._shown.url is None:
                text(say("sample.no_picture.how"), "hint", "p")
            scene = Scene(self._shown.url, self._shown.size, self._shown.region, label=say("picture"))
            self._picture = Overlay(scene, Look(mode="picture", frame=True), say, legend=False)
        with card(say("prediction"), say("prediction.how")):
            self._classes = ClassList(summary.classes, self._chosen)
            self._classes.press(self._target)
            if summary.ood_percentile is not None:
                text(say("ood", percentile=f"{summary.ood_percentile:.0f}"), "hint", "p")
        self._truth = TruthForm(self._page, self._info, self._sample, self._picture)

    async def _follow(self, below: Element) -> None:
        """Adds what stands below the maps once the page is open: nobody sees it before."""
        await ui.context.client.connected()
        with below:
            Contrast(self._page, self._info, self._sample, self._shown)
            Masking(self._page, self._info, self._sample)

    # -------------------------------------------------------------------------------------------------- maps

    def _maps(self) -> None:
        say = self._page.say
        with card(say("maps")):
            self._gallery.controls()
            self._hanging = div("stack")
        self._hang()

    def _hang(self) -> None:
        """Shows the maps that there are; of a picture that is not measured yet, those that the server makes at once."""
        say, explanations = self._page.say, self._sample.explanations
        self._tiles.clear()
        self._gallery.clear()
        self._hanging.clear()
        with self._hanging:
            if not explanations:
                text(say("sample.unmeasured"), "note", "p")
            can_ask = not self._info.run and not lacking(self._info, MAKES_MAPS)
            costs = {name: each.cost for name, each in self._info.explainers.items()} if can_ask else {}
            quick = [name for name, cost in costs.items() if cost and cost.passes <= _QUICK]
            with div("tiles"):
                for name in [name for name, made in explanations.items() if not made.is_control] or quick:
                    self._tile(name)
            controls = [name for name, made in explanations.items() if made.is_control]
            if controls:
                self._hang_controls(controls)
        self._classes.press(self._target)
        self._ask([name for name in self._tiles if not self._has(name, self._target)], self._target)

    def _hang_controls(self, names: list[str]) -> None:
        """Shows controls as soon as somebody wants to see them."""

        def opened() -> None:
            if names[0] not in self._tiles:
                with tiles:
                    for name in names:
                        self._tile(name)

        with Folded(self._page.say("sample.controls"), on_value_change=opened) as expansion:
            tiles = div("tiles")
        expansion.props("dense").classes("controls")

    def _tile(self, name: str) -> None:
        url, size, region = self._shown.url, self._shown.size, self._shown.region
        tile = Tile(self._page, self._gallery, name, url, size, region)
        self._tiles[name] = tile
        if name in self._sample.explanations:
            tile.show(self._sample.explanations[name].in_frame(), self._target, self._facts(name))

    def _facts(self, name: str) -> list[Line]:
        made = self._sample.explanations[name]
        lines = score_lines(self._page.say, made, self._before.get(name, {}), self._metrics)
        return [*lines, self._page.say("passes.took", passes=made.passes)]

    def _chosen(self, class_id: int) -> None:
        self._page.remember(**{"class": class_id})
        self._choose(class_id)

    def _choose(self, class_id: int) -> None:
        """Shows the maps of a class; the server makes those that there are not yet."""
        self._target = class_id
        self._classes.press(class_id)
        self._ask([name for name, tile in self._tiles.items() if not self._switch(name, tile, class_id)], class_id)

    def _ask(self, missing: list[str], class_id: int) -> None:
        """Has the server make maps of a class that there are not yet."""
        askable = [name for name in missing if name in self._info.explainers and self._info.explainers[name].available]
        if askable and self._info.run:
            ui.notify(self._page.say("run.not_explained"), type="info", multi_line=True)
        elif askable and (missing := lacking(self._info, MAKES_MAPS)):
            ui.notify(role_needed(self._page, missing), type="info", multi_line=True)
        elif askable:
            self._tasks.append(background_tasks.create(self._explain(askable, class_id), context=ui.context.client))

    def _has(self, name: str, class_id: int) -> bool:
        """Whether a class is one of those that the sample was explained for, whose maps are shown or withheld."""
        made = self._sample.explanations.get(name)
        return made is not None and any(each.class_id == class_id for each in made.maps)

    def _switch(self, name: str, tile: Tile, class_id: int) -> bool:
        """Shows a tile's map of a class, with the scores, which are of the first map; returns whether there is one."""
        made = self._sample.explanations.get(name)
        scored = made is not None and made.maps and made.maps[0].class_id == class_id
        facts = self._facts(name) if scored else None
        if tile.switch(class_id, facts):
            return True
        found = self._explained.get((name, class_id))
        if found is None and made is not None and made.withheld != "not_kept" and self._has(name, class_id):
            found = made.in_frame()
        if found is None:
            return False
        tile.show(found, class_id, facts)
        return True

    async def _explain(self, names: list[str], class_id: int) -> None:
        picture = self._sample.model_input(self._info.input)
        if picture is None:
            ui.notify(self._page.say("sample.cannot_explain"), type="warning")
            return
        for name in names:
            self._tiles[name].wait()
        try:
            explain = [Explain(name, targets=class_id) for name in names]
            events = self._page.source.stream(picture, explain, top_k=1, ood=False)
            async with contextlib.aclosing(events):
                async for event in events:
                    if isinstance(event, Progress):
                        self._tiles[event.name].progress(event)
                    elif isinstance(event, Explained):
                        name = event.explanation.name
                        self._tiles[name].show(event.explanation, class_id)
                        if event.final:
                            self._explained[name, class_id] = event.explanation
        except XaiError as error:
            report(error, self._page.say)
        for name in names:
            self._tiles[name].ended()

    # ---------------------------------------------------------------------------------------------- watching

    def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()

    async def _watch(self) -> None:
        """Shows new scores as soon as they are there, until cancelled."""
        where = SampleFilter(request_id=self._sample.summary.request_id)
        while True:
            with contextlib.suppress(XaiError):
                events = self._page.source.watch_samples(where, map_of="")
                async with contextlib.aclosing(events):
                    async for each in events:
                        if each.events or each.lagged:
                            await self._refresh()
            await asyncio.sleep(2.0)

    async def _refresh(self) -> None:
        """Reads the sample anew, and shows which scores are others than before."""
        summary = self._sample.summary
        sample = await self._page.source.sample(summary.request_id, summary.image_index)
        for name, made in self._sample.explanations.items():
            self._before[name] = {key: each.value for key, each in made.scores.items() if each.value is not None}
        known = self._tiles.keys() | self._sample.explanations.keys()
        self._sample = sample
        flag = outcome_of(sample.summary)
        self._flag.set_text(self._page.say(f"flag.{flag}"))
        self._flag.classes(replace=f"tag tag-{FLAGS[flag]}")
        self._truth.show(sample)
        if set(sample.explanations) - known:
            self._hang()
            return
        for name, tile in self._tiles.items():
            if name in sample.explanations and tile.explanation is not None:
                tile.say(self._facts(name))


ENTRY: Final = Entry("/sample", "sample", "image", build, listed=False)
