"""Admission control: by count, by bytes, and by what the device can do before a caller's deadline."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from xai_sidecar.config import ServerConfig
from xai_sidecar.engine.job import Job
from xai_sidecar.errors import quoted
from xai_sidecar.explainers.base import Saliency
from xai_sidecar.serving.answering import AnsweringTime
from xai_sidecar.serving.budgets import check_budgets
from xai_sidecar.serving.callers import current_caller
from xai_sidecar.serving.capacity import Capacity, Reservation
from xai_sidecar.serving.explanation_costs import ExplanationCosts
from xai_sidecar.serving.load import Entitlement, ExplanationLoad, FirstMapLoad, retry_after
from xai_sidecar.serving.plan import ExplanationPlan
from xai_sidecar.serving.promising import Demand, Promising

_WORKING_BYTES = 3 * 2**20
"""Memory of an explanation in progress besides its maps: mostly the masks of one unit of work."""

_RESERVE = 0.25
"""Share of the capacity for pictures and for bytes that only requests without explanations may use."""


@dataclass(eq=False)
class AdmittedRequest:
    """A request in progress, with what it has reserved.

    Attributes:
        loads: Its explanations whose cost is fixed: no budget, no condition.
        first_maps: Its explanations with a budget, which are sure to take the time of a first map.
        fits_instead: Whether a picture can have another plan than that of a load; see `Promising`.
        caller: Whose it is.
        images: Reserved for its pictures until they are predicted.
        explanations: Reserved for its explanations until they end.
        of_caller: The same of what its caller may have.
        bytes: Reserved for what it holds in memory.
    """

    loads: list[ExplanationLoad]
    first_maps: list[FirstMapLoad] = field(default_factory=list)
    fits_instead: Callable[[ExplanationLoad, ExplanationPlan], bool] = lambda load, plan: True
    caller: str = ""
    images: Reservation = field(default_factory=lambda: Reservation())
    explanations: Reservation = field(default_factory=lambda: Reservation())
    of_caller: Reservation = field(default_factory=lambda: Reservation())
    bytes: Reservation = field(default_factory=lambda: Reservation())

    def predicted(self) -> None:
        """Releases the reservation of the pictures, once all are predicted."""
        self.images.release(self.images.count)

    def explained(self) -> None:
        """Releases the reservation of one explanation of one picture, but for its maps, still to be sent."""
        self.explanations.release(1)
        self.of_caller.release(1)
        self.bytes.release(_WORKING_BYTES)

    def started(self, plan: ExplanationPlan, job: Job[Saliency] | None, chosen: ExplanationPlan | None = None) -> None:
        """Records that an explanation of one picture has started.

        Args:
            plan: Which explanation.
            job: What computes it; None where nothing is to be computed.
            chosen: The plan that it follows, where the server has chosen one.
        """
        for load in [*self.loads, *self.first_maps]:
            if load.plan is plan:
                load.unstarted -= 1
                load.jobs += [(job, chosen or plan)] if job is not None else []

    def due(self, plan: ExplanationPlan) -> float:
        """When an explanation of fixed cost is promised to be done; infinite where nothing is promised."""
        return min((load.by for load in self.loads if load.plan is plan), default=float("inf"))

    def can_have(self, plan: ExplanationPlan, candidate: ExplanationPlan) -> bool:
        """Whether a picture can have a candidate for a plan without making anybody late."""
        return all(self.fits_instead(load, candidate) for load in self.loads if load.plan is plan)


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
        answering: Says how long before a deadline explanations have to end.

    Attributes:
        images: Capacity for pictures that wait to be predicted.
        explanations: Capacity for explanations, one for each picture.
        bytes: Capacity for what requests hold in memory.
    """

    def __init__(
        self,
        costs: ExplanationCosts,
        limits: ServerConfig,
        input_bytes: int,
        map_bytes: int,
        answering: AnsweringTime | None = None,
    ) -> None:
        self._costs = costs
        self._answering = answering or AnsweringTime()
        self._promising = Promising(costs)
        self._limits = limits
        self._input_bytes = input_bytes
        self._map_bytes = map_bytes
        self._in_progress: set[AdmittedRequest] = set()
        self._of_callers: dict[str, Capacity] = {}
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
        admitted = self._admitted(demand) if demand.plans else AdmittedRequest([])
        admitted.caller = current_caller().name
        if demand.plans:
            self._check_time(demand, admitted)
        take = partial(Capacity.take, room_seconds=self._room_seconds, explaining=bool(demand.plans))
        try:
            admitted.images = take(self.images, demand.image_count)
            admitted.explanations = take(self.explanations, demand.explanation_count)
            if demand.plans:
                admitted.of_caller = take(self._capacity_of(admitted.caller), demand.explanation_count)
            admitted.bytes = take(self.bytes, self._bytes(demand))
            self._in_progress.add(admitted)
            yield admitted
        finally:
            self._in_progress.discard(admitted)
            for reserved in (admitted.bytes, admitted.of_caller, admitted.explanations, admitted.images):
                reserved.release(reserved.count)
            if (capacity := self._of_callers.get(admitted.caller)) and not capacity.taken:
                del self._of_callers[admitted.caller]

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

    def _capacity_of(self, caller: str) -> Capacity:
        """The capacity for explanations of a caller."""
        most = self._limits.callers.max_explanations or self._limits.queue_capacity
        made = Capacity(f"explanations of {quoted(caller)}", most)
        return self._of_callers.setdefault(caller, made)

    def _check_time(self, demand: Demand, admitted: AdmittedRequest) -> None:
        self._promising.check_alone(demand, admitted.loads)
        own = [other for other in self._in_progress if other.caller == admitted.caller]
        wanted = self._wanted_by_others(admitted.caller)
        first_maps = [each for other in self._in_progress for each in other.first_maps]
        own_firsts = Entitlement([each for other in own for each in other.first_maps], wanted)
        check_budgets(self._costs, demand.plans, admitted.first_maps, first_maps, own_firsts)
        own_loads = Entitlement([each for other in own for each in (*other.loads, *other.first_maps)], wanted)
        self._promising.check(demand, admitted.loads, admitted.first_maps, self._all_loads(), own_loads)

    def _wanted_by_others(self, caller: str) -> list[float]:
        """Seconds that the explanations of each other caller still take; infinite where they have no fixed end."""
        wanted: dict[str, float] = {}
        for other in self._in_progress:
            if other.caller != caller and other.explanations.count:
                fixed = not other.first_maps and all(load.by < float("inf") for load in other.loads)
                seconds = sum(self._seconds(other)) if fixed else float("inf")
                wanted[other.caller] = wanted.get(other.caller, 0.0) + seconds
        return list(wanted.values())

    def _admitted(self, demand: Demand) -> AdmittedRequest:
        now, latest = time.monotonic(), self._answering.before(demand.deadline)
        due = float("inf") if demand.capped else latest
        fixed = [plan for plan in demand.plans if plan.budget_seconds is None and plan.condition.always]
        budgeted = [(plan, plan.budget_seconds) for plan in demand.plans if plan.budget_seconds is not None]
        return AdmittedRequest(
            [ExplanationLoad(plan, demand.image_count, by=due) for plan in fixed],
            [FirstMapLoad(plan, demand.image_count, by=min(now + budget, latest)) for plan, budget in budgeted],
            lambda load, plan: self._promising.fits_instead(load, plan, self._all_loads()),
        )

    def _all_loads(self) -> list[ExplanationLoad]:
        return [each for admitted in self._in_progress for each in (*admitted.loads, *admitted.first_maps)]

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
