"""Launches that fail, and the rows of those that do not, one launch at a time and without threads."""

import gc
import itertools
import statistics
import time
from types import SimpleNamespace

import numpy as np
import pytest

from xai_sidecar.engine import dispatcher
from xai_sidecar.engine.batch import Lane
from xai_sidecar.engine.dispatcher import Dispatcher
from xai_sidecar.engine.job import Job
from xai_sidecar.engine.scheduler import Policy
from xai_sidecar.engine.work import Forward, Kind
from xai_sidecar.errors import DeviceError

POISON = 13.0


def column(*values):
    return np.array(values, np.float32)[:, None]


class Bench:
    """A device with a backend, whose launches run when it is told to."""

    def __init__(self, backend, recorder, **policy):
        self.backend = backend
        self.recorder = recorder
        self.done = {}
        self.device = Dispatcher(
            backend, lambda *rows: backend.run(*rows), Policy(slice_seconds=1.0, **policy), recorder, self.completed
        )

    def completed(self, job, rows):
        assert job not in self.done
        self.done[job] = rows[0]

    def add(self, lane, *values):
        def steps():
            yield work

        work = Forward(column(*values))
        job = Job(steps(), lane, float("inf"))
        self.device.queue(job, job.step(None))
        return job

    def run(self, launches=1):
        """What the next launches were of: the first value of each row."""
        before = len(self.backend.launches)
        for _ in range(launches):
            assert self.device.run_next()
        return [rows[:, 0].tolist() for _, rows in self.backend.launches[before:]]

    def drain(self):
        before = len(self.backend.launches)
        while self.device.run_next():
            assert len(self.backend.launches) < 10_000
        return [rows[:, 0].tolist() for _, rows in self.backend.launches[before:]]

    def result(self, job):
        return self.done[job][:, 0].tolist()


@pytest.fixture
def bench(backend, recorder):
    backend.poison = POISON
    return Bench(backend, recorder)


def test_pieces_are_cut_and_put_together(bench):
    jobs = [bench.add(Lane.EXPLAIN, *range(start, start + count)) for start, count in ((20, 3), (30, 6), (40, 1))]
    assert bench.drain() == [[20, 21, 22, 30], [31, 32, 33, 34], [40, 35]]
    for job, (start, count) in zip(jobs, ((20, 3), (30, 6), (40, 1)), strict=True):
        assert bench.result(job) == [2.0 * value for value in range(start, start + count)]
        assert job.pass_count == count
        assert not job.collected


def test_a_launch_that_fails_is_tried_again_by_halves(bench):
    jobs = {value: bench.add(Lane.PREDICT, value) for value in (11.0, 12.0, POISON, 14.0)}
    assert bench.drain() == [[11, 12, 13, 14], [11, 12], [13, 14], [13], [14]]
    with pytest.raises(DeviceError, match="RuntimeError: poisoned"):
        jobs.pop(POISON).result(0)
    for value, job in jobs.items():
        assert bench.result(job) == [2 * value]
        assert job.pass_count == 1
    assert [record.row_count for record in bench.recorder.launches] == [2, 1]
    assert not bench.device.run_next()


def test_launches_that_fail_are_paid_for(bench):
    jobs = [bench.add(Lane.EXPLAIN, value) for value in (11, POISON)]
    bench.run()
    paid = [job.flow.service for job in jobs]
    assert paid[0] > 0
    bench.drain()
    assert all(job.flow.service > before for job, before in zip(jobs, paid, strict=True))


def test_a_launch_of_one_job_is_not_tried_again(bench):
    job = bench.add(Lane.EXPLAIN, 11, POISON, 12, 14)
    assert bench.run() == [[11, 13, 12, 14]]
    with pytest.raises(DeviceError):
        job.result(0)
    bench.device.drop(job)
    assert not bench.device.run_next()


def test_a_job_that_fails_takes_the_rest_of_its_rows_along(bench):
    bad = bench.add(Lane.EXPLAIN, POISON, *range(20, 27))
    good = bench.add(Lane.EXPLAIN, 30, 31)
    assert bench.run() == [[13, 20, 21, 22]]
    assert bad.done()
    bench.device.drop(bad)
    assert bench.drain() == [[30, 31]]
    assert bench.result(good) == [60, 62]


def test_the_size_of_half_a_launch_fits_its_rows(bench):
    jobs = [bench.add(Lane.EXPLAIN, value) for value in (11, 12, POISON)]
    assert bench.drain() == [[11, 12, 13, 13], [11], [12, 13], [12], [13]]
    assert [job.done() for job in jobs] == [False, False, True]


def test_parts_that_come_out_of_order_are_put_together_in_order(backend, recorder):
    bench = Bench(backend, recorder)
    job = bench.add(Lane.EXPLAIN, *range(20, 31))
    launches = [bench.device._scheduler.next() for _ in range(3)]
    for launch in (launches[1], launches[2], launches[0]):
        bench.device._run_batch(launch)
    assert bench.result(job) == [2.0 * value for value in range(20, 31)]


def test_parts_of_a_launch_that_failed_are_put_together_with_those_of_others(backend, recorder):
    """The first part fails beside a poisoned job, and may be overtaken by the second before it is tried again."""
    backend.poison = POISON
    bench = Bench(backend, recorder, explain_share=0.9)
    bad = bench.add(Lane.EXPLAIN, POISON)
    good = bench.add(Lane.EXPLAIN, *range(20, 27))
    order = bench.run()
    assert order == [[13, 20, 21, 22]]
    predictions = [bench.add(Lane.PREDICT, 1.0) for _ in range(40)]
    order = bench.drain()
    assert [rows for rows in order if 20 in rows] == [[20, 21, 22, 22]]
    assert [23, 24, 25, 26] in order
    assert bad.done()
    assert bench.result(good) == [2.0 * value for value in range(20, 27)]
    assert good.pass_count == 7
    assert all(bench.result(job) == [2.0] for job in predictions)


def test_predictions_go_between_the_retries_of_explanations(bench):
    jobs = [bench.add(Lane.EXPLAIN, value) for value in (11, 12, POISON, 14)]
    assert bench.run(2) == [[11, 12, 13, 14], [11, 12]]
    prediction = bench.add(Lane.PREDICT, 1.0)
    assert bench.run() == [[1]]
    assert bench.result(prediction) == [2]
    assert bench.run() == [[13, 14]]
    bench.add(Lane.PREDICT, 2.0)
    assert bench.drain() == [[2], [13], [14]]
    assert [job.done() for job in jobs] == [False, False, True, False]


def test_retries_go_before_what_has_waited_less(bench):
    for value in (11, POISON):
        bench.add(Lane.EXPLAIN, value)
    bench.run()
    bench.add(Lane.EXPLAIN, 15)
    bench.add(Lane.EVALUATE, 16)
    assert bench.drain() == [[11], [13], [15], [16]]


def test_retries_of_predictions_do_not_wait_for_retries_of_explanations(bench):
    for value in (11, POISON):
        bench.add(Lane.EXPLAIN, value)
    bench.run()
    for value in (21, POISON):
        bench.add(Lane.PREDICT, value)
    assert bench.run() == [[21, 13]]
    order = []
    for value in range(30, 40):
        bench.add(Lane.PREDICT, value)  # a flood of them: one is always waiting
        order += bench.run()
    assert [21] in order
    assert [POISON] in order
    assert order.index([21]) <= 2


def test_a_flood_of_predictions_leaves_retries_of_explanations_their_share(bench, monkeypatch):
    clock = itertools.count()
    monkeypatch.setattr(dispatcher, "time", SimpleNamespace(monotonic=lambda: next(clock) / 1000))
    for value in (11, POISON):
        bench.add(Lane.EXPLAIN, value)
    bench.run()
    order = []
    for value in range(30, 530):
        bench.add(Lane.PREDICT, value)
        order += bench.run()
    assert [11] in order


def test_retries_of_evaluation_wait_for_explanations(bench):
    for value in (11, POISON):
        bench.add(Lane.EVALUATE, value)
    bench.run()
    bench.add(Lane.EXPLAIN, 20)
    assert bench.drain() == [[20], [11], [13]]


@pytest.mark.parametrize("also", [True, False])
def test_what_is_dropped_is_not_tried_again(bench, capsys, also):
    jobs = [bench.add(Lane.EXPLAIN, value) for value in (11, 12, POISON, 14)]
    bench.run()
    for job in jobs[2:]:
        job.cancel()
        bench.device.drop(job)
    if also:
        jobs[0].cancel()
        bench.device.drop(jobs[0])
        assert bench.drain() == [[12]]
    else:
        assert bench.drain() == [[11, 12]]
        assert bench.result(jobs[0]) == [22]
    assert bench.result(jobs[1]) == [24]
    assert sum(job in bench.done for job in jobs) == 2 - also
    assert "batch_failed" not in capsys.readouterr().out


def test_work_of_a_settled_job_is_passed_over(bench):
    def steps():
        yield Forward(column(1))

    job = Job(steps(), Lane.EXPLAIN, float("inf"))
    work = job.step(None)
    job.cancel()
    bench.device.queue(job, work)
    assert bench.device.waiting(Lane.EXPLAIN) == 0
    bench.device.drop(job)
    assert not bench.device.run_next()


def test_a_job_dropped_in_the_midst_of_a_piece_harms_nobody(bench):
    first = bench.add(Lane.EXPLAIN, *range(20, 26))
    second = bench.add(Lane.EXPLAIN, 30)
    assert bench.run() == [[20, 21, 22, 23]]
    first.cancel()
    bench.device.drop(first)
    assert bench.device.waiting(Lane.EXPLAIN) == 1
    assert bench.drain() == [[30]]
    assert bench.result(second) == [60]
    assert first not in bench.done


def test_it_reports_its_launches(bench):
    bench.add(Lane.EXPLAIN, *range(20, 25))
    bench.drain()
    first, second = bench.recorder.launches
    assert (first.kind, first.lane, first.size, first.row_count, first.overrun) == (
        Kind("forward"),
        Lane.EXPLAIN,
        4,
        4,
        False,
    )
    assert len(first.waits) == 1
    assert first.waits[0] >= 0
    assert second.waits == ()
    assert 0 <= first.seconds < 1


def test_an_overrun_is_reported(backend, recorder):
    device = Dispatcher(
        backend, lambda *rows: backend.run(*rows), Policy(slice_seconds=1e-9), recorder, lambda job, rows: None
    )
    bench = Bench(backend, recorder)
    bench.device = device
    bench.add(Lane.EXPLAIN, 1)
    bench.run()
    assert recorder.launches[0].overrun


def test_too_many_or_too_few_rows_are_an_error(bench):
    for rows in (0, 2):
        bench.backend.run = lambda kind, columns, rows=rows: (np.zeros((rows, 1), np.float32),)
        job = bench.add(Lane.PREDICT, 1)
        bench.device.run_next()
        with pytest.raises(DeviceError, match="another number of rows"):
            job.result(0)


def test_it_tells_what_rows_take(bench):
    assert bench.device.seconds(Kind("forward"), 5) == pytest.approx(2 * 1.4e-3)


def test_a_piece_of_many_launches_takes_no_longer_for_each(backend, recorder):
    """The last of ten thousand launches is put with the others as quickly as the first."""
    backend.sizes = (1,)
    bench = Bench(backend, recorder)
    job = bench.add(Lane.EXPLAIN, *range(10_000))
    seconds = []
    gc.disable()  # its passes over all objects of a long test run are not what is measured
    try:
        for _ in range(20):
            began = time.thread_time()
            for _ in range(500):
                bench.device.run_next()
            seconds.append(time.thread_time() - began)
    finally:
        gc.enable()
    assert bench.result(job) == [2.0 * value for value in range(10_000)]
    assert statistics.median(seconds[-10:]) < 3 * statistics.median(seconds[:10])
