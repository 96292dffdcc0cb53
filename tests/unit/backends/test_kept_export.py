"""A net's export is kept for the next start, and made anew when anything has changed that it depends on."""

import pytest

from xai_sidecar.backends.mindspore import kept_export as module
from xai_sidecar.backends.mindspore.kept_export import kept_export
from xai_sidecar.backends.runtimes.keeping import EngineCache, code_digest


@pytest.fixture
def exported(tmp_path):
    """Exports by a key: what comes of it, and whether it was exported now."""

    def export(key, cached=True):
        made = []
        cache = EngineCache(tmp_path / "cache") if cached else None
        model = kept_export(cache, key, lambda: made.append(1) or repr(key).encode())
        assert model == repr(key).encode()
        return bool(made)

    return export


def test_the_next_start_exports_nothing(exported):
    assert [exported(("one", (1, 3))) for _ in range(2)] == [True, False]
    assert exported(("one", (1, 4)))
    assert exported(("another", (1, 3)))
    assert not exported(("one", (1, 3)))


def test_without_a_cache_it_is_exported_each_time(exported):
    assert [exported("one", cached=False) for _ in range(2)] == [True, True]


def test_a_damaged_export_and_that_of_another_exporter_are_made_anew(exported, tmp_path, monkeypatch):
    exported("one")
    (kept,) = (tmp_path / "cache" / "engine-graphs").iterdir()
    kept.write_bytes(b"'onE'")
    assert exported("one")
    monkeypatch.setattr(module, "code_digest", lambda folder: "another")
    assert exported("one")
    assert not exported("one")


def test_sources_that_changed_have_another_digest(tmp_path):
    (tmp_path / "one.py").write_text("a = 1")
    before = code_digest(tmp_path)
    (tmp_path / "notes.txt").write_text("nothing")
    assert code_digest(tmp_path) == before
    (tmp_path / "one.py").write_text("a = 2")
    assert code_digest(tmp_path) != before
