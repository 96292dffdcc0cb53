"""Samples side by side, as links; `components/samples.js` draws them."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

import numpy as np
from nicegui.element import Element

from xai_client import SampleSummary
from xai_client.colours import FloatArray, scale_of
from xai_console import markup
from xai_console.chosen_sample import named
from xai_console.colour_data import colours_url
from xai_console.figures import number, percent
from xai_console.markup import Html, tag
from xai_console.overlay import Look
from xai_console.page import Page, address
from xai_console.parts import text
from xai_console.sample_picture import thumbnail
from xai_console.words import Words

FLAGS = {"true_positive": "good", "false_positive": "bad", "false_negative": "warn", "unknown": "plain"}

_MOST_PREVIEWED: Final = 24
"""Cards that a browser can paint before it can draw them all; few screens show more."""


class SampleCards(Element, component="components/samples.js"):
    """Samples side by side. They are kept as a tuple, whose content NiceGUI does not watch for changes.

    Args:
        page: What they are on.
        label: What they are, for those who cannot see them.
    """

    def __init__(self, page: Page, label: str) -> None:
        super().__init__()
        self._page = page
        self._props["samples"] = ()
        self._props["look"] = asdict(Look(opacity=0.7, saturation=0.35))
        self._props["colours"] = colours_url()
        self._props["words"] = {"none": page.say("sample.no_picture")}
        self._props["label"] = label

    def preview(self) -> Html:
        """See `xai_console.preview`."""
        return tag("ul", *map(_previewed, self._props["samples"][:_MOST_PREVIEWED]), classes="samples")

    def show(self, cards: Sequence[dict[str, Any]]) -> None:
        """Shows these, as `card_of` makes them."""
        self._props["samples"] = tuple(cards)
        self.update()

    def merge(self, changed: Sequence[dict[str, Any]], cards: Sequence[dict[str, Any]]) -> None:
        """Shows some that are new, or others than they were: a browser gets these alone.

        Args:
            changed: These.
            cards: All that are to be shown, in order.
        """
        with self._props.suspend_updates():
            self._props["samples"] = tuple(cards)
        self.run_method("merge", list(changed), [each["key"] for each in cards])

    def look(self, look: Look) -> None:
        """Changes how maps are laid over."""
        self._props["look"] = asdict(look)
        self.update()


class FlagTag:
    """How right a prediction was, as a tag.

    Args:
        say: The words of the page.
        sample: The sample.
    """

    def __init__(self, say: Words, sample: SampleSummary) -> None:
        self._say = say
        self._tag = text("")
        self.show(sample)

    def show(self, sample: SampleSummary) -> None:
        """Shows it as it is now."""
        flag = outcome_of(sample)
        self._tag.set_text(self._say(f"flag.{flag}"))
        self._tag.classes(replace=f"tag tag-{FLAGS[flag]}")


def card_of(page: Page, sample: SampleSummary, *, fresh: bool = False) -> dict[str, Any]:
    """What a card shows of a sample.

    Args:
        page: What it is on.
        sample: The sample.
        fresh: Whether it has just come.
    """
    first = sample.classes[0] if sample.classes else None
    flag = outcome_of(sample)
    title = first.label if first else "–"
    probability = percent(first.probability) if first else ""
    picture = thumbnail(sample, page.console.shelf)
    return {
        "key": sample.id,
        "href": address("/sample", named(sample)),
        "picture": picture.url,
        "size": list(picture.size),
        "region": list(picture.region),
        "map": packed(sample.map) if sample.map is not None else None,
        "scale": asdict(scale_of(sample.map)) if sample.map is not None else None,
        "title": title,
        "probability": probability,
        "alt": f"{title} {probability}",
        "flag": page.say(f"flag.{flag}"),
        "flag_class": f"tag-{FLAGS[flag]}",
        "score": number(sample.score) if sample.score is not None else "",
        "time": sample.time.timestamp(),
        "line": _line(sample, page.say),
        "fresh": fresh,
    }


def _previewed(card: dict[str, Any]) -> Html:
    """What `components/samples.js` makes of a card, but for the map."""
    picture = markup.picture(card["picture"], card["size"], "220px") if card["picture"] else ""
    score = tag("span", card["score"], classes="tag number") if card["score"] else ""
    head = tag("span", card["title"], classes="sample-title"), tag("span", card["probability"], classes="number")
    flag = tag("span", card["flag"], classes=f"tag {card['flag_class']}")
    link = tag(
        "span",
        tag("span", picture, classes="sample-picture"),
        tag("span", *head, classes="sample-head"),
        tag("span", flag, score, tag("span", card["line"], classes="sample-line"), classes="sample-foot"),
        classes="sample",
    )
    return tag("li", link)


def outcome_of(sample: SampleSummary) -> str:
    """How right a prediction was, in a word: of several outcomes the worst."""
    kinds = sample.outcome_kinds
    return next((each for each in ("false_positive", "false_negative", "true_positive") if each in kinds), "unknown")


def packed(values: FloatArray) -> dict[str, Any]:
    """A small map as it travels: a byte for each of its values."""
    low, high = float(values.min()), float(values.max())
    span = high - low or 1.0
    data = np.rint((values - low) / span * 255).astype(np.uint8)
    return {
        "bytes": base64.b64encode(data.tobytes()).decode(),
        "rows": values.shape[0],
        "columns": values.shape[1],
        "minimum": low,
        "maximum": low + span,
    }


def _line(sample: SampleSummary, say: Words) -> str:
    parts = []
    if sample.ood_percentile is not None:
        parts.append(f"OoD {sample.ood_percentile:.0f} %")
    if sample.state != "scored":
        parts.append(say(f"sample_state.{sample.state}"))
    return " · ".join(parts)
