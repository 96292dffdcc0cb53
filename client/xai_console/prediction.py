"""What the model says: classes with bars, to click."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nicegui import ui
from nicegui.element import Element

from xai_client import ClassScore
from xai_console.figures import percent
from xai_console.parts import bar, div, press, text


class ClassList:
    """The most probable classes; a click chooses one.

    Args:
        classes: Most probable first.
        choose: Called with the class id that was clicked.
    """

    def __init__(self, classes: Sequence[ClassScore], choose: Callable[[int], Any]) -> None:
        self._buttons: dict[int, Element] = {}
        with div("classes"):
            for each in classes:
                self._buttons[each.class_id] = self._row(each, choose)

    def mark(self, class_id: int | None) -> None:
        """Shows which class the maps are of."""
        for each, element in self._buttons.items():
            press(element, each == class_id)

    @staticmethod
    def _row(score: ClassScore, choose: Callable[[int], Any]) -> Element:
        with ui.element("button").classes("class").props(f'type="button" data-class="{score.class_id}"') as row:
            text(score.label, "class-name")
            bar(score.probability)
            text(percent(score.probability), "number")
        row.on("click", lambda: choose(score.class_id))
        return row
