"""What is kept stays within bounds, and goes as a whole."""

import os
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from xai_sidecar.errors import InvalidRequestError, OverloadedError, StoreBlockedError
from xai_sidecar.evaluator.records import GroundTruth, MaskAnnotation, SampleState, TruthObject
from xai_sidecar.evaluator.store import KeptPicture, Reported, TopClass, database
from xai_sidecar.evaluator.store.tables import METADATA
from xai_sidecar.metrics.base import MaskingCurve

MAX_BYTES = 3 << 20
ROUNDS = int(os.environ.get("XAI_SOAK", "12"))
"""Of filling and removing; XAI_SOAK=100 for so many."""

NOISE = np.random.default_rng(0)


@pytest.fixture
def fill(make_sample, make_map, make_score):
    """Adds a sample of up to 68 kB with everything that there can be."""

    def fill(store, time):
        record = make_sample(time, positives=(1, 2))
        kept = NOISE.standard_normal((3, 32, 32)), NOISE.standard_normal(10), NOISE.random(10)
        kept = KeptPicture(*(each.astype(np.float32) for each in kept))
        store.add_sample(record, kept, [TopClass(1, 0.5, 2.0), TopClass(2, 0.25, 1.0)])
        for explainer in ("gradcam", "rise"):
            each = make_map(explainer, (64, 64), random=int(time))
            store.add_map(record.key, each, [make_score(explainer), make_score(explainer, "faithfulness/naive")])
        curve = MaskingCurve("deletion", "black", 1, np.array([0, 1]), np.array([1.0, 0.0]))
        store.put_scores(record.key, [replace(make_score("rise", "faithfulness/naive"), curves=(curve,))])
        store.put_picture(record.key, b"jpeg", b"png")
        mask = MaskAnnotation(NOISE.bytes(10_000))
        store.put_truth(record.key, GroundTruth((1, 2), (TruthObject(mask),), time))
        return record.key

    return fill


@pytest.fixture
def row_counts(url, postgres):
    """The rows of each table, as another program sees them."""

    def row_counts():
        if url.startswith("sqlite"):
            with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
                return {name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in counted}
        database = url.rpartition("/")[2]
        return {name: postgres.sql(f"SELECT count(*) FROM {name}", database)[0][0] for name in counted}

    counted = [name for name in METADATA.tables if name != "store_secrets"]
    return row_counts


def test_samples_beyond_the_retention_go_with_all_that_hangs_on_them(url, open_store, fill, row_counts):
    store = open_store(url, retention_seconds=100.0)
    keys = [fill(store, time) for time in (20.0, 10.0, 30.0, 9.75)]
    whole = row_counts()
    assert whole == {
        "samples": 4, "predictions": 8, "pictures": 4, "maps": 8, "scores": 16, "ground_truths": 4,
        "ground_truth_classes": 8, "ground_truth_objects": 4, "top_classes": 4, "class_outcomes": 8, "explained": 8,
        "curves": 4, "thumbnails": 4, "model_inputs": 4,
    }  # fmt: skip
    assert len(store.prune(109.0)) == 0
    assert row_counts() == whole
    assert len(store.prune(110.0)) == 1
    assert [store.sample(key) is not None for key in keys] == [True, True, True, False]
    assert row_counts() == {name: count * 3 // 4 for name, count in whole.items()}
    assert len(store.prune(1000.0)) == 3
    assert set(row_counts().values()) == {0}
    assert len(store.states()) == 0


def test_beyond_the_bytes_the_oldest_go(url, open_store, fill):
    store = open_store(url, max_bytes=MAX_BYTES)
    keys = {time: fill(store, time) for time in (float(time * 37 % 100) for time in range(100))}
    assert store.byte_count() > MAX_BYTES
    removed = len(store.prune(1000.0))
    assert 0.9 * MAX_BYTES < store.byte_count() <= MAX_BYTES
    assert len(store.states()) == 100 - removed
    # Of 100 samples of 53 to 68 kB.
    assert 40 <= 100 - removed <= 60
    assert [time for time in sorted(keys) if store.sample(keys[time])] == [float(time) for time in range(removed, 100)]
    assert len(store.prune(1000.0)) == 0


def test_bytes_come_back_with_what_replaces_them(url, open_store, make_sample, make_map):
    store = open_store(url)
    record = make_sample()
    store.add_sample(record)
    sizes = {}
    for size in (16, 256, 16):
        store.add_map(record.key, make_map(size=(size, size)), [])
        sizes.setdefault(size, []).append(store.byte_count())
    assert sizes[16][0] == sizes[16][1]
    assert 200_000 < sizes[256][0] - sizes[16][0] < 300_000
    picture = KeptPicture(*(NOISE.random(shape, np.float32) for shape in ((3, 128, 128), 10, 10)))
    before = store.byte_count()
    other = make_sample()
    store.add_sample(other, picture)
    grown = store.byte_count() - before
    store.set_state(other.key, SampleState.DROPPED)
    assert 150_000 < grown < 250_000
    assert store.byte_count() - before < 20_000


def test_nothing_fits_and_nothing_fails(url, open_store, fill):
    store = open_store(url, max_bytes=0)
    for time in range(3):
        fill(store, float(time))
    assert len(store.prune(0.0)) == 3
    assert len(store.prune(0.0)) == 0
    fill(store, 5.0)
    assert len(store.states()) == 1


def test_the_disk_space_is_bounded(url, open_store, fill, postgres):
    """Many times 20 samples of up to 68 kB, more than 1 MB each time, where 3 MiB may stay."""
    store = open_store(url, max_bytes=MAX_BYTES)
    sizes = []
    for time in range(20 * ROUNDS):
        fill(store, float(time))
        if time % 20 == 19:
            store.prune(1000.0)
            sizes.append(size_on_disk(url, postgres))
    if url.startswith("sqlite"):
        assert max(main for main, _ in sizes) <= MAX_BYTES
        assert max(journal for _, journal in sizes) < 20 << 20
    else:
        # Some tenths more, the 4 MiB below which it is not worth it, and what is written between two prunes.
        assert max(sizes) < 1.2 * MAX_BYTES + (4 << 20) + 2 * 20 * 70_000
        assert max(sizes[ROUNDS // 2 :]) < 1.25 * max(sizes[: ROUNDS // 2])
    assert len(store.states()) > 30


def size_on_disk(url, postgres):
    if url.startswith("sqlite"):
        path = Path(url.removeprefix("sqlite:///"))
        return path.stat().st_size, path.with_name(f"{path.name}-wal").stat().st_size
    names = ", ".join(f"pg_total_relation_size('{name}')" for name in METADATA.tables)
    return sum(postgres.sql(f"SELECT {names}", url.rpartition("/")[2])[0])


def test_a_smaller_bound_makes_the_file_smaller(sqlite_url, open_store, fill):
    store = open_store(sqlite_url)
    for time in range(60):
        fill(store, float(time))
    store.close()
    path = Path(sqlite_url.removeprefix("sqlite:///"))
    assert path.stat().st_size > MAX_BYTES
    smaller = open_store(sqlite_url, max_bytes=1 << 20)
    smaller.prune(0.0)
    assert path.stat().st_size <= 1 << 20
    assert len(smaller.states()) > 8


# ------------------------------------------------------------------------------------------------ ground truth


def truth(byte_count, time=1.0):
    return GroundTruth((1,), (TruthObject(MaskAnnotation(NOISE.bytes(byte_count))),), time)


def test_ground_truth_has_half_of_the_store_and_pushes_nothing_out(url, open_store, fill, make_sample):
    store = open_store(url, max_bytes=MAX_BYTES)
    keys = [fill(store, float(time)) for time in range(10)]  # 100 kB of ground truth among it
    late = [make_sample(20.0 + number) for number in range(10)]
    for record in late:
        store.add_sample(record)
    taken = 0
    with pytest.raises(OverloadedError, match=r"raise evaluator\.store_bytes") as caught:
        for record in late:
            store.put_truth(record.key, truth(200_000))
            taken += 1
    assert (caught.value.field, taken) == ("objects", 7)  # of 1,572,864 bytes, 101,200 were taken
    assert store.truth(late[taken].key) is None
    assert store.put_truth(late[0].key, truth(100_000)) is Reported.REPLACED  # what it takes less may be had
    assert store.put_truth(late[taken].key, truth(100_000)) is Reported.NEW
    assert store.prune(20.0) == []
    assert all(store.sample(key) for key in keys)


def test_the_room_of_truth_that_goes_may_be_had_again(url, open_store, make_sample):
    store = open_store(url, max_bytes=1 << 20, retention_seconds=50.0)
    old, other, new = make_sample(1.0), make_sample(2.0), make_sample(100.0)
    for record in (old, other, new):
        store.add_sample(record)
    for record in (old, other):
        store.put_truth(record.key, truth(200_000))
    with pytest.raises(OverloadedError):
        store.put_truth(new.key, truth(200_000))
    assert store.prune(101.0) == [old.key, other.key]
    assert store.put_truth(new.key, truth(200_000)) is Reported.NEW


def test_one_pictures_truth_is_bounded(url, open_store, make_sample):
    store, record = open_store(url, max_bytes=1 << 30), make_sample()
    store.add_sample(record)
    with pytest.raises(InvalidRequestError, match="may take 4,194,304") as caught:
        store.put_truth(record.key, truth(4_200_000))
    assert caught.value.field == "objects"
    assert store.truth(record.key) is None
    assert store.put_truth(record.key, truth(4_000_000)) is Reported.NEW


# ------------------------------------------------------------------------------------------------ the journal


def test_a_journal_that_cannot_be_emptied_is_bounded_and_all_goes_on_when_it_can(
    sqlite_url, open_store, make_sample, make_map, monkeypatch
):
    """Another program reads, and does not end; SQLite must keep all that has changed since then."""
    monkeypatch.setattr(database, "MOST_JOURNAL_BYTES", 2 << 20)
    monkeypatch.setattr(database, "_JOURNAL_BYTES", 1 << 20)
    monkeypatch.setattr(database, "_SHORTENING_SECONDS", 0.0)
    store, record = open_store(sqlite_url), make_sample()
    store.add_sample(record)
    journal = Path(f"{sqlite_url.removeprefix('sqlite:///')}-wal")
    reader = sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM maps").fetchone() == (0,)
    with pytest.raises(StoreBlockedError, match="Another program reads"):
        for number in range(100):
            store.add_map(record.key, make_map(f"map-{number}", (256, 256)), [])
    assert store.blocked
    assert 2 << 20 < store.journal_bytes() == journal.stat().st_size < 4 << 20
    for grow in (lambda: store.add_sample(make_sample()), lambda: store.put_truth(record.key, truth(1000))):
        with pytest.raises(StoreBlockedError):
            grow()
    store.set_state(record.key, SampleState.SCORED)  # what is small, is
    kept = len(store.maps(record.key))
    reader.close()
    store.add_map(record.key, make_map("map-last", (256, 256)), [])
    assert not store.blocked
    assert len(store.maps(record.key)) == kept + 1


def test_pruning_empties_the_journal_when_it_is_long(sqlite_url, open_store, make_sample, make_map, monkeypatch):
    monkeypatch.setattr(database, "_JOURNAL_BYTES", 1 << 20)
    store, record = open_store(sqlite_url), make_sample()
    store.add_sample(record)
    while store.journal_bytes() <= 1 << 20:
        store.add_map(record.key, make_map(f"map-{store.journal_bytes()}", (256, 256)), [])
    store.prune(1.0)
    assert store.journal_bytes() == 0
