"""How soon the evaluator has something to say, and how many samples an hour it measures, beside the former protocol.

All explainers, all controls, defaults, EfficientNet-Lite0, on a device with nothing else to do; pictures keep coming.
The former protocol is not run, which would take an hour a sample: its passes are counted (every map and every score by
itself, with all masks, of every explainer, no controls), and take what passes took in this run, at the share of the
device that was the default. Passes of samples that have not ended count as well.
"""

from __future__ import annotations

import itertools
import math
import os
import statistics
import tempfile
import time
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from prometheus_client import CollectorRegistry

from bench import models
from bench.figure import Figure
from xai_sidecar.backends.loading import load_backend
from xai_sidecar.config import EvaluatorConfig
from xai_sidecar.engine.batch import Lane
from xai_sidecar.engine.dispatcher import BatchRecord
from xai_sidecar.engine.engine import Engine
from xai_sidecar.engine.job import JobOutcome
from xai_sidecar.engine.scheduler import Policy
from xai_sidecar.engine.work import Kind, MaskedForward, forward
from xai_sidecar.evaluator.live_quality import LiveQuality
from xai_sidecar.evaluator.measurement import Measurer
from xai_sidecar.explainers.activations import ACTIVATIONS
from xai_sidecar.imaging import decode, prepare
from xai_sidecar.paths import cache_folder
from xai_sidecar.serving.evaluation import Evaluation, evaluated_model, start_evaluation
from xai_sidecar.serving.model import ServedModel, start_model
from xai_sidecar.serving.plan import ModelOutput
from xai_sidecar.zoo.sample import sample_picture

_FORMER_SHARE = 0.05
_SECONDS = float(os.environ.get("XAI_BENCH_SECONDS", 180))
_BETWEEN = 2.0
"""Seconds from one sampled picture to the next: more than are measured."""


@dataclass
class _Batches:
    """Counts the evaluator's batches, rows and device seconds; see `Observer`."""

    masked: list[int] = field(default_factory=list)
    rows: dict[Kind, int] = field(default_factory=dict)
    seconds: dict[Kind, float] = field(default_factory=dict)

    def batch_ran(self, record: BatchRecord) -> None:
        if record.lane is Lane.EVALUATE:
            if record.kind == MaskedForward.kind:
                self.masked.append(record.row_count)
            self.rows[record.kind] = self.rows.get(record.kind, 0) + record.row_count
            self.seconds[record.kind] = self.seconds.get(record.kind, 0.0) + record.seconds

    def ended(self, lane: Lane, outcome: JobOutcome) -> None:
        """Nothing."""


@dataclass
class _Found:
    """When there was what, in seconds from the first sampled picture; infinite for never.

    Attributes:
        interval: A score with an interval.
        ranking: An explainer that `auto` may choose.
        passes: The evaluator's passes by then.
        samples: How many were measured in the end.
    """

    interval: float = math.inf
    ranking: float = math.inf
    passes: float = math.inf
    samples: float = 0.0


def figures() -> list[Figure]:
    """Runs the evaluator for three minutes, or `XAI_BENCH_SECONDS`."""
    settings = EvaluatorConfig(sample_rate=1)
    policy = Policy(evaluate_slice_seconds=settings.slice_milliseconds / 1e3, evaluate_share=settings.device_share)
    with (
        models.sample_config(cache_folder() / "compiled", ood=True) as (config, _),
        tempfile.TemporaryDirectory() as folder,
    ):
        chosen = settings.model_copy(update={"store": f"sqlite:///{Path(folder) / 'store'}.sqlite"})
        config = config.model_copy(update={"evaluator": chosen})
        batches = _Batches()
        engine = Engine(partial(load_backend, config), policy=policy, observer=batches)
        try:
            model = start_model(engine, config, lambda line: None).result()
            found = _measured(model, engine, batches)
        finally:
            engine.close()
    return _figures(model, settings, batches, found)


def _measured(model: ServedModel, engine: Engine, batches: _Batches) -> _Found:
    outputs = [_predicted(name, model, engine) for name in models.PICTURES]
    evaluation = start_evaluation(model, engine, CollectorRegistry())
    found, started, following = _Found(), time.monotonic(), 0.0
    pictures = itertools.cycle(outputs)
    try:
        for number in itertools.count():
            now = time.monotonic() - started
            if now >= _SECONDS:
                break
            if now >= following:
                evaluation.sample(f"picture {number}", model, [next(pictures)])
                following = now + _BETWEEN
            _look(evaluation.quality, now, found, batches)
            time.sleep(0.2)
        found.samples = _samples(evaluation)
    finally:
        evaluation.close()
    return found


def _look(quality: LiveQuality, now: float, found: _Found, batches: _Batches) -> None:
    rows = quality.summary().table.rows if math.isinf(found.interval) else ()
    if any(row.statistics.standard_error is not None for row in rows):
        found.interval = now
    if math.isinf(found.ranking) and any(each.eligible for each in quality.compare().values()):
        found.ranking, found.passes = now, sum(dict(batches.rows).values())


def _samples(evaluation: Evaluation) -> float:
    """Samples that were measured, of which an explainer on average had a first score."""
    counts = [
        row.statistics.count for row in evaluation.quality.summary().table.rows if row.metric == "faithfulness/srg"
    ]
    return statistics.fmean(counts or [0])


def _predicted(name: str, model: ServedModel, engine: Engine) -> ModelOutput:
    prepared = prepare(decode(sample_picture(name).read_bytes(), 10**9), model.input)
    logits = engine.submit(forward(prepared.array[np.newaxis]), Lane.PREDICT).result().value[0]
    activation = ACTIVATIONS[model.config.model.activation]
    return ModelOutput(prepared, logits, np.asarray(activation(logits), np.float32))


def _former_rows(model: ServedModel, settings: EvaluatorConfig) -> dict[Kind, int]:
    """Passes of a sample by kind as they were: every score of every explainer from passes of its own."""
    former = settings.model_copy(update={"protocol": "mindspore_xai", "tolerance": 0.0})
    evaluated = replace(evaluated_model(model), controls={})
    measurer, masked = Measurer(evaluated, former), MaskedForward.kind
    rows: dict[Kind, int] = {}
    for name in measurer.compared:
        call = measurer.call(name, 0)
        kind = call.explainer.kind(call.parameters)
        rows[kind] = rows.get(kind, 0) + measurer.map_passes(name)
        for metric, _, passes in measurer.passes(name):
            of = masked if masked in metric.kinds else kind
            if passes <= former.max_passes and metric.name != "faithfulness/srg":
                rows[of] = rows.get(of, 0) + passes
    return rows


def _figures(model: ServedModel, settings: EvaluatorConfig, batches: _Batches, found: _Found) -> list[Figure]:
    former = _former_rows(model, settings)
    samples = max(found.samples, 1e-9)
    row_seconds = {kind: batches.seconds[kind] / count for kind, count in batches.rows.items()}
    # Of kinds that were not run here, a row is taken to cost what a masked pass does.
    usual = row_seconds[MaskedForward.kind]
    former_seconds = sum(count * row_seconds.get(kind, usual) for kind, count in former.items())
    passes, before = sum(batches.rows.values()) / samples, sum(former.values())
    an_hour, an_hour_before = 3600 * samples / _SECONDS, 3600 * _FORMER_SHARE / former_seconds
    costs = model.backend.costs(MaskedForward.kind)
    best = max(costs, key=lambda size: size / costs[size])
    kinds = ", ".join(f"{kind.name} {count / samples:.0f}" for kind, count in batches.rows.items())
    taken = f"{samples:.1f} samples in {_SECONDS:.0f} s, {100 * sum(batches.seconds.values()) / _SECONDS:.0f} % of it"
    return [
        Figure("first row with an interval", found.interval, "s", 60, "from the first sampled picture"),
        Figure("first explainer that auto may choose", found.ranking, "s", 600, "beyond all controls, of 10 pictures"),
        Figure("passes until then", found.passes, "", None, "on a slower or a busier machine as many"),
        Figure("passes a sample over the former ones", passes / before, "×", 1 / 5, f"of {before:,}; {kinds}"),
        Figure("samples an hour over the former", an_hour / an_hour_before, "×", None, taken, at_least=40),
        Figure(
            "rows of a masked batch", statistics.fmean(batches.masked), "", None, f"most rows per second with {best}"
        ),
    ]
