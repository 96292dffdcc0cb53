"""Bounded quantities that requests reserve parts of."""

from __future__ import annotations

from collections.abc import Callable

from xai_sidecar.errors import OverloadedError


class Reservation:
    """What a request has reserved of a capacity.

    Attributes:
        count: How much is still reserved.
    """

    def __init__(self, capacity: Capacity | None = None, count: int = 0, *, explaining: bool = False) -> None:
        self.count = count
        self._capacity = capacity
        self._explaining = explaining

    def release(self, count: int) -> None:
        """Releases so much of it, at most what is left."""
        count = min(count, self.count)
        self.count -= count
        if self._capacity is not None:
            self._capacity.taken_by[self._explaining] -= count


class Capacity:
    """A bounded quantity that requests reserve parts of.

    Args:
        what: What is counted, as error messages name it.
        capacity: The bound.
        reserve: Share of it that only requests without explanations may use, 0 to 1.

    Attributes:
        taken_by: What is reserved by requests without explanations, and by those with them.
    """

    def __init__(self, what: str, capacity: int, reserve: float = 0.0) -> None:
        self._what = what
        self._capacity = capacity
        self._explaining_capacity = int(capacity * (1 - reserve))
        self.taken_by = [0, 0]

    @property
    def taken(self) -> int:
        """How much is reserved."""
        return sum(self.taken_by)

    def take(self, count: int, room_seconds: Callable[[], float], *, explaining: bool) -> Reservation:
        """Reserves so much.

        Args:
            count: How much.
            room_seconds: Estimates when capacity may be free again; called on refusal.
            explaining: Whether the request has explanations.

        Raises:
            OverloadedError: There is not so much left.
        """
        plain, explanations = self.taken_by
        if not explaining:
            # What explanations have taken from the reserve, when nothing else was there, is not held against others.
            taken = plain + min(explanations, self._explaining_capacity) if plain else 0
            self._check(taken, count, self._capacity, "", room_seconds)
        else:
            self._check(self.taken, count, self._capacity, "", room_seconds)
            self._check(explanations, count, self._explaining_capacity, " for explanations", room_seconds)
        self.taken_by[explaining] += count
        return Reservation(self, count, explaining=explaining)

    def _check(self, taken: int, count: int, capacity: int, of: str, room_seconds: Callable[[], float]) -> None:
        if taken and count and taken + count > capacity:
            raise OverloadedError(
                f"{taken:,} {self._what}{of} are in progress, and {count:,} more would be over the {capacity:,} "
                "that the server takes on. Try again shortly.",
                retry_seconds=room_seconds(),
            )
