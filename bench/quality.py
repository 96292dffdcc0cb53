"""Which scores can be trusted: explainers and controls on pictures, by SRG in several settings and by both composites.

The pictures are scikit-image's; the classifier is the demo's. Nothing here looks at what a person would say of a map: a
control knows nothing of the model, and a composite score that puts it above an explainer whose SRG beats it beyond two
standard errors on the same pictures misleads.
"""

from __future__ import annotations

import itertools
import math
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from bench import models
from bench.figure import Figure
from bench.quality_chart import Bar, chart
from xai_sidecar.backends.loading import load_backend
from xai_sidecar.config.evaluation import AutoConfig
from xai_sidecar.engine.batching import Run, in_batches
from xai_sidecar.engine.work import Array, FloatArray, Kind, MaskedForward, drive, forward
from xai_sidecar.evaluator.comparison import goodness
from xai_sidecar.evaluator.controls import CONTROLS
from xai_sidecar.explainers.activations import softmax
from xai_sidecar.explainers.base import Context
from xai_sidecar.imaging import decode, prepare
from xai_sidecar.metrics.discovery import installed_metrics
from xai_sidecar.metrics.instance import ExplainerCall, Instance
from xai_sidecar.metrics.perturbation import StepParameters
from xai_sidecar.serving.model import ServedModel, served_model
from xai_sidecar.zoo.sample import sample_picture

EXPLAINERS = ("rise", "gradcam", "guided_backprop", "occlusion", "gradient", "deconvolution")
FILLS = ("mean_colour", "blurred", "black")
LED = "faithfulness/srg"
ROAD = "faithfulness/road"
FORMER = {"faithfulness/deletion_auc": 1.0, "faithfulness/insertion_auc": 1.0, "class_sensitivity": 0.5}
"""The composite before SRG, without truth and robustness; in the protocol of then."""

_SHORT = "XAI_BENCH_SHORT" in os.environ
"""Whether 224 steps and the former composite are left out, which take three quarters of the time."""

_TITLE = "SRG of explainers and of controls (grey), with two standard errors"
_AXIS = "0 is a map drawn at random, 1 the best that there could be"

_BATCH = 8
_PASSES = 400
"""Most passes of class sensitivity: of explainers that take more it is left out, as a new explainer's would be."""

Scores: TypeAlias = dict[tuple[str, str], list[float]]
"""By map and setting: the score of each picture."""


def figures() -> list[Figure]:
    """A table on the standard output, and what it says of the scores."""
    count = int(os.environ.get("XAI_BENCH_PICTURES", len(models.PICTURES)))
    masks = int(os.environ.get("XAI_BENCH_MASKS", 500))
    scores = _measured(models.PICTURES[:count], masks)
    print(_table(scores))
    if "XAI_BENCH_CHART" in os.environ:
        Path(os.environ["XAI_BENCH_CHART"]).write_text(chart(_TITLE, _AXIS, _bars(scores)))
    note = f"{count} pictures, RISE of {masks:,} masks"
    found = _stability(scores, note)
    found.append(Figure("controls above explainers that beat them, by SRG", _misled(scores, _srg), "", 0, note))
    if not _SHORT:
        found.append(Figure("the same by the former composite", _misled(scores, _former), "", None, note))
    return found


def _measured(pictures: Sequence[str], masks: int) -> Scores:
    scores: Scores = {}
    with models.sample_config(None) as (config, _):
        model = config.model.model_copy(update={"batch_sizes": [1, _BATCH]})
        backend = load_backend(config.model_copy(update={"model": model}))
        served = served_model(config, backend)
        backend.warm_up(served.kinds, lambda line: None)
        batched, single = in_batches(backend.run, _BATCH), in_batches(backend.run, 1)

        def run(kind: Kind, rows: tuple[Array, ...]) -> tuple[Array, ...]:
            several = (kind == MaskedForward.kind or len(rows[0]) > 1) and _BATCH in backend.costs(kind)
            return (batched if several else single)(kind, rows)

        for number, name in enumerate(pictures):
            image = prepare(decode(sample_picture(name).read_bytes(), 10**9), served.input).array
            for call in _calls(served, masks, number):
                for setting, value in _scored(served, call, image, run, number).items():
                    scores.setdefault((call.explainer.name, setting), []).append(value)
    return scores


def _calls(served: ServedModel, masks: int, seed: int) -> list[ExplainerCall]:
    calls = []
    for name in EXPLAINERS:
        setup = served.explainers[name]
        few = {"masks": masks} if name == "rise" else {}
        calls.append(ExplainerCall(setup.explainer, setup.defaults.model_copy(update=few), seed))
    return calls + [ExplainerCall(*control, seed) for control in CONTROLS.values()]


def _scored(served: ServedModel, call: ExplainerCall, image: FloatArray, run: Run, seed: int) -> dict[str, float]:
    """The scores of one map in all settings."""
    context = Context(softmax, seed, served.facts.units)
    logits = drive(forward(image[np.newaxis]), run)[0]
    target = int(logits.argmax())
    steps = call.explainer.explain(image, np.array([target], np.int32), call.parameters, context)
    instance = Instance(image, target, drive(steps, run).maps[0], call, (), logits, {})
    found = {}
    settings = [(10, "mean_colour"), *((28, fill) for fill in FILLS)]
    for count, fill in settings if _SHORT else [(224, "mean_colour"), *settings]:
        srg = installed_metrics()[LED]
        found[f"{count} {fill}"] = _value(srg, instance, StepParameters(steps=count, fill=fill), context, run)
    road = installed_metrics()[ROAD]
    found[ROAD] = _value(road, instance, road.parameters_type(), context, run)
    for name in {} if _SHORT else FORMER:
        metric = installed_metrics()[name]
        parameters = metric.parameters_type()
        if "protocol" in type(parameters).model_fields:
            parameters = parameters.model_copy(update={"protocol": "mindspore_xai"})
        if metric.pass_count(parameters, served.facts, call) <= _PASSES:
            found[name] = _value(metric, instance, parameters, context, run)
    return found


def _value(metric: Any, instance: Instance, parameters: Any, context: Context, run: Run) -> float:
    value = drive(metric.measure(instance, parameters, context), run).value
    return math.nan if value is None else float(value)


# ------------------------------------------------------------------------------------------------ what they say


def _srg(scores: Scores, name: str) -> float:
    """The composite that `auto` goes by where no truth is known."""
    weights = AutoConfig().weights
    return goodness(installed_metrics()[LED], statistics.fmean(scores[name, f"28 {_default_fill()}"])) * weights[LED]


def _former(scores: Scores, name: str) -> float:
    known = {metric: weight for metric, weight in FORMER.items() if (name, metric) in scores}
    total = sum(
        weight * goodness(installed_metrics()[metric], statistics.fmean(scores[name, metric]))
        for metric, weight in known.items()
    )
    return total / sum(known.values())


def _default_fill() -> str:
    return StepParameters().fill


def _misled(scores: Scores, composite: Any) -> int:
    """Pairs of a control and an explainer that beats it by SRG beyond two standard errors, and is below it."""
    wrong = 0
    for name, control in itertools.product(EXPLAINERS, CONTROLS):
        pairs = zip(*(scores[each, f"28 {_default_fill()}"] for each in (name, control)), strict=True)
        differences = [one - other for one, other in pairs]
        error = statistics.stdev(differences) / math.sqrt(len(differences))
        beaten = statistics.fmean(differences) > 2 * error
        wrong += beaten and composite(scores, control) > composite(scores, name)
    return wrong


def _stability(scores: Scores, note: str) -> list[Figure]:
    """How far settings agree with the one of 224 steps, or fills with each other, on the order of maps of a picture."""
    found = []
    most = "28 mean_colour" if _SHORT else "224 mean_colour"
    for one, other in [(each, most) for each in ("28 mean_colour", "10 mean_colour") if each != most]:
        found.append(
            Figure(f"order of maps, {one} against {other}", _agreement(scores, one, other), "Spearman", None, note)
        )
    found.append(Figure("order of maps, ROAD against SRG", _agreement(scores, ROAD, most), "Spearman", None, note))
    for fill in FILLS:
        others = [_agreement(scores, f"28 {fill}", f"28 {each}") for each in FILLS if each != fill]
        found.append(Figure(f"order of maps, {fill} against the other fills", min(others), "Spearman", None, note))
        found.append(Figure(f"spread of maps over standard error, {fill}", _separation(scores, fill), "×", None, note))
    return found


def _agreement(scores: Scores, one: str, other: str) -> float:
    """Mean over pictures of Spearman's correlation of the maps' scores in two settings."""
    names = [*EXPLAINERS, *CONTROLS]
    first, second = (np.array([scores[name, setting] for name in names]) for setting in (one, other))
    ranks = [np.argsort(np.argsort(each, axis=0), axis=0) for each in (first, second)]
    return statistics.fmean(
        float(np.corrcoef(*column)[0, 1]) for column in zip(*(each.T for each in ranks), strict=True)
    )


def _separation(scores: Scores, fill: str) -> float:
    """The deviation of the maps' mean scores over the standard error that such a mean has, from picture to picture."""
    table = np.array([scores[name, f"28 {fill}"] for name in (*EXPLAINERS, *CONTROLS)])
    centred = table - table.mean(axis=0)  # pictures differ; what matters is how maps do on each
    error = float(np.sqrt((centred.var(axis=1, ddof=1) / table.shape[1]).mean()))
    return float(table.mean(axis=1).std(ddof=1)) / error


def _table(scores: Scores) -> str:
    settings = ["224 mean_colour", "28 mean_colour", "10 mean_colour", "28 blurred", "28 black", ROAD, *FORMER]
    composites: Mapping[str, Any] = {"new": _srg} if _SHORT else {"former": _former, "new": _srg}
    lines = ["map".ljust(18) + "".join(each.rpartition("/")[2].rjust(19) for each in (*settings, *composites))]
    for name in sorted((*EXPLAINERS, *CONTROLS), key=lambda each: -_srg(scores, each)):
        cells = [_cell(scores.get((name, setting), [])) for setting in settings]
        cells += [f"{composite(scores, name):.3f}" for composite in composites.values()]
        lines.append(name.ljust(18) + "".join(cell.rjust(19) for cell in cells))
    return "\n".join([*lines, "", *_wins(scores)])


def _bars(scores: Scores) -> list[Bar]:
    """SRG of all maps by the default fill, the best first."""
    found = {name: scores[name, f"28 {_default_fill()}"] for name in (*EXPLAINERS, *CONTROLS)}
    ranked = sorted(found, key=lambda name: -statistics.fmean(found[name]))
    return [
        Bar(
            name,
            statistics.fmean(found[name]),
            statistics.stdev(found[name]) / math.sqrt(len(found[name])),
            name in CONTROLS,
        )
        for name in ranked
    ]


def _cell(values: Sequence[float]) -> str:
    if not values:
        return "-"
    return f"{statistics.fmean(values):+.3f} ±{statistics.stdev(values) / math.sqrt(len(values)):.3f}"


def _wins(scores: Scores) -> list[str]:
    """On how many pictures a control scores at least as high as each explainer, by SRG."""
    setting = f"28 {_default_fill()}"
    lines = []
    for control, name in itertools.product(CONTROLS, EXPLAINERS):
        pairs = list(zip(scores[control, setting], scores[name, setting], strict=True))
        lines.append(f"{control} wins over {name} on {sum(one >= other for one, other in pairs)} of {len(pairs)}")
    return lines
