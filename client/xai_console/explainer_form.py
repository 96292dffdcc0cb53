"""A form for explainers and their parameters, made from what the server says of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from nicegui import ui
from nicegui.element import Element

from xai_client import Explain, ExplainerInfo, ModelInfo, ParameterInfo
from xai_client.types import ParameterValue
from xai_console.page import Page
from xai_console.parts import Folded, checkbox, div, press, select, text

AUTO = "auto"


class ExplainerForm:
    """Which explainers to ask for, and with what parameters.

    Args:
        page: Whose URL keeps which ones are chosen.
        info: The model.
        chosen: Names of those that are chosen at first, unless the URL says otherwise.
        changed: Called after each choice.
    """

    def __init__(self, page: Page, info: ModelInfo, chosen: tuple[str, ...], changed: Callable[[], None]) -> None:
        self._page, self._info, self._changed = page, info, changed
        usable = [name for name, each in info.explainers.items() if each.available]
        wanted = page.names("explain") or list(chosen)
        self._chosen = [name for name in wanted if name in (AUTO, *usable)]
        self._values: dict[str, dict[str, ParameterValue]] = {}
        self._chips: dict[str, Element] = {}
        self._budget: float | None = None
        self._seed: int | None = None
        self._top: int = int(page.number("targets", 1, 1, max(1, info.limits.max_target_count)))
        self._make()

    @property
    def calls(self) -> dict[str, dict[str, Any]]:
        """What to pass to `Explain` for each explainer that is chosen."""
        made: dict[str, dict[str, Any]] = {}
        for name in self._chosen:
            options: dict[str, Any] = dict(self._values.get(name, {})) if name != AUTO else {}
            if self._budget:
                options["budget"] = self._budget
            if self._seed is not None:
                options["seed"] = self._seed
            if self._top > 1:
                options["top_count"] = self._top
            made[name] = options
        return made

    def explanations(self, targets: list[int] | None = None) -> list[Explain]:
        """The explanations to ask for.

        Args:
            targets: Class ids to explain instead of the most probable ones.
        """
        made = []
        for name, options in self.calls.items():
            if targets:
                options = {**{key: value for key, value in options.items() if key != "top_count"}, "targets": targets}
            made.append(Explain(name, **options))
        return made

    def _make(self) -> None:
        say = self._page.say
        with div("row chips").props(f'role="group" aria-label="{say("explainers")}"'):
            self._chip(AUTO, say("auto.what"), "")
            for name, explainer in self._info.explainers.items():
                what = say.told(name, explainer.description)
                why_not = "" if explainer.available else say.told("unavailable", explainer.unavailable_reason)
                self._chip(name, what, why_not)
        with div("row"):
            most = max(1, self._info.limits.max_target_count)
            _number(say("targets"), self._top, 1, most, 1, self._set_top, say("targets.how"))
            _number(say("budget"), None, 0.1, 3600, 0.1, self._set_budget, say("budget.how"))
            _number(say("seed"), None, 0, 2**53, 1, self._set_seed, say("seed.how"))
        self._parameters = div("stack")
        self._show_parameters()

    def _chip(self, name: str, what: str, why_not: str) -> None:
        with ui.element("button").classes("chip").props(f'type="button" data-explainer="{name}"') as chip:
            text(name)
            ui.tooltip(why_not or what).props("max-width=360px delay=300")
        if why_not:
            chip.props("disabled")
        self._chips[name] = chip
        chip.on("click", lambda: self._flip(name))
        self._mark(name)

    def _mark(self, name: str) -> None:
        press(self._chips[name], name in self._chosen)

    def _flip(self, name: str) -> None:
        if name in self._chosen:
            self._chosen.remove(name)
        else:
            self._chosen.append(name)
        self._mark(name)
        self._page.remember(explain=",".join(self._chosen))
        self._show_parameters()
        self._changed()

    # -------------------------------------------------------------------------------------------- parameters

    def _show_parameters(self) -> None:
        self._parameters.clear()
        with self._parameters:
            for name in self._chosen:
                explainer = self._info.explainers.get(name)
                if explainer is not None and explainer.parameters:
                    self._fields(explainer)

    def _fields(self, explainer: ExplainerInfo) -> None:
        with Folded(explainer.name).props("dense").classes("parameters"), div("fields"):
            for parameter in explainer.parameters.values():
                self._field(explainer.name, parameter)

    def _field(self, explainer: str, parameter: ParameterInfo) -> None:
        value = self._values.get(explainer, {}).get(parameter.name, parameter.default)

        def set_value(changed: ParameterValue) -> None:
            self._set_value(explainer, parameter, changed)

        field = self._input(parameter, value, set_value)
        field.props(f'data-parameter="{explainer}.{parameter.name}"')
        with field:
            what = self._page.say.told(f"parameter.{parameter.name}", parameter.description)
            ui.tooltip(what).props("max-width=320px delay=400")

    def _input(self, parameter: ParameterInfo, value: ParameterValue, act: Callable[[Any], None]) -> Element:
        choices = list(parameter.choices)
        if parameter.name == "layer" and not choices:
            choices = [each.name for each in self._info.layers if each.available]
        if parameter.type == "boolean":
            return checkbox(parameter.name, bool(value), act)
        if choices:
            shown = value if value in choices else None
            field = select(parameter.name, {each: each for each in choices}, shown, lambda event: act(event.value))
            return field.props("clearable") if shown is None else field
        if parameter.type in ("integer", "number"):
            whole = parameter.type == "integer"
            start = float(value) if isinstance(value, (int, float)) else None
            return _number(
                parameter.name,
                start,
                parameter.minimum,
                parameter.maximum,
                1 if whole else None,
                lambda number: act(number if number is None else int(number) if whole else number),
            )
        entry = ui.input(parameter.name, value=str(value or ""), on_change=lambda event: act(event.value or None))
        return entry.props("dense outlined").classes("field")

    def _set_value(self, explainer: str, parameter: ParameterInfo, value: ParameterValue) -> None:
        values = self._values.setdefault(explainer, {})
        if value is None or value == parameter.default:
            values.pop(parameter.name, None)
        else:
            values[parameter.name] = value
        self._changed()

    def _set_top(self, value: float | None) -> None:
        self._top = int(value or 1)
        self._page.remember(targets=self._top if self._top > 1 else None)
        self._changed()

    def _set_budget(self, value: float | None) -> None:
        self._budget = value
        self._changed()

    def _set_seed(self, value: float | None) -> None:
        self._seed = None if value is None else int(value)
        self._changed()


def _number(
    label: str,
    value: float | None,
    low: float | None,
    high: float | None,
    step: float | None,
    act: Callable[[float | None], None],
    hint: str = "",
) -> ui.number:
    options: Mapping[str, Any] = {} if step is None else {"step": step}
    field = ui.number(label, value=value, min=low, max=high, on_change=lambda event: act(event.value), **options)
    field.props("dense outlined" + (" step=any" if step is None else "")).classes("short-field")
    if hint:
        with field:
            ui.tooltip(hint).props("max-width=320px delay=400")
    return field
