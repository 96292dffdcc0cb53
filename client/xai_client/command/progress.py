"""How far explanations are: a bar for each on a terminal, else lines."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, TextIO

from rich.console import Console, OverflowMethod
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from xai_client.types import Explanation, Progress

_LINE_SECONDS: Final = 1.0
_BAR_WIDTHS: Final = (8, 28)


@dataclasses.dataclass(frozen=True)
class ProgressState:
    """How far an explanation is.

    Attributes:
        status: How it ended, as `Explanation.status`; empty while it runs.
        share: How much of it is done, 0 to 1; None where there is nothing to measure.
        done: Passes done.
        planned: Passes planned; 0 if not known or of no interest any more.
        error: Relative standard error; None where there is none.
        time: Time left, or, at the end, taken; in words.
        place: Where its overlays are; empty where there are none.
        note: Any other remark.
        unreliable: Whether it is done and a map of it cannot be relied on.
    """

    status: str = ""
    share: float | None = None
    done: int = 0
    planned: int = 0
    error: float | None = None
    time: str = ""
    place: str = ""
    note: str = ""
    unreliable: bool = False


WAITING: Final = ProgressState(note="waiting")


def running(progress: Progress, paths: Sequence[Path]) -> ProgressState:
    """The state of an explanation on its way, of which there are these overlays."""
    done, planned = progress.passes, progress.planned_passes
    return ProgressState(
        share=_share(done, planned, 0.0),
        done=done,
        planned=planned,
        error=progress.standard_error,
        time="" if progress.remaining is None else f"{_left(progress.remaining)} left",
        place=_place(paths),
    )


def improved(explanation: Explanation, before: ProgressState, paths: Sequence[Path]) -> ProgressState:
    """The state after a version to be followed by a better one."""
    done = max(before.done, explanation.passes)
    return dataclasses.replace(before, share=_share(done, before.planned, 0.0), done=done, place=_place(paths), note="")


def ended(explanation: Explanation, before: ProgressState, paths: Sequence[Path]) -> ProgressState:
    """The state of an explanation that is done."""
    planned = before.planned if explanation.status == "truncated" else 0
    errors = [each.standard_error for each in explanation.maps if each.standard_error is not None]
    return ProgressState(
        status=explanation.status,
        share=_share(explanation.passes, planned, 1.0) if explanation.maps else None,
        done=explanation.passes,
        planned=planned,
        error=max(errors, default=None),
        time=_taken(explanation.elapsed),
        place=_place(paths),
        note=_note(explanation),
        unreliable=any(each.warning for each in explanation.maps),
    )


def _note(explanation: Explanation) -> str:
    withheld = sorted({each.status for each in explanation.maps if each.values is None})
    if withheld:
        return f"withheld: {', '.join(withheld)}"
    return explanation.status_message or ("" if explanation.maps else "no map")


class ProgressDisplay(Protocol):
    """Shows the states of one picture's explanations."""

    def begin(self, headline: str) -> None:
        """Shows the headline: the picture and its predicted class."""

    def update(self, name: str, state: ProgressState) -> None:
        """Shows the state of one of them."""

    def close(self) -> None:
        """Leaves it as it is. Closing twice is fine."""


def display(names: Sequence[str], stream: TextIO | None, *, shared: bool = False) -> ProgressDisplay:
    """Bars where the stream is a terminal that can show them, else lines.

    Args:
        names: Names of the explanations, in the order of the request.
        stream: Where to; None for nowhere.
        shared: Whether other lines go to the same terminal meanwhile.
    """
    if stream is None or shared or not is_terminal(stream) or os.environ.get("TERM", "dumb") == "dumb":
        return LineDisplay(stream)
    return BarDisplay(names, stream)


def is_terminal(stream: TextIO | None) -> bool:
    """Whether the stream is there, open, and a terminal."""
    return stream is not None and not stream.closed and stream.isatty()


class LineDisplay:
    """About one line a second for each explanation, and one at its end."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._next: dict[str, float] = {}

    def begin(self, headline: str) -> None:
        """Shows the headline: the picture and its predicted class."""
        self._write(headline)

    def update(self, name: str, state: ProgressState) -> None:
        """Shows the state of one of them, unless it has just been shown."""
        now = time.monotonic()
        if not state.status and now < self._next.get(name, 0.0):
            return
        self._next[name] = now + _LINE_SECONDS
        passes = f"{_passes(state)} passes" if state.planned else _passes(state)
        measured = [passes, _error(state), state.time, state.place] if state.share is not None else []
        parts = [state.status, *measured, state.note]
        self._write(f"{name}: {', '.join(each for each in parts if each)}")

    def close(self) -> None:
        """Nothing to do."""

    def _write(self, line: str) -> None:
        if self._stream is not None:
            self._stream.write(f"{line}\n")
            self._stream.flush()


class BarDisplay:
    """A row for each explanation, in the order of the request; those that are done stay."""

    def __init__(self, names: Sequence[str], stream: TextIO) -> None:
        self._console = Console(file=stream, force_terminal=True, highlight=False)
        self._fancy = not self._console.options.ascii_only
        self._overflow: OverflowMethod = "ellipsis" if self._fancy else "crop"
        self._states = dict.fromkeys(names, WAITING)
        self._live = Live(
            console=self._console,
            get_renderable=self._rows,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
            vertical_overflow="visible",
        )

    def begin(self, headline: str) -> None:
        """Shows the headline, and every explanation as waiting."""
        with undisturbed():
            self._console.print(Text(headline))
            self._live.start(refresh=True)
            self._console.show_cursor()  # a program that is killed cannot bring it back

    def update(self, name: str, state: ProgressState) -> None:
        """Shows the state of one of them."""
        if name in self._states:
            self._states[name] = state
            with undisturbed():
                self._live.refresh()

    def close(self) -> None:
        """Leaves the rows as they are, and the cursor in the line below."""
        with undisturbed():
            self._live.stop()

    def _rows(self) -> Table:
        rows = Table.grid(padding=(0, 1))
        for justify in ("left", "left", "right", "left"):
            rows.add_column(justify=justify, no_wrap=True)
        narrow, wide = _BAR_WIDTHS
        width = max(narrow, min(wide, self._console.width // 5))
        cells = {name: _cells(state) for name, state in self._states.items() if state.share is not None}
        widths = [max(map(len, column)) for column in zip(*cells.values(), strict=True)]
        for name, state in self._states.items():
            aligned = [cell.ljust(width) for cell, width in zip(cells.get(name, ()), widths, strict=False) if width]
            # Where a row is too long, it loses its end; the text at the end of all has everything.
            rest = Text("  ".join([*aligned, self._note(state)]), no_wrap=True, overflow=self._overflow)
            share = () if state.share is None else _share_and_bar(state.share, width)
            rows.add_row(self._mark(state), Text(name), *(share or ("", "")), rest)
        return rows

    def _mark(self, state: ProgressState) -> str:
        if not state.status:
            return " "
        good, bad = "✓–" if self._fancy else "*-"
        return good if state.place else bad

    def _note(self, state: ProgressState) -> str:
        if state.share is None:
            return ": ".join(each for each in (state.status, state.note) if each)
        place = f"{'→' if self._fancy else '->'} {state.place}" if state.place else ""
        # Why it was truncated is too long for a row; the text at the end has it.
        parts = (place, state.note if state.status != "truncated" else "")
        return ", ".join(each for each in parts if each)


def _share_and_bar(share: float, width: int) -> tuple[str, ProgressBar]:
    return f"{math.floor(share * 100)}%", ProgressBar(1.0, share, width=width)


def _cells(state: ProgressState) -> Sequence[str]:
    return _passes(state), _error(state), f"{'cut at ' * (state.status == 'truncated')}{state.time}"


def _share(done: int, planned: int, otherwise: float) -> float:
    return min(1.0, done / planned) if planned else otherwise


def _passes(state: ProgressState) -> str:
    return f"{state.done:,} of {state.planned:,}" if state.planned else f"{state.done:,} pass{'es' * (state.done != 1)}"


def _error(state: ProgressState) -> str:
    parts = ["" if state.error is None else f"error {state.error:.2f}", "unreliable" * state.unreliable]
    return ", ".join(each for each in parts if each)


def _place(paths: Sequence[Path]) -> str:
    return f"{paths[0]}{f' and {len(paths) - 1} more' * (len(paths) > 1)}" if paths else ""


def _left(seconds: float) -> str:
    return _minutes(seconds) if seconds >= 90 else f"{max(1, math.ceil(seconds))} s"


def _taken(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return _minutes(seconds) if seconds >= 90 else f"{seconds:.1f} s"


def _minutes(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Has Ctrl-C wait until all is drawn: within, it would leave rich's buffer open, and nothing more would be seen."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed: list[Any] = []
    handler = signal.signal(signal.SIGINT, lambda *caught: pressed.append(caught))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if pressed and callable(handler):
            handler(*pressed[0])
