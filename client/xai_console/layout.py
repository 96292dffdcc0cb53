"""What every page has around it: navigation, the state of the server, language and colours."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
from typing import Final

from nicegui import background_tasks, ui
from nicegui.element import Element
from starlette.requests import Request

from xai_client import XaiError
from xai_console import telling
from xai_console.markup import Html, Markup, icon, join, tag
from xai_console.page import LANGUAGE_COOKIE, Console, Entry, Page, Theme, address, words_of
from xai_console.parts import Menu, div, empty, icon_button, text, trouble
from xai_console.preview import add_preview
from xai_console.sign_in import VIEWER_CHANGED, lacking, open_sign_in, refuse, sign_out
from xai_console.words import LANGUAGES, LOCALES

THEME_COOKIE: Final = "xai_theme"
_PATIENCE_SECONDS: Final = 0.4
"""How long an answer waits for the content of its page; what takes longer follows on the open page.

A browser takes half a second from the answer to the connection by which the rest follows, and then has to draw anew.
"""
_log = logging.getLogger(__name__)
_YEAR: Final = 365 * 24 * 3600
_THEMES: Final[tuple[Theme, ...]] = ("auto", "light", "dark")
_THEME_ICONS: Final = {"auto": "brightness_auto", "light": "light_mode", "dark": "dark_mode"}


async def show(console: Console, entries: tuple[Entry, ...], entry: Entry, request: Request) -> None:
    """Makes a page for one browser, and keeps it true to the state of the server.

    Args:
        console: What all pages share.
        entries: All pages.
        entry: This one.
        request: What the browser asked for.
    """
    page = _page(console, entry, request)
    _speak(page)
    _head(page, entry)
    with div("shell") as shell:
        text(page.say("skip"), "skip", "a").props("href=#main")
        _navigation(page, entries, entry)
        with div("page-column"):
            header = _Header(page, entry)
            with div("main").props("id=main tabindex=-1") as main:
                pass
    body = _Body(page, entry, main)

    def changed() -> None:
        header.show()
        body.show()

    ui.context.client.on_delete(console.monitor.watch(changed))
    header.show()
    filling = background_tasks.create(body.fill(), context=main)
    done, _ = await asyncio.wait({filling}, timeout=_PATIENCE_SECONDS)
    if done:
        add_preview(shell)


def _page(console: Console, entry: Entry, request: Request) -> Page:
    chosen = request.cookies.get(THEME_COOKIE)
    return Page(
        console=console,
        say=words_of(request),
        path=entry.path,
        theme=next((each for each in _THEMES if each == chosen), "auto"),
        state=dict(request.query_params),
    )


def _speak(page: Page) -> None:
    """Has the libraries speak the language of the page where their words are, such as that the connection is lost."""
    client = ui.context.client
    client.page = copy.copy(client.page)  # it is that of all browsers
    client.page.language = LOCALES[page.say.language]


def _head(page: Page, entry: Entry) -> None:
    ui.page_title(f"{_title(page, entry)} · xai-sidecar")
    ui.dark_mode({"auto": None, "light": False, "dark": True}[page.theme])
    # At once, so that no page is white first. Where another viewer has signed in, pages are that viewer's.
    ui.add_head_html(
        f"<script>document.documentElement.dataset.theme = {json.dumps(page.theme)};"
        f'new BroadcastChannel("{VIEWER_CHANGED}").onmessage = () => location.reload();</script>'
    )


def _navigation(page: Page, entries: tuple[Entry, ...], entry: Entry) -> None:
    with div("nav", "nav").props(f'aria-label="{page.say("navigation")}"'):
        brand = tag("a", icon("blur_on"), tag("span", "xai-sidecar", classes="brand-name"), classes="brand", href="/")
        links = (_link(page, each, here=each is entry) for each in entries if each.listed)
        Markup(join(brand, *links)).classes("contents")


def _link(page: Page, entry: Entry, *, here: bool) -> Html:
    title = tag("span", _title(page, entry), classes="nav-text")
    current = "page" if here else None
    return tag("a", icon(entry.icon), title, classes="nav-link", href=entry.path, aria_current=current)


def _title(page: Page, entry: Entry) -> str:
    """The title of a page, which is another one where an offline run is shown and nothing is live."""
    info, title = page.console.monitor.info, page.say(entry.title)
    return page.say.either(f"{entry.title}.run", title) if info is not None and info.run else title


class _Header:
    """The top of a page: its title, the model, the server's state, and the viewer's settings."""

    def __init__(self, page: Page, entry: Entry) -> None:
        self._page, self._entry = page, entry
        with div("header", "header"):
            self._title = text("", tag="h1")
            self._model = text("", "model hint")
            div("grow")
            with div("state").props('role="status"'):
                self._dot = div("dot")
                self._state = text("", "state-text")
            self._viewer = _viewer_button(page)
            _settings(page)
        with div("banner").props('role="alert"') as self._banner:
            ui.icon("cloud_off").props('aria-hidden="true"')
            self._why = text("")
        self._shown: tuple[str, ...] = ()

    def show(self) -> None:
        """Shows the state as it is."""
        monitor, say = self._page.console.monitor, self._page.say
        state = "here" if monitor.here else "refused" if monitor.refused else "away"
        model = f"{monitor.info.name} · {self._page.source.name}" if monitor.info else self._page.source.name
        why = "" if monitor.problem is None else telling.error(monitor.problem, say)
        self._viewer.set_visibility(_has_viewer_button(self._page))
        if (state, model, why) == self._shown:
            return
        self._shown = (state, model, why)
        self._title.set_text(_title(self._page, self._entry))
        self._dot.classes(replace=f"dot dot-{state}")
        self._state.set_text(say(f"state.{state}"))
        self._model.set_text(model)
        self._why.set_text(say("refused" if monitor.refused else "away", server=self._page.source.name, why=why))
        self._banner.set_visibility(not monitor.here)


class _Body:
    """The content of a page, which waits for a server that is away, and for credentials that the server knows."""

    def __init__(self, page: Page, entry: Entry, main: Element) -> None:
        self._page, self._entry, self._main = page, entry, main
        self._shown: object = None

    async def fill(self) -> None:
        """Makes the content, or says that there is no server yet."""
        monitor = self._page.console.monitor
        if monitor.info is None:
            await monitor.refresh()
        info = monitor.info
        self._shown = self._depends_on()
        self._main.clear()
        with self._main:
            if info is None and monitor.refused:
                refuse(self._page, ())
                return
            if info is None:
                empty(
                    "cloud_off",
                    self._page.say("waiting"),
                    [self._page.say("waiting.how", server=self._page.source.name)],
                )
                return
            try:
                if self._entry.of_samples and info.evaluator is None:
                    empty("visibility_off", self._page.say("no_evaluator"), [self._page.say("no_evaluator.how")])
                elif self._entry.of_model and info.run:
                    empty("inventory_2", self._page.say("run.no_model"), [self._page.say("run.no_model.how")])
                elif missing := lacking(info, self._entry.roles):
                    refuse(self._page, missing)
                else:
                    await self._entry.build(self._page, info)
            except XaiError as error:
                trouble(error, self._page.say)
            except Exception:
                _log.exception("the page %s could not be made", self._page.path)
                empty("error_outline", self._page.say("broken"), [self._page.say("broken.how")])

    def show(self) -> None:
        """Makes the content as soon as the server is there, and anew where the viewer may do more or less there."""
        now = self._depends_on()
        if self._shown not in (None, now):
            self._shown = now
            background_tasks.create(self.fill(), context=self._main)

    def _depends_on(self) -> object:
        """What decides which content a page has."""
        monitor = self._page.console.monitor
        return ("waiting", monitor.refused) if monitor.info is None else ("here", monitor.info.roles)


def _viewer_button(page: Page) -> Element:
    """Signs in, or out."""
    if page.console.credentials == "session":
        return icon_button("logout", page.say("sign_out"), sign_out)
    return icon_button("login", page.say("sign_in"), lambda: open_sign_in(page))


def _has_viewer_button(page: Page) -> bool:
    """Whether there is anything to sign in to; a proxy's log-in is the proxy's."""
    console = page.console
    return console.credentials == "session" or (console.credentials == "console" and console.monitor.guarded)


def _settings(page: Page) -> None:
    say = page.say
    with icon_button("translate", say("language"), lambda: None), Menu():
        for code, name in LANGUAGES.items():
            ui.menu_item(name, lambda code=code: _choose(page, LANGUAGE_COOKIE, code))
    after = _THEMES[(_THEMES.index(page.theme) + 1) % len(_THEMES)]
    label = say("theme", now=say(f"theme.{page.theme}"))
    icon_button(_THEME_ICONS[page.theme], label, lambda: _choose(page, THEME_COOKIE, after))


def _choose(page: Page, cookie: str, value: str) -> None:
    """Keeps a setting in the browser, and shows the page anew with it."""
    ui.run_javascript(
        f'document.cookie = "{cookie}={value}; path=/; max-age={_YEAR}; samesite=strict";'
        f"location.replace({json.dumps(address(page.path, page.state))})"
    )
