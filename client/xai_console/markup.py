"""Parts of a page as one element each, such as a table, whose cells would cost browser and console half a second.

`tag` writes HTML. What is no `Html` is a text, and escaped.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TypeAlias

from nicegui.element import Element


class Html(str):
    """HTML that `tag` or `join` has written."""

    __slots__ = ()


Content: TypeAlias = Html | str


def tag(name: str, *content: Content, classes: str = "", **attributes: str | None) -> Html:
    """An element of HTML.

    Args:
        name: Of the element.
        content: What it holds.
        classes: CSS classes.
        attributes: More; underscores stand for hyphens, and None leaves one out.
    """
    given = {"class": classes or None, **attributes}
    written = "".join(
        f' {key.replace("_", "-")}="{html.escape(value)}"' for key, value in given.items() if value is not None
    )
    return Html(f"<{name}{written}>{join(*content)}</{name}>")


def join(*content: Content) -> Html:
    """Pieces of HTML after one another."""
    return Html("".join(each if isinstance(each, Html) else html.escape(each) for each in content))


def bar(part: float) -> Html:
    """A share of 1 as a bar."""
    return tag("div", tag("div", classes="bar-part", style=f"width: {bar_width(part)}"), classes="bar")


def bar_width(part: float) -> str:
    """How wide the filled part of a bar is, in CSS, for a share of 1."""
    return f"{100 * min(1.0, max(0.0, part)):.1f}%"


def icon(name: str, classes: str = "") -> Html:
    """A Material icon, which says nothing to those who cannot see it."""
    looks = f"q-icon notranslate material-icons {classes}".rstrip()
    return tag("i", name, classes=looks, aria_hidden="true", role="presentation")


def picture(url: str, size: tuple[float, float], most: str) -> Html:
    """A picture in a place that is as wide as there is room, and no higher than what CSS says."""
    width, height = size
    full = "width" if width >= height else "height"
    shape = f"aspect-ratio:{width:g}/{height:g};max-height:{most};max-width:100%;{full}:100%"
    return Html(f'<img src="{html.escape(url)}" alt="" style="{shape}">')


def table_head(titles: Sequence[str], numbers: int) -> Html:
    """The head of a table, whose columns are numbers from a place on."""
    cells = (
        tag("th", title, classes="num" if place >= numbers else "", scope="col") for place, title in enumerate(titles)
    )
    return tag("thead", tag("tr", *cells))


class Markup(Element, component="components/markup.js"):
    """A part of a page that only shows something; where an element in it has `data_tip`, that is its tooltip."""

    def __init__(self, content: Html | None = None) -> None:
        super().__init__()
        self._props["html"] = content or ""

    def preview(self) -> Html:
        """See `xai_console.preview`."""
        return tag("div", Html(self._props["html"]), classes=" ".join(self._classes))

    def show(self, content: Html) -> None:
        """Shows something else."""
        if self._props["html"] != content:
            self._props["html"] = content
            self.update()
