"""The policy on its own: no rows lost, doubled or mixed up, lanes in order, padding only where it pays."""

from hypothesis import given
from hypothesis import strategies as st

from xai_sidecar.engine.scheduler import Lane, Piece, Scheduler, best_size
from xai_sidecar.engine.work import Kind

FORWARD = Kind("forward")
GRADIENT = Kind("input_gradient")


def scheduler(*sizes):
    """One whose launches cost as much as their rows."""
    return Scheduler(lambda kind: {size: float(size) for size in sizes})


def drained(policy):
    launches = []
    while (launch := policy.next()) is not None:
        launches.append(launch)
        assert len(launches) < 10_000
    return launches


def test_an_empty_queue_has_nothing_to_do():
    assert scheduler(1).next() is None


def test_predictions_go_before_explanations():
    policy = scheduler(1)
    policy.add(Piece("slow", Lane.EXPLAIN, GRADIENT, 2))
    assert policy.next().parts[0].piece.owner == "slow"
    policy.add(Piece("fast", Lane.PREDICT, FORWARD, 1))
    assert [launch.parts[0].piece.owner for launch in drained(policy)] == ["fast", "slow"]


def test_rows_of_one_kind_share_a_launch_and_others_keep_out():
    policy = Scheduler(lambda kind: {1: 1.0, 4: 1.0})
    policy.add(Piece("a", Lane.EXPLAIN, FORWARD, 1))
    policy.add(Piece("b", Lane.EXPLAIN, GRADIENT, 1))
    policy.add(Piece("c", Lane.EXPLAIN, FORWARD, 2))
    first, second = drained(policy)
    assert [part.piece.owner for part in first.parts] == ["a", "c"]
    assert (first.kind, first.size, first.row_count) == (FORWARD, 4, 3)
    assert [part.piece.owner for part in second.parts] == ["b"]


def test_layers_do_not_mix():
    policy = scheduler(1, 4)
    policy.add(Piece("a", Lane.EXPLAIN, Kind("layer_gradient", "x"), 1))
    policy.add(Piece("b", Lane.EXPLAIN, Kind("layer_gradient", "y"), 1))
    assert [len(launch.parts) for launch in drained(policy)] == [1, 1]


def test_a_piece_larger_than_a_launch_is_cut():
    policy = Scheduler(lambda kind: {4: 1.0})
    policy.add(Piece("a", Lane.EXPLAIN, FORWARD, 10))
    parts = [(part.start, part.stop) for launch in drained(policy) for part in launch.parts]
    assert parts == [(0, 4), (4, 8), (8, 10)]


def test_discarded_rows_do_not_run():
    policy = scheduler(1)
    first = Piece("a", Lane.EXPLAIN, FORWARD, 3)
    policy.add(first)
    policy.add(Piece("b", Lane.EXPLAIN, FORWARD, 1))
    policy.next()
    policy.discard(first)
    assert [launch.parts[0].piece.owner for launch in drained(policy)] == ["b"]


def test_a_long_queue_is_no_burden():
    policy = scheduler(1)
    for owner in range(20_000):
        policy.add(Piece(owner, Lane.EXPLAIN, FORWARD, 1))
    assert [policy.next().parts[0].piece.owner for _ in range(20_000)] == list(range(20_000))


def test_padding_only_where_it_pays():
    proportional = {1: 1.0, 2: 2.0, 4: 4.0}
    assert best_size(3, proportional) == 1
    launch_bound = {1: 1.0, 2: 1.01, 4: 1.02}
    assert best_size(3, launch_bound) == 4
    assert best_size(1, launch_bound) == 1
    slightly = {1: 1.0, 2: 1.9, 4: 3.6}
    assert [best_size(count, slightly) for count in (1, 2, 3, 4, 9)] == [1, 2, 2, 4, 4]


@given(
    pieces=st.lists(
        st.tuples(st.sampled_from(list(Lane)), st.sampled_from([FORWARD, GRADIENT]), st.integers(1, 9)), max_size=12
    ),
    costs=st.dictionaries(st.integers(1, 8), st.floats(0.01, 10), min_size=1).map(lambda costs: {1: 1.0, **costs}),
    steps=st.lists(st.booleans(), max_size=12),
)
def test_every_row_runs_exactly_once(pieces, costs, steps):
    """Whatever is added, also between launches: every row once, in order, in a launch of its kind that it fits."""
    policy = Scheduler(lambda kind: costs)
    waiting = [Piece(owner, *piece) for owner, piece in enumerate(pieces)]
    launches = []
    for add in steps:
        if add and waiting:
            policy.add(waiting.pop())
        elif (launch := policy.next()) is not None:
            launches.append(launch)
    for piece in waiting:
        policy.add(piece)
    launches += drained(policy)
    rows = {}
    for launch in launches:
        assert 1 <= launch.row_count <= launch.size
        assert launch.size in costs
        for part in launch.parts:
            assert part.piece.kind == launch.kind
            rows.setdefault(part.piece.owner, []).extend(range(part.start, part.stop))
    assert rows == {owner: list(range(count)) for owner, (_, _, count) in enumerate(pieces)}
