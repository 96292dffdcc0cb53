"""Where in a list of samples a page is, as its URL says it: by the tokens of the parts up to the one that is shown.

The server names the next part alone: what comes before one is known by having been there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

_MOST: Final = 10
"""Tokens in a URL, of about a hundred characters each: it has to stay one that can be sent."""


def said_place(tokens: Sequence[str], now: float) -> dict[str, object]:
    """What the URL says of the part that is shown; None for what it says nothing of.

    Args:
        tokens: Of the parts up to the one that is shown; empty for the first.
        now: Unix time from which the list's hours count.
    """
    if not tokens[-1]:
        return {"from": None, "now": None}
    return {"from": ",".join(tokens[-_MOST:]), "now": now}


def read_tokens(state: Mapping[str, str]) -> list[str]:
    """The tokens that a URL says, at least one; the first is empty where no earlier parts are left out."""
    return state.get("from", "").split(",")[-_MOST:]
