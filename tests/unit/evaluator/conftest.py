"""Stores in SQLite and in PostgreSQL, and what is kept in them."""

import importlib.util
import itertools
from pathlib import Path

import numpy as np
import pytest

from xai_sidecar.evaluator.records import Frame, MapRecord, SampleKey, SampleRecord, ScoreRecord
from xai_sidecar.evaluator.store import Store
from xai_sidecar.explainers.base import MapStatus
from xai_sidecar.metrics.base import ScoreStatus

TESTS = Path(__file__).parents[2]


def load(path):
    spec = importlib.util.spec_from_file_location(f"helper_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL server, shared by all tests."""
    with load(TESTS / "postgres.py").running() as server:
        yield server


@pytest.fixture
def postgres_url(postgres):
    """A database that is there and empty."""
    with postgres.database() as name:
        yield postgres.url(name)


@pytest.fixture
def sqlite_url(tmp_path):
    """A database that is not there yet, nor is its folder."""
    return f"sqlite:///{tmp_path}/folder/store.db"


@pytest.fixture(params=["sqlite", "postgres"])
def url(request):
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture
def open_store():
    """Opens stores, which are closed in the end."""
    opened = []

    def open_store(url, max_bytes=1 << 30, retention_seconds=1e12):
        opened.append(Store.open(url, max_bytes=max_bytes, retention_seconds=retention_seconds))
        return opened[-1]

    yield open_store
    for store in opened:
        store.close()


@pytest.fixture
def store(url, open_store):
    """An empty store."""
    return open_store(url)


@pytest.fixture(scope="session")
def make_sample():
    """Samples, each of another request unless a key is given."""
    numbers = itertools.count()

    def make_sample(time=1.0, key=None, model_version="m", positives=(3,), **others):
        key = key or SampleKey(f"request-{next(numbers)}", 0)
        return SampleRecord(key, time, model_version, Frame(8, 9), 3, 0.75, positives, **others)

    return make_sample


@pytest.fixture(scope="session")
def make_map():
    def make_map(explainer="gradcam", size=(8, 9), random=0, **others):
        saliency = np.random.default_rng(random).standard_normal(size).astype(np.float32)
        return MapRecord(explainer, 3, others.pop("parameters", {}), 5, MapStatus.OK, saliency, 1, **others)

    return make_map


@pytest.fixture(scope="session")
def make_score():
    def make_score(explainer="gradcam", metric="robustness", value=0.5, status=ScoreStatus.OK, time=1.0):
        return ScoreRecord(explainer, metric, 3, value, status, time, 0.25, 12)

    return make_score
