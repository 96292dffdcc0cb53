"""Takes a picture from the viewer: dropped, pasted or chosen; `components/drop.js` sends it to the console."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nicegui.element import Element
from nicegui.events import GenericEventArguments

from xai_console.words import Words


class Drop(Element, component="components/drop.js"):
    """A place to drop a picture on.

    Args:
        say: The words of the page.
        taken: Called with the name on the shelf, the URL and the size of each picture taken.
        refused: Called with why one was not.
    """

    def __init__(
        self, say: Words, taken: Callable[[str, str, tuple[int, int]], Any], refused: Callable[[str], Any]
    ) -> None:
        super().__init__()
        words = {key: say(f"drop.{key}") for key in ("title", "hint", "busy")}
        self._props["words"] = {**words, "failed": say("no_answer")}

        def picked(event: GenericEventArguments) -> Any:
            width, height = event.args["size"]
            return taken(event.args["name"], event.args["url"], (width, height))

        self.on("taken", picked)
        self.on("refused", lambda event: refused(str(event.args)))
