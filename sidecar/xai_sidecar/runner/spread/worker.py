"""A worker: an engine with the model on it, and a runner, in a process of their own. Nothing in here knows of Ray."""

from __future__ import annotations

import os
import platform
import queue
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

from xai_sidecar import __version__
from xai_sidecar.config import Config, parse_config
from xai_sidecar.engine.backend import Backend
from xai_sidecar.errors import SidecarError
from xai_sidecar.runner.data import DataItem
from xai_sidecar.runner.model_record import model_record
from xai_sidecar.runner.options import run_config
from xai_sidecar.runner.outcome import PictureOutcome
from xai_sidecar.runner.running import Runner
from xai_sidecar.runner.session import run_engine
from xai_sidecar.runner.spread.cluster import WorkerFacts
from xai_sidecar.serving.evaluation import check_measured, evaluated_model
from xai_sidecar.serving.model import start_model

_IDLE_SECONDS = 0.5


@dataclass(frozen=True)
class WorkerSetup:
    """What a worker needs to know.

    Attributes:
        config: The config, as it was set, without defaults.
        make_backend: Loads the model.
        import_paths: Where Python looks for modules, besides.
        threads: Threads that compute passes on a CPU, where the config does not say; None for one on each CPU.
    """

    config: Mapping[str, Any]
    make_backend: Callable[[Config], Backend]
    import_paths: Sequence[str] = ()
    threads: int | None = None


class Worker:
    """Measures pictures that come one by one, from several threads. `start` comes first.

    Args:
        setup: What it needs to know.
    """

    def __init__(self, setup: WorkerSetup) -> None:
        self._setup = setup
        self._inbox: queue.SimpleQueue[DataItem] = queue.SimpleQueue()
        self._begun: set[str] = set()  # the pictures that the runner has; for its thread alone
        self._lock = threading.Lock()  # guards the next three
        self._waiting: dict[str, Future[PictureOutcome | None]] = {}
        self._stopped = False
        self._error: BaseException | None = None

    def start(self) -> WorkerFacts:
        """Loads the model.

        Raises:
            ConfigError: Something named is not there or does not fit.
        """
        try:
            return self._load()
        except SidecarError as error:
            error.message = f"{error.message} So it is on {_where()}."
            raise

    def _load(self) -> WorkerFacts:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as the command line sets it; see `prepare_environment`
        sys.path += [path for path in self._setup.import_paths if path not in sys.path]
        config = self._config()
        self._engine = run_engine(config, self._setup.make_backend)
        model = start_model(self._engine, config, lambda line: None).result()
        evaluated = evaluated_model(model)
        check_measured(model, evaluated)
        self._runner = Runner(self._engine, model, evaluated)
        threading.Thread(target=self._run, name="measuring", daemon=True).start()
        travelling = replace(evaluated, controls=dict(evaluated.controls))  # what is read-only cannot be sent
        return WorkerFacts(travelling, __version__, _where(), model_record(model))

    def _config(self) -> Config:
        config = run_config(parse_config(dict(self._setup.config)))
        if config.model.threads is None and self._setup.threads is not None:
            model = config.model.model_copy(update={"threads": self._setup.threads})
            config = config.model_copy(update={"model": model})
        return config

    def measure(self, item: DataItem) -> PictureOutcome | None:
        """Measures a picture, among others.

        Returns:
            What came of it; None where it was not begun before the worker was stopped.

        Raises:
            DeviceLostError: The device is lost.
        """
        outcome: Future[PictureOutcome | None] = Future()
        with self._lock:
            if self._error is not None:
                raise self._error
            if self._stopped:
                return None
            self._waiting[item.name] = outcome
        self._inbox.put(item)
        return outcome.result()

    def stop(self) -> None:
        """Ends it, once the pictures that it has begun are measured."""
        with self._lock:
            self._stopped = True

    def _run(self) -> None:
        error: BaseException | None = None
        try:
            self._runner.run(self._items(), self._take, lambda: self._stopped)
        except BaseException as raised:
            error = raised
        with self._lock:
            self._stopped, self._error = True, error
            left, self._waiting = list(self._waiting.values()), {}
        for outcome in left:
            if error is None:
                outcome.set_result(None)
            else:
                outcome.set_exception(error)
        self._engine.close(5.0)

    def _items(self) -> Iterator[DataItem | None]:
        """The pictures that come; None where there is none at the moment. It waits only while nothing is begun."""
        while not self._stopped:
            try:
                item = self._inbox.get(block=not self._begun, timeout=_IDLE_SECONDS)
            except queue.Empty:
                yield None
            else:
                self._begun.add(item.name)
                yield item

    def _take(self, outcome: PictureOutcome) -> None:
        self._begun.discard(outcome.name)
        with self._lock:
            waiting = self._waiting.pop(outcome.name)
        waiting.set_result(outcome)


def _where() -> str:
    return f"{platform.node()}, process {os.getpid()}"
