"""What is kept stays within bounds, and goes as a whole."""

import sqlite3
from pathlib import Path

import numpy as np
import pytest

from xai_sidecar.evaluator.records import GroundTruth, MaskShape, SampleState, TruthObject
from xai_sidecar.evaluator.store import KeptPicture
from xai_sidecar.evaluator.store.tables import METADATA

MAX_BYTES = 3 << 20
NOISE = np.random.default_rng(0)


@pytest.fixture
def fill(make_sample, make_map, make_score):
    """Adds a sample of up to 68 kB with everything that there can be."""

    def fill(store, time):
        record = make_sample(time, positives=(1, 2))
        kept = NOISE.standard_normal((3, 32, 32)), NOISE.standard_normal(10), NOISE.random(10)
        store.add_sample(record, KeptPicture(*(each.astype(np.float32) for each in kept)))
        for explainer in ("gradcam", "rise"):
            each = make_map(explainer, (64, 64), random=int(time))
            store.add_map(record.key, each, [make_score(explainer), make_score(explainer, "faithfulness/naive")])
        mask = MaskShape(NOISE.bytes(10_000))
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

    counted = list(METADATA.tables)
    return row_counts


def test_samples_beyond_the_retention_go_with_all_that_hangs_on_them(url, open_store, fill, row_counts):
    store = open_store(url, retention_seconds=100.0)
    keys = [fill(store, time) for time in (20.0, 10.0, 30.0, 9.75)]
    whole = row_counts()
    assert whole == {
        "samples": 4, "predictions": 8, "pictures": 4, "maps": 8, "scores": 16, "ground_truths": 4,
        "ground_truth_classes": 8, "ground_truth_objects": 4,
    }  # fmt: skip
    assert len(store.prune(109.0)) == 0
    assert row_counts() == whole
    assert len(store.prune(110.0)) == 1
    assert [store.sample(key) is not None for key in keys] == [True, True, True, False]
    assert row_counts() == {name: count * 3 // 4 for name, count in whole.items()}
    assert len(store.prune(1000.0)) == 3
    assert set(row_counts().values()) == {0}
    assert store.sample_count() == 0


def test_beyond_the_bytes_the_oldest_go(url, open_store, fill):
    store = open_store(url, max_bytes=MAX_BYTES)
    keys = {time: fill(store, time) for time in (float(time * 37 % 100) for time in range(100))}
    assert store.byte_count() > MAX_BYTES
    removed = len(store.prune(1000.0))
    assert 0.9 * MAX_BYTES < store.byte_count() <= MAX_BYTES
    assert store.sample_count() == 100 - removed
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
    assert store.sample_count() == 1


def test_the_disk_space_is_bounded(url, open_store, fill, postgres):
    """30 times 20 samples of up to 68 kB, some 35 MB in all, where 3 MiB may stay."""
    store = open_store(url, max_bytes=MAX_BYTES)
    sizes = []
    for time in range(600):
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
        assert max(sizes[15:]) < 1.25 * max(sizes[8:15])
    assert store.sample_count() > 30


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
    assert smaller.sample_count() > 8
