"""The pages of the console, one file each, in the order of the navigation."""

from __future__ import annotations

from typing import Final

from xai_console.page import Entry
from xai_console.pages import classes, drift, evidence, explain, live, quality, review, sample, side_by_side

ENTRIES: Final[tuple[Entry, ...]] = (
    live.ENTRY,
    explain.ENTRY,
    quality.ENTRY,
    classes.ENTRY,
    drift.ENTRY,
    review.ENTRY,
    sample.ENTRY,
    side_by_side.ENTRY,
    evidence.ENTRY,
)
