"""The sample that the URL of a page names."""

from __future__ import annotations

from xai_client import NotFoundError, Sample, SampleSummary
from xai_console import telling
from xai_console.page import Page
from xai_console.parts import empty


def named(sample: SampleSummary) -> dict[str, object]:
    """What a URL says to name a sample."""
    return {"request": sample.request_id, "index": sample.image_index}


async def chosen_sample(page: Page) -> Sample | None:
    """Fetches it; None, and a word on the page, where none is named or it is no longer kept.

    Raises:
        XaiError: It could not be fetched.
    """
    request, index = page.state.get("request", ""), int(page.number("index", 0, 0, 1e6))
    if not request:
        empty("image_search", page.say("sample.which"), [page.say("sample.which.how")])
        return None
    try:
        return await page.source.sample(request, index)
    except NotFoundError as error:
        empty("image_not_supported", page.say("sample.gone"), [telling.error(error, page.say)])
        return None
