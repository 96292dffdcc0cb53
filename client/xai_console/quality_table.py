"""Metrics × explainers: what was measured of whom, how sure that is, and a ranking by weights that the viewer moves."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from nicegui import ui

from xai_client import ExplainerQuality, Quality, QualityMeasure
from xai_console import telling
from xai_console.figures import number
from xai_console.markup import Content, Html, Markup, bar, join, tag
from xai_console.page import Page
from xai_console.parts import Folded, button, card, div, slider, text
from xai_console.sample_scores import metric_name
from xai_console.weighing import composite, missing


class QualityTable:
    """The table, with the weights above it.

    Args:
        page: What it is on.
        quality: What was measured.
        weighed: Called whenever a weight is moved.

    Attributes:
        weights: By metric, as the viewer has them.
    """

    def __init__(self, page: Page, quality: Quality, weighed: Callable[[], Any]) -> None:
        self._page, self._quality, self._weighed = page, quality, weighed
        self.weights = {name: self._weight(name) for name in quality.evaluator.metrics}
        with card(page.say("quality.table"), page.say("quality.table.how")):
            with Folded(page.say("quality.weights")).props("dense").classes("weights"):
                with div("row"):
                    for name in self.weights:
                        slider(
                            metric_name(self._page.say, name), self.weights[name], 0, 1, 0.05, partial(self._move, name)
                        )
                button(page.say("quality.weights.reset"), self._reset, "restart_alt")
            with div("scroll").props('tabindex="0" role="region"') as body:
                self._shown = Markup()
            body.props(f'aria-label="{page.say("quality.table")}"')
            text(page.say("quality.legend"), "hint", "p")
        self._draw()

    def show(self, quality: Quality) -> None:
        """Shows newer figures."""
        self._quality = quality
        self._draw()

    def _weight(self, metric: str) -> float:
        given = self._quality.weights.get(metric, 0.0)
        most = max(self._quality.weights.values(), default=1.0) or 1.0
        return self._page.number(f"w.{metric}", given / most, 0.0, 1.0)

    def _move(self, metric: str, value: float) -> None:
        self.weights[metric] = value
        self._page.remember(**{f"w.{metric}": f"{value:g}"})
        self._draw()
        self._weighed()

    def _reset(self) -> None:
        ui.navigate.to(self._page.path)

    # ------------------------------------------------------------------------------------------------ table

    @property
    def counting(self) -> dict[str, float]:
        """The weights of what was measured of anybody: what nobody has, for lack of truth, tells none apart."""
        measured = {name for each in self._quality.explainers.values() for name in self._goodness(each)}
        return {name: weight for name, weight in self.weights.items() if name in measured}

    def _composite(self, each: ExplainerQuality) -> float | None:
        """By the viewer's weights, less what the server takes off for maps that cannot be believed."""
        goodness, counting = self._goodness(each), self.counting
        score = composite(goodness, counting)
        given = composite(goodness, {name: self._quality.weights.get(name, 0.0) for name in counting})
        if score is None or not given or each.composite_score is None:
            return score
        return score * min(1.0, each.composite_score / given)

    def _goodness(self, each: ExplainerQuality) -> dict[str, float]:
        """What was measured often enough to count."""
        least = self._quality.min_sample_count
        return {name: one.goodness for name, one in each.quality.items() if one.sample_count >= least}

    def _draw(self) -> None:
        scored = [(each, self._composite(each)) for each in self._quality.explainers.values()]
        scored.sort(key=lambda row: -1.0 if row[1] is None else row[1], reverse=True)
        rows, rank = [], 0
        for each, score in scored:
            rank += not each.is_control and score is not None
            rows.append(self._row(each, score, rank))
        head = tag("thead", tag("tr", self._head()))
        self._shown.show(tag("table", head, tag("tbody", *rows), classes="table quality"))

    def _head(self) -> Html:
        say = self._page.say
        metrics = self._quality.evaluator.metrics
        return join(
            _th(say("quality.rank"), "num"),
            _th(say("filter.explainer")),
            _th(say("quality.composite"), "num"),
            *(
                _th(
                    metric_name(say, name),
                    "num" if self.counting.get(name) else "num uncounted",
                    f"{name}: {say.told(name, metric.description)}",
                )
                for name, metric in metrics.items()
            ),
        )

    def _lacking(self, each: ExplainerQuality) -> str:
        """What stands where no composite score is known: how far it is, of what is on its way."""
        counted = [one.sample_count for name, one in each.quality.items() if self.weights.get(name, 0) > 0]
        if not counted:
            return self._page.say("not_measured")
        return self._page.say("quality.progress", count=max(counted), least=self._quality.min_sample_count)

    def _row(self, each: ExplainerQuality, score: float | None, rank: int) -> Html:
        return tag(
            "tr",
            tag("td", str(rank) if score is not None and not each.is_control else "", classes="num number"),
            tag("td", self._who(each)),
            tag("td", self._score(each, score), classes="num composite"),
            *(self._cell(each.quality.get(name)) for name in self._quality.evaluator.metrics),
            classes="control" if each.is_control else "",
            data_explainer=each.explainer,
        )

    def _who(self, each: ExplainerQuality) -> Html:
        say = self._page.say
        pieces = [tag("span", each.explainer.removeprefix("control/"), classes="who")]
        if each.is_control:
            pieces.append(tag("span", say("quality.control"), classes="tag"))
        elif each.explainer == self._quality.auto_explainer:
            pieces.append(tag("span", "auto", classes="tag tag-good"))
        if each.standing is not None and not each.standing.eligible:
            why = telling.objection(each.standing, say)
            pieces.append(tag("span", say("quality.objection"), classes="tag tag-warn", data_tip=why))
        return join(*pieces)

    def _score(self, each: ExplainerQuality, score: float | None) -> Html:
        if score is not None:
            return join(tag("span", f"{score:.3f}", classes="number strong"), bar(score))
        say = self._page.say
        lacking = ", ".join(metric_name(say, name) for name in missing(self._goodness(each), self.counting))
        return tag("span", self._lacking(each), classes="hint", data_tip=say("quality.lacking", metrics=lacking))

    def _cell(self, measure: QualityMeasure | None) -> Html:
        say = self._page.say
        if measure is None:
            return tag("td", tag("span", say("not_measured"), classes="hint"), classes="num measure")
        arrow = "↑" if measure.higher_is_better else "↓"
        lines = [tag("span", f"{number(measure.mean)} {arrow}", classes="number")]
        if measure.interval is not None:
            low, high = map(number, measure.interval)
            lines.append(tag("span", f"{low} … {high}", classes="number small hint"))
        lines.append(tag("span", say("quality.n", count=measure.sample_count), classes="number small hint"))
        skill = None
        if measure.skill is not None:
            skill = say("quality.skill", control=measure.skill.control, value=number(measure.skill.value, 2))
        return tag("td", *lines, classes="num measure", data_tip=skill)


def _th(content: Content, classes: str = "", tip: str | None = None) -> Html:
    return tag("th", content, classes=classes, scope="col", data_tip=tip)
