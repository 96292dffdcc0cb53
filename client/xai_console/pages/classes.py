"""Classes: what is taken for what, and where the model looks for a class in general."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final

from nicegui import background_tasks

from xai_client import Accuracy, ClassMap, ModelInfo, Quality, XaiError
from xai_client.evaluator_info import ClassConfusion
from xai_client.quality import ConfusionCell
from xai_console.figures import percent
from xai_console.markup import Html, Markup, bar, table_head, tag
from xai_console.overlay import Look, Overlay, Scene
from xai_console.page import Entry, Page, address
from xai_console.parts import button, card, div, empty, search_class, select, text, trouble
from xai_console.query import OUTCOMES
from xai_console.ranges import scale_by

_AT_A_TIME: Final = 30


async def build(page: Page, info: ModelInfo) -> None:
    """Makes the page."""
    quality = await page.source.quality()
    with div("halves"):
        with card(page.say("classes.confusion"), page.say("classes.confusion.how")):
            _confusion(page, info, quality)
        with card(page.say("classes.right"), page.say("classes.right.how")):
            _accuracy(page, quality.evaluator.accuracy)
    await _ClassMaps(page, info, quality).start()


def _confusion(page: Page, info: ModelInfo, quality: Quality) -> None:
    say = page.say
    wrong = [each for each in quality.confusion if each.true_class_id != each.predicted_class_id]
    if not quality.confusion:
        empty("label_off", say("classes.no_truth"), [say("classes.no_truth.how")])
        return
    if not wrong:
        text(_none(page, quality, "classes.none_wrong"), "hint", "p")
        return
    _Confusions(page, info, wrong, quality)


def _none(page: Page, quality: Quality, words: str) -> str:
    """Says that there is no wrong prediction, or none among the pairs of classes of which the server tells."""
    kind = "classes.none_of" if quality.confusion_truncated else words
    return page.say(kind, count=f"{len(quality.confusion):,}")


class _Confusions:
    """Wrong predictions by pairs of classes, the most frequent first, of all classes or of some."""

    def __init__(self, page: Page, info: ModelInfo, wrong: Sequence[ConfusionCell], quality: Quality) -> None:
        self._page, self._wrong, self._quality = page, wrong, quality
        known = range(len(info.labels))
        self._classes = [int(each) for each in page.names("of") if each.isdecimal() and int(each) in known]
        self._count = _AT_A_TIME
        say = page.say
        with div("row"):
            search_class(page, info.labels, say("classes.of"), self._classes, self._choose, multiple=True)
        with div("scroll tall"):
            self._table = Markup()
        with div("row"):
            self._shown = text("", "hint number")
            self._more = button(say("more"), self._add, "expand_more", "small")
        self._show()

    def _choose(self, classes: list[int] | None) -> None:
        self._classes, self._count = classes or [], _AT_A_TIME
        self._page.remember(of=",".join(map(str, self._classes)))
        self._show()

    def _add(self) -> None:
        self._count += _AT_A_TIME
        self._show()

    def _show(self) -> None:
        say, found = self._page.say, confusions_of(self._wrong, self._classes)
        most = max(each.count for each in self._wrong)
        head = table_head([say("classes.true"), say("classes.predicted"), say("classes.count")], 2)
        rows = (_cell(self._page, each, most) for each in found[: self._count])
        self._table.show(tag("table", head, tag("tbody", *rows), classes="table"))
        if found:
            kind = "classes.shown_of_most" if self._quality.confusion_truncated else "classes.shown"
            shown = say(kind, shown=min(self._count, len(found)), count=f"{len(found):,}")
        else:
            shown = _none(self._page, self._quality, "classes.none_of_these")
        self._shown.set_text(shown)
        self._more.set_visibility(len(found) > self._count)


def confusions_of(cells: Sequence[ConfusionCell], classes: Collection[int]) -> list[ConfusionCell]:
    """Those in which one of some classes is what a picture shows, or what it was taken for; all, if none is named."""
    return [each for each in cells if not classes or {each.true_class_id, each.predicted_class_id} & set(classes)]


def _cell(page: Page, cell: ConfusionCell, most: int) -> Html:
    link = address("/", {"true": cell.true_class_id, "predicted": cell.predicted_class_id})
    count = tag("a", f"{cell.count:,}", classes="number", href=link, aria_label=page.say("classes.see"))
    return tag(
        "tr",
        tag("td", cell.true_label),
        tag("td", cell.predicted_label),
        tag("td", count, bar(cell.count / most), classes="num"),
    )


def _accuracy(page: Page, accuracy: Accuracy | None) -> None:
    say = page.say
    if accuracy is None:
        empty("label_off", say("classes.no_truth"), [say("classes.no_truth.how")])
        return
    text(say("classes.share", share=percent(accuracy.share), count=f"{accuracy.picture_count:,}"), "verdict", "p")
    outcomes = [say(f"flag.{each}") for each in OUTCOMES[:3]]
    head = table_head([say("classes.class"), *outcomes, say("classes.precision"), say("classes.recall")], 1)
    with div("scroll tall"):
        Markup(tag("table", head, tag("tbody", *map(_class_row, accuracy.classes)), classes="table"))


def _class_row(each: ClassConfusion) -> Html:
    counts = each.true_positives, each.false_positives, each.false_negatives
    cells = [tag("td", each.label)]
    for outcome, count in zip(OUTCOMES, counts, strict=False):
        side = "true" if outcome == "false_negative" else "predicted"
        link = address("/", {side: each.class_id, "outcome": outcome}) if count else None
        cells.append(tag("td", tag("a" if count else "span", str(count), classes="number", href=link), classes="num"))
    for share in (each.precision, each.recall):
        cells.append(tag("td", "–" if share is None else percent(share), classes="num number"))
    return tag("tr", *cells)


class _ClassMaps:
    """The mean maps of classes."""

    def __init__(self, page: Page, info: ModelInfo, quality: Quality) -> None:
        self._page, self._info = page, info
        say = page.say
        names = {name: name for name in quality.explainers}
        preferred = page.state.get("explainer", ""), quality.auto_explainer, *names
        first = next((each for each in preferred if each in names), "")
        self._explainer, self._outcome = first, page.state.get("outcome", "")
        outcomes = {"": say("filter.any"), **{each: say(f"flag_what.{each}") for each in OUTCOMES}}
        with card(say("classes.maps"), say("classes.maps.how")):
            with div("row"):
                self._select(say("filter.explainer"), names, first, "explainer")
                self._select(
                    say("filter.outcome"), outcomes, self._outcome if self._outcome in outcomes else "", "outcome"
                )
            self._tiles = div("tiles small-tiles")

    def _select(self, label: str, options: dict[str, str], value: str, name: str) -> None:
        def chosen(event: Any) -> None:
            setattr(self, f"_{name}", str(event.value))
            self._page.remember(**{name: event.value})
            background_tasks.create(self.start(), context=self._tiles)

        select(label, options, value, chosen)

    async def start(self) -> None:
        """Fetches the maps and shows them."""
        say = self._page.say
        try:
            maps = await self._page.source.class_maps(
                self._explainer, (), [self._outcome] if self._outcome in OUTCOMES else []
            )
        except XaiError as error:
            self._tiles.clear()
            with self._tiles:
                trouble(error, say)
            return
        self._tiles.clear()
        with self._tiles:
            if not maps:
                text(say("classes.maps.none"), "hint", "p")
            for each in maps:
                self._tile(each)

    def _tile(self, each: ClassMap) -> None:
        side = self._info.input
        size = (float(side.width), float(side.height))
        grid = self._page.console.shelf.grid(each.map)
        scene = Scene(
            None, size, (0.0, 0.0, *size), grid, scale_by("auto", each.map), label=f"{each.label}, {each.explainer}"
        )
        link = address("/", {"predicted": each.class_id, "maps": each.explainer})
        with div("tile").props(f'data-class-map="{each.class_id}"'):
            Overlay(scene, Look(mode="map"), self._page.say, group="classes", legend=False)
            text(each.label, "tile-name", "a").props(f'href="{link}"')
            text(self._page.say("classes.mean_of", count=each.sample_count), "hint small")


ENTRY: Final = Entry("/classes", "classes", "category", build, of_samples=True)
