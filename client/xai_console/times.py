"""Points in time on a page: in the time zone of the browser, which alone knows it; here they are Unix time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from nicegui.element import Element

from xai_console.words import Words


class Moment(Element, component="components/moment.js", esm={"xai-time": "components/time"}):
    """A point in time, to the second.

    Args:
        time: Which, with a time zone.
    """

    def __init__(self, time: datetime) -> None:
        super().__init__()
        self._props["seconds"] = time.timestamp()


class Times(Element, component="components/times.js"):
    """A beginning and an end to choose, either of which may be left open.

    Args:
        say: The words of the page.
        start: Unix time of the beginning at first; None for none.
        end: Of the end.
        chosen: Called with "start" or "end" and its Unix time, or None, after each choice.
    """

    def __init__(
        self, say: Words, start: float | None, end: float | None, chosen: Callable[[str, float | None], Any]
    ) -> None:
        super().__init__()
        self._props["start"], self._props["end"] = start, end
        self._props["words"] = {"start": say("low"), "end": say("high"), "zone": say("filter.zone", zone="{zone}")}
        self.on("chosen", lambda event: chosen(event.args["name"], event.args["seconds"]))
