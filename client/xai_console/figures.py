"""Numbers, as people read them."""

from __future__ import annotations

import math


def percent(share: float) -> str:
    """A probability."""
    if 0 < share < 0.001:
        return "< 0.1 %"
    if 0.999 < share < 1:
        return "> 99.9 %"
    return f"{100 * share:.1f} %"


def number(value: float | None, digits: int = 3) -> str:
    """A measured number; a dash for one that there is not."""
    return "–" if value is None or math.isnan(value) else f"{value:.{digits}g}"
