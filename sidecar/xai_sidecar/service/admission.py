"""What is taken on: bounded by count, by bytes, and by what can be done before a caller's deadline."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from xai_sidecar.config import ServerConfig
from xai_sidecar.engine.engine import Engine
from xai_sidecar.engine.job import Job
from xai_sidecar.errors import DeadlineTooShortError, OverloadedError
from xai_sidecar.explainers.base import Saliency
from xai_sidecar.service.plan import ExplanationPlan, in_units

_CERTAIN = 0.8
"""A request is refused where even this part of what it should take is more than its caller waits."""

_RETRY_SECONDS = (0.1, 30.0)

_WORKING_BYTES = 4 * 2**20
"""What an explanation under way holds besides its maps, most of it masks."""


@dataclass(frozen=True)
class Demand:
    """What a request asks for.

    Attributes:
        image_count: Pictures.
        plans: The explanations wanted of each.
        byte_count: Size of the request.
        deadline: When its caller stops waiting, on the clock of `time.monotonic`.
    """

    image_count: int
    plans: Sequence[ExplanationPlan] = ()
    byte_count: int = 0
    deadline: float = float("inf")

    @property
    def explanation_count(self) -> int:
        """Explanations of all pictures."""
        return self.image_count * len(self.plans)


@dataclass(eq=False)
class Load:
    """What one explanation of a request puts on the device, picture by picture.

    Attributes:
        plan: The explanation wanted.
        unbegun: Pictures of which it is not begun.
        jobs: Those that are.
    """

    plan: ExplanationPlan
    unbegun: int
    jobs: list[Job[Saliency]] = field(default_factory=list)

    def rows(self) -> list[int]:
        """The fewest passes that are left to do, of each picture."""
        least = self.plan.counts.least
        begun = [0 if job.done() else max(0, least - job.pass_count) for job in self.jobs]
        return begun + [least] * self.unbegun


@dataclass(eq=False)
class Admitted:
    """A request under way.

    Attributes:
        loads: Its explanations that are sure to take the time that they take: those without budget or condition.
    """

    loads: list[Load]

    def begun(self, plan: ExplanationPlan, job: Job[Saliency] | None) -> None:
        """Takes down that one of its explanations is run by a job, or has turned out to need none."""
        for load in self.loads:
            if load.plan is plan:
                load.unbegun -= 1
                load.jobs += [job] if job is not None else []


class Admission:
    """Takes requests on, whole, before anything is done for them; or refuses them.

    Pictures and explanations are counted apart, so that explanations cannot crowd out predictions. Whatever the
    capacities, a server with nothing to do takes any request.

    Args:
        engine: Knows what passes take.
        limits: How much is taken on.
        input_bytes: Size of one model input.
        map_bytes: Size of one map.
    """

    def __init__(self, engine: Engine, limits: ServerConfig, input_bytes: int, map_bytes: int) -> None:
        self._engine = engine
        self._limits = limits
        self._input_bytes = input_bytes
        self._map_bytes = map_bytes
        self._under_way: set[Admitted] = set()
        self.images = _Share("pictures", limits.queue_capacity)
        self.explanations = _Share("explanations", limits.queue_capacity)
        self.bytes = _Share("bytes", limits.queue_bytes)

    @contextmanager
    def admit(self, demand: Demand) -> Iterator[Admitted]:
        """Takes a request on for as long as the context lasts.

        Raises:
            OverloadedError: Too much is under way.
            DeadlineTooShortError: It takes longer than its caller waits, even if nothing else were under way.
        """
        sure = [plan for plan in demand.plans if plan.budget_seconds is None and plan.condition.always]
        admitted = Admitted([Load(plan, demand.image_count) for plan in sure])
        self._check_time(demand, admitted)
        with (
            self.images.of(demand.image_count, self._room_seconds),
            self.explanations.of(demand.explanation_count, self._room_seconds),
            self.bytes.of(self._bytes(demand), self._room_seconds),
        ):
            self._under_way.add(admitted)
            try:
                yield admitted
            finally:
                self._under_way.remove(admitted)

    def _bytes(self, demand: Demand) -> int:
        maps = sum(plan.targets.most(self._limits.max_targets) for plan in demand.plans) * self._map_bytes
        working = len(demand.plans) * _WORKING_BYTES
        return demand.byte_count + demand.image_count * (self._input_bytes + maps + working)

    def _seconds(self, admitted: Admitted) -> list[float]:
        """What is left to do of each of a request's explanations, at the least."""
        return [self._engine.seconds(load.plan.kind, rows) for load in admitted.loads for rows in load.rows() if rows]

    def _room_seconds(self) -> float:
        """When there may be room again: once the shortest of what is under way, shared out evenly, is done."""
        left = [seconds for admitted in self._under_way for seconds in self._seconds(admitted)]
        return _bounded(min(left, default=0.0) * len(left))

    def _check_time(self, demand: Demand, admitted: Admitted) -> None:
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
            worst = max(admitted.loads, key=lambda load: self._engine.seconds(load.plan.kind, sum(load.rows()))).plan
            raise DeadlineTooShortError(
                f"The explanations take at least {in_units(alone)}, most of it {worst.name}, but the call's deadline "
                f"is in {in_units(left)}. Allow it more time, ask for fewer passes, or give explanations a budget.",
                field=f"explanations[{demand.plans.index(worst)}]",
            )
        longest = max(costs)
        others = (seconds for other in self._under_way for seconds in self._seconds(other))
        together = alone + _CERTAIN * sum(min(longest, seconds) for seconds in others)
        if together > left:
            raise OverloadedError(
                f"With what else is under way, the explanations take at least {in_units(together)}, but the call's "
                f"deadline is in {in_units(left)}. Try again later, allow it more time, or give explanations a budget.",
                retry_seconds=_bounded(together - left),
            )


def _bounded(seconds: float) -> float:
    low, high = _RETRY_SECONDS
    return min(max(seconds, low), high)


class _Share:
    """A capacity that requests take a part of while they last.

    Attributes:
        taken: How much of it is taken.
    """

    def __init__(self, what: str, capacity: int) -> None:
        self._what = what
        self._capacity = capacity
        self.taken = 0

    @contextmanager
    def of(self, count: int, room_seconds: Callable[[], float]) -> Iterator[None]:
        if self.taken and count and self.taken + count > self._capacity:
            raise OverloadedError(
                f"{self.taken:,} {self._what} are under way, and {count:,} more would be over the {self._capacity:,} "
                "that the server takes on. Try again shortly.",
                retry_seconds=room_seconds(),
            )
        self.taken += count
        try:
            yield
        finally:
            self.taken -= count
