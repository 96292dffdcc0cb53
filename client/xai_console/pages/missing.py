"""What a browser gets at a URL where no page is."""

from __future__ import annotations

from typing import Final

from xai_client import ModelInfo
from xai_console.page import Entry, Page
from xai_console.parts import empty


async def build(page: Page, _: ModelInfo) -> None:
    """Makes the page."""
    empty("link_off", page.say("missing"), [page.say("missing.how")])


ENTRY: Final = Entry("", "missing", "link_off", build, listed=False, roles=())
