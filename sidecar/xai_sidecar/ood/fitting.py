"""Training the head of an OoD net on a classifier's features.

Generalized ODIN, DeConf-C: Hsu et al. 2020, arXiv:2002.11297, section 3.1. The joint probability of class c and of
being an inlier is divided by that of being an inlier, which makes the logits h_c / g: a dividend h_c = cos(f, W_c) and
a divisor g = sigmoid(BatchNorm(w · f)). They are trained as any classifier's; then g is thrown away, and max_c h_c
tells inliers.

The paper trains the features along with them, while here they are those of the classifier served. For that, two things
are added to its recipe. Without bounds on the gradient, W and 1 / g feed each other and the training diverges, for
instance with 320 samples of 10 classes. And W begins as the centred means of the classes: what lies outside the span of
the features no gradient ever takes away, so that a random beginning would lower all scores for good. Measured as area
under the ROC curve of unseen classes, LeNet-5 on 8 of Fashion-MNIST's classes: 0.64 random, 0.83 so, with 200 samples;
0.91 either way with 20,000; the greatest softmax probability 0.74.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from xai_sidecar.engine.work import FloatArray, IntArray
from xai_sidecar.errors import ConfigError
from xai_sidecar.ood.descent import SMALLEST, Descent, Parameters
from xai_sidecar.ood.files import write_whole

LEARNING_RATE = 0.1

_LEARNING_RATE_STEPS = 3
"""The learning rate is a tenth of what it was after every third of the training, as after 30 of 90 epochs."""

_SAVE_SECONDS = 2.0
_STATE_FORMAT = "xai-sidecar OoD training 2"

EpochReport = Callable[[int, float, float], None]
"""Called after each epoch with the number of epochs done, and the mean loss and accuracy, in [0, 1], of this one."""


@dataclass(frozen=True)
class TrainedHead:
    """A trained head.

    Attributes:
        weights: W, (k, features) float32.
        loss: Mean cross-entropy of the last epoch.
        accuracy: Accuracy in the last epoch, in [0, 1].
    """

    weights: FloatArray
    loss: float
    accuracy: float


def fit(
    features: FloatArray,
    labels: IntArray,
    *,
    epochs: int,
    batch_size: int,
    seed: int,
    state: Path | None = None,
    report: EpochReport = lambda epoch, loss, accuracy: None,
    stop: Callable[[], bool] = lambda: False,
) -> TrainedHead:
    """Trains a head.

    Equal arguments give equal results, whether it was interrupted in between or not.

    Args:
        features: (n, features) float32, finite.
        labels: (n,) int32, from 0 to k - 1; every class must occur.
        epochs: Passes over the features; the learning rate falls by a tenth after every third of them.
        batch_size: Samples a step, at most. They are dealt out evenly, so that all steps have as many, and the few
            left over sit out an epoch, others each time.
        seed: Of the first weights and the order of the samples.
        state: Where to keep what has been reached, every two seconds or so; the training goes on from there if the
            file belongs to equal arguments.
        report: Called after each epoch.
        stop: Called before each step; True stops the training.

    Raises:
        KeyboardInterrupt: `stop` returned True; the state is saved.
        ConfigError: The loss is no longer finite, or the state cannot be written.
    """
    training = _Training(features, labels, seed, epochs, batch_size)
    if state is not None:
        training.load(state)
    saved = time.monotonic()
    while training.reached.epochs < epochs:
        stopping = stop()
        if state is not None and (stopping or time.monotonic() - saved > _SAVE_SECONDS):
            training.save(state)
            saved = time.monotonic()
        if stopping:
            raise KeyboardInterrupt
        if training.run_step():
            report(training.reached.epochs, training.reached.loss, training.reached.accuracy)
    if state is not None:
        training.save(state)
    return TrainedHead(training.descent.parameters.weights, training.reached.loss, training.reached.accuracy)


@dataclass
class _Reached:
    """How far a training is.

    Attributes:
        epochs: Epochs done.
        loss: Mean loss of the last one.
        accuracy: Its accuracy.
        steps: Steps done of the next one.
        losses: The sum of their losses.
        accuracies: The sum of their accuracies.
    """

    epochs: int = 0
    loss: float = math.nan
    accuracy: float = math.nan
    steps: int = 0
    losses: float = 0.0
    accuracies: float = 0.0

    def add(self, loss: float, accuracy: float, steps: int) -> bool:
        """Counts a step; True if it was the last one of its epoch, which has `steps`."""
        self.steps, self.losses, self.accuracies = self.steps + 1, self.losses + loss, self.accuracies + accuracy
        if self.steps < steps:
            return False
        self.loss, self.accuracy = self.losses / steps, self.accuracies / steps
        self.epochs, self.steps, self.losses, self.accuracies = self.epochs + 1, 0, 0.0, 0.0
        return True


class _Training:
    """The state of a training: all that changes, which is what has to be saved to resume."""

    def __init__(self, features: FloatArray, labels: IntArray, seed: int, epochs: int, batch_size: int) -> None:
        self.features = features
        self.labels = labels
        self.seed = seed
        self.epochs = epochs
        self.steps = math.ceil(len(features) / batch_size)
        # Neither the cosine nor the batch norm minds the scale of the features, but float32 does, and epsilon.
        self.scale = np.float32(1 / max(np.sqrt(np.mean(np.square(features, dtype=np.float64))), SMALLEST))
        generator = np.random.default_rng([seed, 0])
        divisor = generator.uniform(-1, 1, features.shape[1]) / math.sqrt(features.shape[1])
        first = Parameters.first(first_weights(features, labels, generator), divisor.astype(np.float32))
        self.descent = Descent(first)
        self.reached = _Reached()
        self.digest = self._digest(batch_size)
        self._order = -1, np.zeros(0, np.int64)

    def run_step(self) -> bool:
        """Takes a step; True if it was the last one of its epoch."""
        done = self.reached
        learning_rate = LEARNING_RATE * 0.1 ** (_LEARNING_RATE_STEPS * done.epochs // self.epochs)
        rows = self._rows()
        loss, accuracy = self.descent.step(self.features[rows] * self.scale, self.labels[rows], learning_rate)
        if not math.isfinite(loss):
            raise ConfigError(
                f"the training of the OoD net diverged: its loss is {loss} in epoch {done.epochs + 1}. "
                "Try another seed or more pictures.",
                field="data",
            )
        return done.add(loss, accuracy, self.steps)

    def _rows(self) -> NDArray[np.int64]:
        """The samples of the next step, ascending."""
        epoch, step = self.reached.epochs, self.reached.steps
        if self._order[0] != epoch:
            generator = np.random.default_rng([self.seed, 1, epoch])
            self._order = epoch, generator.permutation(len(self.features))
        size = len(self.features) // self.steps
        return np.sort(self._order[1][step * size : (step + 1) * size])

    def save(self, path: Path) -> None:
        metadata = {
            "format": _STATE_FORMAT,
            "digest": self.digest,
            "reached": json.dumps(vars(self.reached)),
        }
        try:
            write_whole(path, safetensors.numpy.save(self._arrays(), metadata))
        except OSError as error:
            raise ConfigError(
                f"the state of the training cannot be kept in {path}: {error}. Free or allow its folder."
            ) from error

    def load(self, path: Path) -> None:
        """Resumes from a file, if it exists, is intact, and belongs to this training."""
        arrays = self._arrays()
        try:
            with safetensors.safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != _STATE_FORMAT or metadata.get("digest") != self.digest:
                    return
                saved = {name: file.get_tensor(name) for name in arrays}
        except (OSError, safetensors.SafetensorError):
            return
        for name, array in arrays.items():
            array[:] = saved[name]
        self.reached = _Reached(**json.loads(metadata["reached"]))

    def _arrays(self) -> dict[str, FloatArray]:
        """All that a step changes."""
        moments = {f"moment.{name}": array for name, array in self.descent.moments.arrays().items()}
        return self.descent.parameters.arrays() | moments

    def _digest(self, batch_size: int) -> str:
        """A digest of all that the training depends on."""
        digest = hashlib.sha256()
        for part in (self.features.shape, self.seed, self.epochs, batch_size, np.__version__):
            digest.update(f"{part};".encode())
        for array in (self.features, self.labels):
            digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        return digest.hexdigest()


def first_weights(features: FloatArray, labels: IntArray, generator: np.random.Generator) -> FloatArray:
    """The directions of the classes' means, seen from the mean of all; at random where a class has none."""
    means = []
    for label in range(int(labels.max()) + 1):
        rows = features[labels == label].astype(np.float64)
        means.append((rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), SMALLEST)).mean(axis=0))
    centred = np.stack(means) - np.mean(means, axis=0)
    directions = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), SMALLEST)
    # The longer W is, the slower it turns; this is the length that He et al. 2015 (arXiv:1502.01852) begin with.
    directions += 0.01 * generator.standard_normal(centred.shape) / math.sqrt(centred.shape[1])
    return np.asarray(math.sqrt(2) * directions, np.float32)
