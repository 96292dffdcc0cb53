"""Explain now: a picture of the viewer's own, or a sample, predicted at once and explained while one watches."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from nicegui import background_tasks, ui

from xai_client import Explained, Explanation, ImageLike, ModelInfo, Predicted, Progress, SampleSummary, XaiError
from xai_console import sample_picture, snippets, telling
from xai_console.chosen_sample import chosen_sample, named
from xai_console.drop import Drop
from xai_console.explainer_form import AUTO, ExplainerForm
from xai_console.gallery import Gallery
from xai_console.overlay import Look, Overlay, Scene
from xai_console.page import Entry, Page, address
from xai_console.parts import button, card, div, empty, text, trouble
from xai_console.prediction import ClassList
from xai_console.sample_picture import Shown
from xai_console.sample_strip import SampleStrip
from xai_console.sign_in import MAKES_MAPS
from xai_console.tiles import Tile

_TOP: Final = 8


async def build(page: Page, info: ModelInfo) -> None:
    """Makes the page."""
    _Explaining(page, info)


@dataclass(frozen=True)
class _Chosen:
    """What is explained.

    Attributes:
        image: As the SDK takes it: the file of a picture, or the model input of a sample.
        shown: Where it can be seen.
        sample: The sample; None for a picture of the viewer's own.
    """

    image: ImageLike
    shown: Shown
    sample: SampleSummary | None = None


class _Explaining:
    """The page, and the call that it makes."""

    def __init__(self, page: Page, info: ModelInfo) -> None:
        self._page, self._info = page, info
        self._chosen: _Chosen | None = None
        self._tiles: dict[str, Tile] = {}
        self._target: int | None = None
        self._strip: SampleStrip | None = None
        self._task: asyncio.Task[None] | None = None
        self._gallery = Gallery(page)
        with div("split"):
            with div("stack"):
                self._make_form()
            with div("stack"):
                self._result = div("stack result")
                with card(page.say("repeat")):
                    self._code = div("halves")
        self._repeat()
        ui.context.client.on_delete(self._stop)
        if page.state.get("request"):
            self._begin(self._take_sample)
        else:
            with self._result:
                empty("add_photo_alternate", page.say("explain.empty"), [page.say("explain.empty.how")])

    def _make_form(self) -> None:
        say = self._page.say
        with card(say("picture")):
            Drop(say, self._taken, lambda why: ui.notify(why, type="negative"))
            self._preview = div("stack preview")
            if self._info.evaluator is not None:
                self._strip = SampleStrip(self._page, self._choose_sample)
                background_tasks.create(self._strip.fill(), context=ui.context.client)
        with card(say("explainers")):
            first = AUTO if self._info.evaluator is not None else next(iter(self._info.explainers))
            cheap = [name for name in ("gradcam",) if name in self._info.explainers]
            self._form = ExplainerForm(
                self._page, self._info, (*cheap, first) if first not in cheap else (first,), self._repeat
            )
            with div("row"):
                self._go = button(say("explain.go"), self._start, "play_arrow", "primary")
                self._end = button(say("explain.stop"), self._stop, "stop")
            self._go.disable()
            self._end.set_visibility(False)

    # ------------------------------------------------------------------------------------------ the picture

    def _taken(self, name: str, url: str, size: tuple[int, int]) -> None:
        kept = self._page.console.shelf.get(name)
        if kept is None:
            return
        self._page.remember(request=None, index=None)
        self._take(_Chosen(kept.data, Shown(url, size, (0.0, 0.0, float(size[0]), float(size[1])))))
        self._start()

    def _choose_sample(self, sample: SampleSummary) -> None:
        self._page.remember(request=sample.request_id, index=sample.image_index or None)
        self._begin(self._take_sample)

    async def _take_sample(self) -> None:
        """Takes the sample that the URL names, and explains what the model saw of it."""
        self._take(None)
        self._clear()
        with self._result:
            try:
                sample = await chosen_sample(self._page)
            except XaiError as error:
                trouble(error, self._page.say)
                return
            if sample is None:
                return
            image = sample.model_input(self._info.input)
            if image is None:
                how = self._page.say("sample.no_picture.how")
                empty("image_not_supported", self._page.say("sample.cannot_explain"), [how])
                return
        self._take(_Chosen(image, sample_picture.shown(sample, self._page.console.shelf), sample.summary))
        await self._run()

    def _take(self, chosen: _Chosen | None) -> None:
        """Shows what is to be explained, or nothing until that is known."""
        say = self._page.say
        sample = None if chosen is None else chosen.sample
        self._chosen, self._target = chosen, None
        self._go.set_enabled(chosen is not None)
        if self._strip is not None:
            self._strip.press("" if sample is None else sample.id)
        self._preview.clear()
        if chosen is None:
            return
        with self._preview:
            scene = Scene(chosen.shown.url, chosen.shown.size, chosen.shown.region, label=say("picture"))
            self._picture = Overlay(scene, Look(mode="picture", frame=sample is not None), say, legend=False)
            if sample is not None:
                link = address("/sample", named(sample))
                text(say("review.open"), tag="a").props(f'href="{link}"')

    # --------------------------------------------------------------------------------------------- the call

    def _start(self, targets: list[int] | None = None) -> None:
        if self._chosen is not None:
            self._begin(partial(self._run, targets))

    def _begin(self, work: Callable[[], Awaitable[None]]) -> None:
        """Does something in the place of what is being done."""
        self._stop()
        self._task = background_tasks.create(self._until_stopped(work), context=self._result)

    async def _until_stopped(self, work: Callable[[], Awaitable[None]]) -> None:
        self._end.set_visibility(True)
        try:
            await work()
        finally:
            if asyncio.current_task() is self._task:  # nothing else has taken its place
                self._end.set_visibility(False)
                for tile in self._tiles.values():
                    tile.ended()

    def _stop(self) -> None:
        if self._task is not None and not self._task.done():
            self._task.cancel()

    def _clear(self) -> None:
        self._gallery.clear()
        self._tiles.clear()
        self._result.clear()
        self._repeat()

    async def _run(self, targets: list[int] | None = None) -> None:
        chosen = self._chosen
        if chosen is None:
            return
        self._clear()
        try:
            explain = self._form.explanations(targets)
            events = self._page.source.stream(
                chosen.image, explain, top_k=min(_TOP, self._info.class_count), ood=self._info.ood is not None
            )
            async with contextlib.aclosing(events):
                async for event in events:
                    if isinstance(event, Predicted):
                        self._predicted(event, chosen.shown, [each.name or each.explainer for each in explain], targets)
                    elif isinstance(event, Progress):
                        self._tiles[event.name].progress(event)
                    elif isinstance(event, Explained):
                        self._explained(event.explanation)
        except XaiError as error:
            with self._result:
                text(telling.error(error, self._page.say), "note").props('role="alert"')

    def _predicted(self, event: Predicted, shown: Shown, names: list[str], targets: list[int] | None) -> None:
        say, prediction = self._page.say, event.prediction
        region = prediction.region or shown.region
        self._picture.show(region=region)
        self._picture.look(Look(mode="picture", frame=True))
        with self._result:
            with card(say("prediction"), say("prediction.how") if names else ""):
                self._classes = ClassList(prediction.classes, self._choose)
                if prediction.ood_percentile is not None:
                    text(say("ood", percentile=f"{prediction.ood_percentile:.0f}"), "hint", "p")
            if not names:
                return
            with card(say("maps")):
                self._gallery.controls()
                with div("tiles"):
                    for name in names:
                        self._tiles[name] = Tile(self._page, self._gallery, name, shown.url, shown.size, region)
        self._classes.press(targets[0] if targets else None)

    def _explained(self, explanation: Explanation) -> None:
        tile = self._tiles[explanation.name]
        tile.show(explanation, self._target)
        if self._target is None and explanation.maps:
            self._classes.press(explanation.maps[0].class_id)
        self._repeat()

    def _choose(self, class_id: int) -> None:
        """Shows the maps of a class, which is explained first if it was not yet."""
        self._target = class_id
        self._classes.press(class_id)
        if not all(tile.switch(class_id) for tile in self._tiles.values()):
            self._start([class_id])

    # ------------------------------------------------------------------------------------------ to repeat it

    def _repeat(self) -> None:
        """Writes the lines that ask the same, with what the server drew or chose once that is known."""
        calls: dict[str, dict[str, Any]] = {name: dict(options) for name, options in self._form.calls.items()}
        for name, options in calls.items():
            tile = self._tiles.get(name)
            if self._target is not None:
                options.pop("top_count", None)
                options["targets"] = [self._target]
            if tile is not None and tile.explanation is not None and tile.explanation.seed is not None:
                options["seed"] = tile.explanation.seed
        self._code.clear()
        with self._code:
            for language, lines in self._lines(calls).items():
                _code(language, lines, self._page)

    def _lines(self, calls: dict[str, dict[str, Any]]) -> dict[str, str]:
        """By language; no command of a shell takes a sample."""
        server, picture = self._page.source.name, "picture.jpg"
        sample = None if self._chosen is None else self._chosen.sample
        if sample is not None:
            return {"Python": snippets.sample_lines(server, sample.request_id, sample.image_index, calls)}
        return {
            "Python": snippets.python_lines(server, picture, calls),
            "Shell": snippets.shell_lines(server, picture, calls),
        }


def _code(language: str, lines: str, page: Page) -> None:
    with div("stack code-block"):
        with div("row"):
            text(language, tag="h3")
            div("grow")
            button(page.say("copy"), lambda: ui.clipboard.write(lines), "content_copy", "small")
        text(lines, "code", "pre").props(f'data-language="{language}"')


ENTRY: Final = Entry("/explain", "explain", "center_focus_strong", build, of_model=True, roles=MAKES_MAPS)
