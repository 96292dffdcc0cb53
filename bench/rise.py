"""How many passes RISE needs for a map of a given error, and what standard error it tells, on ten photographs.

The error is 1 - the Pearson correlation with the centred average of 32,000 other masks, which is unbiased and knows
nothing of the regression. What the model said of the masks is kept in the cache folder, since it takes long.
"""

from __future__ import annotations

import hashlib
import statistics
import sys
import time
from dataclasses import dataclass

import numpy as np

from bench import models
from bench.figure import Figure
from xai_sidecar.backends.loading import load_backend
from xai_sidecar.config.sections import ModelConfig
from xai_sidecar.engine.backend import Backend
from xai_sidecar.engine.work import Array, FloatArray, Forward, IntArray, MaskedForward
from xai_sidecar.explainers.activations import softmax
from xai_sidecar.explainers.masks import CoarseMasks, MaskGrid
from xai_sidecar.explainers.rise_estimate import Estimator, PlainMean, Regression
from xai_sidecar.imaging import decode, prepare
from xai_sidecar.paths import cache_folder
from xai_sidecar.zoo.sample import sample_picture

_GRID = MaskGrid(224, 224, 7, 0.5)
_REFERENCE = 32_000
_SAMPLES = 8_192
_COUNTS = (64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192)
_REPEATS = 4
_LEVELS = (0.1, 0.05)
_BATCH = 8


@dataclass(frozen=True)
class _Scored:
    """Masks and the probability of the picture's top class under each."""

    masks: CoarseMasks
    scores: FloatArray

    def taken(self, start: int, count: int) -> _Scored:
        rows = slice(start, start + count)
        return _Scored(CoarseMasks(self.masks.cells[rows], self.masks.shifts[rows]), self.scores[rows])


def figures() -> list[Figure]:
    """The ratio of passes needed, and how the error told compares with the error made."""
    ratios: dict[float, list[float]] = {level: [] for level in _LEVELS}
    notes: dict[float, list[str]] = {level: [] for level in _LEVELS}
    honesty = []
    with models.sample_config(None) as (config, _):
        quick = config.model_copy(update={"model": config.model.model_copy(update={"batch_sizes": [1, _BATCH]})})
        backend = load_backend(quick)
        backend.warm_up([Forward.kind], lambda line: None)
        for name in models.PICTURES:
            reference, samples = _scored(backend, name, config.model)
            truth = _centred(reference)
            errors = {kind: _errors(kind, samples, truth) for kind in (PlainMean, Regression)}
            honesty.append(_honesty(samples, truth))
            for level in _LEVELS:
                plain, ours = (_needed(errors[kind], level) for kind in (PlainMean, Regression))
                ratios[level].append(ours / plain)
                notes[level].append(f"{name} {ours:.0f}/{plain:.0f}")
        backend.close()
    every = [value for level in _LEVELS for value in ratios[level]]
    found = [
        Figure(
            f"RISE's passes over plain RISE's, to an error of {level:g}",
            statistics.geometric_mean(ratios[level]),
            "×",
            0.25,
            ", ".join(notes[level]),
        )
        for level in _LEVELS
    ]
    found.append(Figure("the same, both together", statistics.geometric_mean(every), "×", 0.25, "geometric means"))
    told = f"worst {max(honesty, key=lambda value: abs(np.log(value))):.2f}; 500 masks"
    found.append(Figure("error made over standard error told", statistics.geometric_mean(honesty), "×", None, told))
    return found


def _scored(backend: Backend, name: str, model: ModelConfig) -> tuple[_Scored, _Scored]:
    """The reference's masks and others, scored."""
    image = prepare(decode(sample_picture(name).read_bytes(), 10**9), model.input.spec()).array
    batch = np.repeat(image[None], _BATCH, axis=0)
    top = backend.run(Forward.kind, (batch,))[0][0].argmax()
    sets = []
    for seed, count in ((1234, _REFERENCE), (7, _SAMPLES)):
        blocks = list(_GRID.draw(seed, count))
        masks = CoarseMasks(np.concatenate([b.cells for b in blocks]), np.concatenate([b.shifts for b in blocks]))
        key = hashlib.sha256(repr((model.onnx, backend.engine, _GRID, seed, count)).encode() + image.tobytes())
        path = cache_folder() / "bench" / f"rise-{name}-{key.hexdigest()[:12]}.npy"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, _scores(backend, name, image, masks, top))
        sets.append(_Scored(masks, np.load(path)))
    return sets[0], sets[1]


def _scores(backend: Backend, name: str, image: FloatArray, masks: CoarseMasks, top: IntArray) -> FloatArray:
    scores = []
    started = time.monotonic()
    for start in range(0, len(masks), _BATCH):
        rows = slice(start, start + _BATCH)
        enlarged = _GRID.enlarge(CoarseMasks(masks.cells[rows], masks.shifts[rows]))
        shape = (_BATCH, *image.shape)
        inputs: tuple[Array, ...] = (enlarged, np.broadcast_to(image, shape), np.broadcast_to(np.float32(0), shape))
        scores.append(softmax(backend.run(MaskedForward.kind, inputs)[0])[:, top])
        if start % 4000 == 0 and start:
            left = (time.monotonic() - started) * (len(masks) / start - 1)
            print(f"  {name}: {start} of {len(masks)} masks, {left:.0f} s left", file=sys.stderr, flush=True)
    return np.concatenate(scores)


def _centred(scored: _Scored) -> FloatArray:
    """Σ (p - mean p) (M - q), mask by mask."""
    total = np.zeros(_GRID.height * _GRID.width)
    centred = scored.scores - scored.scores.mean()
    for start in range(0, len(centred), 500):
        part = scored.taken(start, 500)
        total += centred[start : start + 500] @ (_GRID.enlarge(part.masks).reshape(len(part.scores), -1) - 0.5)
    return total


def _map(kind: type[PlainMean] | type[Regression], scored: _Scored) -> tuple[FloatArray, float]:
    estimator: Estimator = kind(_GRID, 1)
    for start in range(0, len(scored.scores), 512):
        part = scored.taken(start, 512)
        enlarged = _GRID.enlarge(part.masks) if kind is PlainMean else np.empty(0, np.float32)
        estimator.add(part.masks, enlarged, part.scores[:, None])
    estimate = estimator.estimate()
    return estimate.maps[0].ravel(), float(estimate.standard_errors[0])


def _errors(kind: type[PlainMean] | type[Regression], samples: _Scored, truth: FloatArray) -> list[float]:
    """The mean error at each of `_COUNTS`, of maps from different masks."""
    errors = []
    for count in _COUNTS:
        starts = range(0, min(_REPEATS * count, len(samples.scores) - count + 1), count)
        errors.append(
            float(np.mean([1 - np.corrcoef(_map(kind, samples.taken(s, count))[0], truth)[0, 1] for s in starts]))
        )
    return errors


def _needed(errors: list[float], level: float) -> float:
    """Masks at which the error is at the level, between two counts by a power law, beyond the last by 1 / masks."""
    counts = np.log(_COUNTS)
    logs = np.log(np.minimum.accumulate(errors))
    if logs[-1] > np.log(level):
        return float(_COUNTS[-1] * np.exp(logs[-1]) / level)
    after = int(np.argmax(logs <= np.log(level)))
    if after == 0:
        return float(_COUNTS[0])
    share = (logs[after - 1] - np.log(level)) / (logs[after - 1] - logs[after])
    return float(np.exp(counts[after - 1] + share * (counts[after] - counts[after - 1])))


def _honesty(samples: _Scored, truth: FloatArray) -> float:
    """The relative error made, over the one told, at 500 masks; a scaled map is compared, as the truth's scale is."""
    made, told = [], []
    for start in range(0, 16 * 500, 500):
        saliency, error = _map(Regression, samples.taken(start, 500))
        correlation = np.corrcoef(saliency, truth)[0, 1]
        made.append(1 / correlation**2 - 1)  # what is left of the map besides the truth, over the truth in it
        told.append(error**2)
    return float(np.sqrt(np.mean(made) / np.mean(told)))
