"""A page as plain HTML, which browsers paint while they still read the scripts that make the page itself.

It can only be looked at: it is gone in the moment in which the page itself is there, which looks the same. Elements
that have something to show say by a method `preview` what; of what is Quasar's, there is what takes up the place.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Protocol, runtime_checkable

from nicegui import ui
from nicegui.element import Element

from xai_console.colour_data import colours_url
from xai_console.markup import Html, icon, join, tag
from xai_console.overlay import Overlay
from xai_console.sample_cards import SampleCards

_KEPT: Final = ("aria-current", "aria-pressed")
"""Attributes that looks depend on."""


@runtime_checkable
class Previewed(Protocol):
    """An element that says what it will look like."""

    def preview(self) -> Html:
        """What it will look like."""


def add_preview(shell: Element) -> None:
    """Adds the preview of a page that is made, and what its maps are drawn from, to the answer.

    Args:
        shell: What holds all of the page.
    """
    ui.add_body_html(tag("div", preview(shell), id="preview", inert="", aria_hidden="true"))
    ui.add_head_html(
        '<script>addEventListener("DOMContentLoaded", () => document.getElementById("preview")?.remove());</script>'
    )
    for url in dict.fromkeys(_fetched(shell)):
        ui.add_head_html(f'<link rel="preload" as="fetch" crossorigin="anonymous" href="{url}">')


def preview(element: Element) -> Html:
    """What an element and those in it will look like."""
    if not element.visible:
        return Html()
    classes = " ".join(element._classes)
    if isinstance(element, Previewed):
        return element.preview()
    if isinstance(element, ui.select):
        shown = element._value_to_model_value(element.value)
        return _field(shown["label"] if isinstance(shown, dict) else element._props["label"], classes)
    if isinstance(element, ui.expansion):
        return tag("div", tag("div", element._props["label"], classes="q-item row items-center"), classes=classes)
    if element.tag.startswith("q-"):
        return _of_quasar(element.tag, element._props, classes)
    if element.component is not None:
        return tag("div", classes=classes)
    attributes = {name.replace("-", "_"): str(value) for name, value in element._props.items() if name in _KEPT}
    style = ";".join(f"{name}:{value}" for name, value in element._style.items())
    inner = join(element._text or "", *map(preview, element))
    return tag(
        "span" if element.tag == "button" else element.tag, inner, classes=classes, style=style or None, **attributes
    )


def _of_quasar(kind: str, props: dict[str, Any], classes: str) -> Html:
    if kind == "q-btn":
        return _button(props.get("label", ""), props.get("icon"), f"{_shape(props)} {classes}")
    if kind == "q-icon":
        return icon(props["name"], classes)
    if kind == "q-btn-toggle":
        chosen = props.get("model-value")
        buttons = (
            _button(each["label"], None, _shape(props), pressed=each["value"] == chosen) for each in props["options"]
        )
        return tag("div", *buttons, classes=f"q-btn-group q-btn-group--unelevated row no-wrap inline {classes}")
    if kind == "q-slider":
        return tag("span", classes=f"q-slider {classes}")
    if kind == "q-input":
        return _field(props.get("label", ""), classes)
    return Html()


def _shape(props: dict[str, Any]) -> str:
    round_or_not = "q-btn--flat q-btn--round" if "round" in props else "q-btn--unelevated q-btn--rectangle"
    return f"{round_or_not}{' q-btn--dense' if 'dense' in props else ''}"


def _button(label: str, symbol: str | None, classes: str, *, pressed: bool | None = None) -> Html:
    content = join(
        icon(symbol, "on-left" if label else "") if symbol else "", tag("span", label, classes="block") if label else ""
    )
    inner = tag("span", content, classes="q-btn__content text-center col items-center justify-center row")
    shown = None if pressed is None else str(pressed).lower()
    return tag("span", inner, classes=f"q-btn q-btn-item q-btn--no-uppercase {classes}", aria_pressed=shown)


def _field(said: str, classes: str) -> Html:
    return tag("span", said, classes=f"preview-field {classes}")


def _fetched(shell: Element) -> Iterator[str]:
    for each in shell.descendants():
        if isinstance(each, (Overlay, SampleCards)):
            yield colours_url()
        if isinstance(each, Overlay) and each.scene.grid is not None:
            yield each.scene.grid.url
