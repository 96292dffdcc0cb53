"""Which samples a page lists, and in which order, as its URL says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timezone
from typing import Any, Final

OUTCOMES: Final = ("true_positive", "false_positive", "false_negative", "unknown")
ORDERS: Final = (
    "newest_first",
    "oldest_first",
    "least_probable_first",
    "most_probable_first",
    "outliers_first",
    "inliers_first",
    "worst_score_first",
    "best_score_first",
)
MAP_STATUSES: Final = ("ok", "all_zero", "zero_gradient", "not_finite", "no_ood_range", "unreliable")
PAGE_SIZE: Final = 48

_TIMES: Final = ("start", "end")
_MOST_HOURS: Final = 1e6
_MOST_SECONDS: Final = datetime(9999, 12, 31, tzinfo=timezone.utc).timestamp()


@dataclass(frozen=True)
class Query:
    """Which samples, in which order, and the maps of which explainer on them; named as in the URL.

    Attributes:
        predicted: Class ids, one of which was predicted; any if empty.
        true: Class ids, one of which applies; any if empty.
        outcome: Of `OUTCOMES`; any if empty.
        pmin: Least probability of the most probable class.
        pmax: Its highest.
        oodmin: Least OoD percentile.
        oodmax: Its highest.
        status: Of `MAP_STATUSES`; any if empty.
        of: The explainer whose map has that status; empty for any.
        explainer: Whose score is within the range, and whose scores the order goes by.
        metric: By which metric.
        smin: Least score.
        smax: Its highest.
        hours: Only of so many hours past; None for all.
        start: Only from this Unix time on.
        end: Only before this Unix time.
        order: One of `ORDERS`.
        maps: The explainer whose maps are laid over; empty for none.
    """

    predicted: tuple[int, ...] = ()
    true: tuple[int, ...] = ()
    outcome: tuple[str, ...] = ()
    pmin: float | None = None
    pmax: float | None = None
    oodmin: float | None = None
    oodmax: float | None = None
    status: tuple[str, ...] = ()
    of: str = ""
    explainer: str = ""
    metric: str = ""
    smin: float | None = None
    smax: float | None = None
    hours: float | None = None
    start: float | None = None
    end: float | None = None
    order: str = "newest_first"
    maps: str = ""

    @property
    def by_score(self) -> bool:
        """Whether the order goes by a score."""
        return self.order in ("worst_score_first", "best_score_first")

    @property
    def needs_score(self) -> bool:
        """Whether an explainer and a metric have to be chosen for it."""
        return self.by_score or self.smin is not None or self.smax is not None

    def state(self) -> dict[str, str | None]:
        """What the URL says of it: a text for each that is not the default, None for the others."""
        return {**dict.fromkeys(field.name for field in fields(self)), **self.said()}

    def said(self) -> dict[str, str]:
        """The same without the others."""
        said: dict[str, str] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if value == field.default:
                continue
            if field.name in _TIMES:
                said[field.name] = _written(value)
            elif isinstance(value, tuple):
                said[field.name] = ",".join(map(str, value))
            else:
                said[field.name] = f"{value:.12g}" if isinstance(value, float) else str(value)
        return said


def read_query(state: Mapping[str, str]) -> Query:
    """The query that a URL says; what cannot be read is left out, and hours where there is a start or an end."""
    lists = {"outcome": OUTCOMES, "status": MAP_STATUSES}
    read: dict[str, Any] = {}
    for field in fields(Query):
        text = state.get(field.name, "")
        if not text:
            continue
        if field.name in ("predicted", "true"):
            read[field.name] = tuple(int(each) for each in text.split(",") if each.isdecimal())
        elif field.name in lists:
            read[field.name] = tuple(each for each in text.split(",") if each in lists[field.name])
        elif field.name == "order":
            read[field.name] = text if text in ORDERS else field.default
        elif isinstance(field.default, str):
            read[field.name] = text
        elif field.name in _TIMES:
            read[field.name] = _time(text)
        elif (number := _number(text)) is not None:
            read[field.name] = number
    if not 0 < (read.get("hours") or 0) <= _MOST_HOURS or any(read.get(each) is not None for each in _TIMES):
        read.pop("hours", None)
    return Query(**read)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) < 1e12 else None


def _written(seconds: float) -> str:
    """A Unix time for people to read, in UTC: the zone of those to whom a URL is sent is not known."""
    written = datetime.fromtimestamp(seconds, timezone.utc).isoformat().replace("+00:00", "Z")
    return written.replace(":00Z", "Z")


def _time(text: str) -> float | None:
    """The Unix time that a text says, in any time zone that it names; None where it cannot be read or names none."""
    try:
        time = datetime.fromisoformat(text.upper().replace("Z", "+00:00"))
    except ValueError:
        return None
    seconds = time.timestamp() if time.tzinfo is not None else -1.0
    return seconds if 0 <= seconds < _MOST_SECONDS else None
