"""A run from its config to its results: the model is loaded, the store opened, the data set run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry

from xai_sidecar import __version__
from xai_sidecar.config import Config
from xai_sidecar.engine.backend import Backend
from xai_sidecar.engine.engine import Engine
from xai_sidecar.engine.scheduler import Policy
from xai_sidecar.evaluator.live_quality import LiveQuality
from xai_sidecar.evaluator.measurement import EvaluatedModel
from xai_sidecar.evaluator.restoring import restore_quality
from xai_sidecar.evaluator.store import Store
from xai_sidecar.runner.data import DataSet, Labels, open_data
from xai_sidecar.runner.folder import RunFolder
from xai_sidecar.runner.options import RunOptions
from xai_sidecar.runner.running import RunCounts, Runner
from xai_sidecar.serving.evaluation import check_measured, evaluated_model, make_telemetry
from xai_sidecar.serving.model import ServedModel, start_model

_MOST_BYTES = 2**50
_FOR_EVER = 1e11
"""Seconds for which samples of a run are kept, and count."""


@dataclass(frozen=True)
class RunResult:
    """What came of a run.

    Attributes:
        folder: Where it is.
        counts: Pictures that were measured, and that were not.
        model: The model.
        evaluated: The same as the evaluator sees it.
        quality: All scores.
        store: Where everything is kept; closed by whoever gets it.
        seconds: How long it took.
        data: The data set.
    """

    folder: RunFolder
    counts: RunCounts
    model: ServedModel
    evaluated: EvaluatedModel
    quality: LiveQuality
    store: Store
    seconds: float
    data: DataSet


def run_config(config: Config) -> Config:
    """A config as a run has it: everything is measured of every picture, and everything counts."""
    auto = config.evaluator.auto.model_copy(update={"min_samples": 2})  # for a composite score
    counting = {"sample_rate": 1.0, "window_samples": 10**9, "window_seconds": _FOR_EVER, "classes": [], "auto": auto}
    evaluator = config.evaluator.model_copy(update=counting)
    return config.model_copy(update={"evaluator": evaluator})


def run_data(
    config: Config,
    data_name: str,
    folder: RunFolder,
    options: RunOptions,
    make_backend: Callable[[Config], Backend],
    report: Callable[[str], None],
    on_progress: Callable[[RunCounts, LiveQuality], None] = lambda counts, quality: None,
    stop: Callable[[], bool] = lambda: False,
) -> RunResult:
    """Runs a data set, or goes on with it.

    Args:
        config: The model, its explainers and what is measured; see `run_config`.
        data_name: The data set, as of `open_data`.
        folder: Where the run goes.
        options: How it is run.
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
    slice_seconds = config.server.slice_milliseconds / 1e3
    engine = Engine(
        lambda: make_backend(config),
        # Nobody waits for anything else: batches may be as long as they like.
        policy=Policy(slice_seconds=slice_seconds, evaluate_slice_seconds=1.0, evaluate_share=1.0),
        hang_seconds=config.server.hang_seconds,
    )
    try:
        model = start_model(engine, config, report).result()
        evaluated = evaluated_model(model)
        check_measured(model, evaluated)
        data = open_data(data_name, Labels(model.labels, model.backend.class_count))
        record = {"data": data_name, **run_record(config, evaluated, options)}
        return run_model(engine, model, evaluated, data, folder, record, options, on_progress, stop)
    finally:
        engine.close(5.0)


def run_model(
    engine: Engine,
    model: ServedModel,
    evaluated: EvaluatedModel,
    data: DataSet,
    folder: RunFolder,
    record: Mapping[str, Any],
    options: RunOptions,
    on_progress: Callable[[RunCounts, LiveQuality], None] = lambda counts, quality: None,
    stop: Callable[[], bool] = lambda: False,
) -> RunResult:
    """As `run_data`, with a model that is ready on an engine.

    Args:
        engine: The engine; nobody else uses it.
        model: The model, with a config as of `run_config`.
        evaluated: The same as the evaluator sees it.
        data: The data set.
        folder: Where the run goes.
        record: What is run, and how; see `RunFolder.begin`.
        options: How it is run.
        on_progress: Called after each picture.
        stop: Returns whether to end.
    """
    started, settings = time.monotonic(), model.config.evaluator
    resumed = folder.begin(record)
    store = Store.open(folder.store_url, max_bytes=_MOST_BYTES, retention_seconds=_FOR_EVER, claim=True)
    try:
        telemetry = make_telemetry(CollectorRegistry(), evaluated, settings)
        quality = LiveQuality(evaluated, settings, telemetry)
        progress = partial(_with_quality, on_progress, quality)
        runner = Runner(engine, model, evaluated, store, options, quality, telemetry, progress, stop)
        if resumed:
            known, definitions = set(evaluated.measured), runner.measurer.definitions
            restore_quality(quality, store, evaluated.version, 0.0, 10**9, known, settings.metrics, definitions)
        counts = runner.run(data)
    except BaseException:
        store.close()
        raise
    return RunResult(folder, counts, model, evaluated, quality, store, time.monotonic() - started, data)


def _with_quality(
    on_progress: Callable[[RunCounts, LiveQuality], None], quality: LiveQuality, counts: RunCounts
) -> None:
    on_progress(counts, quality)


def run_record(config: Config, model: EvaluatedModel, options: RunOptions) -> Mapping[str, Any]:
    """What is run, and how, as JSON has it."""
    settings = config.evaluator
    measured = settings.explainers or list(model.explainers)
    return {
        "sidecar": __version__,
        "model": config.model.name,
        "model_version": model.version,
        "labels": list(model.labels),
        "targets": options.targets,
        "probable": options.probable,
        "seed": options.seed,
        "explainers": {name: model.explainers[name][1].model_dump(mode="json") for name in measured},
        "controls": list(model.controls),
        "metrics": list(settings.metrics),
        "positive_probability": settings.positive_probability if config.model.activation == "sigmoid" else None,
    }
