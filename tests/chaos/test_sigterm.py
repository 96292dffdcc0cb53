"""SIGTERM under load: what was taken on is answered, or told in time that it will not be; and the end is clean."""

import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from xai_proto import explanation_pb2 as pb

pytestmark = pytest.mark.timed

DRAIN_SECONDS = 4
DONE = (pb.EXPLANATION_STATUS_COMPLETE, pb.EXPLANATION_STATUS_TRUNCATED)


def rise(masks, budget=None):
    wanted = pb.ExplanationRequest(explainer="rise", rise=pb.RiseParameters(mask_count=masks))
    if budget is not None:
        wanted.budget.FromNanoseconds(round(budget * 1e9))
    return wanted


class Load:
    """Callers of all sorts, each in a thread of its own; what became of their calls, and when."""

    def __init__(self, stub, image):
        self.asking = threading.Event()
        self.asking.set()
        self.began = Counter()
        self.ended = []  # (kind, code, when, whether the answer was whole)
        self._stub = stub
        self._image = image
        self._pool = ThreadPoolExecutor(32)
        self._callers = []

    def predictions(self):
        """Asks over and over until a call is refused; all answers have to be the same."""
        request = pb.PredictRequest(images=[self._image])
        expected = self._stub.Predict(request, timeout=60).predictions

        def ask():
            return self._stub.Predict(request, timeout=60).predictions == expected

        def ask_on():
            while self._call("predict", ask) == "OK" and self.asking.is_set():
                pass

        self._callers.append(self._pool.submit(ask_on))

    def explanation(self, kind, wanted):
        """Asks once for everything at once."""
        request = pb.PredictRequest(images=[self._image], explanations=[wanted])

        def ask():
            return self._stub.Predict(request).predictions[0].explanations[0].status in DONE

        self._callers.append(self._pool.submit(self._call, kind, ask))

    def stream(self, kind, wanted):
        """Asks once for everything as it comes."""
        request = pb.PredictStreamRequest(request=pb.PredictRequest(images=[self._image], explanations=[wanted]))
        request.progress_interval.FromMilliseconds(50)

        def ask():
            *_, last = self._stub.PredictStream(request)
            return last.HasField("finished")

        self._callers.append(self._pool.submit(self._call, kind, ask))

    def finish(self, seconds):
        """Waits for all calls to end; none may go on beyond that."""
        end = time.monotonic() + seconds
        for caller in self._callers:
            caller.result(max(0.0, end - time.monotonic()))
        self._pool.shutdown()

    def codes(self, kind):
        return Counter(code for each, code, _, _ in self.ended if each == kind)

    def _call(self, kind, ask):
        self.began[kind] += 1
        whole, code = False, "OK"
        try:
            whole = ask()
        except grpc.RpcError as error:
            code = error.code().name
        self.ended.append((kind, code, time.monotonic(), whole))
        return code


def test_sigterm_under_load(start_misbehaving, connect, picture, refused, eventually, read_metrics):
    with start_misbehaving(f"server.drain_seconds={DRAIN_SECONDS}") as own, connect(own.grpc) as stub:
        load = Load(stub, picture(0))
        for _ in range(3):
            load.stream("long stream", rise(50_000))
            load.explanation("long", rise(50_000))
        eventually(lambda: read_metrics(own.http)["xai_open_explanations",] == 6)
        for _ in range(4):
            load.predictions()
        eventually(lambda: load.codes("predict")["OK"] > 8)
        for _ in range(4):
            load.stream("short stream", rise(20_000, budget=2))
            load.explanation("short", rise(20_000, budget=2))
        # Those that a busy machine has taken long to send may be done already.
        short = lambda: load.codes("short").total() + load.codes("short stream").total()  # noqa: E731
        eventually(lambda: read_metrics(own.http)["xai_open_explanations",] + short() >= 14)
        signalled = time.monotonic()
        own.process.send_signal(signal.SIGTERM)
        eventually(lambda: any(entry["event"] == "draining" for entry in own.log))
        with connect(own.grpc) as late:
            for asked in (stub, late):
                assert refused(asked.Predict, pb.PredictRequest(images=[picture(0)]), timeout=5).code == "UNAVAILABLE"
        load.finish(DRAIN_SECONDS + 10)
        assert own.wait() == 0
        lasted = time.monotonic() - signalled
    assert DRAIN_SECONDS - 1 < lasted < DRAIN_SECONDS + 10
    assert max(when for _, _, when, _ in load.ended) - signalled < DRAIN_SECONDS + 9
    assert all(whole for _, code, _, whole in load.ended if code == "OK")
    assert load.codes("predict") == {"OK": load.began["predict"] - 4, "UNAVAILABLE": 4}
    for kind in ("short", "short stream"):
        assert load.codes(kind) == {"OK": 4}
    for kind in ("long", "long stream"):
        codes = load.codes(kind)
        assert codes.total() == 3
        # Beside so many others there may be no map yet when the time is up.
        assert set(codes) <= {"OK", "UNAVAILABLE"}, codes
    check_log(own, "stopped_before_all_was_done")


def check_log(server, *troubles):
    """Nothing but log lines, and these of no trouble but what is expected."""
    assert server.other_output == []
    assert [entry["event"] for entry in server.log if entry["level"] != "info"] == [*troubles]


def test_sigterm_before_explanations_are_done(start_misbehaving, connect, picture, eventually, read_metrics):
    """They are answered with the maps that there are when the time is up."""
    request = pb.PredictRequest(images=[picture(0)], explanations=[rise(50_000)])
    with start_misbehaving("server.drain_seconds=1") as own, connect(own.grpc) as stub:
        calls = [stub.Predict.future(request) for _ in range(3)]
        streams = [stub.PredictStream(pb.PredictStreamRequest(request=request)) for _ in range(3)]
        eventually(lambda: read_metrics(own.http)["xai_launch_rows_total", "masked_forward"] > 2000)
        own.process.send_signal(signal.SIGTERM)
        made = [call.result(20).predictions[0].explanations[0] for call in calls]
        for stream in streams:
            *_, last, finished = stream
            assert finished.HasField("finished")
            made.append(last.explained.explanation)
        assert own.wait() == 0
    for one in made:
        assert (one.status, len(one.maps)) == (pb.EXPLANATION_STATUS_TRUNCATED, 1)
        assert one.status_message == f"The server's end ended it after {one.pass_count} of at most 50000 passes."
    check_log(own, "stopped_before_all_was_done")


def test_sigterm_with_nothing_that_takes_long(start_misbehaving, connect, picture, eventually, read_metrics):
    """All of it is answered, streams with all of their events, and the process ends as soon as that is done."""
    with start_misbehaving() as own, connect(own.grpc) as stub:
        load = Load(stub, picture(0))
        for _ in range(6):
            load.stream("stream", rise(400))
            load.explanation("explanation", rise(400))
        eventually(lambda: read_metrics(own.http)["xai_open_explanations",] == 12)
        signalled = time.monotonic()
        own.process.send_signal(signal.SIGTERM)
        load.finish(30)
        assert own.wait() == 0
        assert time.monotonic() - signalled < 25, "it waited though there was nothing left to wait for"
    for kind in ("stream", "explanation"):
        assert load.codes(kind) == {"OK": 6}
    assert all(whole for *_, whole in load.ended)
    check_log(own)
    assert own.log[-1]["event"] == "stopped"


@pytest.mark.parametrize(("hang_seconds", "drain_seconds", "status"), [(1, 20, 1), (60, 1, 0)])
def test_sigterm_while_a_launch_hangs(
    hang_seconds, drain_seconds, status, start_misbehaving, connect, picture, read_refusal, read_metrics, eventually
):
    """Whatever is up first, the time for a launch or that for draining: the process ends soon after, and for good."""
    overrides = (f"server.hang_seconds={hang_seconds}", f"server.drain_seconds={drain_seconds}")
    with start_misbehaving(*overrides) as own, connect(own.grpc) as stub:
        hung = stub.Predict.future(pb.PredictRequest(images=[picture(0, "hang")]))
        eventually(lambda: read_metrics(own.http)["xai_open_images",] == 1)
        signalled = time.monotonic()
        own.process.send_signal(signal.SIGTERM)
        refusal = read_refusal(hung.exception(20))
        assert (refusal.code, refusal.reason) == ("UNAVAILABLE", "DEVICE_LOST" if status else "SHUTTING_DOWN")
        assert own.wait() == status
        assert time.monotonic() - signalled < 15
    assert own.other_output == []
