"""Why one class and not another: the maps of two classes by one explainer, and their difference."""

from __future__ import annotations

import contextlib

from nicegui import background_tasks, ui

from xai_client import Explain, Explained, Explanation, ModelInfo, Sample, XaiError
from xai_client.colours import FloatArray
from xai_console.gallery import Gallery
from xai_console.overlay import Scene
from xai_console.page import Page
from xai_console.parts import button, card, div, report, select, text
from xai_console.sample_picture import Shown
from xai_console.sign_in import MAKES_MAPS, may


class Contrast:
    """Two classes of a sample side by side, and where more speaks for the one than for the other.

    Args:
        page: What it is on.
        info: The model.
        sample: The sample.
        shown: Its picture.
    """

    def __init__(self, page: Page, info: ModelInfo, sample: Sample, shown: Shown) -> None:
        self._page, self._info, self._sample, self._shown = page, info, sample, shown
        classes = {each.class_id: each.label for each in sample.summary.classes}
        usable = [name for name, each in info.explainers.items() if each.available]
        if len(classes) < 2 or not usable or info.run:
            return
        first, second, *_ = classes
        with card(page.say("contrast"), page.say("contrast.how"), "contrast"):
            if not may(page, info, MAKES_MAPS):
                return
            with div("row"):
                self._one = select(page.say("contrast.one"), classes, first)
                self._other = select(page.say("contrast.other"), classes, second)
                names = {name: name for name in usable}
                best = "gradcam" if "gradcam" in names else usable[0]
                self._explainer = select(page.say("filter.explainer"), names, best)
                button(page.say("contrast.go"), self._start, "compare")
            self._maps = div("tiles three")

    def _start(self) -> None:
        background_tasks.create(self._compare(), context=self._maps)

    async def _compare(self) -> None:
        one, other = int(self._one.value), int(self._other.value)
        found = await self._explanation(str(self._explainer.value), one, other)
        if found is None:
            return
        maps = {each.class_id: each for each in found.maps}
        self._maps.clear()
        with self._maps:
            gallery = Gallery(self._page)
            for each in (one, other):
                shown = maps[each]
                reason = self._page.say.either(f"map.{shown.withheld}", shown.withheld)
                self._tile(gallery, shown.label, shown.values, "classes", reason)
            first, second = maps[one].values, maps[other].values
            if first is not None and second is not None:
                title = self._page.say("contrast.difference", one=maps[one].label, other=maps[other].label)
                self._tile(gallery, title, first - second, "difference", "")

    def _tile(self, gallery: Gallery, title: str, values: FloatArray | None, group: str, note: str) -> None:
        with div("tile").props(f'data-contrast="{group}"'):
            with div("tile-head"):
                text(title, "tile-name")
            grid = None if values is None else self._page.console.shelf.grid(values)
            scene = Scene(self._shown.url, self._shown.size, self._shown.region, grid, note=note, label=title)
            gallery.hang(scene, values, group)

    async def _explanation(self, explainer: str, one: int, other: int) -> Explanation | None:
        """Both maps, asked for anew: only so they are of the same seed and parameters."""
        picture = self._sample.model_input(self._info.input)
        if picture is None:
            ui.notify(self._page.say("sample.cannot_explain"), type="warning")
            return None
        if one == other:
            ui.notify(self._page.say("contrast.same"), type="warning")
            return None
        try:
            events = self._page.source.stream(picture, [Explain(explainer, targets=[one, other])], top_k=1, ood=False)
            async with contextlib.aclosing(events):
                async for event in events:
                    if isinstance(event, Explained) and event.final:
                        return event.explanation if len(event.explanation.maps) == 2 else None
        except XaiError as error:
            report(error, self._page.say)
        return None
