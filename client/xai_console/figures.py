"""Numbers, as people read them."""

from __future__ import annotations

import math

from xai_console.words import Words


def percent(share: float) -> str:
    """A probability; a dash for one that is no number."""
    if math.isnan(share):
        return "–"
    if 0 < share < 0.001:
        return "< 0.1 %"
    if 0.999 < share < 1:
        return "> 99.9 %"
    return f"{100 * share:.1f} %"


def number(value: float | None, digits: int = 3) -> str:
    """A measured number; a dash for one that there is not."""
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}g}"


def duration(say: Words, seconds: float) -> str:
    """A length of time, in whole minutes, hours or days; a day is 24 hours."""
    if seconds < 3600:
        return say("minutes", count=int(seconds // 60))
    return say("hours", count=int(seconds // 3600)) if seconds <= 86400 else say("days", count=int(seconds // 86400))
