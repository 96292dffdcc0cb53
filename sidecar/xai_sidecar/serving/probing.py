"""Checks of a loaded model by its outputs for a few pictures, which reveal mistakes in how it is configured.

Nobody looks at a classifier's units until its answers are wrong: a mean in 0 to 255, a net that ends in a softmax. So a
few pictures go through the real preparation and the compiled passes at start. What cannot be right is refused; what is
suspicious is a warning.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from xai_sidecar.engine.backend import Backend
from xai_sidecar.engine.batching import in_batches
from xai_sidecar.engine.work import FloatArray, Forward, drive, forward
from xai_sidecar.errors import ConfigError, quoted
from xai_sidecar.imaging import InputSpec, prepare

_PHOTOGRAPH_SIDE = 96
_PHOTOGRAPHS = 3

_LARGE = 1e3
"""Magnitude above which a model input is suspicious; inputs that are pixels from 0 to 255 reach 255."""

_SUM_TOLERANCE = 1e-3
"""Rounding error allowed of a sum of probabilities, or of its logarithm."""

_SATURATED = 1e-2
"""How near to 0 and 1 the probabilities for huge inputs are."""

_INDIFFERENT = 3e-3
"""Relative difference between outputs below which they hardly depend on the picture."""


BLACK_BOX = "model.oip"
"""The key of a model of which no gradients are taken, so that it may give logarithms of probabilities for logits."""

_SHOWN = 3
"""Most labels, and most classes of each, that a warning names."""


@dataclass(frozen=True)
class ProbeOutputs:
    """The outputs of a model for the probes.

    Attributes:
        inputs: The pictures as model inputs, (n, C, H, W) float32.
        names: What each picture shows.
        logits: Its outputs for the pictures, (n, classes) float32.
        extreme: Its outputs for inputs far beyond any picture's, (m, classes) float32.
    """

    inputs: FloatArray
    names: tuple[str, ...]
    logits: FloatArray
    extreme: FloatArray


def doubts(backend: Backend, spec: InputSpec, activation: str, source: str = "model.factory") -> list[str]:
    """Suspicions about a loaded model, from its outputs for the probes; see `judge`.

    Args:
        backend: Its forward passes are compiled; to be called on its own thread.
        spec: How pictures become its inputs.
        activation: "softmax" or "sigmoid", as configured.
        source: The key that says where the model comes from.

    Raises:
        ConfigError: Something that cannot be right.
    """
    try:
        answers = ask(backend, spec)
    except Exception as error:  # of the device; whether that will do is not for the probes to say
        return [f"What the net says of pictures could not be looked at: {type(error).__name__}: {error}."]
    return judge(answers, activation, source)


def label_doubts(labels: Sequence[str]) -> list[str]:
    """Warns of classes that share a label, by which a report of ground truth cannot distinguish them.

    Args:
        labels: Of each class, in their order.
    """
    classes: dict[str, list[int]] = {}
    for class_id, label in enumerate(labels):
        classes.setdefault(label, []).append(class_id)
    shared = [(label, ids) for label, ids in classes.items() if len(ids) > 1]
    if not shared:
        return []
    some = "; ".join(f"{quoted(label)} is that of {_some(ids)}" for label, ids in shared[:_SHOWN])
    more = f"; and {len(shared) - _SHOWN:,} more" if len(shared) > _SHOWN else ""
    return [
        f"Several classes have the same label: {some}{more}. ReportGroundTruth.labels takes no label that several "
        "classes have: tell which is meant by class_ids. If they are not meant to have the same one, mend model.labels."
    ]


def _some(class_ids: Sequence[int]) -> str:
    shown = ", ".join(map(str, class_ids[:_SHOWN]))
    return f"classes {shown}" + (f" and {len(class_ids) - _SHOWN:,} more" if len(class_ids) > _SHOWN else "")


def ask(backend: Backend, spec: InputSpec) -> ProbeOutputs:
    """Runs the probes through a backend whose forward passes are compiled; on its own thread."""
    pictures = _pictures(spec)
    inputs = np.stack([prepare(picture, spec).array for picture in pictures.values()])
    extremes = _extremes(inputs)
    sizes = [size for size in backend.costs(Forward.kind) if size <= len(inputs)]
    run = in_batches(backend.run, max(sizes, default=1))
    logits = drive(forward(np.concatenate([inputs, extremes])), run)
    return ProbeOutputs(inputs, tuple(pictures), logits[: len(inputs)], logits[len(inputs) :])


def judge(answers: ProbeOutputs, activation: str, source: str = "model.factory") -> list[str]:
    """Suspicions about a model, a sentence and a cure each.

    Args:
        answers: The model's outputs for the probes.
        activation: "softmax" or "sigmoid", as configured.
        source: The key that says where the model comes from.

    Raises:
        ConfigError: Something that cannot be right.
    """
    if answers.logits.shape[1] == 1 and activation == "softmax":
        raise ConfigError(
            "the net has one output, whose softmax is 1 for every picture. Set model.activation to sigmoid, or name a "
            f"{source} whose net has an output for each class.",
            field="model.activation",
        )
    finite = np.isfinite(answers.logits).all(axis=1)
    if not finite.any():
        raise ConfigError(
            "the outputs of the net are not finite for any picture. Check the weights (model.checkpoint) and the "
            "units of model.input.mean and model.input.std.",
            field=source,
        )
    if not finite.all():
        names = ", ".join(name for name, fine in zip(answers.names, finite, strict=True) if not fine)
        return [f"The outputs of the net are not finite for {names}: such pictures get no prediction."]
    _refuse_probabilities(answers, activation, source)
    return list(_doubts(answers, activation, source))


def _refuse_probabilities(answers: ProbeOutputs, activation: str, source: str) -> None:
    values = _all(answers)
    if _adds_up(values):
        raise ConfigError(
            "the outputs of the net are probabilities already: for every picture they add up to the same sum, and "
            f"none is negative. It ends in a softmax, and model.activation = {activation!r} would be applied on top of "
            f"that. Name a {source} whose net returns the logits, without the last softmax.",
            field=source,
        )
    if _saturates(values):
        raise ConfigError(
            "the outputs of the net are probabilities already: they stay between 0 and 1 whatever goes in. It ends in "
            f"a sigmoid, and model.activation = {activation!r} would be applied on top of that. Name a {source} "
            "whose net returns the logits, without the last sigmoid, and set model.activation to sigmoid.",
            field=source,
        )
    if activation == "sigmoid" and _are_logarithms(values):
        raise ConfigError(
            "the outputs of the net are logarithms of probabilities that add up to 1: it ends in a log-softmax, of "
            f"which a sigmoid means nothing. Set model.activation to softmax, or name a {source} whose net "
            "returns the logits.",
            field="model.activation",
        )


def _doubts(answers: ProbeOutputs, activation: str, source: str) -> Iterator[str]:
    values = _all(answers)
    largest = float(np.abs(answers.inputs).max())
    if largest > _LARGE:
        yield (
            f"Pictures become model inputs of up to {largest:.3g}, more than pixels from 0 to 255. Check the units of "
            "model.input.mean and model.input.std, which are of pictures scaled to [0, 1]."
        )
    if _constant(answers.logits):
        how = "nearly the same" if np.ptp(answers.logits, axis=0).any() else "the same"
        yield (
            f"The outputs of the net are {how} for black, white, noise and photographs. Check the weights "
            "(model.checkpoint), and model.input.mean and model.input.std: a net for pixels from 0 to 255 wants "
            "mean = 0 and std = 0.00392 (1/255)."
        )
    elif _bounded(values):
        yield (
            "All outputs of the net lie between 0 and 1 for every picture, as if it ended in a sigmoid or a softmax: "
            f"model.activation = {activation!r} would be applied on top of that. If they are probabilities, name a "
            f"{source} whose net returns the logits."
        )
    elif _are_logarithms(values) and source != BLACK_BOX:
        yield (
            "The outputs of the net are logarithms of probabilities: it ends in a log-softmax. Its probabilities are "
            "right, but gradients and Grad-CAM are then of the log-probability, and not of the logit. Name a "
            f"{source} whose net returns the logits."
        )


# ------------------------------------------------------------------------------------------------ of outputs


def _all(answers: ProbeOutputs) -> FloatArray:
    """The outputs for pictures, and those for extremes that did not overflow."""
    extreme = answers.extreme[np.isfinite(answers.extreme).all(axis=1)]
    return np.asarray(np.concatenate([answers.logits, extreme]), np.float64)


def _adds_up(values: FloatArray) -> bool:
    """Whether all rows are shares of one sum, as probabilities and percentages are."""
    if values.shape[1] == 1 or values.min() < 0:
        return False
    sums = values.sum(axis=1)
    to_one = bool(np.abs(sums - 1).max() <= _SUM_TOLERANCE)
    return to_one or (not _constant(values) and bool(np.ptp(sums) <= _SUM_TOLERANCE * sums.max()))


def _bounded(values: FloatArray) -> bool:
    return bool(values.min() >= 0 and values.max() <= 1)


def _saturates(values: FloatArray) -> bool:
    """Whether all lie in [0, 1] and reach both ends, where logits of such inputs would have gone beyond."""
    reaches = values.min() <= _SATURATED and values.max() >= 1 - _SATURATED
    return _bounded(values) and bool(reaches) and not _constant(values)


def _constant(values: FloatArray) -> bool:
    """Whether the outputs hardly depend on the input: then nothing can be inferred from them."""
    return bool(np.ptp(values, axis=0).max() <= _INDIFFERENT * np.abs(values).max())


def _are_logarithms(values: FloatArray) -> bool:
    """Whether all rows are logarithms of probabilities that add up to 1."""
    if values.shape[1] == 1:
        return False
    largest = values.max(axis=1, keepdims=True)
    sums = largest[:, 0] + np.log(np.exp(values - largest).sum(axis=1))
    return bool(np.abs(sums).max() <= _SUM_TOLERANCE)


# ------------------------------------------------------------------------------------------------ probes


def _pictures(spec: InputSpec) -> dict[str, Image.Image]:
    """The probes, upright pictures by what they show; the same in every process."""
    generator = np.random.default_rng(0)
    side = (_PHOTOGRAPH_SIDE, _PHOTOGRAPH_SIDE)
    pictures = {"black": Image.new("RGB", side, "black"), "white": Image.new("RGB", side, "white")}
    for index in range(_PHOTOGRAPHS):
        pictures[f"photograph {index + 1}"] = _photograph(generator)
    noise = generator.integers(0, 256, (spec.resize_height, spec.resize_width, 3), np.uint8)
    pictures["noise"] = Image.fromarray(noise)
    return pictures


def photographs(count: int) -> list[Image.Image]:
    """Some random pictures with photographs' statistics, the same in every process."""
    generator = np.random.default_rng(1)
    return [_photograph(generator) for _ in range(count)]


def _photograph(generator: np.random.Generator) -> Image.Image:
    """A random picture with a photograph's statistics: amplitudes fall with frequency, channels are correlated."""
    side = _PHOTOGRAPH_SIDE
    rows, columns = np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None, :]
    amplitude = 1 / np.maximum(np.hypot(rows, columns), 1 / side)

    def field() -> FloatArray:
        plane = np.fft.ifft2(np.fft.fft2(generator.standard_normal((side, side))) * amplitude).real
        return np.asarray((plane - plane.mean()) / plane.std())

    light = field()
    planes = [128 + 45 * light + 20 * field() + generator.uniform(-30, 30) for _ in range(3)]
    return Image.fromarray(np.clip(np.stack(planes, axis=-1), 0, 255).astype(np.uint8))


def _extremes(inputs: FloatArray) -> FloatArray:
    """Inputs far beyond any picture's: logits become large, probabilities stay in [0, 1]."""
    centred = inputs[-2:] - inputs[-2:].mean(axis=(2, 3), keepdims=True)  # a photograph, and noise
    unit = centred / np.maximum(np.abs(centred).max(), np.float32(1e-12))
    return np.asarray(np.concatenate([1e2 * unit, -1e2 * unit, 1e4 * unit, -1e4 * unit]), np.float32)
