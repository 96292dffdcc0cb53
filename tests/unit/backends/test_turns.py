"""Threads that run in turn."""

import itertools
import threading

from xai_sidecar.backends.turns import Turns


def test_who_waits_is_next_and_nobody_runs_beside():
    turns, order, inside = Turns(), [], []
    waiting = threading.Event()

    def again_and_again():
        for _ in range(200):
            with turns:
                inside.append(1)
                order.append("busy")
                waiting.wait(0.0005)
                assert len(inside) == 1
                inside.pop()

    busy = threading.Thread(target=again_and_again)
    busy.start()
    for _ in range(10):
        with turns:
            order.append("other")
            assert inside == []
    assert busy.is_alive() or len(order) == 210
    busy.join()
    places = [place for place, who in enumerate(order) if who == "other"]
    gaps = sorted(later - earlier for earlier, later in itertools.pairwise(places))
    assert gaps[len(gaps) // 2] <= 3  # now and then this thread sleeps before it waits


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
