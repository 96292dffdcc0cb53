"""Computations side by side: what they ask for of the same kind is asked for at once, and the same passes only once."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

import numpy as np

from xai_sidecar.engine.work import Array, Kind, MaskedForward, MaskedOodScore, OodScores, Partial, Steps, Work

T = TypeVar("T")
U = TypeVar("U")

_MOST_ROWS = 32
"""Rows that are put together at the most: pictures of masked passes, which are views otherwise, are copied for it."""


class _Running(Generic[T]):
    """A computation with what it asks for now; its partial results are passed over.

    Attributes:
        work: None once it has ended.
        value: Its result then.
    """

    def __init__(self, steps: Steps[T]) -> None:
        self._steps = steps
        self.work: Work | None = None
        self.value: Any = None
        self.send(None)

    def send(self, result: Any) -> None:
        """Sends it what it asked for."""
        try:
            while isinstance(work := self._steps.send(result), Partial):
                result = None
            self.work = work
        except StopIteration as stop:
            self.work, self.value = None, stop.value

    def close(self) -> None:
        """Closes it."""
        self._steps.close()


@dataclass(frozen=True, eq=False)
class _Joined:
    """Works of one kind as one. Sent back: their results."""

    works: Sequence[Work]

    @property
    def kind(self) -> Kind:
        return self.works[0].kind

    @cached_property
    def rows(self) -> tuple[Array, ...]:
        return tuple(np.concatenate(column) for column in zip(*(work.rows for work in self.works), strict=True))

    def result(self, rows: tuple[Array, ...]) -> list[Any]:
        ends = np.cumsum([len(work.rows[0]) for work in self.works])[:-1]
        parts = zip(*(np.split(array, ends) for array in rows), strict=True)
        return [work.result(part) for work, part in zip(self.works, parts, strict=True)]


def together(computations: Sequence[Steps[T]]) -> Generator[Work, Any, list[T]]:
    """Runs computations side by side, so that small works of theirs fill batches.

    Args:
        computations: Of which none depends on another.

    Returns:
        Their results, in their order. Where one raises, all end.
    """
    running: list[_Running[T]] = []
    try:
        running += map(_Running, computations)
        while asking := [each for each in running if each.work is not None]:
            chosen = _of_one_kind(asking)
            works = [each.work for each in chosen if each.work is not None]
            if len(works) == 1:
                chosen[0].send((yield works[0]))
                continue
            results = yield _Joined(works)
            for each, result in zip(chosen, results, strict=True):
                each.send(result)
        return [each.value for each in running]
    finally:
        for each in running:
            each.close()


def _of_one_kind(asking: Sequence[_Running[T]]) -> list[_Running[T]]:
    """The first one, and as many others of its kind as fit."""
    chosen: list[_Running[T]] = []
    rows = 0
    for each in asking:
        work, first = each.work, asking[0].work
        if work is None or first is None or work.kind != first.kind:
            continue
        rows += len(work.rows[0])
        if chosen and rows > _MOST_ROWS:
            break
        chosen.append(each)
    return chosen


def alongside(scored: Steps[T], plain: Steps[U], saved: Callable[[Work], None]) -> Generator[Work, Any, tuple[T, U]]:
    """Runs two computations, the second of which gets the first one's logits where both ask for the same masks.

    Args:
        scored: Asks for OoD scores.
        plain: Asks for logits.
        saved: Called with each work of the second for which no pass was made.

    Returns:
        The results of both. Where one raises, both end.
    """
    running: list[_Running[Any]] = []
    try:
        running += [_Running(scored), _Running(plain)]
        first, second = running
        while first.work is not None:
            sent = yield first.work
            if second.work is not None and _same_masks(first.work, second.work):
                saved(second.work)
                second.send(_logits(sent))
            first.send(sent)
        while second.work is not None:
            second.send((yield second.work))
        return first.value, second.value
    finally:
        for each in running:
            each.close()


def _logits(scores: OodScores) -> Array:
    return scores.logits


def _same_masks(scored: Work, plain: Work) -> bool:
    """Whether the logits of a work with OoD scores are those that a work without asks for."""
    return (
        isinstance(scored, MaskedOodScore)
        and isinstance(plain, MaskedForward)
        and (scored.kind, plain.kind) == (MaskedOodScore.kind, MaskedForward.kind)
        and scored.image is plain.image
        and np.array_equal(scored.masks, plain.masks)
        and np.array_equal(scored.fill, plain.fill)
    )
