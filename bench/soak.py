"""Mixed traffic against a server for minutes or hours: does it keep answering, its memory and its pace?

`python -m bench.soak [--minutes 5] [--hours H] [--server HOST:PORT --metrics HOST:PORT]`. The exit status is 1 when a
call ended otherwise than it should, a call was left open, or memory grew.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import re
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import numpy as np

from bench import models
from bench.metrics import read_metrics
from xai_sidecar.interrupt import interruptible
from xai_sidecar.paths import cache_folder
from xai_sidecar.zoo.sample import sample_picture

_PICTURES = ("chelsea", "astronaut", "coffee")
_CLIENTS = 2
_CALLERS = 6
_KILL_SECONDS = 20.0
"""Between two clients killed, in the mean."""

_WINDOW_SECONDS = 10
_END_SECONDS = 60
_WARM_UP = 0.2
"""Share of the time that is left out where the pace is compared."""

_FLAT_MEGABYTES = 16.0
"""What memory may rise by in the second half of the time, by a line fitted to it."""

_MEGABYTE = 2**20
_FAULTS = ("INTERNAL", "UNKNOWN", "DATA_LOSS")


@dataclass
class Tally:
    """What became of the calls; filled by the threads that read what clients report.

    Attributes:
        outcomes: Calls by what was called and how it ended.
        predictions: When each prediction without an explanation ended, and the seconds that it took.
        problems: What should not have happened, with how often it did.
        kills: Clients killed.
    """

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    predictions: list[tuple[float, float]] = field(default_factory=list)
    problems: Counter[str] = field(default_factory=Counter)
    kills: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, line: str) -> None:
        """A line of a client's; what a killed one did not finish counts for nothing."""
        if not line.endswith("\n"):
            return
        report = json.loads(line)
        with self._lock:
            self.outcomes[report["call"], report["outcome"]] += 1
            if report["outcome"] == "unexpected":
                self.problems[f"{report['call']}: {_without_ids(report['problem'])}"] += 1
            elif report["call"] == "predict":
                self.predictions.append((time.monotonic(), report["seconds"]))

    def by_outcome(self) -> Counter[str]:
        """Calls by how they ended."""
        counts: Counter[str] = Counter()
        with self._lock:
            for (_, outcome), count in self.outcomes.items():
                counts[outcome] += count
        return counts

    def seconds(self, start: float, end: float) -> list[float]:
        """Of the predictions that ended in a span of time."""
        recent = itertools.takewhile(lambda one: one[0] >= start, reversed(self.predictions))
        return [taken for when, taken in recent if when < end]


class Clients:
    """Client processes; see `bench.soak_client`."""

    def __init__(self, address: str, tally: Tally) -> None:
        self._address = address
        self._tally = tally
        self._random = random.Random(0)
        self._seeds = itertools.count()
        self._running: list[tuple[subprocess.Popen[str], threading.Thread]] = []
        for _ in range(_CLIENTS):
            self._start()
        self._next_kill = self._drawn_kill()

    def kill_some(self) -> None:
        """Now and then kills one and starts another one."""
        if time.monotonic() > self._next_kill:
            process, thread = self._running.pop(self._random.randrange(_CLIENTS))
            process.kill()
            thread.join()
            self._start()
            self._tally.kills += 1
            self._next_kill = self._drawn_kill()

    def stop(self) -> None:
        """Has them end their calls; those that cannot are a problem, and killed."""
        for process, _ in self._running:
            if process.stdin:
                process.stdin.close()
        until = time.monotonic() + _END_SECONDS
        for process, thread in self._running:
            thread.join(max(0.0, until - time.monotonic()))
            if thread.is_alive():
                self._tally.problems[f"a client had calls open {_END_SECONDS} s after the end"] += 1
                process.kill()
                thread.join()

    def _start(self) -> None:
        pictures = [str(sample_picture(name)) for name in _PICTURES]
        command = [sys.executable, "-m", "bench.soak_client", self._address, str(next(self._seeds)), str(_CALLERS)]
        process = subprocess.Popen(
            [*command, *pictures],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        thread = threading.Thread(target=self._read, args=(process,))
        thread.start()
        self._running.append((process, thread))

    def _read(self, process: subprocess.Popen[str]) -> None:
        for line in process.stdout or ():
            self._tally.add(line)
        if process.wait() > 0:
            self._tally.problems[f"a client ended with status {process.returncode}"] += 1

    def _drawn_kill(self) -> float:
        return time.monotonic() + self._random.expovariate(1 / _KILL_SECONDS)


@contextmanager
def _own_server(tally: Tally) -> Iterator[tuple[str, str]]:
    """The sample classifier in a process that Ctrl-C does not reach; yields its gRPC and HTTP addresses.

    Errors in its log, and an exit status other than 0, are problems.
    """
    with models.sample_config(cache_folder() / "compiled", ood=True) as (_, path):
        command = [sys.executable, "-m", "xai_sidecar", "serve", "--config", str(path)]
        process = subprocess.Popen(
            [*command, "--set", "server.log_format=json"], stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        ready: dict[str, str] = {}
        started = threading.Event()

        def read() -> None:
            for line in process.stderr or ():
                entry = json.loads(line) if line.startswith("{") else {}
                if entry.get("event") == "ready":
                    ready.update(entry)
                    started.set()
                elif entry.get("level") in ("error", "critical"):
                    tally.problems[f"the server's log: {entry['event']}"] += 1
            started.set()

        reader = threading.Thread(target=read)
        reader.start()
        try:
            started.wait()
            if not ready:
                raise RuntimeError("the server did not start")
            yield ready["grpc"], ready["http"]
            process.terminate()
            if process.wait(_END_SECONDS):
                tally.problems[f"the server ended with status {process.returncode}"] += 1
        finally:
            process.kill()
            reader.join()


def soak(address: str, http: str, seconds: float, tally: Tally) -> list[tuple[float, float]]:
    """Runs the traffic and prints a line every few seconds, until the time is up or Ctrl-C.

    Returns:
        When the server's memory was looked at, and what it took, in MB.
    """
    memory: list[tuple[float, float]] = []
    started = window = time.monotonic()
    before: Counter[str] = Counter()
    clients = Clients(address, tally)
    print(f"{'s':>6} {'MB':>6} {'p50 ms':>7} {'p99 ms':>7} {'open':>9}  calls ended, by outcome", flush=True)
    try:
        while time.monotonic() < started + seconds:
            time.sleep(1)
            clients.kill_some()
            now = time.monotonic()
            try:
                metrics = read_metrics(http)
            except OSError as error:
                tally.problems[f"/metrics: {error}"] += 1
                continue
            memory.append((now, metrics["process_resident_memory_bytes",] / _MEGABYTE))
            if now < window + _WINDOW_SECONDS:
                continue
            median, high = 1e3 * np.percentile(tally.seconds(window, now) or [np.nan], (50, 99))
            under_way = f"{metrics['xai_open_images',]:.0f}/{metrics['xai_open_explanations',]:.0f}"
            line = f"{now - started:6.0f} {memory[-1][1]:6.0f} {median:7.0f} {high:7.0f} {under_way:>9}"
            outcomes = tally.by_outcome()
            print(line, "", ", ".join(f"{n} {outcome}" for outcome, n in (outcomes - before).items()), flush=True)
            window, before = now, outcomes
    except KeyboardInterrupt:
        print("ending", flush=True)
    with suppress(KeyboardInterrupt):
        clients.stop()
    return memory


def check_end(http: str, faults_before: float, tally: Tally) -> None:
    """Notes as problems what is left open at the server, and calls that failed by its own fault."""
    until = time.monotonic() + _END_SECONDS
    metrics = read_metrics(http)
    while (left := metrics["xai_open_images",] + metrics["xai_open_explanations",]) and time.monotonic() < until:
        time.sleep(0.5)
        metrics = read_metrics(http)
    if left:
        tally.problems["pictures and explanations left open at the server"] += round(left)
    faults = round(_faults(metrics) - faults_before)
    if faults:
        tally.problems[f"calls that the server counts as one of {', '.join(_FAULTS)}"] += faults


def summary(memory: list[tuple[float, float]], tally: Tally) -> bool:
    """Prints what it came to; whether all was well."""
    print("\ncalls by outcome")
    for call in sorted({call for call, _ in tally.outcomes}):
        outcomes = ", ".join(f"{count} {how}" for (what, how), count in sorted(tally.outcomes.items()) if what == call)
        print(f"  {call:<10} {outcomes}")
    print(f"  {tally.kills} clients killed")
    start, end = (memory[0][0], memory[-1][0]) if memory else (0.0, 0.0)
    grown = False
    if end > start:
        times, megabytes = np.array([one for one in memory if one[0] >= (start + end) / 2]).T
        slope = float(np.polyfit(times, megabytes, 1)[0]) if len(times) > 1 else 0.0
        rise = slope * (times[-1] - times[0])
        grown = rise > _FLAT_MEGABYTES
        verdict = f"{rise:+.1f} MB where {_FLAT_MEGABYTES:g} are allowed: {'MISSED' if grown else 'met'}"
        print(f"memory      {3600 * slope:+.1f} MB per hour by a line fitted to the second half, {verdict}")
    warm = start + _WARM_UP * (end - start)
    quarter = (end - warm) / 4
    first, last = tally.seconds(warm, warm + quarter), tally.seconds(end - quarter, end)
    if first and last:
        medians = [1e3 * statistics.median(taken) for taken in (first, last)]
        change = f"× {medians[1] / medians[0]:.2f}, from {medians[0]:.0f} to {medians[1]:.0f} ms"
        print(f"pace        {change}: median prediction, first to last quarter after warm-up")
    print("problems" if tally.problems else "no problems")
    for problem, count in tally.problems.most_common(20):
        print(f"  {count:>5} × {problem:.400}")
    return not tally.problems and not grown


def main() -> int:
    """Runs the traffic; exit status 1 when something was wrong."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, default=5.0, metavar="M", help="how long (default: 5)")
    length.add_argument("--hours", type=float, metavar="H", help="how long")
    parser.add_argument("--server", metavar="HOST:PORT", help="a server; default: one of its own")
    parser.add_argument("--metrics", metavar="HOST:PORT", help="the server's /metrics (default: its port 9090)")
    arguments = parser.parse_args()
    seconds = 3600 * arguments.hours if arguments.hours else 60 * arguments.minutes
    tally = Tally()
    with interruptible():
        if arguments.server:
            http = arguments.metrics or f"{arguments.server.rpartition(':')[0]}:9090"
            memory = _measured(arguments.server, http, seconds, tally)
        else:
            with _own_server(tally) as (address, http):
                memory = _measured(address, http, seconds, tally)
    return 0 if summary(memory, tally) else 1


def _measured(address: str, http: str, seconds: float, tally: Tally) -> list[tuple[float, float]]:
    faults = _faults(read_metrics(http))
    memory = soak(address, http, seconds, tally)
    try:
        check_end(http, faults, tally)
    except OSError as error:
        tally.problems[f"/metrics at the end: {error}"] += 1
    return memory


def _faults(metrics: dict[tuple[str, ...], float]) -> float:
    return sum(value for key, value in metrics.items() if key[0] == "xai_requests_total" and key[1] in _FAULTS)


def _without_ids(problem: str) -> str:
    """A problem's text without the request's id, so that equal ones count as one."""
    return re.sub(r", request [^\]]*", "", problem)


if __name__ == "__main__":
    sys.exit(main())
