"""Whose turn it is in a lane: start-time fair queueing (Goyal, Vin, Cheng 1996) among callers, then among their flows.

Both levels keep the same books. A start tag is the service received, and the least goes next. What is new begins at the
virtual time: the service of one that has been there from the start; but no further behind those that wait than one
batch, or an endless stream of new ones would starve them. What was idle does not make up for it.

So whoever asks for more gets no more: of two callers each has half, for however many flows. No clock in here.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from xai_sidecar.engine.batch import MOST_LENT, Account, Flow, Task
from xai_sidecar.engine.work import Kind

LENT_SHARE = 0.5
"""Share of a caller's time that may be given as head starts, so that jobs in a hurry cannot starve its others."""

_MANY = 256

FlowEntry = tuple[float, int, Task]
"""A queued task behind its sort key: start tag less head start, and arrival."""

Entry = tuple[float, int, float, int, Task]
"""The same behind its caller's start tag and number."""


@dataclass(eq=False)
class KindQueue:
    """The tasks of one kind in a lane.

    Heaps of callers, and for each of its flows' tasks. Entries of no use any more, or of a former start tag of the
    caller, stay in them until they reach the top.

    Attributes:
        tasks: Number of tasks that wait.
        rows: Number of rows that wait.
    """

    tasks: int = 0
    rows: int = 0
    _callers: list[tuple[float, int, Account]] = field(default_factory=list)
    _flows: dict[Account, list[FlowEntry]] = field(default_factory=dict)

    def push(self, account: Account, entry: FlowEntry) -> None:
        """Queues a task."""
        entries = self._flows.get(account)
        if entries is None:
            self._flows[account] = entries = []
            heapq.heappush(self._callers, (account.service, account.number, account))
        heapq.heappush(entries, entry)

    def first(self) -> Entry | None:
        """The entry whose turn it is; None if none waits."""
        while self._callers:
            tag, number, account = self._callers[0]
            entries = _pruned(self._flows[account])
            if not entries:
                heapq.heappop(self._callers)
                del self._flows[account]
            elif tag != account.service:
                heapq.heapreplace(self._callers, (account.service, number, account))
            else:
                return tag, number, *entries[0]
        return None

    def of(self, account: Account) -> FlowEntry | None:
        """The entry of a caller whose turn it is among its own; None if none waits."""
        entries = _pruned(self._flows.get(account, []))
        return entries[0] if entries else None

    def pop(self) -> Task | None:
        """Takes the task whose turn it is out of the queue; None if none waits."""
        if self.first() is None:
            return None
        return heapq.heappop(self._flows[self._callers[0][2]])[2]


class LaneQueues:
    """The tasks of a lane.

    Args:
        ordered: Whether the flows of a caller take turns; else its tasks are served first come, first served.

    Attributes:
        kinds: Its queues.
    """

    def __init__(self, *, ordered: bool) -> None:
        self.kinds: dict[Kind, KindQueue] = {}
        self._ordered = ordered
        self._accounts: dict[str, Account] = {}
        self._numbers = itertools.count()
        self._waiting = 0  # accounts of which tasks wait
        self._virtual_time = 0.0
        self._last_tag = 0.0

    def __iter__(self) -> Iterator[Entry]:
        """The first waiting task of each kind."""
        return iter([entry for queue in self.kinds.values() if (entry := queue.first()) is not None])

    @property
    def waits(self) -> bool:
        """Whether any task waits."""
        return self._waiting > 0

    @property
    def rows(self) -> int:
        """Rows that wait; any thread may ask."""
        return sum(queue.rows for queue in list(self.kinds.values()))

    def add(self, task: Task, cost: float) -> None:
        """Queues a task.

        Args:
            task: The task.
            cost: Seconds of the cheapest batch that may be made for it.
        """
        account = self._begin_account(task.flow, cost)
        self._begin_flow(task.flow, account, cost)
        queue = self.kinds.setdefault(task.kind, KindQueue())
        queue.rows += task.waiting
        queue.tasks += 1
        self._count(account, 1)
        self.push(task)

    def push(self, task: Task) -> None:
        """Puts a task in its place, by what its flow has received until now."""
        flow = task.flow
        key = flow.service - flow.head_start if self._ordered else 0.0
        task.entry = (key, task.arrival, task)
        self.kinds[task.kind].push(account_of(flow), task.entry)

    def discard(self, task: Task) -> None:
        """Removes those rows of a task that are in no batch yet."""
        queue = self.kinds.get(task.kind)
        if queue is not None and task.waiting:
            queue.rows -= task.waiting
            queue.tasks -= 1
            self._count(account_of(task.flow), -1)
            self._forget(account_of(task.flow))

    def taken(self, task: Task, count: int) -> None:
        """Says that so many rows of a task, which `KindQueue.pop` gave, are in a batch."""
        queue = self.kinds[task.kind]
        task.scheduled += count
        task.flow.rows += count
        queue.rows -= count
        if not task.waiting:
            queue.tasks -= 1
            self._count(account_of(task.flow), -1)

    def leave(self, flow: Flow) -> None:
        """Forgets a flow that has ended; its caller, too, once nobody has to wait for what it has received."""
        account = flow.account
        if account is None or flow.left:
            return
        account.flows -= 1
        flow.left = True
        self._forget(account)

    def served(self, task: Task) -> None:
        """Says that a batch is made for a task by turns."""
        account = account_of(task.flow)
        account.last_tag = max(account.last_tag, task.flow.service)
        self._last_tag = max(self._last_tag, account.service)

    def charge(self, tasks: Iterable[Task], seconds: float, rest: Task | None) -> None:
        """Charges the seconds of a batch to the flow and the caller that it was made for.

        Others fill up what would have been padding.

        Args:
            tasks: Those that had rows in it, the one that it was made for first.
            seconds: What it took.
            rest: The task of which it had no room for all rows.
        """
        served = list(tasks)
        flow = served[0].flow
        flow.service += seconds
        flow.lent += seconds
        if flow.lent >= flow.head_start:
            flow.head_start = 0.0
        accounts = {task.flow.account for task in served if task.flow.account is not None}
        account = flow.account
        if account is not None:
            account.lendable = min(MOST_LENT, account.lendable + LENT_SHARE * seconds)
            over = rest is not None and rest.waiting > 0 and rest.flow.account is account
            its_own = sum(task.flow.account is account for task in served)
            account.virtual_time += seconds / (its_own + account.tasks - over)
            account.service += seconds
        active = self._waiting + sum(not each.tasks for each in accounts)
        self._virtual_time += seconds / max(1, active)

    def _begin_account(self, flow: Flow, cost: float) -> Account:
        """The account of a flow's caller, with its start tag where that is new or was idle."""
        account = flow.account or self._accounts.get(flow.caller)
        if account is None:
            self._purge()
            account = self._accounts[flow.caller] = Account(flow.caller, next(self._numbers))
            least = min((entry[0] for entry in self), default=self._last_tag)
            account.service = min(self._virtual_time, least + cost)
        if not account.tasks:
            account.service = max(account.service, self._last_tag)
        return account

    def _forget(self, account: Account) -> None:
        """Forgets a caller that has gone, once nobody has to be given what it has had too much."""
        gone = not account.flows and not account.tasks
        if gone and (not self._waiting or account.service <= self._last_tag):
            self._accounts.pop(account.caller, None)

    def _purge(self) -> None:
        """Forgets callers that have gone, where there are many."""
        if len(self._accounts) > _MANY:
            for account in list(self._accounts.values()):
                self._forget(account)

    def _begin_flow(self, flow: Flow, account: Account, cost: float) -> None:
        """Sets the start tag of a flow that is new or was idle."""
        if flow.new:
            entries = [entry for queue in self.kinds.values() if (entry := queue.of(account)) is not None]
            least = min((key + task.flow.head_start for key, _, task in entries), default=account.last_tag)
            flow.service, flow.new = min(account.virtual_time, least + cost), False
            if flow.head_start:
                flow.head_start = min(flow.head_start + cost, account.lendable)
                account.lendable -= flow.head_start
        if flow.account is None:
            flow.account = account
            account.flows += 1
        flow.service = max(flow.service, account.last_tag)

    def _count(self, account: Account, change: int) -> None:
        before = bool(account.tasks)
        account.tasks += change
        self._waiting += bool(account.tasks) - before


def account_of(flow: Flow) -> Account:
    """The account of a flow that has begun."""
    if flow.account is None:
        raise ValueError("the flow has not begun")
    return flow.account


def _pruned(entries: list[FlowEntry]) -> list[FlowEntry]:
    """A heap whose first entry is of use, or that is empty."""
    while entries and not (entries[0][2].waiting and entries[0][2].entry is entries[0]):
        heapq.heappop(entries)
    return entries
