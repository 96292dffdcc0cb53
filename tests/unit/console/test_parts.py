"""What pages are made of."""

import re
from pathlib import Path

import xai_console

SOURCES = sorted(Path(xai_console.__file__).parent.rglob("*.py"))


def test_what_folds_is_opened_and_closed_by_the_browser_alone():
    """NiceGUI's own expansion is told of each click what it was before, which undoes a click that came meanwhile."""
    made = {path.name: re.findall(r"\b(?:ui\.expansion|Folded)\(", path.read_text()) for path in SOURCES}
    assert sum(map(len, made.values())) >= 5
    assert {name for name, calls in made.items() if "ui.expansion(" in calls} == set()
