"""Small pieces that pages are put together from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from nicegui import ui
from nicegui.element import Element
from nicegui.elements.mixins.text_element import TextElement

from xai_client import PreconditionError, UnavailableError, UnsupportedError, XaiError
from xai_console import telling
from xai_console.markup import bar_width
from xai_console.page import Page
from xai_console.words import Words


def div(classes: str = "", tag: str = "div") -> Element:
    """An element that holds others."""
    return ui.element(tag).classes(classes)


class _ByItself:
    """What opens and closes by a click. The browser alone knows whether it is open.

    The server would send back what it was told of each click, and so undo one that came meanwhile.
    """

    LOOPBACK: bool | None = None

    def _value_to_model_value(self, value: Any) -> None:
        """Nothing: what opens and closes by itself is told no state."""


class Folded(_ByItself, ui.expansion):
    """What unfolds below its title."""


class Menu(_ByItself, ui.menu):
    """What unfolds over the page."""


def fill_once(place: Element, make: Callable[[], None]) -> bool:
    """Makes what belongs in a place that is still empty; returns whether it was."""
    if place.default_slot.children:
        return False
    with place:
        make()
    return True


def text(content: object, classes: str = "", tag: str = "span") -> TextElement:
    """A text; `set_text` changes it."""
    return TextElement(tag=tag, text=str(content)).classes(classes)


@contextmanager
def card(title: str = "", hint: str = "", classes: str = "") -> Iterator[Element]:
    """A part of a page with a heading."""
    with div(f"card {classes}", "section") as section:
        if title:
            with div("card-head"):
                text(title, tag="h2")
                if hint:
                    text(hint, "hint")
        yield section


def button(label: str, act: Callable[..., Any], icon: str = "", classes: str = "") -> ui.button:
    """A button with a text."""
    made = ui.button(label, on_click=act, icon=icon or None, color=None)
    return made.props("no-caps unelevated dense").classes(f"button {classes}")


def icon_button(icon: str, label: str, act: Callable[..., Any], classes: str = "") -> ui.button:
    """A button with an icon alone, and what it does in words for those who hover or do not see it."""
    made = ui.button(on_click=act, icon=icon, color=None).props(f'flat round dense aria-label="{label}"')
    with made.classes(f"icon-button {classes}"):
        ui.tooltip(label).props("delay=400")
    return made


def empty(icon: str, title: str, lines: Sequence[str] = ()) -> Element:
    """What stands where there is nothing to show: why, and what to do."""
    with div("empty") as made:
        ui.icon(icon).classes("empty-icon").props('aria-hidden="true"')
        text(title, "empty-title", "p")
        for line in lines:
            text(line, tag="p")
    return made


class Slider(ui.slider):
    """A slider that the browser moves by itself.

    The server would send back each value that it is told of, and so undo a move that came meanwhile.
    """

    LOOPBACK = False


def slider(label: str, value: float, low: float, high: float, step: float, act: Callable[[float], Any]) -> ui.slider:
    """A slider with its name and its value."""

    def changed(event: Any) -> None:
        shown.set_text(_plain(event.value))
        act(float(event.value))

    with div("slider"):
        text(label, "slider-label")
        made = Slider(min=low, max=high, step=step, value=value, on_change=changed)
        made.props(f'dense aria-label="{label}"')
        shown = text(_plain(value), "slider-value number")
    return made


def toggle(label: str, options: dict[str, str], value: str, act: Callable[[str], Any]) -> ui.toggle:
    """A choice of one of a few."""
    made = ui.toggle(options, value=value, on_change=lambda event: act(str(event.value)))
    made.props(f'no-caps dense unelevated toggle-color=none toggle-text-color=none role="group" aria-label="{label}"')
    return made.classes("toggle")


def checkbox(label: str, value: bool, act: Callable[[bool], Any]) -> ui.checkbox:
    """A choice of yes or no."""
    return ui.checkbox(label, value=value, on_change=lambda event: act(bool(event.value)))


class _Select(ui.select, component="components/choice.js"):
    """NiceGUI's choice from a list, without a template that the browser would have to compile."""


def select(label: str, options: Mapping[Any, str], value: Any, act: Callable[..., Any] | None = None) -> ui.select:
    """A choice from a list; what is called takes the event."""
    made = _Select(dict(options), value=value, label=label, on_change=act)
    return made.props("dense outlined options-dense").classes("field")


def select_several(label: str, options: Mapping[Any, str], values: Sequence[Any]) -> ui.select:
    """A choice of any number from a list."""
    made = _Select(dict(options), value=list(values), label=label, multiple=True, clearable=True)
    return made.props("dense outlined options-dense use-chips").classes("field")


class _Search(_Select):
    """A choice from many, which the browser fetches when somebody opens it."""

    def _update_options(self) -> None:
        chosen = self.value
        self._props["options"] = ()
        self._props[self.VALUE_PROP] = self._value_to_model_value(chosen)
        if not isinstance(chosen, list):
            self.value = chosen if chosen in self._values else None


def search_class(
    page: Page,
    labels: Sequence[str],
    label: str,
    value: Any,
    act: Callable[[Any], Any] | None = None,
    *,
    multiple: bool = False,
    classes: str = "",
) -> ui.select:
    """A choice from the classes of the model, of one or of several, by typing.

    Args:
        page: What it is on.
        labels: All classes, by id.
        label: What is asked for.
        value: The id, or ids, that are chosen.
        act: Called with what is chosen.
        multiple: Whether it may be several.
        classes: CSS classes.
    """
    made = _Search({}, value=[] if multiple else None, label=label, multiple=multiple, with_input=True)
    made.props(f"dense outlined options-dense{' use-chips clearable' if multiple else ''}").classes(f"field {classes}")
    made._props["source"] = page.console.shelf.listing(labels)
    made.set_options(dict(enumerate(labels)), value=value)
    if act is not None:
        made.on_value_change(lambda event: act(event.value))
    return made


def bar(part: float, classes: str = "") -> Element:
    """A share of 1 as a bar."""
    with div(f"bar {classes}") as made:
        div("bar-part")
    set_bar(made, part)
    return made


def set_bar(made: Element, part: float) -> None:
    """Changes the share that a bar shows."""
    next(iter(made)).style(f"width: {bar_width(part)}")


def press(made: Element, on: bool) -> None:
    """Shows whether a button that is a choice is chosen."""
    made.props(f'aria-pressed="{str(on).lower()}"')


def report(error: XaiError, say: Words) -> None:
    """Tells the viewer what went wrong."""
    ui.notify(
        f"{say('error')}: {telling.error(error, say)}", type="negative", multi_line=True, close_button=say("close")
    )


def _plain(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def trouble(error: XaiError, say: Words) -> Element:
    """What stands where something could not be fetched: why, and what to do."""
    if isinstance(error, UnavailableError):
        return empty("cloud_off", say("waiting"), [telling.error(error, say)])
    if isinstance(error, (PreconditionError, UnsupportedError)):
        return empty("visibility_off", say("no_evaluator"), [telling.error(error, say)])
    return empty("error_outline", say("error"), [telling.error(error, say)])
