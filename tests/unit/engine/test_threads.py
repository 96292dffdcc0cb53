"""The thread that calls in turn, and the one that calls in time."""

import threading
import time
import weakref

import pytest

from xai_sidecar.engine.threads import ReplaceableThread, Worker
from xai_sidecar.engine.timer import Timer


@pytest.fixture
def worker(request):
    worker = Worker("worker")
    worker.start()
    request.addfinalizer(worker.stop)
    return worker


@pytest.fixture
def timer(request):
    timer = Timer("timer")
    timer.start()
    request.addfinalizer(timer.stop)
    return timer


def raises():
    raise ZeroDivisionError


def test_a_worker_calls_in_turn_on_its_own_thread(worker):
    called, done = [], threading.Event()
    for i in range(100):
        worker.call(lambda i=i: called.append((i, threading.current_thread().name)))
    worker.call(done.set)
    assert done.wait(10)
    assert called == [(i, "worker") for i in range(100)]


def test_a_worker_calls_what_waited_before_it_began_and_before_it_was_stopped():
    worker, called, done = Worker("worker"), [], threading.Event()
    worker.call(lambda: called.append("before"))
    worker.call(done.set)
    worker.stop()
    worker.call(lambda: called.append("after"))
    worker.start()
    assert done.wait(10)
    time.sleep(0.05)
    assert called == ["before"]


def test_a_worker_survives_what_it_calls(worker, capsys):
    done = threading.Event()
    worker.call(raises)
    worker.call(done.set)
    assert done.wait(10)
    assert "ZeroDivisionError" in capsys.readouterr().out


def test_a_worker_lets_go_of_what_it_called(worker):
    class Call:
        def __call__(self):
            done.set()

    done = threading.Event()
    call = Call()
    kept = weakref.ref(call)
    worker.call(call)
    del call
    assert done.wait(10)
    patience = time.monotonic() + 5
    while kept() is not None and time.monotonic() < patience:
        time.sleep(0.001)
    assert kept() is None


def test_a_worker_says_since_when_it_is_busy(worker):
    entered, gate, done = threading.Event(), threading.Event(), threading.Event()
    assert worker.busy_since is None
    before = time.monotonic()
    worker.call(lambda: (entered.set(), gate.wait(10)))
    assert entered.wait(10)
    assert before <= worker.busy_since <= time.monotonic()
    since = worker.busy_since
    time.sleep(0.02)
    assert worker.busy_since == since
    worker.call(raises)
    worker.call(done.set)
    gate.set()
    assert done.wait(10)
    patience = time.monotonic() + 5
    while worker.busy_since is not None and time.monotonic() < patience:
        time.sleep(0.001)
    assert worker.busy_since is None


def test_a_timer_calls_in_order_of_time_and_never_early(timer, allowance):
    called, done = [], threading.Event()
    now = time.monotonic()
    for number, wait in enumerate((0.15, 0.05, 0.1, 0.05, 0.05, -1.0)):
        timer.at(now + wait, lambda number=number, wait=wait: called.append((number, time.monotonic() - now - wait)))
    timer.at(now + 0.16, done.set)
    assert done.wait(10)
    assert [number for number, _ in called] == [5, 1, 3, 4, 2, 0]
    assert all(0 <= late < allowance(0.25) for _, late in called[1:])


def test_a_timer_wakes_up_for_what_comes_sooner_than_what_it_waits_for(timer, allowance):
    done = threading.Event()
    timer.at(time.monotonic() + 60, lambda: None)
    time.sleep(0.02)
    began = time.monotonic()
    timer.at(began + 0.05, done.set)
    assert done.wait(10)
    assert time.monotonic() - began < 0.05 + allowance(0.25)


def test_a_timer_survives_what_it_calls(timer, capsys):
    done = threading.Event()
    timer.at(0.0, raises)
    timer.at(time.monotonic() + 0.02, done.set)
    assert done.wait(10)
    assert "ZeroDivisionError" in capsys.readouterr().out


def test_a_timer_can_wait_for_longer_than_a_thread_can(timer):
    """A caller may allow a thousand years."""
    done = threading.Event()
    timer.at(time.monotonic() + 3e10, lambda: None)
    time.sleep(0.05)
    timer.at(time.monotonic() + 0.05, done.set)
    assert done.wait(10)


def test_a_timer_that_is_stopped_calls_nothing_more():
    timer, called = Timer("timer"), threading.Event()
    timer.start()
    timer.at(time.monotonic() + 0.1, called.set)
    timer.stop()
    assert not called.wait(0.2)


def test_a_timer_takes_orders_from_many_threads(timer):
    called, threads = [], []
    done = threading.Semaphore(0)

    def order(number):
        for i in range(200):
            timer.at(time.monotonic() + (i % 7) / 1000, lambda i=i: (called.append((number, i)), done.release()))

    for number in range(4):
        threads.append(threading.Thread(target=order, args=(number,)))
        threads[-1].start()
    assert all(done.acquire(timeout=10) for _ in range(800))
    for thread in threads:
        thread.join(10)
    assert sorted(called) == [(number, i) for number in range(4) for i in range(200)]


def test_a_wait_for_a_thread_is_for_the_one_in_its_place():
    gates, ran = [threading.Event() for _ in range(2)], []

    def run():
        ran.append(threading.current_thread())
        gates[len(ran) - 1].wait(10)

    thread = ReplaceableThread("replaceable", run)
    thread.start()
    assert thread.is_alive()
    waiting = threading.Thread(target=thread.join)
    waiting.start()
    assert thread.replace() == 1
    assert thread.is_alive()
    thread.join(0.05)
    assert waiting.is_alive()
    gates[1].set()
    waiting.join(10)
    assert not waiting.is_alive()
    assert not thread.is_alive()
    assert ran[0].is_alive(), "nobody waits for the one that hangs"
    gates[0].set()
    ran[0].join(10)
