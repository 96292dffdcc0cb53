"""Evidence: one sample as a file of its own, to keep, to send, or to show to those who have no server."""

from __future__ import annotations

from typing import Final

from nicegui import ui

from xai_client import ModelInfo
from xai_console.chosen_sample import chosen_sample, named
from xai_console.page import Entry, Page, address
from xai_console.parts import card, div, text


async def build(page: Page, info: ModelInfo) -> None:
    """Makes the page."""
    say, sample = page.say, await chosen_sample(page)
    if sample is None:
        return
    state = named(sample.summary)
    kept = [each for made in sample.explanations.values() for each in made.maps if each.values is not None]
    with div("row"):
        text(say("evidence.back"), tag="a").props(f'href="{address("/sample", state)}"')
    with div("halves"):
        for kind, icon in (("html", "description"), ("zip", "folder_zip")):
            with card(say(f"evidence.{kind}"), classes="evidence"):
                text(say(f"evidence.{kind}.how"), tag="p")
                link = address(f"/evidence/{kind}", {**state, "language": say.language})
                with div("button-link", "a").props(f'href="{link}" download data-evidence="{kind}"'):
                    ui.icon(icon).props('aria-hidden="true"')
                    text(say("evidence.save"))
    with card(say("evidence.inside")), div("stack"):
        text(say("evidence.maps", count=len(kept), explainers=len(sample.explanations)))
        text(say("evidence.picture") if sample.input_png else say("sample.no_picture.how"))
        text(say("evidence.rest"))


ENTRY: Final = Entry("/evidence", "evidence", "folder_zip", build, listed=False)
