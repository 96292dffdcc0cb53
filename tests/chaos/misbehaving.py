"""The command line, with a backend of arithmetic in the place of the real one, which misbehaves where it is told to.

A picture whose first value is one of `POISONS` has the launches that it is part of go wrong.
"""

import ctypes
import sys
import time
from pathlib import Path

import numpy as np

from xai_sidecar.backends import loading
from xai_sidecar.command import main as cli
from xai_sidecar.engine.backend import Layer
from xai_sidecar.engine.batching import masked

SHAPE = (3, 32, 32)
CLASSES = 5
COSTS = {1: 0.002, 4: 0.004, 8: 0.006}
WEIGHTS = np.random.default_rng(0).standard_normal((CLASSES, *SHAPE)).astype(np.float32) / 16

POISONS = {
    name: np.float32(2 + index / 16)
    for index, name in enumerate(
        ["raise", "raise when explained", "nan", "nan when explained", "hang", "hang when explained"]
    )
}


def logits_of(inputs):
    """What the model says, (n, classes): each row by itself, so that its company cannot change the last bit."""
    return np.stack([np.tensordot(WEIGHTS, one, 3) for one in inputs]).astype(np.float32)


class Arithmetic:
    """A linear model on a device that takes as long as `COSTS` says.

    Args:
        every: Each launch of this number raises; 0 for none.
        classes: How many classes there are; those beyond `CLASSES` are very unlikely.
        gate: It is not loaded before there is a file of this name; empty for at once.
    """

    device = "cpu"
    engine = "arithmetic 1.0"
    engine_note = ""
    version = "1"
    default_layer = "pixels"
    ood = None

    def __init__(self, every=0, classes=CLASSES, gate=""):
        self.class_count = classes
        self.layers = {"pixels": Layer("pixels", *SHAPE)}
        self._every = every
        self._launches = 0
        self._gate = gate

    def warm_up(self, kinds, report):
        while self._gate and not Path(self._gate).exists():
            time.sleep(0.01)
        return {}

    def costs(self, kind):
        return COSTS

    def run(self, kind, rows):
        images = rows[1] if kind.name == "masked_forward" else rows[0]
        explained = kind.name != "forward"
        self._launches += 1
        time.sleep(COSTS[len(images)])
        if self._every and self._launches % self._every == 0:
            raise RuntimeError(f"launch {self._launches} failed")
        self._go_wrong(images, explained)
        inputs = masked(rows[0], images, rows[2]) if kind.name == "masked_forward" else images
        logits = np.pad(logits_of(inputs), ((0, 0), (0, self.class_count - CLASSES)), constant_values=-50)
        for row in np.flatnonzero(_poisoned(images, "nan", explained)):
            logits[row] = np.nan
        if kind.name != "layer_gradient":
            return (logits,)
        gradients = WEIGHTS[rows[1]] + 0 * logits[:, :1, np.newaxis, np.newaxis]
        return images, gradients, logits

    def close(self):
        pass

    @staticmethod
    def _go_wrong(images, explained):
        if _poisoned(images, "raise", explained).any():
            raise RuntimeError("the picture is poisoned")
        if _poisoned(images, "hang", explained).any():
            ctypes.CDLL(None).sleep(3600)  # as in a driver: no signal or exception gets Python out of it


def _poisoned(images, what, explained):
    """Which of some pictures, (n,), go wrong in this way in launches for explanations, or in those for predictions."""
    marker = POISONS[f"{what} when explained" if explained else what]
    return images[:, 0, 0, 0] == marker


if __name__ == "__main__":
    loading.load_backend = lambda config: Arithmetic(**config.model.arguments)
    sys.exit(cli.main())
