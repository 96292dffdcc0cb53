"""The maps of one sample, all of the same class; the server makes those that there are not yet."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Final

from nicegui import background_tasks, ui

from xai_client import Event, Explain, Explained, Explanation, ModelInfo, Predicted, Progress, Sample, XaiError
from xai_console.figures import percent
from xai_console.gallery import Gallery
from xai_console.page import Page
from xai_console.parts import report
from xai_console.sample_picture import Shown
from xai_console.sample_scores import metric_order, score_badge, score_lines
from xai_console.sign_in import MAKES_MAPS, PREDICTS, lacking, role_needed
from xai_console.tiles import Line, Tile

_QUICK: Final = 2
"""Passes up to which an explanation is asked for without being told to."""


class SampleMaps:
    """Tiles of one sample.

    Args:
        page: What they are on.
        info: The model.
        gallery: What draws the maps.
        sample: The sample.
        shown: Its picture.
        target: The class of the maps.
        tell: Called with the class of the maps and what there is to say of its probability.

    Attributes:
        sample: The sample, as it was read last.
        target: The class of the maps.
    """

    def __init__(
        self,
        page: Page,
        info: ModelInfo,
        gallery: Gallery,
        sample: Sample,
        shown: Shown,
        target: int,
        tell: Callable[[int, str], Any],
    ) -> None:
        self._page, self._info, self._gallery, self._shown, self._tell = page, info, gallery, shown, tell
        self.sample, self.target = sample, target
        self._probabilities: dict[int, float | None] = {  # None where it cannot be known
            each.class_id: each.probability for each in sample.summary.classes
        }
        self._tiles: dict[str, Tile] = {}
        self._before: dict[str, dict[str, float]] = {}  # scores by explainer, before the last change
        self._explained: dict[tuple[str, int], Explanation] = {}  # made for the viewer, by explainer and class
        self._asking: asyncio.Task[None] | None = None
        self._metrics = metric_order(page, info)

    # ------------------------------------------------------------------------------------------------- tiles

    def hang(self, names: Sequence[str]) -> None:
        """Adds a tile for each of some explainers or controls, where the page is being made.

        Of those that have no map of the class yet, all are asked for where the viewer chose the class; else the quick.
        """
        for name in names:
            url, size, region = self._shown.url, self._shown.size, self._shown.region
            of = self.sample.summary.id
            self._tiles[name] = Tile(self._page, self._gallery, name, url, size, region, of=of)
        missing = [name for name in names if not self._show(name)]
        classes = self.sample.summary.classes
        by_itself = bool(classes) and self.target == classes[0].class_id
        self._ask(missing, quick_explainers(self._info) if by_itself else missing)
        self._tell_probability()

    def clear(self) -> None:
        """Ends all calls and forgets all tiles; whoever made the place of them takes them down."""
        self.stop()
        for tile in self._tiles.values():
            tile.forget()
        self._tiles.clear()

    def stop(self) -> None:
        """Ends all calls."""
        if self._asking is not None:
            self._asking.cancel()
            self._asking = None

    def choose(self, class_id: int) -> None:
        """Shows the maps of a class; the server makes those that there are not yet, or no longer."""
        if class_id == self.target and self._is_busy:
            return  # they are on their way
        self.stop()
        self.target = class_id
        for name in self._tiles:
            self._show(name)
        missing = [name for name in self._tiles if not self._is_there(name)]
        asked = self._ask(missing, missing)
        self._tell_probability()
        if not asked and any(map(self._is_usable, missing)):
            self._say_why()

    def refresh(self, sample: Sample) -> bool:
        """Takes what is new of the sample, and shows which scores are others than before.

        Returns:
            False where there are explanations for which there is no tile.
        """
        for name, made in self.sample.explanations.items():
            self._before[name] = {key: each.value for key, each in made.scores.items() if each.value is not None}
        known = self._tiles.keys() | self.sample.explanations.keys()
        self.sample = sample
        for name in self._tiles:
            if self._kept(name) is not None:
                self._show(name)
        return sample.explanations.keys() <= known

    # -------------------------------------------------------------------------------------------------- maps

    def _show(self, name: str) -> bool:
        """Shows an explainer's map of the class; returns whether there is one, or a reason why there is none."""
        tile, kept, made = self._tiles[name], self._kept(name), self._explained.get((name, self.target))
        if made is not None and (kept is None or _is_lost(kept, self.target)):
            tile.show(made, self.target, badge=score_badge(self._page.say, None, {}, self._metrics))
        elif kept is not None:
            self._show_kept(tile, name, kept)
        return made is not None or kept is not None

    def _kept(self, name: str) -> Explanation | None:
        """What the sample has of the class."""
        made = self.sample.explanations.get(name)
        if made is None or all(each.class_id != self.target for each in made.maps):
            return None
        return made.in_frame()

    def _is_there(self, name: str) -> bool:
        """Whether there is a map of the class, or was one that has been withheld."""
        kept = self._kept(name)
        return (name, self.target) in self._explained or (kept is not None and not _is_lost(kept, self.target))

    def _show_kept(self, tile: Tile, name: str, kept: Explanation) -> None:
        """Shows a kept map with its scores, which are of the first class alone, and what it took."""
        say, made, before = self._page.say, self.sample.explanations[name], self._before.get(name, {})
        scored = made.maps[0].class_id == self.target
        lines: list[Line] = [*score_lines(say, made, before, self._metrics)] if scored else []
        lines.append(say("passes.took", passes=made.passes))
        tile.show(kept, self.target, lines, score_badge(say, made if scored else None, before, self._metrics))

    def _tell_probability(self) -> None:
        say, probability = self._page.say, self._probabilities.get(self.target)
        if probability is not None:
            self._tell(self.target, say("class.probability", value=percent(probability)))
        else:
            self._tell(self.target, say("computing" if self._is_busy else "class.probability.unknown"))

    # ------------------------------------------------------------------------------------------------ asking

    @property
    def _is_busy(self) -> bool:
        return self._asking is not None and not self._asking.done()

    def _say_why(self) -> None:
        """Says why the server makes no maps."""
        needed = lacking(self._info, MAKES_MAPS)
        if self._info.run:
            ui.notify(self._page.say("run.not_explained"), type="info", multi_line=True)
        elif needed:
            ui.notify(role_needed(self._page, needed), type="info", multi_line=True)
        else:
            ui.notify(self._page.say("sample.cannot_explain"), type="warning", multi_line=True)

    def _is_usable(self, name: str) -> bool:
        return name in self._info.explainers and self._info.explainers[name].available

    def _ask(self, missing: Sequence[str], wanted: Sequence[str]) -> bool:
        """Has the server make maps, where it can, and say how probable the class is, where that is not known.

        Maps that it does not make say that there are none.

        Args:
            missing: Explainers without a map of the class.
            wanted: Those of which it is to be made.

        Returns:
            Whether the server makes any.
        """
        can = bool(self.sample.input_png) and _makes_maps(self._info)
        asked = [name for name in missing if can and name in wanted and self._is_usable(name)]
        for name in missing:
            if name not in asked and self._kept(name) is None:
                self._tiles[name].lack(self._page.say("map.not_explained"))
        unknown = self.target not in self._probabilities and not self._is_busy and self._can_predict()
        if asked or unknown:
            self._asking = background_tasks.create(self._explain(asked, self.target), context=ui.context.client)
        return bool(asked)

    def _can_predict(self) -> bool:
        return bool(self.sample.input_png) and not self._info.run and not lacking(self._info, PREDICTS)

    async def _explain(self, names: Sequence[str], class_id: int) -> None:
        """Shows maps as they come, and the probability; a choice of another class cancels it."""
        for name in names:
            self._tiles[name].wait()
        explain = [Explain(name, targets=class_id) for name in names]
        # Explanations do not say how probable their class is; a prediction of all classes takes some 30 bytes for each.
        top_k = 1 if class_id in self._probabilities else self._info.class_count
        try:
            picture = self.sample.model_input(self._info.input)
            if picture is not None:
                events = self._page.source.stream(picture, explain, top_k=top_k, ood=False)
                async with contextlib.aclosing(events):
                    async for event in events:
                        self._take(event, class_id)
        except XaiError as error:
            report(error, self._page.say)
        for name in names:
            if (name, class_id) not in self._explained:
                self._tiles[name].lack(self._page.say("stopped"))
        if self._asking is asyncio.current_task():
            self._asking = None
        self._tell_probability()

    def _take(self, event: Event, class_id: int) -> None:
        if isinstance(event, Predicted):
            self._predicted(event)
        elif isinstance(event, Progress):
            self._tiles[event.name].progress(event)
        elif isinstance(event, Explained) and event.final:
            self._explained[event.explanation.name, class_id] = event.explanation
            self._show(event.explanation.name)
        elif isinstance(event, Explained):
            self._tiles[event.explanation.name].show(event.explanation, class_id)

    def _predicted(self, event: Predicted) -> None:
        """Takes the probabilities of classes that the sample does not list: none where another model says them now."""
        is_same = event.prediction.model_version == self.sample.summary.model_version
        said = {each.class_id: each.probability if is_same else None for each in event.prediction.classes}
        self._probabilities = {**said, **self._probabilities}
        self._tell_probability()


def _is_lost(made: Explanation, class_id: int) -> bool:
    """Whether there was a map of a class whose values are no longer kept."""
    return any(each.class_id == class_id and each.withheld == "not_kept" for each in made.maps)


def quick_explainers(info: ModelInfo) -> list[str]:
    """Those that take so few passes that a look is reason enough to ask for them."""
    costs = {name: each.cost for name, each in info.explainers.items()} if _makes_maps(info) else {}
    return [name for name, cost in costs.items() if cost and cost.passes <= _QUICK]


def _makes_maps(info: ModelInfo) -> bool:
    """Whether there is a server that makes maps for the viewer."""
    return not info.run and not lacking(info, MAKES_MAPS)
