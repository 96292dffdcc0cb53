"""One explanation on a page: its map, and what there is to say of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

from xai_client import Explanation, Progress, SaliencyMap
from xai_console import telling
from xai_console.figures import number
from xai_console.gallery import Gallery, Hung
from xai_console.markup import Html, Markup, join, tag
from xai_console.overlay import Badge, Box, Scene
from xai_console.page import Page
from xai_console.parts import bar, div, set_bar, text

Line: TypeAlias = str | tuple[str, str]


class Tile:
    """An explanation, in whatever version has come.

    Args:
        page: What it is on.
        gallery: What draws its map.
        name: Its name in the request.
        picture: URL of the picture; None where it is not kept.
        size: Its width and height in its own pixels.
        region: The part that the model saw.
        of: Names the picture, where others are on the same page.

    Attributes:
        explanation: The newest version; None before the first.
    """

    def __init__(
        self,
        page: Page,
        gallery: Gallery,
        name: str,
        picture: str | None,
        size: tuple[int, int],
        region: Box,
        *,
        of: str = "",
    ) -> None:
        self.explanation: Explanation | None = None
        self._page, self._gallery, self._name = page, gallery, name
        with div("tile").props(f'data-tile="{name}"'):
            with div("tile-head"):
                text(name, "tile-name")
                self._chosen = text("", "tag")
                self._chosen.set_visibility(False)
            scene = Scene(picture, size, region, note=page.say("computing"), label=name)
            self._hung: Hung = gallery.hang(scene, None, f"{of} {name}", beside=of or "all")
            self._bar = bar(0.0, "tile-bar")
            self._bar.set_visibility(False)
            self._lines = Markup().classes("tile-lines")

    def progress(self, event: Progress) -> None:
        """Says how far it has come."""
        say = self._page.say
        part = event.passes / max(1, event.planned_passes)
        self._set_bar(part)
        lines: list[Line] = [say("passes.of", done=event.passes, planned=event.planned_passes)]
        if event.standard_error is not None:
            lines.append(say("standard_error", value=number(event.standard_error, 2)))
        if event.remaining is not None:
            lines.append(say("remaining", seconds=f"{event.remaining:.1f}"))
        self._say(lines)

    def show(
        self,
        explanation: Explanation,
        target: int | None,
        facts: Sequence[Line] | None = None,
        badge: Badge | None = None,
    ) -> None:
        """Shows a version; of its maps that of a class, or the first.

        Args:
            explanation: The version.
            target: The class; None for the first map.
            facts: What to say below; what it took, unless given.
            badge: What to say in the corner, if anything.
        """
        self.explanation = explanation
        if explanation.choice is not None:
            self._chosen.set_text(explanation.explainer)
            self._chosen.set_visibility(True)
        if not explanation.maps:
            note = telling.status(explanation, self._page.say)
            self._gallery.change(self._hung, None, grid=None, scale=None, note=note)
        else:
            chosen = [each for each in explanation.maps if each.class_id == target]
            self._draw((chosen or list(explanation.maps))[0])
        if explanation.status != "partial":
            self._set_bar(None)
            self._say(self._facts(explanation) if facts is None else facts, badge)

    def switch(self, target: int) -> bool:
        """Shows the map of another class; returns whether there is one."""
        if self.explanation is None or target not in self.explanation.targets:
            return False
        self.show(self.explanation, target)
        return True

    def wait(self) -> None:
        """Says that a map is being computed."""
        self._blank(self._page.say("computing"))
        self._set_bar(0.0)

    def lack(self, why: str) -> None:
        """Says why there is no map."""
        self._blank(why)
        self._set_bar(None)

    def forget(self) -> None:
        """Has the gallery forget it; whoever made the place of it takes it down."""
        self._gallery.forget(self._hung)

    def ended(self) -> None:
        """Nothing more will come."""
        self._set_bar(None)
        if self.explanation is None:
            self._gallery.change(self._hung, None, note=self._page.say("stopped"))

    def _blank(self, note: str) -> None:
        """Shows no map, and nothing that was measured of another."""
        self._gallery.change(
            self._hung, None, grid=None, scale=None, note=note, shaky=False, label=f"{self._name}: {note}"
        )
        self._say([])

    def _draw(self, shown: SaliencyMap) -> None:
        say = self._page.say
        label = f"{self._name}: {shown.label}"
        if shown.values is None:
            note = say.either(f"map.{shown.withheld}", shown.withheld)
            self._gallery.change(self._hung, None, grid=None, scale=None, note=note, label=f"{label}: {note}")
            return
        note = "" if shown.status == "ok" else say(f"map.{shown.status}")
        grid = self._page.console.shelf.grid(shown.values)
        self._gallery.change(self._hung, shown.values, grid=grid, note=note, shaky=not shown.reliable, label=label)

    def _facts(self, explanation: Explanation) -> list[Line]:
        say = self._page.say
        lines: list[Line] = [say("took", passes=explanation.passes, seconds=f"{explanation.elapsed:.2f}")]
        if explanation.standard_error is not None:
            lines.insert(0, say("standard_error", value=number(explanation.standard_error, 2)))
        if explanation.choice is not None:
            lines.append(telling.choice(explanation.choice, self._page.say))
        if explanation.truncated:
            lines.append(telling.status(explanation, say))
        return lines

    def _say(self, lines: Sequence[Line], badge: Badge | None = None) -> None:
        """Writes lines below the map, each a text or a name with its value, and a few letters in its corner."""
        self._lines.show(join(*map(_written, lines)))
        if badge != self._hung.overlay.scene.badge:
            self._hung.overlay.show(badge=badge)

    def _set_bar(self, part: float | None) -> None:
        self._bar.set_visibility(part is not None)
        if part is not None:
            set_bar(self._bar, part)


def _written(line: Line) -> Html:
    if isinstance(line, str):
        return tag("span", line)
    name, value = line
    return tag("div", tag("span", name), tag("span", value, classes="number"), classes="tile-fact")
