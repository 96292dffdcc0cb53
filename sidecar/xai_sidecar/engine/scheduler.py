"""The policy: which rows go into the next launch, and how large it is. No clock, thread or device in here.

Predictions go before explanations, and these before evaluation, at every launch boundary; how much evaluation may have
of what is left is for `throttle` to say. Within predictions: first come, first served. Within the other lanes device
time is shared out evenly, by start-time fair queueing (Goyal, Vin, Cheng 1996): each job carries the device time of the
launches that were made for it, and the one that has had least goes next. One that comes new, or back, begins with what
one would have had that was there from the start and got its share. One that is in a hurry may have a head start: device
time that it is lent, and that counts later; never more than a part of the lane's.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from xai_sidecar.engine.launch import Lane, Launch, Part, Piece
from xai_sidecar.engine.throttle import IdleThrottle
from xai_sidecar.engine.work import Kind


@dataclass(frozen=True)
class Policy:
    """What can be set.

    Attributes:
        slice_seconds: What a launch may take; longer ones are of one row.
        explain_share: The part of the device's time that explanations get, if they want it, however many predictions
            there are.
        batch_delay_seconds: How long a prediction may wait for others to share a launch with.
        evaluate_slice_seconds: As `slice_seconds`, of evaluation while others come.
        evaluate_share: The part of the device's time that evaluation gets at the most, above 0.
    """

    slice_seconds: float = 0.02
    explain_share: float = 0.1
    batch_delay_seconds: float = 0.0
    evaluate_slice_seconds: float = 0.02
    evaluate_share: float = 1.0


_LENT_SHARE = 0.5
"""The part of a lane's time that is lent at the most, so that those in a hurry cannot keep the others waiting."""

_MOST_LENT = 1.0
"""Device seconds that may be lent at once."""

_Entry = tuple[float, int, Piece]
"""A piece in its queue, with what it is ordered by."""


@dataclass(eq=False)
class _Queue:
    """Pieces of one kind, as a heap; those discarded stay in it until they come to the top."""

    entries: list[_Entry] = field(default_factory=list)
    pieces: int = 0
    rows: int = 0

    def first(self) -> _Entry | None:
        while self.entries and not self.entries[0][2].waiting:
            heapq.heappop(self.entries)
        return self.entries[0] if self.entries else None


class Scheduler:
    """Keeps what waits and picks what runs.

    Args:
        costs: The batch sizes of a kind, with the seconds that a launch of each takes.
        policy: What can be set.
    """

    def __init__(self, costs: Callable[[Kind], Mapping[int, float]], policy: Policy | None = None) -> None:
        self._costs = costs
        self._policy = policy or Policy()
        self._arrivals = itertools.count()
        self._queues: dict[Lane, dict[Kind, _Queue]] = {lane: {} for lane in Lane}
        self._again: dict[Lane, deque[Launch]] = {lane: deque() for lane in Lane}
        self._rest: Piece | None = None  # of the last launch: what it had no room for
        # Of a lane: what a job from the start would have had by now, and what that had that was served last.
        self._virtual = dict.fromkeys(Lane, 0.0)
        self._served = dict.fromkeys(Lane, 0.0)
        self._lendable = dict.fromkeys(Lane, _MOST_LENT)
        self._owed = 0.0  # device seconds to explanations
        self._granted = 0.0  # of that, for the last launch of predictions
        self._now = 0.0  # when it was last asked, or told of something new
        self._launched = 0.0  # when the last launch began
        self._throttle = IdleThrottle(
            self._policy.evaluate_share, self._policy.evaluate_slice_seconds, self._policy.slice_seconds
        )

    def waiting(self, lane: Lane) -> int:
        """Rows that wait in a lane for their first launch; any thread may ask."""
        return sum(queue.rows for queue in list(self._queues[lane].values()))

    def add(self, piece: Piece, now: float = 0.0) -> None:
        """Queues a piece of at least one row."""
        piece.added, piece.arrival = now, next(self._arrivals)
        self._now = now
        if piece.lane is not Lane.EVALUATE:
            self._throttle.others(now)
        self._begin(piece)
        queue = self._queues[piece.lane].setdefault(piece.kind, _Queue())
        queue.rows += piece.waiting
        queue.pieces += 1
        self._push(queue, piece)

    def again(self, launch: Launch) -> None:
        """Has a launch run that `next` did not make up, before all else of its lane."""
        self._again[launch.lane].append(launch)

    def discard(self, piece: Piece) -> None:
        """Forgets the rows of a piece that are not in a launch."""
        queue = self._queues[piece.lane].get(piece.kind)
        if queue is not None and piece.waiting:
            queue.rows -= piece.waiting
            queue.pieces -= 1
        piece.scheduled = piece.row_count

    def next(self, now: float = 0.0) -> Launch | None:
        """Takes the rows of the next launch out of the queues; None when nothing may run yet.

        `ran` is to be told what came of it before the next one.

        Args:
            now: On the clock of `add`.
        """
        self._put_back()
        self._now = self._launched = now
        prediction = self._next_prediction(now)
        predictions = self._again[Lane.PREDICT] or prediction is not None
        if self._wants(Lane.EXPLAIN) and (not predictions or self._explanations_are_owed()):
            return self._first(Lane.EXPLAIN)
        if predictions:
            return self._first(Lane.PREDICT, prediction)
        return None if self._wants(Lane.PREDICT) else self._next_evaluation(now)

    def due(self) -> float | None:
        """When predictions have waited enough for company, or else evaluation may go on; None if none waits."""
        self._put_back()
        added = [entry[2].added for entry in self._heads(Lane.PREDICT)]
        if added:
            return min(added) + self._policy.batch_delay_seconds
        return min((begin for begin, _ in self._evaluations()), default=None)

    def ran(self, launch: Launch, seconds: float) -> None:
        """Takes down what a launch took, whether it went well or not."""
        lane = launch.lane
        # Who rides along, in what would else be padding, rides for nothing, and soon has to pay for one itself.
        turn = launch.parts[0].piece.turn
        turn.had += seconds
        turn.lent += seconds
        if turn.lent >= turn.head_start:
            turn.head_start = 0.0
        self._lendable[lane] = min(_MOST_LENT, self._lendable[lane] + _LENT_SHARE * seconds)
        over = self._rest is not None and self._rest.waiting > 0
        self._virtual[lane] += seconds / (len(launch.parts) + self._pieces(lane) - over)
        self._put_back()
        share = self._policy.explain_share
        if lane is Lane.EVALUATE:
            self._throttle.ran(self._launched, seconds)
        else:
            self._throttle.others(self._launched + seconds)
        if lane is Lane.EXPLAIN:
            # What they have had in quiet hours does not count for more than the last moment.
            self._owed = max(self._owed - (1 - share) * seconds, -max(self._policy.slice_seconds, seconds))
        elif self._wants(Lane.EXPLAIN):
            self._granted = share * seconds
            self._owed += self._granted

    def _put_back(self) -> None:
        """Queues what the last launch had no room for, now that its job has been charged for the rest."""
        rest, self._rest = self._rest, None
        if rest is not None and rest.waiting:
            self._push(self._queues[rest.lane][rest.kind], rest)

    # ---------------------------------------------------------------------------------------- which lane

    def _wants(self, lane: Lane) -> bool:
        return bool(self._again[lane] or self._heads(lane))

    def _next_prediction(self, now: float) -> Kind | None:
        """The kind of predictions that are not to wait any longer, the oldest first."""
        for _, _, piece in sorted(self._heads(Lane.PREDICT)):
            waited = now >= piece.added + self._policy.batch_delay_seconds
            if waited or self._queues[Lane.PREDICT][piece.kind].rows >= _fastest(self._allowed(piece.kind, piece.lane)):
                return piece.kind
        return None

    def _next_evaluation(self, now: float) -> Launch | None:
        """Of what may begin, that whose turn it is."""
        kinds = [kind for begin, kind in self._evaluations() if now >= begin]
        return self._first(Lane.EVALUATE, kinds[0]) if kinds else None

    def _evaluations(self) -> list[tuple[float, Kind | None]]:
        """When evaluation of each kind may begin, in order of their turns; None for what is tried again."""
        if self._again[Lane.EVALUATE]:
            return [(self._throttle.begin(0.0), None)]
        kinds = [piece.kind for _, _, piece in sorted(self._heads(Lane.EVALUATE))]
        return [(self._throttle.begin(min(self._costs(kind).values())), kind) for kind in kinds]

    def _explanations_are_owed(self) -> bool:
        """Whether they have had less than their share for as long as their next launch is worth."""
        again = self._again[Lane.EXPLAIN]
        costs = self._allowed(again[0].kind if again else self._next_kind(Lane.EXPLAIN), Lane.EXPLAIN)
        worth = (1 - self._policy.explain_share) * min(costs.values())
        # What was saved up for a dearer launch is not spent on many cheap ones.
        self._owed = min(self._owed, worth + self._granted)
        return 0 < self._owed >= worth

    # ---------------------------------------------------------------------------------------- which rows

    def _begin(self, piece: Piece) -> None:
        """Gives a job its place that comes new, or back."""
        turn, lane = piece.turn, piece.lane
        if turn.new:
            # It does not wait for one to catch up that has had much less. But of those that come one after the other,
            # each begins a launch behind, or else an endless stream of them would have the others starve.
            heads = (key + head.turn.head_start for key, _, head in self._heads(lane))
            least = min(heads, default=self._served[lane])
            launch = min(self._allowed(piece.kind, lane).values())
            turn.had, turn.new = min(self._virtual[lane], least + launch), False
            if turn.head_start:
                turn.head_start = min(turn.head_start + launch, self._lendable[lane])
                self._lendable[lane] -= turn.head_start
        turn.had = max(turn.had, self._served[lane])

    def _pieces(self, lane: Lane) -> int:
        return sum(queue.pieces for queue in self._queues[lane].values())

    def _first(self, lane: Lane, kind: Kind | None = None) -> Launch:
        if self._again[lane]:
            return self._again[lane].popleft()
        return self._launch(lane, kind or self._next_kind(lane))

    @staticmethod
    def _push(queue: _Queue, piece: Piece) -> None:
        key = 0.0 if piece.lane is Lane.PREDICT else piece.turn.had - piece.turn.head_start
        heapq.heappush(queue.entries, (key, piece.arrival, piece))

    def _heads(self, lane: Lane) -> list[_Entry]:
        """The first of each kind that still waits."""
        return [entry for queue in self._queues[lane].values() if (entry := queue.first()) is not None]

    def _next_kind(self, lane: Lane) -> Kind:
        return min(self._heads(lane))[2].kind

    def _allowed(self, kind: Kind, lane: Lane) -> Mapping[int, float]:
        """The batch sizes that keep to the slice, or the one that comes nearest."""
        costs, policy = self._costs(kind), self._policy
        longest = self._throttle.longest(self._now) if lane is Lane.EVALUATE else policy.slice_seconds
        allowed = {size: seconds for size, seconds in costs.items() if seconds <= longest}
        smallest = min(costs)
        return allowed or {smallest: costs[smallest]}

    def _launch(self, lane: Lane, kind: Kind) -> Launch:
        queue = self._queues[lane][kind]
        costs = self._allowed(kind, lane)
        size = best_size(queue.rows, costs)
        parts: list[Part] = []
        room = size
        while room and queue.first() is not None:
            piece = heapq.heappop(queue.entries)[2]
            count = min(room, piece.waiting)
            parts.append(Part(piece, piece.scheduled, piece.scheduled + count))
            piece.scheduled += count
            queue.pieces -= not piece.waiting
            room -= count
        queue.rows -= size - room
        last = parts[-1].piece
        self._rest = last if last.waiting else None
        self._served[lane] = max(self._served[lane], parts[0].piece.turn.had)
        return Launch(kind, size, tuple(parts), costs[size])


def _fastest(costs: Mapping[int, float]) -> int:
    """The batch size of the most rows per second; the smaller on a tie."""
    return max(sorted(costs), key=lambda size: size / costs[size])


def best_size(row_count: int, costs: Mapping[int, float]) -> int:
    """The batch size that gets the most rows done per second when `row_count` of them wait; the smaller on a tie.

    Padding is thus only accepted where it pays: on a device where 8 rows cost 8 times one row, 3 rows run one by one.
    """
    return max(sorted(costs), key=lambda size: min(size, row_count) / costs[size])
