"""The class that maps are of: the most probable ones to click, any other of the model by typing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from xai_client import ClassScore, ModelInfo, SampleSummary
from xai_console.page import Page
from xai_console.parts import search_class, text
from xai_console.prediction import ClassList


class ClassChoice:
    """A choice of one class.

    Args:
        page: What it is on.
        labels: All classes, by id.
        classes: Those to click, most probable first.
        choose: Called with the class id that was chosen.
    """

    def __init__(
        self, page: Page, labels: Sequence[str], classes: Sequence[ClassScore], choose: Callable[[int], Any]
    ) -> None:
        self._choose = choose
        self._listed = {each.class_id for each in classes}
        self._chosen: int | None = None
        self._list = ClassList(classes, choose)
        self._search = search_class(page, labels, page.say("class.other"), None, self._found, classes="wide")
        self._said = text("", "hint number", "p").props('role="status"')
        self._said.set_visibility(False)

    def press(self, class_id: int) -> None:
        """Shows which class is chosen."""
        self._chosen = class_id
        self._list.press(class_id)
        self._search.set_value(None if class_id in self._listed else class_id)

    def tell(self, class_id: int, words: str) -> None:
        """Says what there is to say of a class, where it is not one of those to click, which say it themselves."""
        self._said.set_text(words)
        self._said.set_visibility(class_id not in self._listed)

    def _found(self, class_id: int | None) -> None:
        if class_id is not None and class_id != self._chosen:  # what `press` shows was not chosen here
            self._choose(class_id)


def chosen_class(page: Page, info: ModelInfo, summary: SampleSummary, name: str) -> int:
    """The class of a sample that the URL says under a name; the most probable one where it says none that there is."""
    most_probable = summary.classes[0].class_id if summary.classes else 0
    said = page.state.get(name, "")
    return int(said) if said.isdecimal() and int(said) < info.class_count else most_probable
