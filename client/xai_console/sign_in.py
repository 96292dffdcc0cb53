"""Signing in: a dialog for a viewer's own token, which goes from the browser to the console and to no page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from nicegui import ui
from nicegui.element import Element

from xai_client import ModelInfo
from xai_console.page import Page
from xai_console.parts import button, div, empty, icon_button, text

SIGN_IN_PATH: Final = "/sign-in"
SIGN_OUT_PATH: Final = "/sign-out"
VIEWER_CHANGED: Final = "xai-viewer"
"""The channel on which pages in one browser learn that another viewer looks now."""

PREDICTS: Final = ("predict",)
"""What one has to be allowed to ask what the model says."""
MAKES_MAPS: Final = ("predict", "explain")
"""What one has to be allowed to have maps made."""
TELLS_TRUTH: Final = ("feedback",)


class _TokenForm(Element, component="components/sign_in.js"):
    """A field for a token, which is sent without the page's state learning it."""

    def __init__(self, page: Page) -> None:
        super().__init__()
        words = {key: page.say(f"sign_in.{key}") for key in ("token", "go")}
        self._props.update(words={**words, "failed": page.say("no_answer")}, path=SIGN_IN_PATH, channel=VIEWER_CHANGED)


def open_sign_in(page: Page) -> None:
    """Asks the viewer for a token."""
    with ui.dialog() as dialog, ui.card().classes("sign-in"):
        with div("tile-head"):
            text(page.say("sign_in"), tag="h2")
            div("grow")
            icon_button("close", page.say("close"), dialog.close)
        text(page.say("sign_in.how"), "hint", "p")
        _TokenForm(page)
    dialog.on("hide", dialog.delete)
    dialog.open()


def sign_out() -> None:
    """Has the console forget the viewer's token."""
    ui.run_javascript(
        f'fetch("{SIGN_OUT_PATH}", {{method: "POST"}})'
        f'.then(() => new BroadcastChannel("{VIEWER_CHANGED}").postMessage(""))'
    )


def lacking(info: ModelInfo, roles: Sequence[str]) -> list[str]:
    """Which of these roles the credentials in use do not have; none where the server asks for no credentials."""
    return [] if info.roles is None else [each for each in roles if each not in info.roles]


def may(page: Page, info: ModelInfo, roles: Sequence[str]) -> bool:
    """Whether the credentials in use allow something; where not, a line on the page says which role is missing."""
    missing = lacking(info, roles)
    if missing:
        with div("stack needed").props(f'data-needed="{",".join(missing)}"'):
            text(role_needed(page, missing), "hint", "p")
            _offer(page)
    return not missing


def refuse(page: Page, missing: Sequence[str]) -> None:
    """Says in the place of a page which role it needs; without any, that the server asks for credentials."""
    title = role_needed(page, missing) if missing else page.say("sign_in.asked", server=page.source.name)
    with empty("lock", title, [page.say("sign_in.how")]).props(f'data-needed="{",".join(missing)}"'):
        _offer(page)


def role_needed(page: Page, missing: Sequence[str]) -> str:
    """Which roles something takes, and whose credentials do not have them."""
    whose = page.say(f"role.{page.console.credentials}")
    return page.say("role.needed", roles=page.say("role.and").join(missing), whose=whose)


def _offer(page: Page) -> None:
    """A button to sign in; what comes with each request is for the proxy to change."""
    if page.console.credentials == "request":
        text(page.say("role.proxy"), "hint", "p")
    else:
        button(page.say("sign_in"), lambda: open_sign_in(page), "login")
