"""Tables as lines of text: as wide as they are in files and pipes, folded to fit where a terminal is narrower."""

from __future__ import annotations

import io
from collections.abc import Collection, Iterable, Sequence
from typing import Final, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from xai_client.command.progress import is_terminal

_UNBOUNDED: Final = 100_000
_KEY_WIDTH: Final = 8


def terminal_width(stream: TextIO | None) -> int | None:
    """Columns of a terminal; None for what is none, where lines may have any length."""
    return Console(file=stream).width if is_terminal(stream) else None


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    right: Collection[int] = (),
    indent: int = 0,
    width: int | None = None,
) -> list[str]:
    """Aligned columns, two spaces apart.

    Args:
        header: What is above each column.
        rows: The cells.
        right: Indices of the columns that are flush right.
        indent: Spaces before each line.
        width: Most columns of characters; None for any number.
    """
    grid = Table.grid(padding=(0, 2, 0, 0))
    for column in range(len(header)):
        grid.add_column(justify="right" if column in right else "left", overflow="fold")
    for row in (header, *rows):
        grid.add_row(*map(Text, row))
    return [" " * indent + line for line in _lines(grid, width and width - indent)]


def pairs(rows: Iterable[tuple[str, str]], width: int | None = None) -> list[str]:
    """Keys and values side by side; an empty key continues the one above.

    Args:
        rows: Keys and values.
        width: See `table`.
    """
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(min_width=_KEY_WIDTH, no_wrap=True)
    grid.add_column(overflow="fold")
    for row in rows:
        grid.add_row(*map(Text, row))
    return _lines(grid, width)


def _lines(grid: Table, width: int | None) -> list[str]:
    console = Console(file=io.StringIO(), width=width or _UNBOUNDED, color_system=None, force_terminal=False)
    with console.capture() as capture:
        console.print(grid)
    return [line.rstrip() for line in capture.get().removesuffix("\n").split("\n")]
