"""Workers as actors of Ray, on the machines of a cluster or on this one."""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from xai_sidecar.cpus import usable_cpus
from xai_sidecar.errors import ConfigError, DeviceLostError, ShuttingDownError
from xai_sidecar.runner.data import DataItem
from xai_sidecar.runner.spread.cluster import Event, Failed, Lost, Measured, Ready
from xai_sidecar.runner.spread.room import Room, room_for
from xai_sidecar.runner.spread.worker import Worker, WorkerSetup

LOCAL = "local"
"""In the place of an address: a cluster of this machine alone, started here and ended with the run."""

_CALLS = 64
"""Calls of an actor at a time: for the pictures that it may have in hand, and one to stop it."""

_WAITING_SECONDS = 20.0
_ANSWERING_SECONDS = 10.0
_OBJECT_BYTES = 512 << 20
"""Of pictures and results on their way, in memory, where the cluster is started here."""


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Ray, connected to a cluster.

    Args:
        address: Of the cluster, as `ray.init` takes it, or `LOCAL`.

    Raises:
        ConfigError: Ray is not installed, or there is no cluster; field "ray".
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent to anybody
    try:
        import ray
    except ImportError as error:
        raise ConfigError(f"Ray is not there: {error}. Run pip install 'xai-sidecar[ray]'.", field="ray") from error
    _check_answers(address)
    quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
    try:
        if address == LOCAL:
            ray.init(num_cpus=usable_cpus(), include_dashboard=False, object_store_memory=_OBJECT_BYTES, **quiet)
        else:
            ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise _unreachable(address, error) from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _check_answers(address: str) -> None:
    """Makes sure that somebody listens at an address that has a port: Ray itself would try for minutes."""
    host, _, port = address.rpartition("//")[2].rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host.strip("[]"), int(port)), _ANSWERING_SECONDS).close()
        except (OSError, OverflowError) as error:
            raise _unreachable(address, error) from error


def _unreachable(address: str, error: Exception) -> ConfigError:
    text = f"no Ray cluster can be reached at {address!r}: {error}. Name host:port of its head, or {LOCAL!r}."
    return ConfigError(text, field="ray")


def cluster_room(ray: Any, device: str, count: int | None) -> Room:
    """What each worker gets of the cluster; see `room_for`."""
    return room_for(device, [each["Resources"] for each in ray.nodes() if each["Alive"]], count)


class RayCluster:
    """See `Cluster`.

    Args:
        ray: Ray, connected.
        setup: What each worker needs to know.
        room: What each worker gets.
        report: Called with what there is to say, in a line.
    """

    def __init__(self, ray: Any, setup: WorkerSetup, room: Room, report: Callable[[str], None]) -> None:
        self._ray = ray
        self._room = room
        self._report = report
        self._setup = ray.put(setup)
        self._actor = ray.remote(Worker).options(
            num_cpus=room.cpus,
            num_gpus=1 if room.accelerator == "GPU" else 0,
            resources={room.accelerator: 1} if room.accelerator not in ("", "GPU") else None,
            max_concurrency=_CALLS,
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy="SPREAD",
        )
        self._actors: dict[int, Any] = {}
        self._calls: dict[Any, tuple[int, str]] = {}  # the worker, and the picture; of a start, no picture
        self._started = 0
        self._waiting_since = 0.0

    def start(self) -> int:
        """See `Cluster.start`."""
        self._started += 1
        self._waiting_since = time.monotonic()
        actor = self._actors[self._started] = self._actor.remote(self._setup)
        self._calls[actor.start.remote()] = self._started, ""
        return self._started

    def submit(self, worker: int, item: DataItem) -> None:
        """See `Cluster.submit`."""
        self._calls[self._actors[worker].measure.remote(item)] = worker, item.name

    def stop(self, worker: int) -> None:
        """See `Cluster.stop`."""
        self._actors[worker].stop.remote()

    def remove(self, worker: int) -> None:
        """See `Cluster.remove`."""
        if (actor := self._actors.pop(worker, None)) is not None:
            self._ray.kill(actor)
        self._calls = {call: of for call, of in self._calls.items() if of[0] != worker}

    def events(self, seconds: float) -> Sequence[Event]:
        """See `Cluster.events`."""
        if not self._calls:
            return []
        calls = list(self._calls)
        done, _ = self._ray.wait(calls, num_returns=1, timeout=seconds)
        if done:
            done, _ = self._ray.wait(calls, num_returns=len(calls), timeout=0)
        found: list[Event] = []
        for call in done:
            worker, name = self._calls.pop(call)
            found.append(self._event(call, worker, name))
        self._say_what_waits()
        return found

    def _event(self, call: Any, worker: int, name: str) -> Event:
        try:
            result = self._ray.get(call)
        except self._ray.exceptions.RayTaskError as error:
            cause = error.cause if isinstance(error.cause, Exception) else error
            if isinstance(cause, (DeviceLostError, ShuttingDownError)):
                return Lost(worker, _in_a_line(cause))
            return Failed(worker, cause)
        except self._ray.exceptions.RayError as error:
            return Lost(worker, _in_a_line(error))
        return Measured(worker, name, result) if name else Ready(worker, result)

    def _say_what_waits(self) -> None:
        """Says that actors wait for room, once in a while."""
        starting = sum(not name for _, name in self._calls.values())
        if starting and time.monotonic() - self._waiting_since > _WAITING_SECONDS:
            self._waiting_since = time.monotonic()
            self._report(f"actors that wait for a machine with {self._room.content}, or load: {starting}")


def worker_config(config: Any) -> Mapping[str, Any]:
    """A config as other machines read it: what was set, and no defaults of this machine."""
    return dict(config.model_dump(mode="json", exclude_unset=True))


def import_paths() -> list[str]:
    """Where Python looks for modules here, as absolute paths."""
    return [str(Path(path).absolute()) for path in sys.path]


def _in_a_line(error: BaseException) -> str:
    """The first line of an error's message, which Ray's go on from for long."""
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".") + "."
