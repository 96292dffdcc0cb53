"""The second process, for evaluation: a real one, with a small net whose answers are worked out by hand."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_graphs import HEIGHT, WIDTH, convolution, convolution_by_hand, pictures

from xai_sidecar.backends.background import process as module
from xai_sidecar.backends.background.messages import asked
from xai_sidecar.backends.background.process import BackgroundError, BackgroundProcess, why_not
from xai_sidecar.backends.graph.backend import GraphBackend
from xai_sidecar.backends.graph.source import GraphSource
from xai_sidecar.cpus import usable_cpus
from xai_sidecar.engine.batching import padded
from xai_sidecar.engine.work import Forward, Kind, MaskedForward

PATIENCE = 120
GRADIENT = Kind("input_gradient")


def until(true):
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def source_in(folder):
    model = folder / "model.onnx"
    model.write_bytes(convolution())
    return GraphSource(
        model, output="logits", height=HEIGHT, width=WIDTH, batch_sizes=(1, 4), gradient_batch_sizes=(2,)
    )


@pytest.fixture
def source(tmp_path):
    return source_in(tmp_path)


@pytest.fixture(scope="module")
def version(tmp_path_factory):
    return GraphBackend(source_in(tmp_path_factory.mktemp("model"))).version


@pytest.fixture(scope="module")
def shared(version, tmp_path_factory):
    """As `made`, for tests that leave it as they found it."""
    made = BackgroundProcess(source_in(tmp_path_factory.mktemp("model")), version, os.SCHED_BATCH)
    yield made
    made.close()


@pytest.fixture
def made(source, version):
    """One that gets CPU time on a busy machine, too."""
    made = BackgroundProcess(source, version, os.SCHED_BATCH)
    yield made
    made.close()


def run(made, kind, rows):
    """A batch of whole columns."""
    return made.run(kind, len(rows[0]), tuple((array,) for array in rows))


def states(pid):
    """What the threads of a process do, by Linux's letters: "T" for stopped."""
    return {each.read_text().rpartition(")")[2].split()[0] for each in Path(f"/proc/{pid}/task").glob("*/stat")}


def number(made):
    return made._running.process.pid


def ready(made, *kinds):
    for kind in kinds:
        until(lambda kind=kind: made.takes(kind))
    return made


def has_ended(pid):
    try:
        return "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True


def test_it_gives_what_the_graph_gives(shared, source):
    ready(shared, Forward.kind, MaskedForward.kind, GRADIENT)
    (logits,) = run(shared, Forward.kind, (pictures(4),))
    np.testing.assert_allclose(logits, convolution_by_hand(pictures(4))[1], atol=1e-5)
    picture, masks = pictures(1)[0], np.random.default_rng(0).random((4, HEIGHT, WIDTH)).astype(np.float32)
    work = MaskedForward(picture, masks, 0.25)
    (logits,) = run(shared, work.kind, work.rows)
    masked = masks[:, None] * picture + (1 - masks[:, None]) * np.float32(0.25)
    np.testing.assert_allclose(logits, convolution_by_hand(masked)[1], atol=1e-5)
    backend = GraphBackend(source)
    backend.warm_up([GRADIENT], lambda line: None)
    rows = pictures(2), np.array([3, 1], np.int32)
    for found, right in zip(run(shared, GRADIENT, rows), backend.run(GRADIENT, rows), strict=True):
        np.testing.assert_allclose(found, right, atol=1e-5)
    assert set(shared.costs(MaskedForward.kind)) == {1, 4}
    assert all(seconds > 0 for seconds in shared.costs(GRADIENT).values())
    assert 0 < shared.used_seconds < PATIENCE


def test_every_thread_of_it_comes_last(shared):
    ready(shared, Forward.kind)
    run(shared, Forward.kind, (pictures(4),))
    threads = [int(each.name) for each in Path(f"/proc/{number(shared)}/task").iterdir()]
    assert len(threads) > 1
    assert {os.sched_getscheduler(each) for each in threads} == {os.SCHED_BATCH}
    assert int(Path(f"/proc/{number(shared)}/oom_score_adj").read_text()) == 500
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


def test_by_default_it_gets_what_nobody_else_wants(source, version):
    made = BackgroundProcess(source, version)
    try:
        assert not made.takes(Forward.kind)
        until(lambda: made._running is not None and os.sched_getscheduler(number(made)) == os.SCHED_IDLE)
    finally:
        made.close()


def test_several_batches_at_once_are_kept_apart(shared):
    ready(shared, Forward.kind)
    rights = convolution_by_hand(pictures(8))[1]
    wrong = []

    def ask(start):
        for _ in range(25):
            (logits,) = run(shared, Forward.kind, (pictures(8)[start : start + 4],))
            if not np.allclose(logits, rights[start : start + 4], atol=1e-5):
                wrong.append(start)

    threads = [threading.Thread(target=ask, args=(start,)) for start in (0, 4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(PATIENCE)
        assert not each.is_alive()
    assert wrong == []


def test_one_that_is_killed_fails_its_batch_and_another_takes_its_place(made, monkeypatch):
    monkeypatch.setattr(module, "_AGAIN_SECONDS", 0.0)
    ready(made, Forward.kind)
    first, used, free = number(made), made.used_seconds, made._running.free
    os.kill(first, signal.SIGSTOP)
    until(lambda: states(first) == {"T"})
    failed, others = [], free.qsize() - 1

    def ask():
        try:
            run(made, Forward.kind, (pictures(4),))
        except BackgroundError as error:
            failed.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    until(lambda: free.qsize() == others)
    os.kill(first, signal.SIGKILL)  # in the middle of a batch
    asking.join(PATIENCE)
    assert len(failed) == 1
    until(lambda: made._running is None or number(made) != first)
    ready(made, Forward.kind)
    assert number(made) != first
    (logits,) = run(made, Forward.kind, (pictures(4),))
    np.testing.assert_allclose(logits, convolution_by_hand(pictures(4))[1], atol=1e-5)
    assert made.used_seconds >= used


def test_one_that_always_ends_is_not_started_for_ever(made, monkeypatch):
    monkeypatch.setattr(module, "_AGAIN_SECONDS", 0.0)
    monkeypatch.setattr(module.sys, "executable", "/bin/false")
    starts = []
    started = BackgroundProcess._started
    monkeypatch.setattr(BackgroundProcess, "_started", lambda self: starts.append(1) or started(self))
    end = time.monotonic() + 1
    while time.monotonic() < end:
        assert not made.takes(Forward.kind)
        time.sleep(0.001)
    assert len(starts) == module._MOST_STARTS


def test_a_file_that_was_replaced_is_not_measured(made, source):
    spoilt = convolution()
    index = spoilt.rindex(b"head")
    source.path.write_bytes(spoilt[: index - 40] + bytes(4) + spoilt[index - 36 :])  # other weights
    assert not made.takes(Forward.kind)
    until(lambda: made._starts == module._MOST_STARTS and made._running is None)
    assert not made.takes(Forward.kind)


def test_a_row_at_fault_is_told(shared):
    ready(shared, Forward.kind)
    with pytest.raises(BackgroundError, match=r"\w"):
        run(shared, Forward.kind, (pictures(4)[:, :1],))
    (logits,) = run(shared, Forward.kind, (pictures(1),))
    np.testing.assert_allclose(logits, convolution_by_hand(pictures(1))[1], atol=1e-5)


def test_it_is_closed_at_once(made):
    ready(made, Forward.kind)
    pid = number(made)
    made.close()
    assert has_ended(pid)
    until(lambda: made._running is None)
    assert not made.takes(Forward.kind)  # nor started again
    with pytest.raises(BackgroundError):
        run(made, Forward.kind, (pictures(1),))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM], ids=lambda how: how.name)
def test_it_ends_with_the_process_that_started_it(source, version, how):
    script = f"""
import os, sys, time
from pathlib import Path
from xai_sidecar.backends.background.process import BackgroundProcess
from xai_sidecar.backends.graph.source import GraphSource
from xai_sidecar.engine.work import Forward
made = BackgroundProcess(GraphSource(Path({str(source.path)!r}), output="logits", height={HEIGHT}, width={WIDTH},
                                     batch_sizes=(1, 4)), {version!r}, os.SCHED_BATCH)
while not made.takes(Forward.kind):
    time.sleep(0.01)
print("pid", made._running.process.pid, flush=True)
time.sleep({PATIENCE})
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=env()) as parent:
        line = next(line for line in parent.stdout if line.startswith(b"pid "))
        pid = int(line.removeprefix(b"pid "))
        os.kill(pid, signal.SIGTERM)  # which an init system may send to all: it is the parent's to end it
        os.kill(pid, signal.SIGINT)
        time.sleep(0.2)
        assert not has_ended(pid)
        parent.send_signal(how)
    until(lambda: has_ended(pid))


def env():
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def test_where_it_is_not_for(source, monkeypatch):
    assert why_not(source) is None
    assert "gpu" in why_not(replace(source, device="gpu:0"))
    assert why_not(replace(source, threads=usable_cpus())) is None
    monkeypatch.setattr(module, "usable_cpus", lambda: 4)
    assert "model.threads" in why_not(replace(source, threads=3))
    monkeypatch.setattr(module, "has_quota", lambda: True)
    assert "quota" in why_not(source)
    monkeypatch.setattr(module, "has_quota", lambda: False)
    monkeypatch.delattr(os, "SCHED_IDLE")
    assert "SCHED_IDLE" in why_not(source)


@pytest.mark.parametrize(
    ("array", "sent"),
    [
        (np.arange(6.0).reshape(2, 3), 6),
        (np.broadcast_to(np.arange(3.0), (4, 3)), 3),
        (np.broadcast_to(np.float32(2), (4, 3, 2, 2)), 1),
        (np.arange(12.0).reshape(3, 4)[:, ::2], 6),
        (np.zeros((0, 3)), 0),
        (np.arange(3.0)[None], 3),
    ],
    ids=["plain", "rows", "number", "strided", "empty", "one"],
)
def test_what_repeats_is_sent_once(array, sent):
    message = asked(Forward.kind, len(array), ((array,),))
    assert [each.size for each in message.arrays] == [sent]
    (found,) = message.rows
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype


def test_a_batch_of_parts_is_put_together_there_and_a_picture_sent_once():
    picture, other = np.random.default_rng(0).random((2, 3, HEIGHT, WIDTH)).astype(np.float32)
    masks = np.random.default_rng(1).random((7, HEIGHT, WIDTH)).astype(np.float32)
    works = [MaskedForward(picture, masks[:2]), MaskedForward(picture, masks[2:5]), MaskedForward(other, masks[5:])]
    columns = tuple(zip(*(work.rows for work in works), strict=True))
    message = asked(MaskedForward.kind, 8, columns)
    assert sum(each.size for each in message.arrays) == masks.size + 2 * picture.size + len(works)
    for found, column in zip(message.rows, columns, strict=True):
        np.testing.assert_array_equal(found, padded(column, 8))


def test_arrays_at_one_place_that_are_not_the_same_are_kept_apart():
    whole = np.arange(12.0)
    views = (whole.reshape(3, 4), whole.reshape(4, 3)[:3], whole.view(np.int64).reshape(3, 4), whole.reshape(4, 3).T)
    message = asked(Forward.kind, 3, tuple((view,) for view in views))
    for found, view in zip(message.rows, views, strict=True):
        np.testing.assert_array_equal(found, view)
        assert found.dtype == view.dtype
