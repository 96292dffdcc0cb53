"""What a page is, and what it has at hand while it is built."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias
from urllib.parse import urlencode

from nicegui import ui
from starlette.requests import HTTPConnection

from xai_client import ModelInfo
from xai_console.monitor import Monitor
from xai_console.shelf import Shelf
from xai_console.source import Source
from xai_console.words import Words, language_of

LANGUAGE_COOKIE: Final = "xai_language"

Theme: TypeAlias = Literal["auto", "light", "dark"]


Credentials: TypeAlias = Literal["console", "session", "request"]


@dataclass(frozen=True)
class Console:
    """What all pages share that are shown by the same credentials.

    Attributes:
        source: Where they get what they show.
        monitor: Whether that is there.
        shelf: Pictures and maps that browsers fetch.
        credentials: Whose they are: the console's own, a viewer's who has signed in, or a viewer's that come with each
            request, from a proxy.
    """

    source: Source
    monitor: Monitor
    shelf: Shelf
    credentials: Credentials = "console"


@dataclass(frozen=True)
class Page:
    """One page in one browser.

    Attributes:
        console: What it shares with others.
        say: Its words.
        path: Where it is.
        theme: How it is coloured.
        state: What its URL says: the viewer's choices, by name.
    """

    console: Console
    say: Words
    path: str
    theme: Theme
    state: dict[str, str] = field(default_factory=dict)

    @property
    def source(self) -> Source:
        """Where it gets what it shows."""
        return self.console.source

    def remember(self, **choices: object) -> None:
        """Has the URL say what the viewer chose, so that it can be kept, sent and gone back to; None forgets."""
        for name, value in choices.items():
            if value is None or value == "":
                self.state.pop(name, None)
            else:
                self.state[name] = str(value)
        ui.navigate.history.replace(address(self.path, self.state))

    def number(self, name: str, otherwise: float, low: float, high: float) -> float:
        """A number that the URL says, within bounds."""
        try:
            return min(high, max(low, float(self.state[name])))
        except (KeyError, ValueError):
            return otherwise

    def names(self, name: str) -> list[str]:
        """The names that the URL lists."""
        return [each for each in self.state.get(name, "").split(",") if each]


Build: TypeAlias = Callable[[Page, ModelInfo], Awaitable[None]]


@dataclass(frozen=True)
class Entry:
    """A page, as the navigation lists it.

    Attributes:
        path: Where it is.
        title: Key of its title in the words.
        icon: Name of a Material icon.
        build: Makes its content, once the model is known; an `XaiError` that it raises is told there.
        listed: Whether the navigation leads to it.
        of_samples: Whether it has content only where the server has an evaluator.
        of_model: Whether it has content only where there is a model to ask, and not of an offline run.
        roles: What one has to be allowed to see it.
    """

    path: str
    title: str
    icon: str
    build: Build
    listed: bool = True
    of_samples: bool = False
    of_model: bool = False
    roles: tuple[str, ...] = ("read",)


def address(path: str, state: Mapping[str, object]) -> str:
    """The URL of a page with some choices."""
    return f"{path}?{urlencode({key: str(value) for key, value in state.items()}, safe=',/:')}" if state else path


def words_of(request: HTTPConnection) -> Words:
    """The words of the language that a browser asks for, or that was chosen there."""
    chosen, accepted = request.cookies.get(LANGUAGE_COOKIE, ""), request.headers.get("accept-language", "")
    return Words(language_of(chosen, accepted))
