"""Threads that run in turn."""

import itertools
import threading

from xai_sidecar.backends.turns import Turns


def test_who_waits_is_next_and_nobody_runs_beside():
    turns, order, inside, alone = Turns(), [], [], []
    waiting = threading.Event()

    def again_and_again(name):
        for _ in range(60):
            with turns:
                inside.append(name)
                order.append(name)
                waiting.wait(0.0005)
                alone.append(inside == [name])
                inside.pop()

    threads = [threading.Thread(target=again_and_again, args=(name,)) for name in "ab"]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert all(alone)
    assert len(alone) == 120
    changes = sum(one != other for one, other in itertools.pairwise(order))
    assert changes > 60  # of 119 at the most: now and then one of them is not waiting yet


def test_a_turn_ends_with_an_error_too():
    turns = Turns()
    for _ in range(2):
        try:
            with turns:
                raise ValueError
        except ValueError:
            pass
    with turns:
        pass
