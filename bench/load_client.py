"""The client processes of `bench.load`: each makes calls as told by JSON lines, and answers each line with another."""

from __future__ import annotations

import itertools
import json
import queue
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from xai_proto import explanation_pb2 as pb

_METHOD = "/xai.v1.ExplanationService/Predict"
_TIMEOUT = 3600


@dataclass
class LoadClient:
    """A client process, from outside.

    Attributes:
        process: The process.
        folder: Where the serialised requests are, one a file.
    """

    process: subprocess.Popen[str]
    folder: Path

    def ask(self, run: str, request: str, **values: float) -> Callable[[], Any]:
        """Has it begin one of the functions below; returns what waits for the answer.

        Args:
            run: Name of the function.
            request: Name of the request's file, or for `open_loop` of a folder of such.
            **values: The function's arguments.
        """
        order = {"run": run, "request": str(self.folder / request), **values}
        print(json.dumps(order), file=self.process.stdin, flush=True)

        def answer() -> Any:
            line = self.process.stdout.readline() if self.process.stdout else ""
            if not line:
                raise RuntimeError("a client process failed; it has said why")
            return json.loads(line)

        return answer


@contextmanager
def load_client(address: str, folder: Path) -> Iterator[LoadClient]:
    """Starts a client process of a server."""
    command = [sys.executable, "-m", __name__, address]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield LoadClient(process, folder)
        finally:
            process.kill()


def open_loop(predict: Any, *requests: bytes, rate: float, seconds: float, seed: int) -> dict[str, list[float]]:
    """Calls that are due at random times, drawn beforehand, whatever became of the earlier ones; requests take turns.

    Returns:
        Seconds that each took from when it was due, and seconds that each was sent late.
    """
    draw = random.Random(seed)
    start = time.monotonic()
    due_times = [start + draw.expovariate(rate)]
    while due_times[-1] < start + seconds:
        due_times.append(due_times[-1] + draw.expovariate(rate))
    ended: queue.SimpleQueue[tuple[float, Any]] = queue.SimpleQueue()
    late = []
    for due, request in zip(due_times, itertools.cycle(requests)):
        time.sleep(max(0.0, due - time.monotonic()))
        late.append(time.monotonic() - due)
        call = predict.future(request, timeout=_TIMEOUT)
        call.add_done_callback(lambda call, due=due: ended.put((time.monotonic() - due, call)))
    taken = []
    for _ in due_times:
        passed, call = ended.get()
        call.result()
        taken.append(passed)
    return {"taken": taken, "late": late}


def closed_loop(predict: Any, request: bytes, callers: int, settle: float, seconds: float) -> dict[str, float]:
    """Callers that call over and over; the calls open at the end are cancelled.

    Returns:
        Calls that ended, and CPU seconds that this process took, both per second after settling.
    """
    ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
    under_way = set()

    def call() -> None:
        begun = predict.future(request, timeout=_TIMEOUT)
        under_way.add(begun)
        begun.add_done_callback(ended.put)

    def run(until: float) -> int:
        count = 0
        while (left := until - time.monotonic()) > 0:
            try:
                done = ended.get(timeout=left)
            except queue.Empty:
                break
            done.result()
            under_way.discard(done)
            count += 1
            call()
        return count

    for _ in range(callers):
        call()
    run(time.monotonic() + settle)
    started, used = time.monotonic(), time.process_time()
    count = run(started + seconds)
    passed = time.monotonic() - started
    answer = {"rate": count / passed, "cpu": (time.process_time() - used) / passed}
    for begun in under_way:
        begun.cancel()
    return answer


def cancelled(predict: Any, request: bytes, after: float) -> float:
    """A call that is cancelled after some seconds; returns when that was, on the clock of `time.monotonic`."""
    call = predict.future(request, timeout=_TIMEOUT)
    time.sleep(after)
    now = time.monotonic()
    if not call.cancel():
        raise RuntimeError("the call ended before it could be cancelled")
    return now


def crowd(predict: Any, request: bytes, callers: int, timeout: float) -> list[dict[str, Any]]:
    """Callers who come all at once, and wait no longer than they say; returns what became of each."""
    ended: queue.SimpleQueue[tuple[float, Any]] = queue.SimpleQueue()
    started = time.monotonic()
    for _ in range(callers):
        call = predict.future(request, timeout=timeout)
        call.add_done_callback(lambda call: ended.put((time.monotonic() - started, call)))
    return [_outcome(*ended.get()) for _ in range(callers)]


def _outcome(seconds: float, call: Any) -> dict[str, Any]:
    outcome = {"seconds": seconds, "code": call.code().name, "passes": 0, "maps": 0, "complete": False}
    if call.code() is grpc.StatusCode.OK:
        (explanation,) = pb.PredictResponse.FromString(call.result()).predictions[0].explanations
        outcome["passes"], outcome["maps"] = explanation.pass_count, len(explanation.maps)
        outcome["complete"] = explanation.status == pb.EXPLANATION_STATUS_COMPLETE
    return outcome


def burn(predict: Any, request: bytes, cpu: float, seconds: float) -> float:
    """Makes no call, but takes a share of one CPU, in pieces of less than a millisecond; returns what it got."""
    started, used = time.monotonic(), time.process_time()
    while (passed := time.monotonic() - started) < seconds:
        if time.process_time() - used < cpu * passed:
            sum(range(5000))
        else:
            time.sleep(0.001)
    return (time.process_time() - used) / passed


def main() -> None:
    """Serves stdin until it ends."""
    functions = {each.__name__: each for each in (open_loop, closed_loop, cancelled, crowd, burn)}
    with grpc.insecure_channel(sys.argv[1], [("grpc.enable_retries", 0)]) as channel:
        predict = channel.unary_unary(_METHOD)
        for line in sys.stdin:
            order = json.loads(line)
            path = Path(order.pop("request"))
            requests = [each.read_bytes() for each in (sorted(path.iterdir()) if path.is_dir() else [path])]
            print(json.dumps(functions[order.pop("run")](predict, *requests, **order)), flush=True)


if __name__ == "__main__":
    main()
