"""Files that engines read weights from, and what they leave in memory."""

import tempfile

import numpy as np
import pytest
from small_graphs import convolution, convolution_by_hand, pictures

from xai_sidecar.backends.runtimes.keeping import EngineCache
from xai_sidecar.backends.runtimes.mapped import MappedFile
from xai_sidecar.backends.runtimes.openvino import OpenVino

CONTENT = np.random.default_rng(0).bytes(300_001)


def settled(engine, *given, **more):
    """A program as it serves."""
    return engine.settle(engine.load(*given, **more))


@pytest.fixture(params=["bytes", "file"])
def mapped(request, tmp_path):
    if request.param == "bytes":
        return MappedFile(CONTENT, tmp_path)
    path = tmp_path / "weights"
    path.write_bytes(CONTENT)
    found = MappedFile(path, tmp_path)
    path.write_bytes(b"")  # it is a file of its own
    return found


def test_it_has_the_content_also_after_its_memory_was_given_back(mapped):
    for _ in range(2):
        assert mapped.bytes.tobytes() == CONTENT
        mapped.release()


def test_it_leaves_no_file(mapped, tmp_path):
    assert [path.name for path in tmp_path.iterdir()] in ([], ["weights"])


def test_a_program_gives_its_weights_memory_back_once_for_each_number_of_rows(monkeypatch):
    released = []
    release = MappedFile.release
    monkeypatch.setattr(MappedFile, "release", lambda self: released.append(self) or release(self))
    program = settled(OpenVino(), convolution(), threads=1)
    for count in (1, 1, 3, 1, 3):
        np.testing.assert_allclose(program((pictures(count),))[1], convolution_by_hand(pictures(count))[1], atol=1e-5)
    assert released == [program._weights] * 2


@pytest.mark.parametrize("starts", [1, 2])
def test_a_program_runs_on_whatever_becomes_of_the_cache(tmp_path, starts):
    for _ in range(starts):
        program = settled(OpenVino(EngineCache(tmp_path)), convolution(), threads=1)
    for path in tmp_path.rglob("*.*"):
        path.write_bytes(b"")
    for count in (1, 2):
        np.testing.assert_allclose(program((pictures(count),))[1], convolution_by_hand(pictures(count))[1], atol=1e-5)


@pytest.mark.parametrize("cached", [False, True])
def test_where_no_file_can_be_written_weights_are_kept_in_memory(tmp_path, monkeypatch, cached):
    if cached:
        settled(OpenVino(EngineCache(tmp_path)), convolution(), threads=1)

    def full(**more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    program = settled(OpenVino(EngineCache(tmp_path) if cached else None), convolution(), threads=1)
    assert program._weights is None
    np.testing.assert_allclose(program((pictures(2),))[1], convolution_by_hand(pictures(2))[1], atol=1e-5)
