"""Whether maps depend on what the model has learnt: the same pictures, explained with the weights in disorder."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from xai_sidecar.digest import digest
from xai_sidecar.engine.work import FloatArray, Steps, forward
from xai_sidecar.explainers.activations import ACTIVATIONS
from xai_sidecar.explainers.base import Context, Saliency
from xai_sidecar.imaging import prepare
from xai_sidecar.metrics.base import whole
from xai_sidecar.metrics.correlation import correlation, is_constant
from xai_sidecar.serving.model import ExplainerSetup, ServedModel, WeightDependence
from xai_sidecar.serving.probing import photographs

PICTURES = 4
"""Pictures that are explained with both sets of weights."""

MOST_PASSES = 64
"""Explainers that take more are left out: they see nothing of a model but its answers, and so depend on its weights."""

_BINS = 100

Explain = Callable[[Steps[Saliency]], Saliency]
"""Runs an explanation on a model."""


def entropy(saliency: FloatArray) -> float:
    """The entropy of the histogram of a map's values in 100 bins from the least to the largest, in nats."""
    counts = np.histogram(saliency, _BINS)[0]
    shares = counts[counts > 0] / saliency.size
    return float(max(0.0, -(shares * np.log(shares)).sum()))


def compared(setup: ExplainerSetup, model: ServedModel) -> bool:
    """Whether an explainer is tried."""
    if setup.unavailable or setup.explainer.kind(setup.defaults) not in setup.kinds:
        return False
    return setup.explainer.pass_counts(1, setup.defaults, model.facts).most <= MOST_PASSES


def weight_dependence(
    model: ServedModel,
    logits: Callable[[Steps[FloatArray]], FloatArray],
    learnt: Explain,
    disordered: Explain,
) -> dict[str, WeightDependence]:
    """How the maps of a few pictures change when the weights are put in disorder, by explainer.

    The efficient model parameter randomisation test of Hedström, Weber, Lapuschkin, Höhne: A Fresh Look at Sanity
    Checks for Saliency Maps, XAI 2024, arXiv:2405.02383: the relative rise (ξ' - ξ) / ξ of the entropy ξ of the map's
    histogram, from the weights as learnt to all of them randomised. The correlation of the two maps is told beside it,
    since the entropy alone may be the same of two maps that have nothing in common.

    Args:
        model: The model as learnt.
        logits: Runs a prediction on it.
        learnt: Explains with it.
        disordered: Explains with the other one.

    Returns:
        By explainer; without those that are not `compared`, or whose maps are the same all over.
    """
    found = {}
    images = [prepare(picture, model.input).array for picture in photographs(PICTURES)]
    targets = [logits(forward(image[np.newaxis]))[0].argmax() for image in images]
    for name, setup in model.explainers.items():
        if compared(setup, model):
            pairs = [_pair(model, setup, *each, learnt, disordered) for each in zip(images, targets, strict=True)]
            changes = [change for pair in pairs if (change := _change(*pair)) is not None]
            if changes:
                rise, alike = (math.fsum(column) / len(changes) for column in zip(*changes, strict=True))
                found[name] = WeightDependence(rise, alike, len(changes))
    return found


def _pair(
    model: ServedModel,
    setup: ExplainerSetup,
    image: FloatArray,
    target: int,
    learnt: Explain,
    disordered: Explain,
) -> tuple[FloatArray, FloatArray]:
    context = Context(ACTIVATIONS[model.config.model.activation], units=model.facts.units)
    targets = np.array([target], np.int32)
    one, other = (
        run(whole(setup.explainer.explain(image, targets, setup.defaults, context))).maps[0]
        for run in (learnt, disordered)
    )
    return one, other


def _change(before: FloatArray, after: FloatArray) -> tuple[float, float] | None:
    """Rise of the entropy and correlation; None where there is no map to begin with."""
    if not (np.isfinite(before).all() and np.isfinite(after).all()) or is_constant(before):
        return None
    rise = entropy(after) / entropy(before) - 1
    return rise, 0.0 if is_constant(after) else correlation(before, after)


# ------------------------------------------------------------------------------------------------ kept


def kept(model: ServedModel) -> dict[str, WeightDependence]:
    """What was found for this model and these explainers, in this version; empty where that has not been tried."""
    path = _path(model)
    try:
        read = {} if path is None else json.loads(path.read_text())
        return {str(name): WeightDependence(**each) for name, each in read.items()}
    except (OSError, ValueError, TypeError, AttributeError):  # not there, or another's
        return {}


def with_kept(model: ServedModel) -> ServedModel:
    """The model with what was found before."""
    return replace(model, weight_dependence=kept(model))


def keep(model: ServedModel, found: Mapping[str, WeightDependence]) -> None:
    """Keeps what was found beside what was compiled; nothing where nothing is to be kept.

    Raises:
        OSError: It cannot be written.
    """
    path = _path(model)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps({name: asdict(each) for name, each in found.items()}))
        fresh.replace(path)


def _path(model: ServedModel) -> Path | None:
    folder = model.config.model.compile_cache
    if not isinstance(folder, Path):
        return None
    explainers = [
        (name, setup.explainer.version, setup.defaults.model_dump(mode="json"))
        for name, setup in sorted(model.explainers.items())
        if compared(setup, model)
    ]
    return folder / f"weights-{digest(model.version, explainers, PICTURES)}.json"
