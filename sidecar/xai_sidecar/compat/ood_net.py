"""The OoD net as a cell, which MindSpore XAI's scripts train, save and load.

Generalized ODIN, DeConf-C: Hsu et al. 2020, arXiv:2002.11297, section 3.1. The score of class c is the cosine of the
angle between the features and the class's weights; in training it is divided by g = sigmoid(BatchNorm(w · features)),
which is thrown away afterwards. What `xai_sidecar.ood.fitting` adds to the paper's recipe holds here, too: weights
begin as the centred means of the classes, and the gradient is bounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from xai_sidecar.backends.mindspore.runtime import ms, nn
from xai_sidecar.backends.mindspore.surgery import shared_copy
from xai_sidecar.compat.arguments import check_cell, check_positive, check_type
from xai_sidecar.compat.model import Compiled, model_of, pynative
from xai_sidecar.compat.ood_training import (
    LearningRateScheduler,
    Step,
    all_classes,
    class_ids,
    listed,
    pairs,
    show,
)
from xai_sidecar.engine.work import Array, Featured, FloatArray, features
from xai_sidecar.ood.fitting import first_weights
from xai_sidecar.ood.head import cosines, unit_rows
from xai_sidecar.runner.data.callables import length_of

_SMALLEST = 1e-12
"""Length below which rows count as zeros."""

_BATCH = 32
"""Pictures whose features are computed at once."""


class OoDNet(nn.Cell):
    """Out-of-distribution net: a classifier's features, and a score of each class.

    The classifier and its parameters stay as they are: MindSpore XAI renames these, and leaves `output_features` set
    where something is raised.

    Args:
        underlying: The classifier. It has the attributes `num_features`, an int, and `output_features`, False: where
            that is True, `construct` returns the features, (N, num_features), in place of the logits.
        num_classes: Its classes.

    Raises:
        TypeError: An argument is of a wrong type.
        ValueError: A value does not fit.
        AttributeError: The classifier lacks one of the attributes.
    """

    def __init__(self, underlying: nn.Cell, num_classes: int) -> None:
        super().__init__(auto_prefix=False)
        check_cell("underlying", underlying)
        check_positive("num_classes", num_classes)
        for name, kind in (("num_features", int), ("output_features", bool)):
            if not hasattr(underlying, name):
                raise AttributeError(f"underlying has no attribute {name}: give it one, as MindSpore XAI documents")
            check_type(f"underlying.{name}", getattr(underlying, name), kind)
        check_positive("underlying.num_features", underlying.num_features)
        self._num_classes = num_classes
        self._held = (underlying,)  # no cell of this one: what is, is a copy on the same weights
        self._body = shared_copy(underlying)
        self._body.output_features = True
        count = underlying.num_features
        generator = np.random.default_rng(0)
        weights = generator.standard_normal((num_classes, count)) * np.sqrt(2 / count)
        self.class_weights = _parameter(weights, "ood_net.class_weights")
        self.divisor = _parameter(generator.uniform(-1, 1, (1, count)) / np.sqrt(count), "ood_net.divisor")
        self.norm = nn.BatchNorm1d(1)
        for parameter in self.norm.get_parameters():
            parameter.name = f"ood_net.norm.{parameter.name}"
        self.set_train(False)

    def set_train(self, mode: bool = True) -> OoDNet:
        """Sets whether it is being trained. The classifier is not, but by `train` where it is trained along."""
        super().set_train(mode)
        self._body.set_train(False)
        return self

    @property
    def underlying(self) -> nn.Cell:
        """The classifier."""
        return self._held[0]

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self._num_classes

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        """Pictures (N, C, H, W) → logits in training, else the score of each class, in [-1, 1], (N, num_classes)."""
        return self.judge(self._body(x))

    def judge(self, found: ms.Tensor) -> ms.Tensor:
        """As `construct`, of features (N, num_features)."""
        scores = ms.ops.matmul(_unit(found), _unit(self.class_weights).T)
        if not self.training:
            return scores
        return scores / ms.ops.sigmoid(self.norm(ms.ops.matmul(found, self.divisor.T)))

    def get_train_parameters(self, train_underlying: bool = False) -> list[ms.Parameter]:
        """The parameters that are trained: its own, and with `train_underlying` those of the classifier."""
        own = [self.class_weights, self.divisor, *self.norm.trainable_params()]
        return own + (self._body.trainable_params() if train_underlying else [])

    def prepare_train(
        self,
        learning_rate: float = 0.1,
        momentum: float = 0.9,
        weight_decay: float = 0.0001,
        lr_base_factor: float = 0.1,
        lr_epoch_denom: int = 30,
        train_underlying: bool = False,
    ) -> tuple[nn.Optimizer, LearningRateScheduler]:
        """Makes what `train` trains by.

        Args:
            learning_rate: Of the first epochs.
            momentum: Of the descent.
            weight_decay: Of the descent.
            lr_base_factor: What the learning rate is multiplied by every `lr_epoch_denom` epochs.
            lr_epoch_denom: Epochs.
            train_underlying: Whether the classifier is trained along.

        Returns:
            The optimizer, and what changes its learning rate.
        """
        parameters = self.get_train_parameters(train_underlying)
        optimizer = nn.SGD(parameters, float(learning_rate), momentum, weight_decay=weight_decay)
        return optimizer, LearningRateScheduler(optimizer, float(learning_rate), lr_base_factor, lr_epoch_denom)

    def train(
        self,
        dataset: Any,
        loss_fn: nn.Cell,
        callbacks: Any = None,
        epoch: int = 90,
        optimizer: nn.Optimizer | None = None,
        scheduler: Any = None,
        **kwargs: Any,
    ) -> None:
        """Trains it on the classifier's own training pictures.

        The features of pictures come from the classifier compiled, unless it is trained along.

        Args:
            dataset: Gives batches of pictures (N, C, H, W) and labels (N, num_classes), 1 for each class that a picture
                shows, or (N,), class ids.
            loss_fn: `nn.SoftmaxCrossEntropyWithLogits()` for a softmax classifier, `nn.BCEWithLogitsLoss()` for one
                with a sigmoid.
            callbacks: One of `mindspore.train.Callback`, or several.
            epoch: Times that all pictures are shown.
            optimizer: In place of that of `prepare_train`.
            scheduler: A callback in place of that of `prepare_train`.
            **kwargs: Arguments of `prepare_train`.

        Raises:
            TypeError: An argument is of a wrong type.
            ValueError: There are no pictures, labels do not fit, or the loss is no longer finite.
        """
        check_cell("loss_fn", loss_fn)
        check_positive("epoch", epoch)
        along = bool(kwargs.get("train_underlying", False))
        made, schedule = self.prepare_train(**kwargs)
        if optimizer is not None:
            made, schedule = optimizer, schedule.of(optimizer)
        with pynative():
            if not along:
                self._begin(dataset)
            self.set_train(True)
            self._body.set_train(along)
            try:
                step = Step(self, loss_fn, made, along)
                show(
                    lambda: self._batches(dataset, along),
                    step,
                    [scheduler or schedule, *listed(callbacks)],
                    epoch,
                    length_of(dataset),
                )
            finally:
                self.set_train(False)

    def _begin(self, dataset: Any) -> None:
        """Lets the weights begin as the centred means of the classes of one pass over the pictures."""
        found, labels = [], []
        for each, classes in self._featured(dataset):
            found.append(each)
            if not np.isfinite(each).all():
                raise ValueError("dataset has pictures whose features are not finite")
            labels.append(class_ids(classes))
        if not found:
            raise ValueError("dataset is empty: there are no pictures to train on")
        ids = np.concatenate(labels)
        if ids.max() >= self._num_classes:
            raise ValueError(f"dataset has the class {ids.max()}, and num_classes is {self._num_classes}")
        present, rows = np.unique(ids, return_inverse=True)
        weights = self.class_weights.asnumpy().copy()
        weights[present] = first_weights(np.concatenate(found), rows.astype(np.int32), np.random.default_rng(0))
        self.class_weights.set_data(ms.Tensor(weights.astype(np.float32)))

    def features(self, pictures: FloatArray, net: Compiled | None = None) -> FloatArray:
        """The classifier's features of pictures (N, C, H, W), (N, num_features).

        Args:
            pictures: The pictures.
            net: The classifier for them, if it is at hand.
        """
        net = net or model_of(self.underlying).compiled(pictures.shape[1:], _BATCH)
        found: Featured = net.compute(features(np.ascontiguousarray(pictures, np.float32)))
        return found.features

    def _featured(self, dataset: Any) -> Iterator[tuple[FloatArray, Array]]:
        """The features of a data set's pictures, and their labels, batch by batch."""
        net = None
        for pictures, classes in pairs(dataset):
            if net is None or net.shape != pictures.shape[1:]:
                net = model_of(self.underlying).compiled(pictures.shape[1:], _BATCH)
            yield self.features(pictures, net), classes

    def _batches(self, dataset: Any, along: bool) -> Iterator[tuple[Array, Array]]:
        """The dataset as it is trained on: pictures, or their features, each with labels of all classes."""
        for data, classes in pairs(dataset) if along else self._featured(dataset):
            yield data, all_classes(classes, self._num_classes)

    def class_scores(self, found: FloatArray) -> FloatArray:
        """The score of each class, (N, num_classes) float32 in [-1, 1], of features (N, num_features)."""
        return cosines(unit_rows(found), unit_rows(self.class_weights.asnumpy()))


def _parameter(values: Any, name: str) -> ms.Parameter:
    return ms.Parameter(ms.Tensor(np.asarray(values, np.float32)), name=name)


def _unit(rows: ms.Tensor) -> ms.Tensor:
    """Rows of length 1; zeros stay zeros."""
    return rows / ms.ops.maximum(ms.ops.sqrt((rows * rows).sum(axis=1, keepdims=True)), _SMALLEST)
