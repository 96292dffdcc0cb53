"""Makes the backend that the config asks for."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import structlog

from xai_sidecar.config import Config
from xai_sidecar.config.upstream import upstream_address
from xai_sidecar.cpus import usable_cpus
from xai_sidecar.engine.backend import Backend
from xai_sidecar.engine.background import Background
from xai_sidecar.errors import ConfigError
from xai_sidecar.ood.head import OodHead, load_head

_log = structlog.get_logger(__name__)


def load_backend(config: Config) -> Backend:
    """Loads the configured model on the configured device.

    Raises:
        ConfigError: Something that the config names does not exist or does not fit, or MindSpore is not installed.
    """
    make = {"onnx": _graph, "factory": _cell, "oip": _remote}[config.model.source]
    return make(config)


def load_background(config: Config, backend: Backend) -> Background | None:
    """What runs evaluation beside a backend; None where it takes turns with the rest."""
    evaluator = config.evaluator
    if not evaluator.own_process or not evaluator.enabled or config.model.source != "onnx":
        return None
    from xai_sidecar.backends.background.process import BackgroundProcess, why_not
    from xai_sidecar.backends.graph.backend import GraphBackend

    if not isinstance(backend, GraphBackend):
        return None
    if reason := why_not(backend.source):
        _log.info("evaluation_takes_turns", reason=reason)
        return None
    return BackgroundProcess(backend.source, backend.version)


class PatientLoading:
    """Loads a model on another server, and waits for that server as long as it takes.

    Attributes:
        waiting_for: Why it waits; empty where it does not. Any thread may read it.
    """

    def __init__(self) -> None:
        self.waiting_for = ""

    def __call__(self, config: Config) -> Backend:
        """As `load_backend`."""
        backend = _remote(config, self._wait)
        self.waiting_for = ""
        return backend

    def _wait(self, why: str) -> None:
        if why != self.waiting_for:
            _log.warning("waiting_for_upstream", why=why)
        self.waiting_for = why


def load_early(config: Config) -> Callable[[Config], Backend]:
    """Begins to load a model that any thread may load, while the caller does something else.

    Args:
        config: What to load.

    Returns:
        What gives the backend, or raises, as `load_backend` would; for this config. A `PatientLoading` where the model
        is on another server.
    """
    if config.model.source == "oip":
        return PatientLoading()
    if config.model.source != "onnx":
        return load_backend  # MindSpore belongs to one thread
    loaded: Future[Backend] = Future()

    def load() -> None:
        try:
            loaded.set_result(load_backend(config))
        except BaseException as error:
            loaded.set_exception(error)

    threading.Thread(target=load, name="device-loading", daemon=True).start()
    return lambda _: loaded.result()


def _graph(config: Config) -> Backend:
    from xai_sidecar.backends.graph.backend import GraphBackend
    from xai_sidecar.backends.graph.source import GraphSource

    model = config.model
    if model.forward_engine == "mindspore":
        raise ConfigError("MindSpore does not run ONNX files. Set it to auto.", field="model.forward_engine")
    return GraphBackend(
        GraphSource(
            path=model.onnx or Path(),  # the config has checked that it is the source
            input=model.onnx_input,
            output=model.onnx_output,
            activation=model.activation,
            **_common(config),
        )
    )


def _remote(config: Config, waiting: Callable[[str], None] | None = None) -> Backend:
    from xai_sidecar.backends.remote.backend import RemoteBackend
    from xai_sidecar.backends.remote.source import RemoteSource

    model = config.model
    spec = model.input.spec()
    source = RemoteSource(
        address=upstream_address(model.oip or ""),  # the config has checked that it is the source
        settings=model.upstream,
        activation=model.activation,
        preparation=repr(spec),
        layout=model.input.layout if "layout" in model.input.model_fields_set else None,
        channels=spec.channels,
        height=spec.height,
        width=spec.width,
        batch_sizes=tuple(model.batch_sizes),
        ood=_head(config),
    )
    return RemoteBackend(source, waiting)


def _cell(config: Config) -> Backend:
    limit_threads(config.model.threads)
    try:
        # Only here, since importing MindSpore takes seconds.
        from xai_sidecar.backends.mindspore.backend import MindSporeBackend
        from xai_sidecar.backends.mindspore.source import ModelSource
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "mindspore":
            raise
        raise ConfigError(
            "MindSpore is not installed. Run pip install 'xai-sidecar[server]' with Python 3.10 to 3.12."
        ) from error
    model = config.model
    return MindSporeBackend(
        ModelSource(
            factory=model.factory or "",  # the config has checked that it is the source
            arguments=model.arguments,
            checkpoint=model.checkpoint,
            **_common(config),
        )
    )


def _common(config: Config) -> dict[str, Any]:
    """What every source of a model has, by the names of its fields."""
    model = config.model
    spec = model.input.spec()
    return {
        "device": model.device,
        "preparation": repr(spec),
        "layout": model.input.layout,
        "channels": spec.channels,
        "height": spec.height,
        "width": spec.width,
        "batch_sizes": tuple(model.batch_sizes),
        "gradient_batch_sizes": tuple(model.gradient_batch_sizes),
        "cache": model.compile_cache if isinstance(model.compile_cache, Path) else None,
        "forward_engine": model.forward_engine,
        "threads": model.threads,
        "ood": _head(config),
    }


def _head(config: Config) -> OodHead | None:
    return load_head(config.ood.checkpoint) if config.ood.checkpoint else None


def limit_threads(threads: int | None) -> None:
    """Sets the number of threads of MindSpore's kernels, which read it when MindSpore is imported.

    Args:
        threads: The number; None for one on each usable CPU, unless the environment sets it. By themselves the kernels
            respect the CPU affinity but not a container's quota, and too many threads slow each other down.
    """
    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(threads)
    else:
        os.environ.setdefault("OMP_NUM_THREADS", str(usable_cpus()))
