"""Programs that are loaded before their trial: engines compile on one CPU, while something else is found out."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from xai_sidecar.backends.runtimes.program import Engine, LazyModel, Model, Program


class EarlyLoads:
    """What is being loaded for any batch size, in float32, in threads of its own."""

    def __init__(self) -> None:
        self._loading: dict[tuple[str, str], Future[Program]] = {}

    def start(self, model: LazyModel, engines: Sequence[Engine], threads: int | None) -> None:
        """Begins to load a model with engines of which none is missing; arguments are as of `Engine.load`."""
        pool = ThreadPoolExecutor(max(1, len(engines)), "loading")
        for engine in engines:
            load = partial(engine.load, model, batch_size=None, precision="float32", threads=threads)
            self._loading[engine.name, model.digest] = pool.submit(load)
        pool.shutdown(wait=False)

    def take(self, engine: Engine, model: Model) -> Future[Program] | None:
        """What was begun; None if nothing was, or it was taken already."""
        return self._loading.pop((engine.name, model.digest), None) if isinstance(model, LazyModel) else None

    def forget(self) -> None:
        """Lets go of what nobody has taken."""
        self._loading.clear()
