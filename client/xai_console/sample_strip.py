"""The newest samples whose pictures are kept, to choose one of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from nicegui import ui
from nicegui.element import Element

from xai_client import SampleFilter, SampleSummary, XaiError
from xai_console import telling
from xai_console.figures import percent
from xai_console.page import Page
from xai_console.parts import div, press, text
from xai_console.sample_picture import thumbnail

_LOOKED_AT: Final = 48
_SHOWN: Final = 12


class SampleStrip:
    """Thumbnails to click.

    Args:
        page: What it is on.
        choose: Called with the sample that was clicked.
    """

    def __init__(self, page: Page, choose: Callable[[SampleSummary], Any]) -> None:
        self._page, self._choose = page, choose
        self._buttons: dict[str, Element] = {}
        self._chosen = ""
        self._place = div("contents")

    async def fill(self) -> None:
        """Fetches them; where none has its picture, nothing is shown."""
        try:
            listed = await self._page.source.list_samples(
                SampleFilter(), order="newest_first", score_of=None, page_size=_LOOKED_AT, page_token="", map_of=""
            )
        except XaiError as error:
            with self._place:
                text(telling.error(error, self._page.say), "hint", "p")
            return
        kept = [each for each in listed.samples if each.thumbnail_jpeg][:_SHOWN]
        with self._place:
            if kept:
                text(self._page.say("explain.samples"), "hint", "p")
                with div("picks"):
                    for each in kept:
                        self._button(each)

    def press(self, sample_id: str) -> None:
        """Shows which one is chosen; "" for none."""
        self._chosen = sample_id
        for each, made in self._buttons.items():
            press(made, each == sample_id)

    def _button(self, sample: SampleSummary) -> None:
        label = f"{sample.classes[0].label} {percent(sample.classes[0].probability)}" if sample.classes else sample.id
        with ui.element("button").classes("pick").props("type=button") as made:
            picture = ui.element("img").props('alt=""')
            ui.tooltip(label).props("delay=300")
        picture._props["src"] = thumbnail(sample, self._page.console.shelf).url
        made._props["aria-label"], made._props["data-sample"] = label, sample.id
        made.on("click", lambda: self._choose(sample))
        self._buttons[sample.id] = made
        press(made, sample.id == self._chosen)
