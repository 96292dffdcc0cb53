"""Several threads, several processes, and connections that break."""

import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from xai_sidecar.errors import StoreError
from xai_sidecar.evaluator.records import BoxAnnotation, GroundTruth, SampleKey, ScoreRecord, TruthObject
from xai_sidecar.evaluator.store import Reported, truths
from xai_sidecar.metrics.base import ScoreStatus

WRITERS = 4
SAMPLES = 20

END_CONNECTIONS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'xai-sidecar'"


def all_of(function, count):
    """The results of calls that begin at once, each with its number."""
    together = threading.Barrier(count)

    def call(number):
        together.wait(10)
        return function(number)

    with ThreadPoolExecutor(count) as pool:
        return [future.result(60) for future in [pool.submit(call, number) for number in range(count)]]


def test_threads_write_and_read(store, make_sample, make_map, make_score):
    done = threading.Event()

    def write(number):
        for each in range(SAMPLES):
            record = make_sample(float(each), SampleKey(f"{number}-{each}", number))
            assert store.add_sample(record)
            for explainer in ("gradcam", "rise"):
                store.add_map(record.key, make_map(explainer, (32, 32)), [make_score(explainer)])
            store.put_truth(record.key, GroundTruth((number, 10 + each), (), float(each)))

    def read():
        rounds = 0
        while not done.is_set():
            for key in store.unapplied_truths("m"):
                assert len(store.truth(key).class_ids) == 2, "half a truth"
                assert [each.explainer for each in store.maps(key)] == ["gradcam", "rise"]
            rounds += 1
        return rounds

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        try:
            all_of(write, WRITERS)
        finally:
            done.set()
        assert all(reader.result(60) for reader in readers)
    assert len(store.states()) == WRITERS * SAMPLES
    assert len(store.recent_scores("m", 0.0, 1000)) == WRITERS * SAMPLES * 2


def test_one_of_many_adds_a_sample(store, make_sample):
    for _ in range(10):
        record = make_sample()
        assert sorted(all_of(lambda _, record=record: store.add_sample(record), 4)) == [False, False, False, True]


def test_one_of_many_reports_is_new(store, make_sample):
    for _ in range(10):
        record = make_sample()
        store.add_sample(record)
        same = all_of(lambda _, key=record.key: store.put_truth(key, GroundTruth((1, 2), (), 1.0)), 4)
        assert sorted(each.name for each in same) == ["NEW", "REPEATED", "REPEATED", "REPEATED"]
        others = all_of(lambda number, key=record.key: store.put_truth(key, GroundTruth((number + 5,), (), 1.0)), 4)
        assert set(others) == {Reported.REPLACED}
        assert len(store.truth(record.key).class_ids) == 1


def test_a_truth_is_never_seen_half_replaced(store, make_sample):
    record = make_sample()
    store.add_sample(record)
    both = [
        GroundTruth((n,), tuple(TruthObject(BoxAnnotation(0, 0, n, each), n) for each in range(3 + n)), float(n))
        for n in range(2)
    ]
    store.put_truth(record.key, both[0])
    done = threading.Event()

    def read():
        seen = set()
        while not done.is_set():
            truth = store.truth(record.key)
            assert truth in both
            seen.add(truth)
        return len(seen)

    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(read)
        try:
            for number in range(300):
                store.put_truth(record.key, both[(number + 1) % 2])
        finally:
            done.set()
        assert reader.result(60) == 2


def test_removing_while_others_write(url, open_store, make_sample, make_map, make_score):
    store = open_store(url, retention_seconds=10.0)
    records = [make_sample(float(number)) for number in range(60)]
    for record in records:
        store.add_sample(record)

    def work(number):
        if number == 0:
            return sum(len(store.prune(float(now))) for now in range(70))
        for record in records:
            store.add_map(record.key, make_map(), [make_score()])
            store.put_scores(record.key, [make_score(metric=f"{number}")])
        return 0

    assert all_of(work, 3)[0] == 59
    assert [record.key for record, _ in store.pending()] == [records[59].key]


READER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=0)
print("ready", flush=True)
rounds = 0
while True:
    connection.execute("BEGIN")
    samples, = connection.execute("SELECT count(*) FROM samples").fetchone()
    maps, = connection.execute("SELECT count(*) FROM maps").fetchone()
    scores, = connection.execute("SELECT count(*) FROM scores").fetchone()
    connection.execute("COMMIT")
    assert scores == 3 * maps, (scores, maps)
    rounds += 1
    if samples == 100 and maps == 100:
        break
print(rounds, flush=True)
"""


def test_another_process_reads_while_the_file_is_written(sqlite_url, open_store, make_sample, make_map, make_score):
    store = open_store(sqlite_url)
    path = sqlite_url.removeprefix("sqlite:///")
    with subprocess.Popen([sys.executable, "-c", READER, path], stdout=subprocess.PIPE, text=True) as reader:
        try:
            assert reader.stdout.readline() == "ready\n"
            for _ in range(100):
                record = make_sample()
                store.add_sample(record)
                store.add_map(record.key, make_map(size=(64, 64)), [make_score(metric=name) for name in "abc"])
            rest, _ = reader.communicate(timeout=20)
        finally:
            reader.kill()
    assert reader.returncode == 0
    assert int(rest) > 3


def test_a_file_that_another_one_keeps_locked(sqlite_url, open_store, make_sample):
    """It is waited for, as long as that is not too long."""
    store = open_store(sqlite_url)
    other = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    threading.Timer(0.5, lambda: other.execute("COMMIT")).start()
    began = time.monotonic()
    assert store.add_sample(make_sample())
    assert 0.3 < time.monotonic() - began < 5
    other.close()


@pytest.mark.parametrize("how", ["terminated", "restarted"])
def test_a_lost_connection_comes_back(how, postgres, postgres_url, open_store, make_sample):
    store = open_store(postgres_url)
    all_of(lambda _: store.add_sample(make_sample()), 4)
    if how == "terminated":
        ended = postgres.sql(END_CONNECTIONS)
        assert len(ended) >= 1
    else:
        postgres.stop()
        with pytest.raises(StoreError) as caught:
            store.add_sample(make_sample())
        assert "not-to-be-shown" not in str(caught.value)
        assert caught.value.retry_seconds == 1.0
        postgres.start()
    assert store.add_sample(make_sample()) is True
    assert len(store.states()) == 5


def test_a_connection_that_breaks_in_the_middle(postgres, postgres_url, open_store, make_sample, monkeypatch):
    """Nothing of that call is kept, and the next one works."""
    store, record = open_store(postgres_url), make_sample()
    store.add_sample(record)

    def break_first(*arguments):
        monkeypatch.undo()
        postgres.sql(END_CONNECTIONS)
        return put_truth(*arguments)

    put_truth = truths.put_truth
    monkeypatch.setattr(truths, "put_truth", break_first)
    with pytest.raises(StoreError):
        store.put_truth(record.key, GroundTruth((1,), (), 1.0))
    assert store.truth(record.key) is None
    assert store.put_truth(record.key, GroundTruth((1,), (), 1.0)) is Reported.NEW


def test_a_score_says_ok_by_name(sqlite_url, open_store, make_sample):
    """What others may rely on when they query the tables."""
    store, record = open_store(sqlite_url), make_sample()
    store.add_sample(record)
    store.put_scores(record.key, [ScoreRecord("rise", "x", 0, None, ScoreStatus.MAP_ZERO, 1.0, 1.0, 1)])
    with sqlite3.connect(sqlite_url.removeprefix("sqlite:///")) as other:
        assert other.execute("SELECT status FROM scores").fetchall() == [("map_zero",)]
