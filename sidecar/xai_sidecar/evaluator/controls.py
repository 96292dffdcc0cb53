"""Controls: maps that know nothing of the model, measured beside the explainers so that a score means something.

They are explainers of the evaluator's own, which nobody can ask for, and take no passes. What a metric gives to one of
them is to be had without any explanation: an explainer that does not beat it tells nothing. Two of them are random,
since noise can win two metrics: maps that are drawn anew each time differ between classes as much as unrelated ones do,
and one that always stays the same is as robust as a map can be.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from xai_sidecar.engine.work import FloatArray, Forward, IntArray, Kind, Steps
from xai_sidecar.explainers.base import Computed, Context, Explainer, ExplainerParameters, ModelFacts, PassCounts

CONTROL_PREFIX = "control/"
"""What the names of all controls begin with, and no explainer's."""

_LEVELS = 256
"""Different values of a random map: few, so that it takes a quarter of the room in the store."""

_BLOB = 0.25
"""Standard deviation of the blob, as a part of the picture's height and width."""


def is_control(name: str) -> bool:
    """Whether a name is that of a control, which may be one of another version, and not of an explainer."""
    return name.startswith(CONTROL_PREFIX)


class ControlParameters(ExplainerParameters):
    """Controls have no parameters of their own."""


class Control(Explainer[ControlParameters]):
    """A map that is made without the model."""

    parameters_type = ControlParameters

    def kind(self, parameters: ControlParameters) -> Kind:
        """Any: it yields no work."""
        return Forward.kind

    def pass_counts(self, target_count: int, parameters: ControlParameters, model: ModelFacts) -> PassCounts:
        """No passes."""
        return PassCounts(0, 0, 0)

    def _compute(
        self, image: FloatArray, targets: IntArray, parameters: ControlParameters, context: Context
    ) -> Steps[Computed]:
        yield from ()
        maps = np.stack([self._map(image, target, context) for target in targets.tolist()])
        return Computed(maps.astype(np.float32), [None] * len(targets))

    @abstractmethod
    def _map(self, image: FloatArray, target: int, context: Context) -> NDArray[np.float64]:
        """The map (H, W) of an image for a class."""


class Random(Control):
    """Noise of mean zero, drawn anew for each picture, class and seed."""

    name: ClassVar[str] = "control/random"
    description: ClassVar[str] = "Noise, drawn anew for every picture and class."

    def _map(self, image: FloatArray, target: int, context: Context) -> NDArray[np.float64]:
        picture = hashlib.blake2b(image.tobytes(), digest_size=8).digest()
        return _noise(image, target + 1, context.seed ^ int.from_bytes(picture, "big"))


class Fixed(Control):
    """Noise of mean zero, drawn by the seed alone: the same for all classes, and whatever happens to the picture."""

    name: ClassVar[str] = "control/fixed"
    description: ClassVar[str] = "Noise, drawn once for a sample and the same for all classes."

    def _map(self, image: FloatArray, target: int, context: Context) -> NDArray[np.float64]:
        return _noise(image, 0, context.seed)


class Blob(Control):
    """A Gaussian in the middle of the picture, where most people put what they photograph."""

    name: ClassVar[str] = "control/blob"
    description: ClassVar[str] = "A Gaussian in the middle of the picture."

    def _map(self, image: FloatArray, target: int, context: Context) -> NDArray[np.float64]:
        down, across = (np.exp(-0.5 * ((_middled(length)) / _BLOB) ** 2) for length in image.shape[1:])
        return np.asarray(down[:, np.newaxis] * across)


class Edges(Control):
    """Magnitude of the picture's gradient by Sobel's filter, of the mean of its channels."""

    name: ClassVar[str] = "control/edges"
    description: ClassVar[str] = "Edges of the picture (magnitude of its Sobel gradient)."

    def _map(self, image: FloatArray, target: int, context: Context) -> NDArray[np.float64]:
        grey = np.pad(context.units.brightness(image), 1, mode="edge")
        along_rows = grey[:, 2:] - grey[:, :-2]
        along_columns = grey[2:] - grey[:-2]
        across = along_rows[:-2] + 2 * along_rows[1:-1] + along_rows[2:]
        down = along_columns[:, :-2] + 2 * along_columns[:, 1:-1] + along_columns[:, 2:]
        return np.asarray(np.hypot(across, down))


def _noise(image: FloatArray, stream: int, seed: int) -> NDArray[np.float64]:
    generator = np.random.Generator(np.random.Philox(key=np.array([seed, stream], np.uint64)))
    return generator.integers(-_LEVELS // 2, _LEVELS // 2, image.shape[1:]) + 0.5


def _middled(length: int) -> NDArray[np.float64]:
    """How far each pixel of an axis is from its middle, as a part of its length."""
    return np.asarray((np.arange(length) + 0.5) / length - 0.5)


CONTROLS: Mapping[str, tuple[Control, ControlParameters]] = MappingProxyType(
    {control.name: (control, ControlParameters()) for control in (Random(), Fixed(), Blob(), Edges())}
)
"""All controls by name, with their parameters."""

VETOING_CONTROL = Random.name
"""The control that an explainer must not be worse than by the metrics that veto.

What differs entirely from class to class has 0.5 by class sensitivity, and what changes entirely when anything does has
exp(-√2) by robustness: worse are maps that are alike whatever is asked, or that change more than unrelated ones differ.
The fixed noise would veto nobody by the one, since none is below its 0, and all by the other, where it has 1.
"""
