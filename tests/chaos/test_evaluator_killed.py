"""SIGKILL while a server samples and takes ground truth, again and again on one store: nothing acknowledged is lost.

Ten times by default; XAI_KILLS=50 for that many.
"""

import contextlib
import json
import os
import random
import sqlite3
import threading

import grpc
import pytest

from xai_proto import explanation_pb2 as pb

ROUNDS = int(os.environ.get("XAI_KILLS", "10"))
CALLERS = 3


class Caller(threading.Thread):
    """Predicts and reports ground truth until the server is gone; remembers what was acknowledged.

    Attributes:
        acknowledged: By request id, the class and the box of the last report that was answered.
        attempted: By request id, that of a report after it, which may be stored or not.
    """

    def __init__(self, connect, address, picture, name):
        super().__init__(daemon=True)
        self.connect, self.address, self.picture, self.prefix = connect, address, picture, name
        self.acknowledged, self.attempted = {}, {}
        self.problem = None
        self.enough = threading.Event()

    def run(self):
        draw = random.Random(self.prefix)
        try:
            with self.connect(self.address) as stub, contextlib.suppress(grpc.RpcError):
                for number in range(10_000):
                    if self.enough.is_set():
                        break
                    request_id = f"{self.prefix}-{number}"
                    asked = pb.PredictRequest(images=[self.picture(number % 7)], request_id=request_id)
                    answer = stub.Predict(asked, timeout=10)
                    assert answer.sampled
                    for _ in range(draw.choice([1, 1, 2])):
                        truth = (draw.randrange(5), (draw.randrange(15), draw.randrange(15), 20, 20))
                        left, top, right, bottom = truth[1]
                        report = pb.ReportGroundTruthRequest(request_id=request_id, class_ids=[truth[0]])
                        report.boxes.add(left=left, top=top, right=right, bottom=bottom)
                        self.attempted[request_id] = truth
                        stub.ReportGroundTruth(report, timeout=10)
                        self.acknowledged[request_id] = truth
        except BaseException as error:
            self.problem = error


def stored(path):
    """What a store says was reported, by request id, by plain SQL; and that it is in order."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        classes = connection.execute(
            "SELECT request_id, class_id FROM ground_truth_classes c JOIN samples s ON s.id = c.sample_id"
        ).fetchall()
        shapes = connection.execute(
            "SELECT request_id, points FROM ground_truth_objects o JOIN samples s ON s.id = o.sample_id"
        ).fetchall()
    boxes = {request_id: tuple(json.loads(shape)) for request_id, shape in shapes}
    return {request_id: (class_id, boxes.get(request_id)) for request_id, class_id in classes}


def scored(path):
    """How many scores a store has."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        (count,) = connection.execute("SELECT count(*) FROM scores").fetchone()
    return count


def until(there):
    """Waits for something, a minute at most."""
    for _ in range(600):
        if there():
            return
        threading.Event().wait(0.1)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_nothing_acknowledged_is_lost(start_misbehaving, connect, picture, tmp_path):
    path = tmp_path / "store.sqlite"
    settings = {
        "store": f"sqlite:///{path}",
        "sample_rate": 1,
        "interval_seconds": 0.02,
        "device_share": 1,
        "explainers": '["gradcam"]',
        "metrics": '["localization/iosr", "robustness"]',
    }
    overrides = [f"evaluator.{key}={value}" for key, value in settings.items()]
    draw = random.Random(0)
    acknowledged = {}
    for number in range(ROUNDS):
        with start_misbehaving(*overrides) as server:
            callers = [Caller(connect, server.grpc, picture, f"{number}-{name}") for name in range(CALLERS)]
            for caller in callers:
                caller.start()
            threading.Event().wait(draw.uniform(0.05, 0.4))
            # Some servers live for a moment, in which a busy machine may do nothing at all, and some get things done.
            if number % 2:
                until(lambda: sum(len(caller.acknowledged) for caller in callers) > CALLERS)  # noqa: B023
            if number == ROUNDS - 1:
                for caller in callers:
                    caller.enough.set()
                until(lambda: scored(path) > 0)
            server.process.kill()
            server.wait()
            for caller in callers:
                caller.join(20)
                assert not caller.is_alive()
                assert caller.problem is None, caller.problem
        kept = stored(path)
        for caller in callers:
            acknowledged.update(caller.acknowledged)
            for request_id, truth in caller.acknowledged.items():
                assert kept[request_id] in (truth, caller.attempted[request_id]), request_id
    lost = {request_id: truth for request_id, truth in acknowledged.items() if request_id not in kept}
    assert not lost
    assert len(acknowledged) > ROUNDS
    assert scored(path) > 0
    with contextlib.closing(sqlite3.connect(path)) as connection:
        # A map is kept before its scores.
        whole = "SELECT count(*) FROM scores s WHERE NOT EXISTS (SELECT 1 FROM maps m WHERE m.sample_id = s.sample_id)"
        assert connection.execute(whole).fetchone() == (0,)
