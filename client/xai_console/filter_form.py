"""The filters of a list of samples; what is chosen stands in the URL."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from nicegui import ui
from nicegui.element import Element

from xai_client import ModelInfo
from xai_console.figures import duration
from xai_console.page import Page, address
from xai_console.parts import button, div, fill_once, press, search_class, select, select_several, slider, text
from xai_console.query import MAP_STATUSES, ORDERS, OUTCOMES, Query, read_query
from xai_console.sample_scores import metric_name
from xai_console.times import Times

_PRESETS: Final = (1.0, 24.0, 168.0)
_ALWAYS: Final = 0.0
_OWN: Final = -1.0


class FilterForm:
    """Filters to choose.

    Args:
        page: Whose URL keeps them.
        info: The model: its classes, explainers and metrics.
        changed: Called with the query after each choice.

    Attributes:
        query: What is chosen.
    """

    def __init__(self, page: Page, info: ModelInfo, changed: Callable[[Query], Any]) -> None:
        self._page, self._info, self._changed = page, info, changed
        self.query = first_query(page, info)
        self._chips: dict[str, Element] = {}
        self._scores = _names(info)
        self._make()

    def _make(self) -> None:
        say, query = self._page.say, self.query
        with div("row filters"):
            for name in ("predicted", "true"):
                self._classes(say(f"filter.{name}"), name)
            with div("row chips").props(f'role="group" aria-label="{say("filter.outcome")}"'):
                for outcome in OUTCOMES:
                    self._chip(outcome)
            slider(say("filter.pmin"), query.pmin or 0.0, 0, 1, 0.01, lambda value: self._set(pmin=value or None))
            self._one(say("order"), {each: say(f"order.{each}") for each in ORDERS}, query.order, "order")
            maps = {"": say("filter.no_map"), **{name: name for name in self._scores}}
            self._one(say("filter.maps"), maps, query.maps, "maps")
            more = button(say("more"), self._turn_more, "tune")
            more.props(f'aria-label="{say("filter.more")}"')
        with div("row"):
            text(say("filter.look"), "hint")
            for name, choices in self._looks().items():
                link = address(self._page.path, choices)
                text(say(f"filter.look.{name}"), tag="a").props(f'href="{link}" data-look="{name}"')
        self._more = div("row filters more")
        self._more.set_visibility(False)
        numbers = (query.hours, query.start, query.end, query.oodmin, query.oodmax, query.pmax)
        if query.status or query.of or query.needs_score or any(each is not None for each in numbers):
            self._turn_more()

    def _turn_more(self) -> None:
        """Shows the filters that few want, or hides them; they are made when they are wanted first."""
        fill_once(self._more, self._make_more)
        self._more.set_visibility(not self._more.visible)

    def _looks(self) -> Mapping[str, Mapping[str, str]]:
        """Lists that most viewers want, by what they show."""
        found: dict[str, Mapping[str, str]] = {"wrong": {"outcome": "false_positive", "order": "most_probable_first"}}
        best = first_map(self._info)
        metrics = self._info.evaluator.metrics if self._info.evaluator else {}
        if best and metrics:
            by_score = {"order": "worst_score_first", "explainer": best, "metric": next(iter(metrics)), "maps": best}
            found["reasons"] = {"outcome": "true_positive", **by_score}
            found["worst"] = by_score
        return found

    def _make_more(self) -> None:
        say, query = self._page.say, self.query
        self._bound(say("filter.pmax"), query.pmax, "pmax", 0, 1, 0.01)
        if self._info.ood is not None:
            self._bound(say("filter.oodmin"), query.oodmin, "oodmin", 0, 100, 1)
            self._bound(say("filter.oodmax"), query.oodmax, "oodmax", 0, 100, 1)
        explainers = {"": say("filter.any"), **{name: name for name in self._scores}}
        self._several(
            say("filter.status"), {each: say(f"status_of.{each}") for each in MAP_STATUSES}, query.status, "status"
        )
        self._one(say("filter.of"), explainers, query.of, "of")
        self._one(say("filter.explainer"), explainers, query.explainer, "explainer")
        metrics = self._info.evaluator.metrics if self._info.evaluator else {}
        self._one(
            say("filter.metric"),
            {"": say("filter.any"), **{name: metric_name(say, name) for name in metrics}},
            query.metric,
            "metric",
        )
        self._bound(say("filter.smin"), query.smin, "smin", None, None, 0.01)
        self._bound(say("filter.smax"), query.smax, "smax", None, None, 0.01)
        self._make_time()
        button(say("filter.reset"), self._reset, "restart_alt")

    def _make_time(self) -> None:
        """So many hours past, or a beginning and an end."""
        say, query = self._page.say, self.query
        spans = {_ALWAYS: say("filter.always"), **{each: duration(say, 3600 * each) for each in _PRESETS}}
        if query.hours is not None and query.hours not in spans:
            spans[query.hours] = say("hours", count=f"{query.hours:.12g}")
        spans[_OWN] = say("filter.own_time")
        shown = query.hours if query.hours is not None else _ALWAYS if query.start is query.end is None else _OWN
        select(say("filter.hours"), spans, shown, lambda event: self._choose_time(event.value))
        self._times = div("contents")
        if shown == _OWN:
            self._make_times()

    def _make_times(self) -> None:
        with self._times:
            Times(self._page.say, self.query.start, self.query.end, lambda name, time: self._set(**{name: time}))

    def _choose_time(self, chosen: float) -> None:
        self._times.clear()
        self._set(hours=chosen if chosen > 0 else None, start=None, end=None)
        if chosen == _OWN:
            self._make_times()

    def _chip(self, outcome: str) -> None:
        with ui.element("button").classes("chip").props(f'type="button" data-outcome="{outcome}"') as chip:
            text(self._page.say(f"flag.{outcome}"))
            ui.tooltip(self._page.say(f"flag_what.{outcome}")).props("delay=400")
        self._chips[outcome] = chip
        chip.on("click", lambda: self._flip(outcome))
        self._mark(outcome)

    def _mark(self, outcome: str) -> None:
        press(self._chips[outcome], outcome in self.query.outcome)

    def _flip(self, outcome: str) -> None:
        chosen = set(self.query.outcome) ^ {outcome}
        self._set(outcome=tuple(each for each in OUTCOMES if each in chosen))
        self._mark(outcome)

    def _classes(self, label: str, name: str) -> None:
        def chosen(ids: list[int] | None) -> None:
            self._set(**{name: tuple(ids or ())})

        labels = self._info.labels
        search_class(self._page, labels, label, list(getattr(self.query, name)), chosen, multiple=True)

    def _several(self, label: str, options: Mapping[Any, str], chosen: Sequence[Any], name: str) -> None:
        made = select_several(label, options, chosen)
        made.on_value_change(lambda event: self._set(**{name: tuple(event.value or ())}))

    def _one(self, label: str, options: Mapping[str, str], chosen: str, name: str) -> None:
        shown = chosen if chosen in options else next(iter(options))
        select(label, options, shown, lambda event: self._set(**{name: event.value}))

    def _bound(
        self, label: str, value: float | None, name: str, low: float | None, high: float | None, step: float
    ) -> None:
        made = ui.number(label, value=value, min=low, max=high, step=step)
        made.props("dense outlined debounce=300").classes("short-field")
        made.on_value_change(lambda event: self._set(**{name: event.value}))

    def _set(self, **changes: Any) -> None:
        self.query = replace(self.query, **changes)
        self._page.remember(**self.query.state())
        self._changed(self.query)

    def _reset(self) -> None:
        ui.navigate.to(self._page.path)


def first_query(page: Page, info: ModelInfo) -> Query:
    """What is chosen when the page is opened."""
    query = read_query(page.state)
    return query if "maps" in page.state else replace(query, maps=first_map(info))


def _names(info: ModelInfo) -> list[str]:
    """Explainers that can be used, then controls."""
    controls = list(info.evaluator.controls) if info.evaluator is not None else []
    return [name for name, each in info.explainers.items() if each.available] + controls


def first_map(info: ModelInfo) -> str:
    """The explainer whose maps are shown unless another is chosen: the best measured one, else the cheapest."""
    usable = [each for each in info.explainers.values() if each.available]
    measured = [each for each in usable if each.composite_score is not None]
    if measured:
        return max(measured, key=lambda each: each.composite_score or 0.0).name
    return next((each.name for each in usable if each.name == "gradcam"), usable[0].name if usable else "")
