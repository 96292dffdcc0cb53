"""Whether explanations can be promised to be done before a call's deadline, beside what others were promised."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from xai_sidecar.engine.deadlines import FAIR_SHARE, Commitment, Return, advanced, fits, fits_share, time_to_return
from xai_sidecar.errors import DeadlineTooShortError, OverloadedError
from xai_sidecar.serving.explanation_costs import ExplanationCosts
from xai_sidecar.serving.load import Entitlement, ExplanationLoad, retry_after
from xai_sidecar.serving.plan import ExplanationPlan, in_units

_CERTAIN = 0.8
"""Safety factor: a request is refused for good only where even this part of the estimated time is too long."""

_BURST_SECONDS = 1.0
_MOST_RETURNS = 32
"""So many callers refused within that time are told a time each; of longer ago, nobody knows who will come back."""

_LATER = 1.05
"""Factor on the seconds until a time to come back at: estimates change."""


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


class Promising:
    """Decides what can be promised, and remembers who was told to come back when.

    Args:
        costs: Estimates how long explanations take.
    """

    def __init__(self, costs: ExplanationCosts) -> None:
        self._costs = costs
        self._returns: list[tuple[float, Return]] = []  # and when each was told, the last one last

    def check_alone(self, demand: Demand, loads: Sequence[ExplanationLoad]) -> None:
        """Refuses a request whose explanations would miss its deadline on an idle server, too.

        Args:
            demand: The request.
            loads: Its explanations of fixed cost.

        Raises:
            DeadlineTooShortError: They would.
        """
        left = demand.deadline - time.monotonic()
        if not loads or left == float("inf"):
            return
        seconds = [sum(load.seconds(self._costs)) for load in loads]
        alone = _CERTAIN * sum(seconds)
        if alone > left:
            worst = loads[seconds.index(max(seconds))].plan
            raise DeadlineTooShortError(
                f"The explanations take at least {in_units(alone)}, most of it {worst.name}, but "
                f"{_end(demand, left)}. Allow it more time, ask for fewer passes, or give explanations a budget.",
                field=f"explanations[{list(demand.plans).index(worst)}]",
            )

    def check(
        self,
        demand: Demand,
        loads: Sequence[ExplanationLoad],
        first_maps: Sequence[ExplanationLoad],
        others: Sequence[ExplanationLoad],
        entitled: Entitlement[ExplanationLoad] | None = None,
    ) -> None:
        """Refuses a request that cannot be promised what it wants, or would make others late.

        What its caller is entitled to beside others it can have, even if these are late then: who came first and asked
        for much does not keep others out.

        Args:
            demand: The request.
            loads: Its explanations of fixed cost.
            first_maps: Those with a budget, of which `check_budgets` judges whether they come in time themselves.
            others: Explanations of other requests in progress.
            entitled: What its caller is entitled to, where others have explanations in progress.

        Raises:
            OverloadedError: It would, as things are; with the time to come back at.
        """
        now = time.monotonic()
        wanted, firsts = self._commitments(loads), self._commitments(first_maps)
        if not wanted and not firsts:
            return
        promised = self._commitments(others)
        # Predictions alone may leave too little; nobody knows for how long they come.
        too_late = _CERTAIN * sum(each.seconds for each in wanted) - (demand.deadline - now)
        if entitled is None or not entitled.others:
            can_be_kept = fits(promised, wanted, now, first_maps=firsts)
        else:
            can_be_kept = fits_share(self._commitments(entitled.own), [*wanted, *firsts], now, entitled.others)
        if too_late <= 0 and can_be_kept:
            return
        back = self._told(promised, [*wanted, *firsts], now, alone=self._nothing_else(others))
        why, end = _late(promised, wanted, now), _end(demand, demand.deadline - now)
        raise OverloadedError(
            f"With what else is in progress, {why}, but {end}. Try again later, allow it more time, or give "
            "explanations a budget.",
            retry_seconds=retry_after(max(_LATER * (back - now), too_late)),
            repeatable=too_late > 0
            or fits(advanced(promised, now, back, alone=False), wanted, back, first_maps=firsts),
        )

    def fits_instead(self, load: ExplanationLoad, plan: ExplanationPlan, others: Sequence[ExplanationLoad]) -> bool:
        """Whether a picture of an admitted explanation can have another plan than the one it was taken on by.

        Args:
            load: The explanation.
            plan: The other plan.
            others: All explanations in progress.
        """
        instead = type(load)(plan, 1, by=load.by)
        promised = self._commitments([each for each in others if each is not load])
        rest = type(load)(load.plan, max(0, load.unstarted - 1), load.jobs, load.by)
        return fits([*promised, *self._commitments([rest])], self._commitments([instead]), time.monotonic())

    def _commitments(self, loads: Iterable[ExplanationLoad]) -> list[Commitment]:
        return [each for load in loads for each in load.commitments(self._costs)]

    def _nothing_else(self, loads: Iterable[ExplanationLoad]) -> bool:
        """Whether no explanation runs but those that are promised all of their passes."""
        fixed = (each for each in loads if type(each) is ExplanationLoad and each.by < float("inf"))
        running = (plan for load in fixed for job, plan in load.jobs if not job.done())
        return self._costs.explaining <= sum(plan.counts.least == plan.counts.most for plan in running)

    def _told(self, promised: Sequence[Commitment], wanted: Iterable[Commitment], now: float, *, alone: bool) -> float:
        """The time that a caller is told, after those that others of a burst were told."""
        self._returns = [each for each in self._returns[-_MOST_RETURNS:] if each[0] > now - _BURST_SECONDS]
        new = tuple(Commitment(each.by - now, each.seconds) for each in wanted)
        expected = sorted((back for _, back in self._returns), key=lambda each: each.at)
        back = time_to_return(promised, new, now, expected, alone=alone)
        self._returns.append((now, Return(back, new)))
        return back


def _late(promised: Iterable[Commitment], wanted: Sequence[Commitment], now: float) -> str:
    latest = max((each.by for each in wanted), default=now)
    together = sum(each.seconds for each in [*wanted, *promised] if each.by <= latest) / (1 - FAIR_SHARE)
    if together > latest - now:
        return f"the explanations take about {in_units(together)}"
    return "the explanations would make others late"


def _end(demand: Demand, left: float) -> str:
    if demand.capped:
        return f"no call may take longer than {in_units(left)} (server.max_call_seconds)"
    return f"the call's deadline is in {in_units(left)}"
