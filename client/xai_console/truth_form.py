"""Truth in two clicks: what a picture really shows, and where."""

from __future__ import annotations

from typing import Any

from nicegui import background_tasks, ui

from xai_client import ArgumentError, GroundTruthObject, ModelInfo, Sample, TruthObject, XaiError
from xai_console.overlay import Overlay
from xai_console.page import Page
from xai_console.parts import button, card, div, report, search_class, text, toggle
from xai_console.sign_in import TELLS_TRUTH, may


class TruthForm:
    """What is known of a sample's truth, and a form to report it.

    Args:
        page: What it is on.
        info: The model.
        sample: The sample.
        picture: Where shapes are drawn.
    """

    def __init__(self, page: Page, info: ModelInfo, sample: Sample, picture: Overlay) -> None:
        self._page, self._info, self._sample, self._picture = page, info, sample, picture
        say = page.say
        self._shapes: list[dict[str, Any]] = []  # drawn, and not reported yet
        self._anew = False  # whether a report replaces what is known
        with card(say("truth"), classes="truth"):
            self._known = text("", "hint", "p")
            self._has_form = not info.run and may(page, info, TELLS_TRUTH)
            if self._has_form:
                self._form()
        picture.on_shape(self._drawn)
        self.show(sample)

    def _form(self) -> None:
        say, sample, info = self._page.say, self._sample, self._info
        with div("stack"):
            with div("row chips"):
                for each in sample.summary.classes[:3]:
                    button(each.label, lambda each=each: self._report([each.class_id]), classes="small").props(
                        f'data-truth="{each.class_id}"'
                    )
            self._classes = search_class(
                self._page, info.labels, say("truth.classes"), [], multiple=True, classes="wide"
            )
            with div("row"):
                kinds = {"": say("truth.none"), "box": say("truth.box"), "polygon": say("truth.polygon")}
                self._kind = toggle(say("truth.draw"), kinds, "", self._draw)
            self._hint = text("", "hint", "p")
            with div("row"):
                button(say("truth.report"), self._report, "check", "primary")
                button(say("truth.clear"), self._clear, "undo")

    def show(self, sample: Sample) -> None:
        """Shows what is known now."""
        self._sample = sample
        say, truth = self._page.say, sample.summary.truth
        if truth is None:
            self._known.set_text(say("truth.unknown" if self._has_form else "truth.not_known"))
            return
        labels = ", ".join(truth.labels) or say("truth.no_label")
        applied = say("truth.applied") if truth.applied else say("truth.waiting")
        self._known.set_text(say("truth.known", labels=labels, objects=truth.object_count, applied=applied))
        self._show_shapes()

    def _draw(self, kind: str) -> None:
        self._picture.draw("box" if kind == "box" else "polygon" if kind == "polygon" else "")
        self._hint.set_text(self._page.say(f"truth.{kind}.how") if kind else "")

    def _drawn(self, kind: str, points: list[list[float]]) -> None:
        self._shapes.append({"kind": kind, "points": points})
        self._show_shapes()

    def _show_shapes(self) -> None:
        known = [shape for shape in map(_outline, self._known_objects()) if shape]
        self._picture.outline([*known, *self._shapes])

    def _known_objects(self) -> tuple[TruthObject, ...]:
        """What was reported before, and stays."""
        truth = self._sample.summary.truth
        return () if truth is None or self._anew else truth.objects

    def _clear(self) -> None:
        self._shapes.clear()
        self._anew = True
        self._classes.set_value([])
        self._show_shapes()

    def _report(self, class_ids: list[int] | None = None) -> None:
        chosen = class_ids if isinstance(class_ids, list) else list(self._classes.value or [])
        background_tasks.create(self._send(chosen), context=ui.context.client)

    async def _send(self, class_ids: list[int]) -> None:
        say, summary = self._page.say, self._sample.summary
        objects = [_object(each) for each in self._shapes]
        if objects:
            objects = [*map(_again, self._known_objects()), *objects]
        try:
            doubts = await self._page.source.report_ground_truth(
                summary.request_id, summary.image_index, class_ids, objects, keep=not self._anew
            )
        except ArgumentError:
            ui.notify(say("truth.nothing"), type="warning")
            return
        except XaiError as error:
            report(error, say)
            return
        self._shapes.clear()
        self._anew = False
        self._kind.set_value("")
        ui.notify(say("truth.taken"), type="positive")
        for doubt in doubts:
            ui.notify(say.told("truth.doubt", doubt), type="warning", multi_line=True)


def _object(shape: dict[str, Any]) -> GroundTruthObject:
    points = shape["points"]
    if shape["kind"] == "box":
        return GroundTruthObject(box=(*points[0], *points[1]))
    return GroundTruthObject(polygon=points)


def _again(known: TruthObject) -> GroundTruthObject:
    """Something that was reported before, to be reported with what is new."""
    return GroundTruthObject(
        box=known.box, polygon=known.polygon or None, mask=known.mask_png or None, class_id=known.class_id
    )


def _outline(shape: Any) -> dict[str, Any] | None:
    if shape.box is not None:
        left, top, right, bottom = shape.box
        return {"kind": "box", "points": [[left, top], [right, bottom]]}
    if shape.polygon:
        return {"kind": "polygon", "points": [list(point) for point in shape.polygon]}
    return None
