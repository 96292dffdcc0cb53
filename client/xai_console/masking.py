"""What a map stands on: how the prediction falls while the model loses what is salient, and how little is enough."""

from __future__ import annotations

import io
from typing import Any

from nicegui import ui

from xai_client import ModelInfo, Sample
from xai_client.samples import MaskingCurve, SampleExplanation
from xai_console.charts import Chart, curve_options
from xai_console.figures import percent
from xai_console.filter_form import first_map
from xai_console.page import Page
from xai_console.parts import Slider, card, div, select, slider, text, toggle
from xai_console.sample_picture import masked
from xai_console.shelf import url_of


class Masking:
    """The curves of a sample's maps, with the picture at each step.

    Args:
        page: What it is on.
        info: The model.
        sample: The sample.
    """

    def __init__(self, page: Page, info: ModelInfo, sample: Sample) -> None:
        self._page, self._info = page, info
        self._curved = {name: each for name, each in sample.explanations.items() if each.curves and not each.withheld}
        if not self._curved:
            return
        self._seen = sample.picture
        wanted = page.state.get("stands", "")
        best = first_map(info)
        self._name = next(each for each in (wanted, best, *self._curved) if each in self._curved)
        self._kind = "insertion"
        # Half of what it was, where the viewer has not chosen yet.
        self._enough = max(0.05, round(sample.summary.classes[0].probability / 2, 2))
        with card(page.say("masking"), page.say("masking.how"), "masking"):
            with div("row"):
                names = {name: name for name in self._curved}
                select(page.say("filter.explainer"), names, self._name, lambda event: self._choose(event.value))
                kinds = {kind: page.say(f"masking.{kind}") for kind in ("insertion", "deletion")}
                toggle(page.say("masking"), kinds, self._kind, self._turn)
                slider(page.say("masking.enough"), self._enough, 0.05, 0.99, 0.01, self._set_enough)
            with div("masking-parts"):
                self._chart = Chart({}, self._clicked, classes="chart-wide", label=page.say("masking"))
                with div("stack masking-picture"):
                    self._picture = ui.element("img").classes("masked").props(f'alt="{page.say("masking.picture")}"')
                    self._said = text("", "hint number", "p")
            with div("row"):
                self._steps = Slider(
                    min=0, max=1, step=1, value=0, on_change=lambda event: self._show(int(event.value))
                )
                self._steps.props(f'dense markers aria-label="{page.say("masking.step")}"').classes("grow steps")
            self._verdict = text("", "verdict", "p")
        self._draw()

    @property
    def _made(self) -> SampleExplanation:
        return self._curved[self._name]

    @property
    def _curve(self) -> MaskingCurve:
        curves = self._made.curves
        return curves.get(self._kind) or next(iter(curves.values()))

    def _choose(self, name: str) -> None:
        self._name = name
        self._page.remember(stands=name)
        self._draw()

    def _turn(self, kind: str) -> None:
        self._kind = kind
        self._draw()

    def _set_enough(self, value: float) -> None:
        self._enough = value
        self._draw()

    def _clicked(self, event: Any) -> None:
        self._steps.set_value(event.data_index)

    def _draw(self) -> None:
        """Draws the curves, and goes to the step of the smallest region that is enough."""
        say = self._page.say
        lines = {say(f"masking.{kind}"): _points(curve) for kind, curve in self._made.curves.items()}
        self._chart.show(curve_options(lines, say("masking.share"), say("probability"), self._enough))
        self._steps._props["max"] = len(self._curve.pixel_counts) - 1
        self._steps.update()
        step = smallest_step(self._curve, self._enough)
        self._verdict.set_text(self._say_enough(step))
        chosen = step if step is not None else len(self._curve.pixel_counts) - 1
        if chosen == self._steps.value:
            self._show(chosen)
        else:
            self._steps.set_value(chosen)

    def _say_enough(self, step: int | None) -> str:
        say, curve = self._page.say, self._curve
        if step is None:
            return say(f"masking.never.{curve.kind}", enough=percent(self._enough))
        part = percent(curve.pixel_counts[step] / curve.pixel_counts[-1])
        return say(f"masking.verdict.{curve.kind}", part=part, enough=percent(self._enough))

    def _show(self, step: int) -> None:
        """Shows what the model sees at a step."""
        curve = self._curve
        step = min(step, len(curve.pixel_counts) - 1)
        part = percent(curve.pixel_counts[step] / curve.pixel_counts[-1])
        probability = percent(curve.probabilities[step])
        self._said.set_text(self._page.say(f"masking.at.{curve.kind}", part=part, probability=probability))
        values = self._made.maps[0].values
        if self._seen is None or values is None:
            return
        buffer = io.BytesIO()
        masked(self._seen, values, curve, step, self._info).save(buffer, "PNG", compress_level=1)
        self._picture.props(f'src="{url_of(self._page.console.shelf.put(buffer.getvalue(), "image/png"))}"')


def smallest_step(curve: MaskingCurve, enough: float) -> int | None:
    """The first step of an insertion that reaches a probability, or of a deletion that falls below it; None if none."""
    reached = (
        probability >= enough if curve.kind == "insertion" else probability < enough
        for probability in curve.probabilities
    )
    return next((step for step, done in enumerate(reached) if done), None)


def _points(curve: MaskingCurve) -> list[tuple[float, float]]:
    most = curve.pixel_counts[-1]
    return [
        (count / most, probability) for count, probability in zip(curve.pixel_counts, curve.probabilities, strict=True)
    ]
