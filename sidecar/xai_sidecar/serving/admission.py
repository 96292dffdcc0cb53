"""What is taken on: bounded by count, by bytes, and by what can be done before a caller's deadline."""

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
"""A request is refused where even this part of what it should take is more than its caller waits."""

_WORKING_BYTES = 3 * 2**20
"""What an explanation under way holds besides its maps, most of it masks: those of one piece of work, and some more."""

_RESERVE = 0.25
"""The part of the pictures and bytes that only plain predictions may take."""


@dataclass(frozen=True)
class Demand:
    """What a request asks for.

    Attributes:
        image_count: Pictures.
        plans: The explanations wanted of each.
        byte_count: Size of the request.
        deadline: When the call ends, on the clock of `time.monotonic`.
        capped: Whether that is the longest time that the server lets a call take, and not its caller's own deadline.
    """

    image_count: int
    plans: Sequence[ExplanationPlan] = ()
    byte_count: int = 0
    deadline: float = float("inf")
    capped: bool = False

    @property
    def explanation_count(self) -> int:
        """Explanations of all pictures."""
        return self.image_count * len(self.plans)


@dataclass(eq=False)
class AdmittedRequest:
    """A request under way.

    Attributes:
        loads: Its explanations that are sure to take the time that they take: those without budget or condition.
        first_maps: Its explanations with a budget.
        images: Its pictures, as long as they wait to be predicted.
        explanations: Its explanations that are not done.
        bytes: What it holds in memory.
    """

    loads: list[ExplanationLoad]
    first_maps: list[FirstMapLoad] = field(default_factory=list)
    images: Reservation = field(default_factory=lambda: Reservation())
    explanations: Reservation = field(default_factory=lambda: Reservation())
    bytes: Reservation = field(default_factory=lambda: Reservation())

    def predicted(self) -> None:
        """Gives back the share of its pictures: all that is left to do is to explain and to answer."""
        self.images.give_back(self.images.count)

    def explained(self) -> None:
        """Gives back the share of one explanation of one picture, but for its maps, which wait to be sent."""
        self.explanations.give_back(1)
        self.bytes.give_back(_WORKING_BYTES)

    def begun(self, plan: ExplanationPlan, job: Job[Saliency] | None) -> None:
        """Takes down that one of its explanations is run by a job, or has turned out to need none."""
        for load in [*self.loads, *self.first_maps]:
            if load.plan is plan:
                load.unbegun -= 1
                load.jobs += [job] if job is not None else []


class Admission:
    """Takes requests on, whole, before anything is done for them; or refuses them.

    A share lasts no longer than what it is for: that of a picture until it is predicted, that of an explanation until
    it is done. Part of the pictures and bytes is kept for requests without explanations, so that those with
    explanations cannot crowd them out. Whatever the capacities, a server with nothing to do takes any request.

    Args:
        costs: Knows what explanations take.
        limits: How much is taken on.
        input_bytes: Size of one model input.
        map_bytes: Size of one map.
    """

    def __init__(self, costs: ExplanationCosts, limits: ServerConfig, input_bytes: int, map_bytes: int) -> None:
        self._costs = costs
        self._limits = limits
        self._input_bytes = input_bytes
        self._map_bytes = map_bytes
        self._under_way: set[AdmittedRequest] = set()
        self.images = Capacity("pictures", limits.queue_capacity, _RESERVE)
        self.explanations = Capacity("explanations", limits.queue_capacity)
        self.bytes = Capacity("bytes", limits.queue_bytes, _RESERVE)

    @contextmanager
    def admit(self, demand: Demand) -> Iterator[AdmittedRequest]:
        """Takes a request on for as long as the context lasts.

        Raises:
            OverloadedError: Too much is under way.
            DeadlineTooShortError: It takes longer than its caller waits, even if nothing else were under way.
        """
        sure = [plan for plan in demand.plans if plan.budget_seconds is None and plan.condition.always]
        hurried = [plan for plan in demand.plans if plan.budget_seconds is not None]
        admitted = AdmittedRequest(
            [ExplanationLoad(plan, demand.image_count) for plan in sure],
            [FirstMapLoad(plan, demand.image_count) for plan in hurried],
        )
        self._check_time(demand, admitted)
        others = [each for other in self._under_way for each in other.first_maps]
        check_budgets(self._costs, demand.plans, admitted.first_maps, others)
        explaining = bool(demand.plans)
        with ExitStack() as parts:

            def take(share: Capacity, count: int) -> Reservation:
                part = share.take(count, self._room_seconds, explaining=explaining)
                parts.callback(lambda: part.give_back(part.count))
                return part

            admitted.images = take(self.images, demand.image_count)
            admitted.explanations = take(self.explanations, demand.explanation_count)
            admitted.bytes = take(self.bytes, self._bytes(demand))
            self._under_way.add(admitted)
            parts.callback(self._under_way.remove, admitted)
            yield admitted

    @contextmanager
    def holding(self, byte_count: int) -> Iterator[None]:
        """Takes a call on that is no prediction, for as long as the context lasts: only its size counts.

        Raises:
            OverloadedError: Too much is under way.
        """
        part = self.bytes.take(byte_count, self._room_seconds, explaining=True)
        try:
            yield
        finally:
            part.give_back(byte_count)

    def _bytes(self, demand: Demand) -> int:
        maps = sum(plan.targets.most(self._limits.max_targets) for plan in demand.plans) * self._map_bytes
        working = len(demand.plans) * _WORKING_BYTES
        return demand.byte_count + demand.image_count * (self._input_bytes + maps + working)

    def _seconds(self, admitted: AdmittedRequest) -> list[float]:
        """What is left to do of each of a request's explanations, at the least."""
        return [seconds for load in admitted.loads for seconds in load.seconds(self._costs)]

    def _room_seconds(self) -> float:
        """When there may be room again: once the shortest of what is under way, shared out evenly, is done."""
        left = [seconds for admitted in self._under_way for seconds in self._seconds(admitted)]
        return retry_after(self._costs.beside_predictions(min(left, default=0.0) * len(left)))

    def _check_time(self, demand: Demand, admitted: AdmittedRequest) -> None:
        """Refuses what would be run in vain.

        Explanations under way share the device evenly: until the longest of a request is done, each of the others has
        had as much time, or all that it needed.
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
        others = (seconds for other in self._under_way for seconds in self._seconds(other))
        beside = _CERTAIN * sum(min(longest, seconds) for seconds in others)
        together = self._costs.beside_predictions(alone + beside)
        if together > left:
            raise OverloadedError(
                f"With what else is under way, the explanations take at least {in_units(together)}, but "
                f"{_end(demand, left)}. Try again later, allow it more time, or give explanations a budget.",
                retry_seconds=retry_after(together - left),
            )


def _end(demand: Demand, left: float) -> str:
    if demand.capped:
        return f"no call may take longer than {in_units(left)} (server.max_call_seconds)"
    return f"the call's deadline is in {in_units(left)}"


class Reservation:
    """What a request has of a share.

    Attributes:
        count: How much it still has.
    """

    def __init__(self, share: Capacity | None = None, count: int = 0, *, explaining: bool = False) -> None:
        self.count = count
        self._share = share
        self._explaining = explaining

    def give_back(self, count: int) -> None:
        """Gives some of it back, and no more than there is."""
        count = min(count, self.count)
        self.count -= count
        if self._share is not None:
            self._share.taken_by[self._explaining] -= count


class Capacity:
    """A capacity that requests take a part of.

    Args:
        what: What is counted.
        capacity: How much of it there is.
        reserve: The part of it that only requests without explanations may take.

    Attributes:
        taken_by: How much requests without explanations have taken, and those with them.
    """

    def __init__(self, what: str, capacity: int, reserve: float = 0.0) -> None:
        self._what = what
        self._capacity = capacity
        self._explaining_capacity = int(capacity * (1 - reserve))
        self.taken_by = [0, 0]

    @property
    def taken(self) -> int:
        """How much is taken."""
        return sum(self.taken_by)

    def take(self, count: int, room_seconds: Callable[[], float], *, explaining: bool) -> Reservation:
        """Takes a part.

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
                f"{taken:,} {self._what}{of} are under way, and {count:,} more would be over the {capacity:,} "
                "that the server takes on. Try again shortly.",
                retry_seconds=room_seconds(),
            )
