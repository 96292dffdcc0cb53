"""The server's life cycle: load, serve, drain."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from functools import partial
from typing import Any

import structlog
from prometheus_client import CollectorRegistry
from starlette.routing import Route

from xai_sidecar import __version__
from xai_sidecar.backends.loading import load_background
from xai_sidecar.backends.runtimes.memory import give_back_memory
from xai_sidecar.command.addresses import joined, split
from xai_sidecar.command.grpc_server import Served, start_grpc
from xai_sidecar.command.heartbeat import Heartbeat
from xai_sidecar.command.http_routes import protocol_routes
from xai_sidecar.command.listening import Guards, start_http, start_probes
from xai_sidecar.command.readiness import Readiness
from xai_sidecar.command.steps import StepReports
from xai_sidecar.command.trials import try_or_recall
from xai_sidecar.config import Config
from xai_sidecar.engine.backend import Backend
from xai_sidecar.engine.batch import Lane
from xai_sidecar.engine.engine import Engine
from xai_sidecar.engine.scheduler import Policy
from xai_sidecar.errors import ShuttingDownError
from xai_sidecar.evaluator.store import Store
from xai_sidecar.explainers.discovery import installed_explainers
from xai_sidecar.http.core_calls import CoreCalls
from xai_sidecar.http.probes import probe_routes
from xai_sidecar.open_inference.service import OpenInference
from xai_sidecar.rpc.answerer import Answerer
from xai_sidecar.rpc.keepers import task_factory
from xai_sidecar.serving.admission import Admission
from xai_sidecar.serving.call_records import CallRecords
from xai_sidecar.serving.core import Core, ServingState
from xai_sidecar.serving.evaluation import Evaluation, open_store, start_evaluation
from xai_sidecar.serving.model import start_model
from xai_sidecar.serving.predictor import Predictor
from xai_sidecar.serving.quality import Quality, ServedQuality
from xai_sidecar.serving.trial import Unseen
from xai_sidecar.serving.weight_dependence import with_kept
from xai_sidecar.telemetry import ModelSeries, Telemetry, process_registry
from xai_sidecar.telemetry.lines import LineWriter
from xai_sidecar.telemetry.tracing import Tracer, make_tracer

_STOP_SECONDS = 0.5
_CLOSING_SECONDS = 0.1
_ARRIVING_SECONDS = 0.1
"""How long calls that had reached the transport by then have to reach this program; grpc.aio cancels them otherwise."""

_WINDING_UP_SECONDS = 2.0
"""The end of the draining time, in which explanations end with their partial results."""

_log = structlog.get_logger(__name__)


class Sidecar:
    """A server.

    Args:
        config: What to serve and where.
        make_backend: Loads the model; called on the device thread.
        handle_signals: Whether SIGTERM and SIGINT stop it, which takes the main thread.
        log: Writes the log; where given, /metrics counts the lines that it drops.
        tracer: Traces predictions; None for what the config says.

    Attributes:
        lost: Why the device was lost, if it was; threads that hang may then keep the interpreter from exiting.
        grpc_address: Where gRPC is served, once started.
        http_address: Where HTTP is served, once started.
        probes_address: Where probes are served on a port of their own, once started; empty if they are not.
        engine: Runs the model, once started.
        serving: What serves calls, once the model is loaded.
    """

    def __init__(
        self,
        config: Config,
        make_backend: Callable[[Config], Backend],
        *,
        handle_signals: bool = True,
        log: LineWriter | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        self._log = log
        self._tracer = tracer or make_tracer(config.server.tracing)
        self._signals = (signal.SIGTERM, signal.SIGINT) if handle_signals else ()
        self._config = config
        self._make_backend = make_backend
        self.grpc_address = ""
        self.http_address = ""
        self.probes_address = ""
        self.engine: Engine | None = None
        self.serving: ServingState | None = None
        self._stop = asyncio.Event()
        self.lost: BaseException | None = None
        self._evaluation: Evaluation | None = None
        self._heartbeat = Heartbeat()

    async def run(
        self,
        report: Callable[[str], None] = lambda line: None,
        on_ready: Callable[[Sidecar], Any] = lambda server: None,
    ) -> int:
        """Loads, serves until `stop` or a signal, and drains.

        Args:
            report: Called with each step of loading, on another thread.
            on_ready: Called once the server accepts requests.

        Returns:
            The exit status: 0, or 1 when the device was lost.

        Raises:
            ConfigError: It cannot be started; what was started is stopped again.
        """
        loop = asyncio.get_running_loop()
        telemetry = Telemetry(CollectorRegistry(), installed_explainers())
        self._heartbeat = Heartbeat(late=telemetry.loop_lag.observe)
        registry = process_registry()
        registry.register(ModelSeries(telemetry.registry, self._config.model.name))

        def lost(error: BaseException) -> None:
            loop.call_soon_threadsafe(self._on_lost, error)

        limits = self._config.server
        calls = CallRecords(telemetry, limits)
        guards = Guards.of(limits, calls.refused)
        observer = Unseen(telemetry)
        engine = self.engine = Engine(
            lambda: self._make_backend(self._config),
            policy=Policy(
                slice_seconds=limits.slice_milliseconds / 1e3,
                explain_share=limits.explain_share,
                batch_delay_seconds=limits.batch_delay_milliseconds / 1e3,
                evaluate_slice_seconds=self._config.evaluator.slice_milliseconds / 1e3,
                evaluate_share=self._config.evaluator.device_share,
            ),
            observer=observer,
            on_lost=lost,
            hang_seconds=limits.hang_seconds,
            make_background=partial(load_background, self._config),
        )
        core = Core(limits, on_repeat=lambda how: telemetry.repeats.labels(how).inc())
        quality = Quality(ServedQuality(core))
        loop.set_task_factory(task_factory)
        readiness = Readiness(core, engine, self._heartbeat, self._make_backend)
        http = ExitStack()
        if self._log is not None:
            telemetry.log_lines_dropped.set_function(partial(getattr, self._log, "dropped"))
        try:
            open_inference = OpenInference(core, self._is_alive, lambda: not readiness.why_not())
            served = Served(core, Answerer(core), quality, open_inference)
            protocols = protocol_routes(limits, CoreCalls(loop, calls), served)
            self._start_http(http, guards, registry, readiness, protocols)
            self._heartbeat.start()
            server = await start_grpc(limits, guards, served, calls, self._tracer)
            self.grpc_address = server.address
            try:
                self._handle_signals(loop)
                if not await self._load(engine, core, telemetry, report):
                    return 0
                observer.ready = True
                self._handle_signals(loop)  # again, in case the model's module has replaced them
                await server.set_ready()
                addresses = {"grpc": self.grpc_address, "http": self.http_address}
                if self.probes_address:
                    addresses["probes"] = self.probes_address
                _log.info("ready", **addresses, version=__version__)
                on_ready(self)

                async def tell(ready: bool) -> None:
                    telemetry.ready.set(ready)
                    await server.set_ready(ready)

                following = asyncio.ensure_future(readiness.follow(tell))
                await self._stop.wait()
                following.cancel()
                telemetry.ready.set(0)
                core.state = None
                quality.end_watching()
                await server.health.enter_graceful_shutdown()
                await self._drain(calls, engine)
                await asyncio.sleep(_ARRIVING_SECONDS)
            finally:
                # All calls of the contract have ended; a health Watch would stay open for ever.
                await server.server.stop(_STOP_SECONDS)
                self._heartbeat.stop()  # it is a task, too
                await _settled()
            return 1 if self.lost else 0
        finally:
            self._heartbeat.stop()
            http.close()
            quality.close()
            core.close()

    def _handle_signals(self, loop: asyncio.AbstractEventLoop) -> None:
        for number in self._signals:
            loop.add_signal_handler(number, self.stop)

    async def _drain(self, calls: CallRecords, engine: Engine) -> None:
        # After a loss all calls have failed; those left are of callers that do not read.
        seconds = self._config.server.drain_seconds if self.lost is None else _STOP_SECONDS
        started = time.monotonic()
        _log.info("draining", seconds=seconds)
        winding_up = min(_WINDING_UP_SECONDS, seconds / 4)
        finished = await calls.finished(seconds - winding_up)
        if not finished:
            engine.wind_up()
            if not await calls.finished(winding_up):
                calls.cut_off(ShuttingDownError("The server has shut down first. Send the request to another one."))
                await calls.finished(_CLOSING_SECONDS)
        if self._evaluation is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._evaluation.close)
        closed = False
        while not closed:  # in steps, since a device may turn out to hang only now
            closed = await asyncio.get_running_loop().run_in_executor(None, engine.close, _CLOSING_SECONDS)
            if not engine.alive or time.monotonic() > started + seconds:
                closed = engine.close(0)  # it may have ended after that wait
                break
        if finished and closed:
            _log.info("stopped")
        else:
            _log.warning("stopped_before_all_was_done", seconds=seconds)

    def stop(self) -> None:
        """Makes `run` drain and return; to be called on its event loop. A second call changes nothing."""
        self._stop.set()

    async def _load(self, engine: Engine, core: Core, telemetry: Telemetry, report: Callable[[str], None]) -> bool:
        """Opens the store and loads the model; False if `stop` was called before that was done."""
        store = await self._open_store()  # first, to report at once if another server has it
        try:
            with StepReports(report) as steps:
                return await self._load_model(engine, core, telemetry, steps, store)
        finally:
            if self._evaluation is None and store is not None:
                store.close()

    async def _open_store(self) -> Store | None:
        if not self._config.evaluator.enabled:
            return None
        opening = partial(open_store, self._config, claim=True)
        return await asyncio.get_running_loop().run_in_executor(None, opening)

    async def _load_model(
        self,
        engine: Engine,
        core: Core,
        telemetry: Telemetry,
        report: Callable[[str], None],
        store: Store | None,
    ) -> bool:
        loading = asyncio.wrap_future(start_model(engine, self._config, report))
        stopped = asyncio.ensure_future(self._stop.wait())
        await asyncio.wait((loading, stopped), return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not loading.done():
            return False
        model = with_kept(await loading)
        for warning in model.warnings:
            _log.warning("model_warning", warning=warning)
        give_back_memory()
        limits, spec = self._config.server, model.input
        map_bytes = 4 * spec.height * spec.width
        start = partial(start_evaluation, model, engine, telemetry.registry, store)
        self._evaluation = evaluation = await asyncio.get_running_loop().run_in_executor(None, start)
        activation = self._config.model.activation
        predictor = Predictor(
            engine,
            activation,
            limits.max_targets,
            telemetry,
            evaluation.quality,
            model.least_positive,
            model.facts.units,
        )
        report("trying what explanations take beyond their passes")
        await try_or_recall(model, engine)
        admission = Admission(predictor.costs, limits, spec.channels * map_bytes, map_bytes, predictor.answering)
        self.serving = core.state = ServingState(model, admission, predictor, evaluation, time.time())
        telemetry.open_images.set_function(lambda: admission.images.taken)
        telemetry.open_explanations.set_function(lambda: admission.explanations.taken)
        telemetry.open_bytes.set_function(lambda: admission.bytes.taken)
        for lane in Lane:
            telemetry.queue_rows.labels(lane.name.lower()).set_function(partial(engine.waiting, lane))
        telemetry.became_ready()
        telemetry.model.info(
            {
                "name": self._config.model.name,
                "version": model.version,
                "device": model.backend.device,
                "engine": model.backend.engine,
                "server_version": __version__,
            }
        )
        return True

    def _is_alive(self) -> bool:
        """Whether the process still works, or has to be restarted; any thread may ask."""
        return self.lost is None and self._heartbeat.alive

    def _start_http(
        self,
        http: ExitStack,
        guards: Guards,
        registry: CollectorRegistry,
        readiness: Readiness,
        protocols: Sequence[Route],
    ) -> None:
        """Starts to serve HTTP, until the stack is closed."""
        limits = self._config.server
        probes = partial(probe_routes, registry, is_alive=self._is_alive, unready=readiness.why_not)
        server = http.enter_context(closing(start_http(limits, guards, [*probes(), *protocols])))
        self.http_address = joined(split(limits.http)[0], server.port)
        if limits.probes is not None:
            server = http.enter_context(closing(start_probes(limits, limits.probes, guards, probes())))
            self.probes_address = joined(split(limits.probes)[0], server.port)

    def _on_lost(self, error: BaseException) -> None:
        _log.error("device_lost", error=f"{type(error).__name__}: {error}")
        self.lost = error
        self._stop.set()


async def _settled() -> None:
    """Waits until cancelled calls have ended; if the loop ended first, gRPC would print a traceback."""
    calls = asyncio.all_tasks() - {asyncio.current_task()}
    if calls:
        await asyncio.wait(calls, timeout=_STOP_SECONDS)
