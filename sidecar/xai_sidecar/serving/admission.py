"""Admission control: by count, by bytes, and by what the device can do before a caller's deadline."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from xai_sidecar.config import ServerConfig
from xai_sidecar.engine.job import Job
from xai_sidecar.errors import DeadlineTooShortError, OverloadedError
from xai_sidecar.explainers.base import Saliency
from xai_sidecar.serving.budgets import check_budgets
from xai_sidecar.serving.explanation_costs import ExplanationCosts
from xai_sidecar.serving.load import ExplanationLoad, FirstMapLoad, retry_after
from xai_sidecar.serving.plan import ExplanationPlan, in_units

_CERTAIN = 0.8
"""Safety factor on estimated times: a request is refused only where even this part of them is too long."""

_WORKING_BYTES = 3 * 2**20
"""Memory of an explanation in progress besides its maps: mostly the masks of one unit of work."""

_RESERVE = 0.25
"""Share of the capacity for pictures and for bytes that only requests without explanations may use."""


@dataclass(frozen=True)
class Demand:
    """What a request would take of the server.

    Attributes:
        image_count: Number of pictures.
        plans: The explanations of each picture.
        byte_count: Size of the request in bytes.
        deadline: When the call ends, on the clock of `time.monotonic`.
        capped: Whether the deadline is the server's (server.max_call_seconds) and not the caller's own.
    """

    image_count: int
    plans: Sequence[ExplanationPlan] = ()
    byte_count: int = 0
    deadline: float = float("inf")
    capped: bool = False

    @property
    def explanation_count(self) -> int:
        """Number of explanations over all pictures."""
        return self.image_count * len(self.plans)


@dataclass(eq=False)
class AdmittedRequest:
    """A request in progress, with what it has reserved.

    Attributes:
        loads: Its explanations whose cost is fixed: no budget, no condition.
        first_maps: Its explanations with a budget, which are sure to take the time of a first map.
        images: Reserved for its pictures until they are predicted.
        explanations: Reserved for its explanations until they end.
        bytes: Reserved for what it holds in memory.
    """

    loads: list[ExplanationLoad]
    first_maps: list[FirstMapLoad] = field(default_factory=list)
    images: Reservation = field(default_factory=lambda: Reservation())
    explanations: Reservation = field(default_factory=lambda: Reservation())
    bytes: Reservation = field(default_factory=lambda: Reservation())

    def predicted(self) -> None:
        """Releases the reservation of the pictures, once all are predicted."""
        self.images.release(self.images.count)

    def explained(self) -> None:
        """Releases the reservation of one explanation of one picture, but for its maps, still to be sent."""
        self.explanations.release(1)
        self.bytes.release(_WORKING_BYTES)

    def started(self, plan: ExplanationPlan, job: Job[Saliency] | None) -> None:
        """Records that an explanation of one picture has started.

        Args:
            plan: Which explanation.
            job: What computes it; None where nothing is to be computed.
        """
        for load in [*self.loads, *self.first_maps]:
            if load.plan is plan:
                load.unstarted -= 1
                load.jobs += [job] if job is not None else []


class Admission:
    """Admits a whole request before any work on it starts, or refuses it.

    A reservation is released as soon as what it was for is done: that of pictures once they are predicted, that of an
    explanation when it ends. Part of the capacity for pictures and bytes is kept for requests without explanations, so
    that explanations cannot crowd predictions out. An idle server admits any request, whatever the capacities.

    Args:
        costs: Estimates how long explanations take.
        limits: The capacities.
        input_bytes: Size of one model input.
        map_bytes: Size of one map.

    Attributes:
        images: Capacity for pictures that wait to be predicted.
        explanations: Capacity for explanations, one for each picture.
        bytes: Capacity for what requests hold in memory.
    """

    def __init__(self, costs: ExplanationCosts, limits: ServerConfig, input_bytes: int, map_bytes: int) -> None:
        self._costs = costs
        self._limits = limits
        self._input_bytes = input_bytes
        self._map_bytes = map_bytes
        self._in_progress: set[AdmittedRequest] = set()
        self.images = Capacity("pictures", limits.queue_capacity, _RESERVE)
        self.explanations = Capacity("explanations", limits.queue_capacity)
        self.bytes = Capacity("bytes", limits.queue_bytes, _RESERVE)

    @contextmanager
    def admit(self, demand: Demand) -> Iterator[AdmittedRequest]:
        """Admits a request for as long as the context lasts.

        Raises:
            OverloadedError: Other requests leave no capacity, or no time before the deadline.
            DeadlineTooShortError: It would take longer than its caller waits, even on an idle server.
        """
        fixed = [plan for plan in demand.plans if plan.budget_seconds is None and plan.condition.always]
        budgeted = [plan for plan in demand.plans if plan.budget_seconds is not None]
        admitted = AdmittedRequest(
            [ExplanationLoad(plan, demand.image_count) for plan in fixed],
            [FirstMapLoad(plan, demand.image_count) for plan in budgeted],
        )
        self._check_time(demand, admitted)
        others = [each for other in self._in_progress for each in other.first_maps]
        check_budgets(self._costs, demand.plans, admitted.first_maps, others)
        explaining = bool(demand.plans)
        with ExitStack() as reservations:

            def take(capacity: Capacity, count: int) -> Reservation:
                reserved = capacity.take(count, self._room_seconds, explaining=explaining)
                reservations.callback(lambda: reserved.release(reserved.count))
                return reserved

            admitted.images = take(self.images, demand.image_count)
            admitted.explanations = take(self.explanations, demand.explanation_count)
            admitted.bytes = take(self.bytes, self._bytes(demand))
            self._in_progress.add(admitted)
            reservations.callback(self._in_progress.remove, admitted)
            yield admitted

    @contextmanager
    def holding(self, byte_count: int) -> Iterator[None]:
        """Admits a call that is no prediction, by its size alone, for as long as the context lasts.

        Raises:
            OverloadedError: Other requests leave no capacity.
        """
        reserved = self.bytes.take(byte_count, self._room_seconds, explaining=True)
        try:
            yield
        finally:
            reserved.release(byte_count)

    def _bytes(self, demand: Demand) -> int:
        maps = sum(plan.targets.most(self._limits.max_targets) for plan in demand.plans) * self._map_bytes
        working = len(demand.plans) * _WORKING_BYTES
        return demand.byte_count + demand.image_count * (self._input_bytes + maps + working)

    def _seconds(self, admitted: AdmittedRequest) -> list[float]:
        """Estimated seconds left of each of a request's explanations of fixed cost, on a device without other work."""
        return [seconds for load in admitted.loads for seconds in load.seconds(self._costs)]

    def _room_seconds(self) -> float:
        """Seconds until capacity may be free: when the shortest of all explanations, sharing the device, ends."""
        left = [seconds for admitted in self._in_progress for seconds in self._seconds(admitted)]
        return retry_after(self._costs.beside_predictions(min(left, default=0.0) * len(left)))

    def _check_time(self, demand: Demand, admitted: AdmittedRequest) -> None:
        """Refuses a request whose explanations would miss its deadline.

        Explanations share the device evenly: by the time that the longest one of the request ends, each of the others
        in progress has had as much device time, or all that it needed.

        Raises:
            DeadlineTooShortError: They would miss it on an idle server, too.
            OverloadedError: They would miss it beside what is in progress.
        """
        left = demand.deadline - time.monotonic()
        costs = self._seconds(admitted)
        if not costs or left == float("inf"):
            return
        alone = _CERTAIN * sum(costs)
        if alone > left:
            worst = max(admitted.loads, key=lambda load: sum(load.seconds(self._costs))).plan
            raise DeadlineTooShortError(
                f"The explanations take at least {in_units(alone)}, most of it {worst.name}, but "
                f"{_end(demand, left)}. Allow it more time, ask for fewer passes, or give explanations a budget.",
                field=f"explanations[{demand.plans.index(worst)}]",
            )
        longest = max(costs)
        others = (seconds for other in self._in_progress for seconds in self._seconds(other))
        beside = _CERTAIN * sum(min(longest, seconds) for seconds in others)
        together = self._costs.beside_predictions(alone + beside)
        if together > left:
            raise OverloadedError(
                f"With what else is in progress, the explanations take at least {in_units(together)}, but "
                f"{_end(demand, left)}. Try again later, allow it more time, or give explanations a budget.",
                retry_seconds=retry_after(together - left),
            )


def _end(demand: Demand, left: float) -> str:
    if demand.capped:
        return f"no call may take longer than {in_units(left)} (server.max_call_seconds)"
    return f"the call's deadline is in {in_units(left)}"


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
