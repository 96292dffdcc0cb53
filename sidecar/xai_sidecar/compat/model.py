"""A cell that a script holds, as a backend that computes its passes and gradients."""

from __future__ import annotations

import weakref
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np

from xai_sidecar.backends.mindspore.backend import MindSporeBackend
from xai_sidecar.backends.mindspore.runtime import ms, nn
from xai_sidecar.backends.mindspore.source import ModelSource
from xai_sidecar.engine.batching import Run, masked, padded
from xai_sidecar.engine.work import Array, Features, FloatArray, Forward, Kind, Steps, drive
from xai_sidecar.errors import SidecarError
from xai_sidecar.explainers.activations import Activation, Probabilities, sigmoid, softmax
from xai_sidecar.explainers.base import ModelFacts

T = TypeVar("T")

Scores: TypeAlias = Callable[[Array], tuple[Array, ...]]
"""Gives OoD scores of pictures, as the kind `ood_score` of `Backend.run`."""


class ScoredNet(Protocol):
    """What `OoDNet` has that scores are made of."""

    @property
    def underlying(self) -> nn.Cell:
        """The classifier."""

    def class_scores(self, found: FloatArray) -> FloatArray:
        """The score of each class, (N, classes), of features (N, features)."""


_KEPT = 2
"""Shapes of inputs, or batch sizes, that a net is kept compiled for at once."""


class Model:
    """A net, compiled for each shape of inputs when it first comes.

    The net stays as it is, in training mode too, and so does MindSpore's mode. What counts are its weights at the time
    of a call: a net that has been trained on, or got other weights, is compiled anew.

    Args:
        net: Pictures (N, C, H, W) → logits (N, classes).
    """

    def __init__(self, net: nn.Cell) -> None:
        # Weakly: who explains a net must not keep it alive, and the models of nets are kept by these.
        self._net = weakref.ref(net)
        self._weights = 0
        self._backends: OrderedDict[tuple[int, ...], MindSporeBackend] = OrderedDict()

    def compiled(self, shape: tuple[int, ...], batch_size: int) -> Compiled:
        """The net for inputs of a shape (C, H, W), with its weights as they are now.

        Args:
            shape: (C, H, W).
            batch_size: Rows of masked pictures at once.

        Raises:
            ValueError: The net cannot be compiled; the message says why.
        """
        with _as_values(), pynative():
            return Compiled(self, self._backend(shape, batch_size), shape, batch_size)

    def is_like(self, other: Model) -> bool:
        """Whether another one's net is of the same class with the same weights, as of their last check."""
        return self._weights == other._weights and type(self._net()) is type(other._net())

    def _backend(self, shape: tuple[int, ...], batch_size: int) -> MindSporeBackend:
        net = self._net()
        if net is None:
            raise RuntimeError("the net is gone")
        weights = _checksum(net)
        if weights != self._weights:
            self._backends.clear()
            self._weights = weights
        key = (*shape, batch_size)
        backend = self._backends.get(key)
        if backend is None:
            channels, height, width = shape
            sizes = tuple(sorted({1, batch_size}))
            source = ModelSource(
                factory="",
                device=_device(),
                channels=channels,
                height=height,
                width=width,
                batch_sizes=sizes,
                gradient_batch_sizes=(1,),
            )
            backend = MindSporeBackend(source, net)
            backend.warm_up([Forward.kind], lambda line: None)
            self._backends[key] = backend
            while len(self._backends) > _KEPT:
                self._backends.popitem(last=False)[1].close()
        self._backends.move_to_end(key)
        return backend


class Compiled:
    """A net, compiled for inputs of a shape: what one call of an explainer or a metric goes by.

    Args:
        model: The net.
        backend: What runs it.
        shape: (C, H, W).
        batch_size: Rows of masked pictures at once.

    Attributes:
        backend: As given.
        shape: As given.
        class_count: Number of logits.
    """

    def __init__(self, model: Model, backend: MindSporeBackend, shape: tuple[int, ...], batch_size: int) -> None:
        self.backend = backend
        self.shape = shape
        self.class_count = backend.class_count
        self._model = model
        self._batch_size = batch_size

    @property
    def facts(self) -> ModelFacts:
        """What explainers may know of the net."""
        return ModelFacts(
            self.shape[1],
            self.shape[2],
            self.backend.layers,
            self.backend.default_layer,
            has_ood=True,  # whoever asks for its scores brings them
            refused_layers=self.backend.refused_layers,
        )

    def compute(self, steps: Steps[T], ood_net: ScoredNet | None = None) -> T:
        """Runs a computation.

        Args:
            steps: The computation.
            ood_net: What OoD scores are of; None for none.

        Raises:
            ValueError: The net cannot be asked for this; the message says why.
        """
        with _as_values(), pynative():
            run: Run = partial(_run_all, self.backend)
            if ood_net is not None:
                run = with_scores(run, self.scores(ood_net), self._batch_size)
            return drive(steps, run)

    def scores(self, ood_net: ScoredNet) -> Scores:
        """What gives inlier scores by an OoD net, percentiles, which are not known, and the logits of this net.

        Where the OoD net's classifier has the weights of this one, both come from one pass.
        """
        other = model_of(ood_net.underlying)
        own = self if other is self._model else other.compiled(self.shape, self._batch_size)
        its, same = partial(_run_all, own.backend), own is self or other.is_like(self._model)

        def scores(inputs: Array) -> tuple[Array, ...]:
            features, logits, *_ = its(Features.kind, (inputs,))
            if not same:
                logits = _run_all(self.backend, Forward.kind, (inputs,))[0]
            return ood_net.class_scores(features).max(axis=1), np.full(len(inputs), np.nan, np.float32), logits

        return scores


@contextmanager
def _as_values() -> Iterator[None]:
    """Raises what this package raises as MindSpore XAI does: as ValueErrors."""
    try:
        yield
    except SidecarError as error:
        raise ValueError(error.message) from error


_models: weakref.WeakKeyDictionary[nn.Cell, Model] = weakref.WeakKeyDictionary()


def model_of(net: nn.Cell) -> Model:
    """The model of a net: the same one for all explainers and metrics of it."""
    model = _models.get(net)
    if model is None:
        model = _models[net] = Model(net)
    return model


def _run_all(backend: MindSporeBackend, kind: Kind, rows: tuple[Array, ...]) -> tuple[Array, ...]:
    """Any number of rows, in batches of the sizes that there are."""
    done, start, count = [], 0, len(rows[0])
    while start < count:
        size = _best_size(backend.costs(kind), count - start)
        batch = tuple(padded((array[start : start + size],), size) for array in rows)
        done.append(tuple(output[: count - start] for output in backend.run(kind, batch)))
        start += size
    return tuple(np.concatenate(column) for column in zip(*done, strict=True))


def with_scores(run: Run, scores: Scores, batch_size: int) -> Run:
    """What runs rows, those with OoD scores too."""

    def run_all(kind: Kind, rows: tuple[Array, ...]) -> tuple[Array, ...]:
        if kind.name == "ood_score":
            return scores(rows[0])
        if kind.name != "masked_ood_score":
            return run(kind, rows)
        starts = range(0, len(rows[0]), batch_size)
        done = [scores(masked(*(array[start : start + batch_size] for array in rows))) for start in starts]
        return tuple(np.concatenate(column) for column in zip(*done, strict=True))

    return run_all


def _best_size(costs: Mapping[int, float], left: int) -> int:
    """The batch size that costs the least for each of the rows that are left."""
    return min(costs, key=lambda size: costs[size] / min(size, left))


def _checksum(net: nn.Cell) -> int:
    """Of a net's weights, in a tenth of a second for 100 MB."""
    checksum = 0
    for parameter in net.get_parameters():
        values = np.ascontiguousarray(parameter.asnumpy())
        checksum = zlib.crc32(values.reshape(-1).view(np.uint8).data, checksum)
    return checksum


def _device() -> str:
    """The device that the script has chosen, as configs name it."""
    target = str(ms.get_context("device_target")).lower()
    return target if target == "cpu" else f"{target}:{ms.get_context('device_id')}"


@contextmanager
def pynative() -> Iterator[None]:
    """MindSpore's PyNative mode for a while, whatever mode the script is in."""
    mode = ms.get_context("mode")
    if mode == ms.PYNATIVE_MODE:
        yield
        return
    ms.set_context(mode=ms.PYNATIVE_MODE)
    try:
        yield
    finally:
        ms.set_context(mode=mode)


def activation_of(cell: nn.Cell) -> Activation:
    """What turns logits into probabilities, by the cell that does it.

    Softmax along the last axis, and Sigmoid, are computed in float64 here. Any other cell is called.
    """
    if type(cell) is nn.Softmax and _axis(cell) in (-1, 1):
        return softmax
    if type(cell) is nn.Sigmoid:
        return sigmoid

    def call(logits: Array) -> Probabilities:
        with pynative():
            return np.asarray(cell(ms.Tensor(np.asarray(logits, np.float32))).asnumpy(), np.float64)

    return call


def _axis(cell: Any) -> int | None:
    """The axis of a Softmax; None where it cannot be told."""
    axis = getattr(cell, "axis", None)
    if axis is None:
        axis = getattr(getattr(cell, "softmax", None), "axis", None)
    if isinstance(axis, (tuple, list)) and len(axis) == 1:
        axis = axis[0]
    return axis if isinstance(axis, int) else None
