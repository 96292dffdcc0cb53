"""Review: pictures that nobody has labelled, one after another, by keyboard."""

from __future__ import annotations

from typing import Any, Final

from nicegui import background_tasks, ui

from xai_client import ModelInfo, SampleFilter, SampleSummary, XaiError
from xai_console import sample_picture
from xai_console.chosen_sample import named
from xai_console.figures import percent
from xai_console.filter_form import first_map
from xai_console.overlay import Look, Overlay, Scene
from xai_console.page import Entry, Page, address
from xai_console.parts import button, card, div, empty, report, search_class, text, toggle, trouble
from xai_console.ranges import scale_by
from xai_console.sign_in import TELLS_TRUTH

_KEYS: Final = "123456789"
_BATCH: Final = 50
_ORDERS: Final = ("least_probable_first", "newest_first", "outliers_first")


async def build(page: Page, info: ModelInfo) -> None:
    """Makes the page."""
    await _Review(page, info).start()


class _Review:
    """The queue, and the picture at its head."""

    def __init__(self, page: Page, info: ModelInfo) -> None:
        self._page, self._info = page, info
        self._order = page.state.get("order", _ORDERS[0])
        if self._order not in _ORDERS:
            self._order = _ORDERS[0]
        self._queue: list[SampleSummary] = []
        self._skipped: set[str] = set()
        self._left = self._done = 0
        say = page.say
        with div("row"):
            toggle(say("order"), {each: say(f"order.{each}") for each in _ORDERS}, self._order, self._reorder)
            div("grow")
            self._count = text("", "hint number")
        self._body = div("review")
        ui.keyboard(on_key=self._pressed)

    async def start(self) -> None:
        """Fetches the queue, and shows its head."""
        await self._fetch()
        await self._show()

    async def _fetch(self) -> None:
        try:
            listed = await self._page.source.list_samples(
                SampleFilter(outcomes=["unknown"]),
                order=self._order,
                score_of=None,
                page_size=_BATCH,
                page_token="",
                map_of="",
            )
        except XaiError as error:
            self._body.clear()
            with self._body:
                trouble(error, self._page.say)
            return
        self._queue = [each for each in listed.samples if each.id not in self._skipped and each.classes]
        self._left = listed.total_count or 0

    def _reorder(self, order: str) -> None:
        self._order = order
        self._page.remember(order=order)
        background_tasks.create(self.start(), context=self._body)

    async def _show(self) -> None:
        say = self._page.say
        self._count.set_text(say("review.left", count=f"{self._left:,}", done=self._done))
        self._body.clear()
        with self._body:
            if not self._queue:
                empty("task_alt", say("review.empty"), [say("review.empty.how")])
                return
            try:
                await self._picture(self._queue[0])
            except XaiError as error:
                trouble(error, say)

    async def _picture(self, summary: SampleSummary) -> None:
        say = self._page.say
        sample = await self._page.source.sample(summary.request_id, summary.image_index)
        shown = sample_picture.shown(sample, self._page.console.shelf)
        with div("split review-split"):
            with card(say("review.which"), say("review.keys")):
                with div("stack answers"):
                    for key, each in zip(_KEYS, summary.classes, strict=False):
                        self._answer(key, each.class_id, each.label, percent(each.probability))
                search_class(self._page, self._info.labels, say("class.other"), None, self._label, classes="wide")
                with div("row"):
                    button(say("review.skip"), self._skip, "skip_next")
                    link = address("/sample", named(summary))
                    text(say("review.open"), tag="a").props(f'href="{link}"')
            with card(classes="review-picture"), div("tiles two"):
                plain = Scene(shown.url, shown.size, shown.region, label=say("picture"))
                Overlay(plain, Look(mode="picture", frame=True), say, legend=False)
                made = sample.explanations.get(first_map(self._info))
                values = made.maps[0].values if made is not None and made.maps else None
                if made is not None and values is not None:
                    grid = self._page.console.shelf.grid(values)
                    scene = Scene(
                        shown.url, shown.size, shown.region, grid, scale_by("auto", values), label=made.explainer
                    )
                    Overlay(scene, Look(), say)

    def _answer(self, key: str, class_id: int, label: str, probability: str) -> None:
        with ui.element("button").classes("answer").props(f'type="button" data-truth="{class_id}"') as made:
            text(key, "key")
            text(label, "class-name")
            text(probability, "number hint")
        made.on("click", lambda: self._label(class_id))

    # ---------------------------------------------------------------------------------------------- answers

    def _pressed(self, event: Any) -> None:
        if not event.action.keydown or event.action.repeat or not self._queue:
            return
        key, classes = event.key.name, self._queue[0].classes
        if key in _KEYS and _KEYS.index(key) < len(classes):
            self._label(classes[_KEYS.index(key)].class_id)
        elif key == "Enter":
            self._label(classes[0].class_id)
        elif key in ("s", " "):
            self._skip()

    def _label(self, class_id: int | None) -> None:
        if class_id is not None and self._queue:
            background_tasks.create(self._send(self._queue.pop(0), class_id), context=self._body)

    def _skip(self) -> None:
        if self._queue:
            self._skipped.add(self._queue.pop(0).id)
            background_tasks.create(self._next(), context=self._body)

    async def _send(self, summary: SampleSummary, class_id: int) -> None:
        try:
            await self._page.source.report_ground_truth(
                summary.request_id, summary.image_index, [class_id], [], keep=True
            )
        except XaiError as error:
            report(error, self._page.say)
        else:
            self._done += 1
            self._left = max(0, self._left - 1)
        self._skipped.add(summary.id)
        await self._next()

    async def _next(self) -> None:
        if not self._queue:
            await self._fetch()
        await self._show()


ENTRY: Final = Entry(
    "/review", "review", "fact_check", build, of_samples=True, of_model=True, roles=("read", *TELLS_TRUTH)
)
