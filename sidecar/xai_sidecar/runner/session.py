"""A run from its config to its results: the model is loaded, the store opened, the data set run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from prometheus_client import CollectorRegistry

from xai_sidecar import __version__
from xai_sidecar.config import Config
from xai_sidecar.engine.backend import Backend
from xai_sidecar.engine.engine import Engine
from xai_sidecar.engine.scheduler import Policy
from xai_sidecar.evaluator.live_quality import LiveQuality
from xai_sidecar.evaluator.measurement import EvaluatedModel, Measurer
from xai_sidecar.evaluator.restoring import restore_quality
from xai_sidecar.evaluator.store import Store
from xai_sidecar.runner.data import DataItem, DataSet, Labels, open_data
from xai_sidecar.runner.folder import DESCRIPTION, RunFolder
from xai_sidecar.runner.gathering import Gatherer, RunCounts
from xai_sidecar.runner.model_record import model_record
from xai_sidecar.runner.options import ALL, FOR_EVER, run_config
from xai_sidecar.runner.outcome import PictureOutcome
from xai_sidecar.runner.running import Runner
from xai_sidecar.runner.spread.spreading import Spreader
from xai_sidecar.serving.evaluation import check_measured, evaluated_model, make_telemetry
from xai_sidecar.serving.model import start_model

_MOST_BYTES = 2**50

OnProgress: TypeAlias = Callable[[RunCounts, LiveQuality], None]
"""Called after each picture."""

Measure: TypeAlias = Callable[
    [Iterator[DataItem], Callable[[PictureOutcome], None], Callable[[], bool]],
    bool,
]
"""Measures pictures: see `Runner.run`."""


@dataclass(frozen=True)
class RunResult:
    """What came of a run.

    Attributes:
        folder: Where it is.
        counts: Pictures that were measured, and that were not.
        config: The config, as of `run_config`.
        evaluated: The model as the evaluator sees it.
        quality: All scores.
        store: Where everything is kept; closed by whoever gets it.
        seconds: How long it took.
    """

    folder: RunFolder
    counts: RunCounts
    config: Config
    evaluated: EvaluatedModel
    quality: LiveQuality
    store: Store
    seconds: float


def run_data(
    config: Config,
    data_name: str,
    folder: RunFolder,
    make_backend: Callable[[Config], Backend],
    report: Callable[[str], None],
    on_progress: OnProgress = lambda counts, quality: None,
    stop: Callable[[], bool] = lambda: False,
) -> RunResult:
    """Runs a data set, or goes on with it.

    Args:
        config: The model, what is measured, and how the data set is run; see `run_config`.
        data_name: The data set, as of `open_data`.
        folder: Where the run goes.
        make_backend: Loads the model.
        report: Called with each step of loading.
        on_progress: Called after each picture.
        stop: Returns whether to end.

    Raises:
        ConfigError: Something named is not there or does not fit.
        StoreError: The store fails.
        PictureError: A picture cannot be read, and that is to end the run.
    """
    config = run_config(config)
    engine = run_engine(config, make_backend)
    try:
        model = start_model(engine, config, report).result()
        evaluated = evaluated_model(model)
        check_measured(model, evaluated)
        data = open_data(data_name, Labels(model.labels, len(model.labels)))
        record = {"data": data_name, **run_record(config, evaluated)}
        described = model_record(model)
        measure = Runner(engine, model, evaluated).run
        return run_by(measure, model.config, evaluated, data, folder, record, on_progress, stop, described)
    finally:
        engine.close(5.0)


def run_spread(
    config: Config,
    data_name: str,
    folder: RunFolder,
    spreader: Spreader,
    on_progress: OnProgress = lambda counts, quality: None,
    stop: Callable[[], bool] = lambda: False,
) -> RunResult:
    """As `run_data`, with pictures measured by workers.

    Args:
        config: As of `run_data`.
        data_name: As of `run_data`; the data set is read here.
        folder: Where the run goes.
        spreader: Has the workers.
        on_progress: Called after each picture.
        stop: Returns whether to end.

    Raises:
        ConfigError: Something named is not there or does not fit.
        DeviceLostError: Workers die, one after the other.
        KeyboardInterrupt: It was stopped before the first worker was ready.
        StoreError: The store fails.
        PictureError: A picture cannot be read, and that is to end the run.
    """
    config = run_config(config)
    evaluated = spreader.start(stop)
    data = open_data(data_name, Labels(evaluated.labels, len(evaluated.labels)))
    record = {"data": data_name, **run_record(config, evaluated)}
    described = spreader.described
    return run_by(spreader.run, config, evaluated, data, folder, record, on_progress, stop, described)


def run_engine(config: Config, make_backend: Callable[[Config], Backend]) -> Engine:
    """An engine for a run, which is not started yet.

    Args:
        config: As of `run_config`.
        make_backend: Loads the model.
    """
    # Nobody waits for anything else: batches may be as long as they like.
    policy = Policy(
        slice_seconds=config.server.slice_milliseconds / 1e3, evaluate_slice_seconds=1.0, evaluate_share=1.0
    )
    return Engine(lambda: make_backend(config), policy=policy, hang_seconds=config.server.hang_seconds)


def run_by(
    measure: Measure,
    config: Config,
    evaluated: EvaluatedModel,
    data: DataSet,
    folder: RunFolder,
    record: Mapping[str, Any],
    on_progress: OnProgress = lambda counts, quality: None,
    stop: Callable[[], bool] = lambda: False,
    described: Mapping[str, Any] | None = None,
) -> RunResult:
    """As `run_data`, of a model that is ready, whoever measures the pictures.

    Args:
        measure: Measures pictures, as `Runner.run` does.
        config: The config, as of `run_config`.
        evaluated: The model as the evaluator sees it.
        data: The data set.
        folder: Where the run goes.
        record: What is run, and how; see `RunFolder.begin`.
        on_progress: Called after each picture.
        stop: Returns whether to end.
        described: The model for those who look at the run later; see `model_record`. None for none.
    """
    started, settings = time.monotonic(), config.evaluator
    resumed = folder.begin(record)
    if described is not None:
        folder.write(DESCRIPTION, described)
    store = Store.open(folder.store_url, max_bytes=_MOST_BYTES, retention_seconds=FOR_EVER, claim=True)
    try:
        telemetry = make_telemetry(CollectorRegistry(), evaluated, settings)
        quality, measurer = LiveQuality(evaluated, settings, telemetry, most_paired=ALL), Measurer(evaluated, settings)
        gatherer = Gatherer(store, quality, config.run, lambda counts: on_progress(counts, quality))
        gatherer.counts.notes += data.notes
        if costly := measurer.too_costly():
            gatherer.counts.notes.append(
                f"Not measured, for evaluator.max_passes: {', '.join(costly)}. Raise it to have them."
            )
        if resumed:
            known = set(evaluated.measured)
            restore_quality(quality, store, evaluated.version, 0.0, ALL, known, settings.metrics, measurer.definitions)
        counts = gatherer.end(interrupted=measure(gatherer.missing(data), gatherer.take, stop))
    except BaseException:
        store.close()
        raise
    return RunResult(folder, counts, config, evaluated, quality, store, time.monotonic() - started)


def run_record(config: Config, model: EvaluatedModel) -> Mapping[str, Any]:
    """What is run, and how, as JSON has it."""
    settings, options = config.evaluator, config.run
    measured = settings.explainers or list(model.explainers)
    return {
        "sidecar": __version__,
        "model": config.model.name,
        "model_version": model.version,
        "labels": list(model.labels),
        "targets": options.targets,
        "probable": options.probable,
        "seed": options.seed,
        "keep_pictures": options.keep_pictures,
        "explainers": {name: model.explainers[name][1].model_dump(mode="json") for name in measured},
        "controls": list(model.controls),
        "metrics": list(settings.metrics),
        "positive_probability": settings.positive_probability if config.model.activation == "sigmoid" else None,
    }
