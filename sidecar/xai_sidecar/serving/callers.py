"""Who calls, and what it may do. Adapters say who it is; the core asks for the role that the work takes."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from xai_sidecar.errors import RoleMissingError


class Role(str, enum.Enum):
    """What a caller may do."""

    PREDICT = "predict"
    EXPLAIN = "explain"
    FEEDBACK = "feedback"
    READ = "read"


ALL_ROLES = frozenset(Role)
"""As needed by what any caller may do that the server knows."""

ANYBODY: frozenset[Role] = frozenset()
"""As needed by what even strangers may do."""


@dataclass(frozen=True)
class Caller:
    """A caller.

    Attributes:
        name: Of its token or certificate, else its address: what its limits and its share of the device go by.
        roles: What it may do.
        known_by: How it is known, as messages say it: "token", "certificate" or "address".
        listed: Whether it is in the file of those who may call, and not let in because there is none.
    """

    name: str = ""
    roles: frozenset[Role] = ALL_ROLES
    known_by: str = "address"
    listed: bool = field(default=False, compare=False)

    def check(self, needed: Iterable[Role], what: str) -> None:
        """Refuses what the caller may not do.

        Args:
            needed: The roles any of which will do; empty where none is needed.
            what: What it wants, for the message.

        Raises:
            RoleMissingError: It has none of them.
        """
        roles = frozenset(needed)
        if not roles or roles & self.roles:
            return
        raise RoleMissingError(
            f"{what} needs the role {_listed(roles, 'or')}, and the {self.known_by} {self.name!r} has "
            f"{_listed(self.roles, 'and') or 'none'}. Have the role added to its entry in the file of "
            "server.auth.tokens, or call with another one."
        )


_caller: ContextVar[Caller] = ContextVar("caller", default=Caller())  # noqa: B039 - it is frozen


def current_caller() -> Caller:
    """Who called what is worked on here; somebody without a name who may do everything, where no adapter said."""
    return _caller.get()


def set_caller(caller: Caller) -> None:
    """Says who called what is worked on here, until the task ends."""
    _caller.set(caller)


@contextmanager
def calling(caller: Caller) -> Iterator[None]:
    """Says who calls what is worked on in this context."""
    token = _caller.set(caller)
    try:
        yield
    finally:
        _caller.reset(token)


def role_names(roles: Iterable[Role]) -> list[str]:
    """The names of roles, in the order of their definition."""
    given = set(roles)
    return [role.value for role in Role if role in given]


def _listed(roles: Iterable[Role], word: str) -> str:
    *first, last = role_names(roles) or [""]
    return f"{', '.join(first)} {word} {last}" if first else last
