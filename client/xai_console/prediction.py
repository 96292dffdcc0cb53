"""What the model says: classes with bars, to click."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nicegui.element import Element

from xai_client import ClassScore
from xai_console.figures import percent
from xai_console.markup import Html, bar_width, tag


class ClassList(Element, component="components/classes.js"):
    """The most probable classes; a click chooses one.

    Args:
        classes: Most probable first.
        choose: Called with the class id that was clicked.
    """

    def __init__(self, classes: Sequence[ClassScore], choose: Callable[[int], Any]) -> None:
        super().__init__()
        self._props["classes"] = [
            {
                "id": each.class_id,
                "label": each.label,
                "probability": percent(each.probability),
                "width": bar_width(each.probability),
            }
            for each in classes
        ]
        self.on("choose", lambda event: choose(int(event.args)))

    def preview(self) -> Html:
        """See `xai_console.preview`."""
        return tag(
            "div",
            *(_row(each, pressed=each["id"] == self._props.get("chosen")) for each in self._props["classes"]),
            classes="classes",
        )

    def press(self, class_id: int | None) -> None:
        """Shows which class the maps are of."""
        if self._props.get("chosen") != class_id:
            self._props["chosen"] = class_id
            self.update()


def _row(each: dict[str, Any], *, pressed: bool) -> Html:
    """What `components/classes.js` makes of a class."""
    part = tag("span", classes="bar-part", style=f"width: {each['width']}")
    return tag(
        "div",
        tag("span", each["label"], classes="class-name"),
        tag("span", part, classes="bar"),
        tag("span", each["probability"], classes="number"),
        classes="class",
        aria_pressed=str(pressed).lower(),
    )
