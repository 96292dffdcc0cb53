"""The scheduling policy: which rows go into the next batch, and how large it is. No clock, thread or device in here.

Predictions run before explanations, and these before evaluation, decided anew at every batch boundary. Explanations are
owed a minimum share of device time; evaluation is limited to idle time by `throttle`. Callers share each lane's time
evenly, by start-time fair queueing, and so do the jobs of a caller, each a flow, but for predictions, which are served
first come, first served; see `turns`. A job in a hurry may get a head start among those of its caller: service in
advance, charged like any other, limited to a share of the time. Explanations that were promised to be done by a time go
first as far as they have to, but for a share that is always by turns, and as long as their caller is not far ahead of
others; see `deadlines`.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from xai_sidecar.engine.batch import MOST_LENT, Batch, Flow, Lane, Task, TaskSlice
from xai_sidecar.engine.costs import row_seconds
from xai_sidecar.engine.deadlines import FAIR_SHARE, Promises
from xai_sidecar.engine.throttle import IdleThrottle
from xai_sidecar.engine.turns import LaneQueues, account_of
from xai_sidecar.engine.work import Kind


@dataclass(frozen=True)
class Policy:
    """Settings of the scheduler.

    Attributes:
        slice_seconds: Time slice: the most that a batch may take, unless it is of one row.
        explain_share: Minimum share of device time for explanations that wait, however many predictions there are.
        batch_delay_seconds: How long a prediction may wait for others to share a batch with.
        evaluate_slice_seconds: Time slice of evaluation while other lanes are in use.
        evaluate_share: Maximum share of device time for evaluation, above 0.
    """

    slice_seconds: float = 0.02
    explain_share: float = 0.1
    batch_delay_seconds: float = 0.0
    evaluate_slice_seconds: float = 0.02
    evaluate_share: float = 1.0


class Scheduler:
    """Queues tasks and makes the next batch of them.

    Args:
        costs: The batch sizes of a kind, with the seconds that a batch of each takes.
        policy: The settings.
        seconds: Seconds that a row of an explanation of a kind and label takes now; by default what its costs say.
        beside: Whether evaluation of a kind runs beside the device at present; by default none does.
    """

    def __init__(
        self,
        costs: Callable[[Kind], Mapping[int, float]],
        policy: Policy | None = None,
        seconds: Callable[[Kind, str], float] | None = None,
        beside: Callable[[Kind], bool] = lambda kind: False,
    ) -> None:
        self._costs = costs
        self._policy = policy or Policy()
        self._arrivals = itertools.count()
        self._lanes = {lane: LaneQueues(ordered=lane is not Lane.PREDICT) for lane in Lane}
        self._again: dict[Lane, deque[Batch]] = {lane: deque() for lane in Lane}
        self._rest: Task | None = None  # the task of which the last batch had no room for all rows
        self._seconds = seconds or (lambda kind, label: row_seconds(costs(kind), self._policy.slice_seconds))
        self._beside = beside
        self._promises = Promises(self._row_seconds)
        self._owed_by_turns = 0.0  # device seconds by which turns of explanations are behind their share
        self._owed = 0.0  # device seconds by which explanations are behind their share
        self._granted = 0.0  # of that, for the last batch of predictions
        self._now = 0.0  # time of the last call
        self._began = 0.0  # when the last batch began
        self._throttle = IdleThrottle(
            self._policy.evaluate_share, self._policy.evaluate_slice_seconds, self._policy.slice_seconds
        )

    def waiting(self, lane: Lane) -> int:
        """Rows queued in a lane, those of failed batches left out; any thread may ask."""
        return self._lanes[lane].rows

    def add(self, task: Task, now: float = 0.0) -> None:
        """Queues a task of at least one row."""
        task.added, task.arrival, task.flow.task = now, next(self._arrivals), task
        self._now = now
        if task.lane is not Lane.EVALUATE:
            self._throttle.others(now)
        if task.lane is Lane.PREDICT:
            self._throttle.arrived()
            self._throttle.predicted(min(self._costs(task.kind).values()))
        new = task.flow.new
        self._lanes[task.lane].add(task, min(self._allowed(task.kind, task.lane).values()))
        if new:
            self._promises.add(task.flow)

    def announce(self, now: float) -> None:
        """Says that a prediction will be added soon, which evaluation had better not delay; any thread may call it."""
        self._throttle.announced(now)

    def again(self, batch: Batch) -> None:
        """Queues a batch as it is, before everything else of its lane: part of one that failed."""
        self._again[batch.lane].append(batch)

    def pause_evaluation(self, until: float) -> None:
        """Lets no evaluation begin before a time, on the clock of `add`."""
        self._throttle.pause(until)

    def discard(self, task: Task) -> None:
        """Removes those rows of a task that are in no batch yet."""
        self._lanes[task.lane].discard(task)
        task.scheduled, task.entry = task.row_count, None

    def leave(self, flow: Flow) -> None:
        """Forgets a flow, which has ended."""
        self._promises.remove(flow)
        if flow.task is not None:
            self._lanes[flow.task.lane].leave(flow)
        flow.task = None  # which refers to its job

    def next(self, now: float = 0.0) -> Batch | None:
        """Takes the rows of the next batch out of the queues; None when nothing may run yet.

        `ran` has to be called with it before the next one is made.

        Args:
            now: On the clock of `add`.
        """
        self._put_back()
        self._now = self._began = now
        prediction = self._next_prediction(now)
        predictions = self._again[Lane.PREDICT] or prediction is not None
        if self._wants(Lane.EXPLAIN) and (not predictions or self._explanations_are_owed()):
            return self._first(Lane.EXPLAIN)
        if predictions:
            return self._first(Lane.PREDICT, prediction)
        return None if self._wants(Lane.PREDICT) else self._next_evaluation(now)

    def next_beside(self, now: float, costs: Callable[[Kind], Mapping[int, float]]) -> Batch | None:
        """Takes the rows of the next batch that runs beside the device out of the queues; None when none may yet.

        It is charged to whom it is for at once; what it uses, by `ran_beside`.

        Args:
            now: On the clock of `add`.
            costs: The batch sizes of a kind there, with the seconds that a batch of each takes.
        """
        self._put_back()
        # Asked once: what runs beside the device may end meanwhile.
        kinds = self._kinds_of_evaluation(beside=True) if now >= self._throttle.begin_beside else []
        if not kinds:
            return None
        self._now = now
        batch = self._batch(Lane.EVALUATE, kinds[0], costs=costs(kinds[0]))
        self._lanes[Lane.EVALUATE].charge([each.task for each in batch.slices], batch.expected_seconds, self._rest)
        self._put_back()
        return batch

    def due_beside(self) -> float | None:
        """When a batch may run beside the device; None if none waits for that."""
        return self._throttle.begin_beside if self._kinds_of_evaluation(beside=True) else None

    def ran_beside(self, now: float, seconds: float) -> None:
        """Charges to evaluation what batches beside the device have used of its CPUs, in seconds of all of them."""
        self._throttle.ran_beside(now, seconds)

    def due(self) -> float | None:
        """When the batch delay of waiting predictions ends, or else evaluation may go on; None if neither waits.

        What runs beside the device is left out.
        """
        self._put_back()
        added = [task.added for *_, task in self._lanes[Lane.PREDICT]]
        if added:
            return min(added) + self._policy.batch_delay_seconds
        return min((begin for begin, _ in self._evaluations()), default=None)

    def ran(self, batch: Batch, seconds: float) -> None:
        """Charges the seconds of a batch, whether it succeeded or not; those expected, where it is still to run."""
        lane = batch.lane
        self._lanes[lane].charge([each.task for each in batch.slices], seconds, self._rest)
        self._put_back()
        share = self._policy.explain_share
        if lane is Lane.EVALUATE:
            self._throttle.ran(self._began, seconds)
        else:
            self._throttle.others(self._began + seconds)
        if lane is Lane.EXPLAIN:
            by_turns = self._owed_by_turns + (FAIR_SHARE if batch.urgent else FAIR_SHARE - 1) * seconds
            self._owed_by_turns = max(by_turns, -max(self._policy.slice_seconds, seconds))
            # Service received while no prediction came is not held against them, but for the last batch.
            self._owed = max(self._owed - (1 - share) * seconds, -max(self._policy.slice_seconds, seconds))
        elif self._wants(Lane.EXPLAIN):
            self._granted = share * seconds
            self._owed += self._granted

    def _put_back(self) -> None:
        """Queues the task of which the last batch had no room for all rows, now that its flow has been charged."""
        rest, self._rest = self._rest, None
        if rest is not None and rest.waiting:
            self._lanes[rest.lane].push(rest)

    # ---------------------------------------------------------------------------------------- which lane

    def _wants(self, lane: Lane) -> bool:
        return bool(self._again[lane]) or self._lanes[lane].waits

    def _next_prediction(self, now: float) -> Kind | None:
        """The kind of the oldest predictions that need not wait any longer for others to share a batch with."""
        predictions = self._lanes[Lane.PREDICT]
        for *_, task in sorted(predictions):
            waited = now >= task.added + self._policy.batch_delay_seconds
            if waited or predictions.kinds[task.kind].rows >= _fastest(self._allowed(task.kind, task.lane)):
                return task.kind
        return None

    def _next_evaluation(self, now: float) -> Batch | None:
        """The batch of the first flow in order whose kind may begin."""
        kinds = [kind for begin, kind in self._evaluations() if now >= begin]
        return self._first(Lane.EVALUATE, kinds[0]) if kinds else None

    def _evaluations(self) -> list[tuple[float, Kind | None]]:
        """When evaluation of each kind may begin, in the order of start tags; a kind of None is a batch run again."""
        if self._again[Lane.EVALUATE]:
            return [(self._throttle.begin(0.0), None)]
        kinds = self._kinds_of_evaluation(beside=False)
        return [(self._throttle.begin(min(self._costs(kind).values())), kind) for kind in kinds]

    def _kinds_of_evaluation(self, *, beside: bool) -> list[Kind]:
        """The kinds of evaluation that waits, to be run beside the device or on it, in the order of start tags."""
        kinds = [task.kind for *_, task in sorted(self._lanes[Lane.EVALUATE])]
        return [kind for kind in kinds if self._beside(kind) is beside]

    def _explanations_are_owed(self) -> bool:
        """Whether explanations are behind their share by as much as their next batch costs."""
        again = self._again[Lane.EXPLAIN]
        costs = self._allowed(again[0].kind if again else self._next_explanation().kind, Lane.EXPLAIN)
        worth = (1 - self._policy.explain_share) * min(costs.values())
        # What was saved up for an expensive batch is not spent on many cheap ones.
        self._owed = min(self._owed, worth + self._granted)
        return 0 < self._owed >= worth

    def _next_explanation(self) -> Task:
        """The task that the next batch of explanations is made for: by turns, unless a promise is in danger."""
        heads = list(self._lanes[Lane.EXPLAIN])
        by_turns: Task = min(heads)[-1]
        longest = max(self._least(task.kind) for *_, task in heads)
        for flow in self._promises.in_danger(self._now, 2 * max(self._policy.slice_seconds, longest)):
            if flow.task is not None and flow.task.waiting and not _is_ahead(flow, by_turns.flow):
                owed = self._owed_by_turns >= (1 - FAIR_SHARE) * self._least(by_turns.kind)
                return by_turns if owed else flow.task
        return by_turns

    def _least(self, kind: Kind) -> float:
        return min(self._allowed(kind, Lane.EXPLAIN).values())

    def _row_seconds(self, flow: Flow) -> float:
        return 0.0 if flow.task is None else self._seconds(flow.task.kind, flow.label)

    # ---------------------------------------------------------------------------------------- which rows

    def _first(self, lane: Lane, kind: Kind | None = None) -> Batch:
        if self._again[lane]:
            return self._again[lane].popleft()
        if lane is Lane.EXPLAIN:
            task = self._next_explanation()
            return self._batch(lane, task.kind, None if task is min(self._lanes[lane])[-1] else task)
        return self._batch(lane, kind or min(self._lanes[lane])[-1].kind)

    def _allowed(self, kind: Kind, lane: Lane) -> Mapping[int, float]:
        """The batch sizes that keep to the time slice, or else the smallest one."""
        costs, policy = self._costs(kind), self._policy
        longest = self._throttle.longest(self._now) if lane is Lane.EVALUATE else policy.slice_seconds
        allowed = {size: seconds for size, seconds in costs.items() if seconds <= longest}
        smallest = min(costs)
        return allowed or {smallest: costs[smallest]}

    def _batch(
        self, lane: Lane, kind: Kind, urgent: Task | None = None, costs: Mapping[int, float] | None = None
    ) -> Batch:
        """The next batch of a kind: the rows of the urgent task, if there is one, before those of others by turns."""
        lanes = self._lanes[lane]
        queue = lanes.kinds[kind]
        costs = costs or self._allowed(kind, lane)
        size = best_size(queue.rows, costs)
        slices: list[TaskSlice] = []
        room = size
        while room and (task := urgent if urgent and not slices else queue.pop()) is not None:
            task.entry = None
            count = min(room, task.waiting)
            slices.append(TaskSlice(task, task.scheduled, task.scheduled + count))
            lanes.taken(task, count)
            room -= count
        last = slices[-1].task
        self._rest = last if last.waiting else None
        if urgent is None:
            lanes.served(slices[0].task)
        return Batch(kind, size, tuple(slices), costs[size], urgent is not None)


def _is_ahead(flow: Flow, other: Flow) -> bool:
    """Whether a flow's caller has had so much more than that of another flow that its promises have to wait."""
    mine, others = account_of(flow), account_of(other)
    return mine is not others and mine.service - others.service > MOST_LENT


def _fastest(costs: Mapping[int, float]) -> int:
    """The batch size of the most rows per second; the smaller on a tie."""
    return max(sorted(costs), key=lambda size: size / costs[size])


def best_size(row_count: int, costs: Mapping[int, float]) -> int:
    """The batch size that gets the most rows done per second when `row_count` of them wait; the smaller on a tie.

    Padding is thus only accepted where it pays: on a device where 8 rows cost 8 times one row, 3 rows run one by one.
    """
    return max(sorted(costs), key=lambda size: min(size, row_count) / costs[size])
