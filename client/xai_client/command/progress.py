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
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final, Protocol, TextIO

from tqdm import tqdm

from xai_client.types import Explanation, Progress

_LINE_SECONDS: Final = 1.0
_BAR_WIDTHS: Final = (8, 28)
_FANCY: Final = "✓–→█"


@dataclasses.dataclass(frozen=True)
class State:
    """How far an explanation is.

    Attributes:
        status: How it ended, as `Explanation.status`; empty while it runs.
        share: How much of it is done, 0 to 1; None where there is nothing to measure.
        done: Passes done.
        planned: Passes planned; 0 if not known or of no interest any more.
        error: Relative standard error; None where there is none.
        time: Time left, or, at the end, taken; in words.
        place: Where its overlays are; empty where there are none.
        note: What else there is to say.
        doubtful: Whether it is done and a map of it cannot be relied on.
    """

    status: str = ""
    share: float | None = None
    done: int = 0
    planned: int = 0
    error: float | None = None
    time: str = ""
    place: str = ""
    note: str = ""
    doubtful: bool = False


WAITING: Final = State(note="waiting")


def running(progress: Progress, paths: Sequence[Path]) -> State:
    """The state of an explanation on its way, of which there are these overlays."""
    done, planned = progress.passes, progress.planned_passes
    return State(
        share=_share(done, planned, 0.0),
        done=done,
        planned=planned,
        error=progress.standard_error,
        time="" if progress.remaining is None else f"{_left(progress.remaining)} left",
        place=_place(paths),
    )


def improved(explanation: Explanation, before: State, paths: Sequence[Path]) -> State:
    """The state after a version to be followed by a better one."""
    done = max(before.done, explanation.passes)
    return dataclasses.replace(before, share=_share(done, before.planned, 0.0), done=done, place=_place(paths), note="")


def ended(explanation: Explanation, before: State, paths: Sequence[Path]) -> State:
    """The state of an explanation that is done."""
    planned = before.planned if explanation.status == "truncated" else 0
    errors = [each.standard_error for each in explanation.maps if each.standard_error is not None]
    return State(
        status=explanation.status,
        share=_share(explanation.passes, planned, 1.0) if explanation.maps else None,
        done=explanation.passes,
        planned=planned,
        error=max(errors, default=None),
        time=_taken(explanation.elapsed),
        place=_place(paths),
        note=_note(explanation),
        doubtful=any(each.warning for each in explanation.maps),
    )


def _note(explanation: Explanation) -> str:
    withheld = sorted({each.status for each in explanation.maps if each.values is None})
    if withheld:
        return f"withheld: {', '.join(withheld)}"
    return explanation.status_message or ("" if explanation.maps else "no map")


class Display(Protocol):
    """Shows the states of one picture's explanations."""

    def begin(self, headline: str) -> None:
        """Says what they are explanations of."""

    def update(self, name: str, state: State) -> None:
        """Shows the state of one of them."""

    def aside(self, stream: TextIO | None) -> AbstractContextManager[None]:
        """A context in which another stream, maybe of the same terminal, may be written to."""

    def close(self) -> None:
        """Leaves it as it is. Closing twice is fine."""


def display(names: Sequence[str], stream: TextIO | None) -> Display:
    """Bars where the stream is a terminal that can show them, else lines.

    Args:
        names: Names of the explanations, in the order of the request.
        stream: Where to; None for nowhere.
    """
    return Bars(names, stream) if stream is not None and _columns(stream) else Lines(stream)


class Lines:
    """About one line a second for each explanation, and one at its end."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._next: dict[str, float] = {}

    def begin(self, headline: str) -> None:
        """Says what they are explanations of."""
        self._say(headline)

    def update(self, name: str, state: State) -> None:
        """Shows the state of one of them, unless it has just been shown."""
        now = time.monotonic()
        if not state.status and now < self._next.get(name, 0.0):
            return
        self._next[name] = now + _LINE_SECONDS
        passes = f"{_passes(state)} passes" if state.planned else _passes(state)
        told = [passes, _error(state), state.time, state.place] if state.share is not None else []
        told = [state.status, *told, state.note]
        self._say(f"{name}: {', '.join(each for each in told if each)}")

    def aside(self, stream: TextIO | None) -> AbstractContextManager[None]:
        """Nothing to take care of."""
        return contextlib.nullcontext()

    def close(self) -> None:
        """Nothing to do."""

    def _say(self, line: str) -> None:
        if self._stream is not None:
            self._stream.write(f"{line}\n")
            self._stream.flush()


class Bars:
    """A bar for each explanation, in the order of the request; finished ones stay."""

    def __init__(self, names: Sequence[str], stream: TextIO) -> None:
        self._stream = stream
        self._fancy = _encodes(stream, _FANCY)
        self._name_width = max(map(len, names), default=0)
        self._widths = [0, 0, 0]
        self._states = dict.fromkeys(names, WAITING)
        self._bars: dict[str, Any] = {}

    def begin(self, headline: str) -> None:
        """Says what they are explanations of, and shows all as waiting."""
        # Its thread, for bars that are seldom updated, could hang the program's end after a Ctrl-C.
        tqdm.monitor_interval = 0
        with undisturbed():
            self._stream.write(f"{headline}\n")
            for position, (name, row) in enumerate(self._rows().items()):
                self._bars[name] = tqdm(
                    total=1.0,
                    bar_format=row,
                    position=position,
                    file=self._stream,
                    ascii=None if self._fancy else True,
                    dynamic_ncols=True,
                    leave=True,
                    # Said outright, for the environment may say otherwise.
                    disable=False,
                    delay=0,
                )
            self._rest()

    def update(self, name: str, state: State) -> None:
        """Shows the state of one of them."""
        if name not in self._bars:
            return
        self._states[name] = state
        cells = zip(self._widths, _cells(state), strict=True)
        self._widths = [max(width, len(cell)) for width, cell in cells]
        with undisturbed():
            for each, row in self._rows().items():
                self._draw(self._bars[each], row, self._states[each].share or 0.0)
            self._rest()

    def aside(self, stream: TextIO | None) -> AbstractContextManager[None]:
        """Has the bars make room for what is written to their own terminal."""
        if stream is None or not stream.isatty():
            return contextlib.nullcontext()
        mode: AbstractContextManager[None] = tqdm.external_write_mode(file=stream)
        return mode

    def close(self) -> None:
        """Leaves the bars as they are, and the cursor in the line below."""
        with undisturbed():
            for bar in self._bars.values():
                bar.close()
            self._bars.clear()

    @staticmethod
    def _draw(bar: Any, row: str, share: float) -> None:
        if (bar.bar_format, bar.n) != (row, share):
            bar.bar_format, bar.n = row, share
            bar.refresh()

    def _rest(self) -> None:
        """Puts the cursor where the `^C` of a terminal will be overwritten."""
        self._stream.write("\r")
        self._stream.flush()

    def _rows(self) -> dict[str, str]:
        """The rows as tqdm's `bar_format`, by name. All bars are as wide as the longest row leaves them room for."""
        sides = {name: self._sides(name, state) for name, state in self._states.items()}
        drawn = [name for name, state in self._states.items() if state.share is not None]
        rest = max((sum(map(len, sides[name])) for name in drawn), default=0)
        narrow, wide = _BAR_WIDTHS
        bar = f"|{{bar:{max(narrow, min(wide, _columns(self._stream) - rest - 4))}}}| "
        return {name: (bar if name in drawn else "").join(map(_literal, sides[name])) for name in sides}

    def _sides(self, name: str, state: State) -> tuple[str, str]:
        """What is left and right of the bar."""
        left = f"{self._mark(state)} {name:<{self._name_width}}  "
        if state.share is None:
            return left, f"{state.status}{state.status and ': '}{state.note}"
        cells = [cell.ljust(width) for cell, width in zip(_cells(state), self._widths, strict=True) if width]
        return f"{left}{math.floor(state.share * 100):3}% ", "  ".join([*cells, self._note(state)]).rstrip()

    def _mark(self, state: State) -> str:
        if not state.status:
            return " "
        good, bad = "✓–" if self._fancy else "*-"
        return good if state.place else bad

    def _note(self, state: State) -> str:
        place = f"{'→' if self._fancy else '->'} {state.place}" if state.place else ""
        # Why it was truncated is too long for a row; the text at the end has it.
        told = (place, state.note if state.status != "truncated" else "")
        return ", ".join(each for each in told if each)


def _cells(state: State) -> Sequence[str]:
    return _passes(state), _error(state), f"{'cut at ' * (state.status == 'truncated')}{state.time}"


def _share(done: int, planned: int, otherwise: float) -> float:
    return min(1.0, done / planned) if planned else otherwise


def _passes(state: State) -> str:
    return f"{state.done:,} of {state.planned:,}" if state.planned else f"{state.done:,} pass{'es' * (state.done != 1)}"


def _error(state: State) -> str:
    told = ["" if state.error is None else f"error {state.error:.2f}", "unreliable" * state.doubtful]
    return ", ".join(each for each in told if each)


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


def _columns(stream: TextIO) -> int:
    """How wide the terminal is; 0 if the stream is none, or none that can move its cursor."""
    try:
        shows = stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        return os.get_terminal_size(stream.fileno()).columns if shows else 0
    except (OSError, ValueError):
        return 0


def _encodes(stream: TextIO, text: str) -> bool:
    try:
        text.encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _literal(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Has Ctrl-C wait until the cursor is back where the next row is counted from."""
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
