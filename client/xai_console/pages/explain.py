"""Explain now: a picture of the viewer's own, predicted at once and explained while one watches."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final

from nicegui import background_tasks, ui

from xai_client import Explained, Explanation, ModelInfo, Predicted, Progress, XaiError
from xai_console import snippets, telling
from xai_console.drop import Drop
from xai_console.explainer_form import AUTO, ExplainerForm
from xai_console.gallery import Gallery
from xai_console.page import Entry, Page
from xai_console.parts import button, card, div, empty, text
from xai_console.prediction import ClassList
from xai_console.tiles import Tile

_TOP: Final = 8


async def build(page: Page, info: ModelInfo) -> None:
    """Makes the page."""
    _Explaining(page, info)


class _Explaining:
    """The page, and the call that it makes."""

    def __init__(self, page: Page, info: ModelInfo) -> None:
        self._page, self._info = page, info
        self._picture: bytes | None = None
        self._shown: tuple[str, tuple[int, int]] = ("", (1, 1))
        self._tiles: dict[str, Tile] = {}
        self._target: int | None = None
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
        with self._result:
            empty("add_photo_alternate", page.say("explain.empty"), [page.say("explain.empty.how")])
        ui.context.client.on_delete(self._stop)

    def _make_form(self) -> None:
        say = self._page.say
        with card(say("picture")):
            Drop(say, self._taken, lambda why: ui.notify(why, type="negative"))
            self._preview = ui.element("img").classes("preview").props(f'alt="{say("picture")}"')
            self._preview.set_visibility(False)
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
        self._picture, self._shown, self._target = kept.data, (url, size), None
        self._preview.props(f'src="{url}"')
        self._preview.set_visibility(True)
        self._go.enable()
        self._start()

    # --------------------------------------------------------------------------------------------- the call

    def _start(self, targets: list[int] | None = None) -> None:
        if self._picture is None:
            return
        self._stop()
        with self._result:
            self._task = background_tasks.create(self._run(self._picture, targets), context=self._result)

    def _stop(self) -> None:
        if self._task is not None and not self._task.done():
            self._task.cancel()

    async def _run(self, picture: bytes, targets: list[int] | None) -> None:
        self._gallery.clear()
        self._tiles.clear()
        self._result.clear()
        self._end.set_visibility(True)
        self._repeat()
        try:
            explain = self._form.explanations(targets)
            events = self._page.source.stream(
                picture, explain, top_k=min(_TOP, self._info.class_count), ood=self._info.ood is not None
            )
            async with contextlib.aclosing(events):
                async for event in events:
                    if isinstance(event, Predicted):
                        self._predicted(event, [each.name or each.explainer for each in explain], targets)
                    elif isinstance(event, Progress):
                        self._tiles[event.name].progress(event)
                    elif isinstance(event, Explained):
                        self._explained(event.explanation)
        except XaiError as error:
            with self._result:
                text(telling.error(error, self._page.say), "note").props('role="alert"')
        finally:
            self._end.set_visibility(False)
            for tile in self._tiles.values():
                tile.ended()

    def _predicted(self, event: Predicted, names: list[str], targets: list[int] | None) -> None:
        say, prediction = self._page.say, event.prediction
        url, size = self._shown
        box = prediction.region or (0.0, 0.0, float(size[0]), float(size[1]))
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
                        self._tiles[name] = Tile(self._page, self._gallery, name, url, size, box)
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
        server, picture = self._page.source.name, "picture.jpg"
        self._code.clear()
        with self._code:
            for language, lines in (
                ("Python", snippets.python_lines(server, picture, calls)),
                ("Shell", snippets.shell_lines(server, picture, calls)),
            ):
                _code(language, lines, self._page)


def _code(language: str, lines: str, page: Page) -> None:
    with div("stack code-block"):
        with div("row"):
            text(language, tag="h3")
            div("grow")
            button(page.say("copy"), lambda: ui.clipboard.write(lines), "content_copy", "small")
        text(lines, "code", "pre").props(f'data-language="{language}"')


ENTRY: Final = Entry("/explain", "explain", "center_focus_strong", build, of_model=True)
