"""A sample as a row: its picture, with classes to choose from, then a map of each of some explainers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from nicegui import background_tasks

from xai_client import ModelInfo, SampleSummary, XaiError
from xai_console import sample_picture, telling
from xai_console.chosen_sample import named
from xai_console.class_choice import ClassChoice, chosen_class
from xai_console.gallery import Gallery
from xai_console.overlay import Look, Overlay, Scene
from xai_console.page import Page, address
from xai_console.parts import div, text
from xai_console.sample_cards import FlagTag
from xai_console.sample_maps import SampleMaps
from xai_console.times import Moment

_LABELS: Final = 5
"""Classes to click; the others are found by typing."""


class SampleRow:
    """The row. What a list says of the sample is there at once; `fill` fetches its maps.

    Args:
        page: What it is on.
        info: The model.
        gallery: What draws the maps.
        summary: The sample.
        columns: Explainers.

    Attributes:
        class_name: What the URL calls the class that was chosen.
    """

    def __init__(
        self, page: Page, info: ModelInfo, gallery: Gallery, summary: SampleSummary, columns: Sequence[str]
    ) -> None:
        self._page, self._info, self._gallery, self._summary, self._columns = page, info, gallery, summary, columns
        self.class_name = f"class {summary.id}"
        self._target = chosen_class(page, info, summary, self.class_name)
        self._title = summary.classes[0].label if summary.classes else summary.id
        self._maps: SampleMaps | None = None
        self._filling: asyncio.Task[None] | None = None
        with div("side-row", "section") as row:
            row._props["data-sample"] = summary.id
            row._props["aria-label"] = self._title
            with div("side-what"):
                self._what()
            self._tiles = div("contents")
        self._choice.press(self._target)

    def _what(self) -> None:
        page, summary = self._page, self._summary
        with div("row side-head"):
            self._link = text(self._title, "strong", "a")
            self._flag = FlagTag(page.say, summary)
            Moment(summary.time).classes("hint small number")
            if self._info.run:
                text(summary.request_id, "hint small")
        self._point()
        small = sample_picture.thumbnail(summary, page.console.shelf)
        note = "" if small.url else page.say("sample.no_picture")
        scene = Scene(small.url, small.size, small.region, note=note, label=page.say("picture"))
        with div("side-body"):
            look = Look(mode="picture", frame=True)
            self._picture = Overlay(scene, look, page.say, legend=False, interactive=False)
            with div("stack"):
                self._choice = ClassChoice(page, self._info.labels, summary.classes[:_LABELS], self._choose)

    def _point(self) -> None:
        """Has the link lead to the sample with the class that is chosen."""
        self._link._props["href"] = address("/sample", {**named(self._summary), "class": self._target})

    def _choose(self, class_id: int) -> None:
        """Shows the maps of a class."""
        self._target = class_id
        self._page.remember(**{self.class_name: class_id})
        self._point()
        self._choice.press(class_id)
        if self._maps is not None:
            self._maps.choose(class_id)

    # -------------------------------------------------------------------------------------------------- maps

    def fill(self) -> None:
        """Fetches the sample, and shows its maps, or what is new of them."""
        if self._filling is not None:
            self._filling.cancel()
        self._filling = background_tasks.create(self._fill(), context=self._tiles)

    def forget(self) -> None:
        """Ends all calls, and has the gallery forget the maps; whoever made the place of it takes it down."""
        if self._filling is not None:
            self._filling.cancel()
        if self._maps is not None:
            self._maps.clear()

    async def _fill(self) -> None:
        page, summary = self._page, self._summary
        try:
            sample = await page.source.sample(summary.request_id, summary.image_index, self._columns)
        except XaiError as error:
            if self._maps is None:
                self._tiles.clear()
                text(telling.error(error, page.say), "note")
            return
        self._flag.show(sample.summary)
        if self._maps is not None:
            self._maps.refresh(sample)
            return
        shown = await asyncio.to_thread(sample_picture.shown, sample, page.console.shelf)
        self._tiles.clear()
        self._maps = SampleMaps(page, self._info, self._gallery, sample, shown, self._target, self._choice.tell)
        self._picture.show(picture=shown.url)
        self._maps.hang(self._columns)
