"""The training of `OoDNet`: its steps, its learning rate, what callbacks are told, and the pictures of data sets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np

from xai_sidecar.backends.mindspore.runtime import ms, nn
from xai_sidecar.engine.work import Array, FloatArray, IntArray
from xai_sidecar.runner.data.callables import rows_of

_LONGEST_GRADIENT = 1.0
"""Norm at which gradients are cut off: without a bound the weights and the divisor feed each other."""


class Trained(Protocol):
    """What `OoDNet` has that is trained."""

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        """Logits of pictures."""

    def judge(self, found: ms.Tensor) -> ms.Tensor:
        """Logits of features."""


class Step(nn.Cell):
    """One step of training: the loss, and a step of the optimizer by its gradient.

    Args:
        net: What is trained.
        loss_fn: The loss of logits and labels.
        optimizer: Of the parameters that are trained.
        along: Whether the data are pictures, or else their features.
    """

    def __init__(self, net: Trained, loss_fn: nn.Cell, optimizer: nn.Optimizer, along: bool) -> None:
        super().__init__(auto_prefix=False)
        self.net = net
        self.optimizer = optimizer
        self.along = along
        judge = net.construct if along else net.judge

        def loss(data: ms.Tensor, labels: ms.Tensor) -> ms.Tensor:
            return loss_fn(judge(data), labels).mean()

        self._derive = ms.value_and_grad(loss, None, optimizer.parameters)

    def construct(self, data: ms.Tensor, labels: ms.Tensor) -> ms.Tensor:
        """The loss before the step."""
        loss, gradients = self._derive(data, labels)
        self.optimizer(ms.ops.clip_by_global_norm(gradients, _LONGEST_GRADIENT))
        return loss


class LearningRateScheduler(ms.train.Callback):
    """Lowers an optimizer's learning rate as the epochs go by.

    Args:
        optimizer: The optimizer.
        learning_rate: At first.
        factor: What it is multiplied by.
        epochs: How often, in epochs.
    """

    def __init__(self, optimizer: nn.Optimizer, learning_rate: float, factor: float, epochs: int) -> None:
        super().__init__()
        self._optimizer, self._first, self._factor, self._epochs = optimizer, learning_rate, factor, epochs

    def of(self, optimizer: nn.Optimizer) -> LearningRateScheduler:
        """The same for another optimizer."""
        return LearningRateScheduler(optimizer, self._first, self._factor, self._epochs)

    def on_train_epoch_end(self, run_context: Any) -> None:
        """Sets the learning rate of the next epoch."""
        done = int(run_context.original_args().cur_epoch_num)
        rate = self._first * self._factor ** (done // self._epochs)
        self._optimizer.learning_rate.set_data(ms.Tensor(rate, ms.float32))


class _State(dict[str, Any]):
    """What callbacks are told, by key and by attribute."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def show(
    batches: Callable[[], Iterable[tuple[Array, Array]]],
    step: Step,
    callbacks: Sequence[Any],
    epochs: int,
    batch_count: int,
) -> None:
    """Shows all pictures so many times, with the callbacks told as MindSpore's own training does.

    Args:
        batches: Gives the data and labels of an epoch.
        step: Takes one step.
        callbacks: Of `mindspore.train.Callback`.
        epochs: Times.
        batch_count: Batches of an epoch, for the callbacks; 0 if it is not known.

    Raises:
        ValueError: The loss is no longer finite.
    """
    state = _State(
        network=step.net, train_network=step, optimizer=step.optimizer, epoch_num=epochs, mode="train",
        cur_epoch_num=0, cur_step_num=0, dataset_sink_mode=False, list_callback=callbacks, net_outputs=None,
    )  # fmt: skip
    state["batch_num"] = batch_count
    context = ms.train.RunContext(state)

    def tell(event: str) -> None:
        for callback in callbacks:
            getattr(callback, f"on_train_{event}")(context)

    tell("begin")
    for epoch in range(1, epochs + 1):
        state["cur_epoch_num"] = epoch
        tell("epoch_begin")
        for data, labels in batches():
            state["cur_step_num"] += 1
            tell("step_begin")
            state["net_outputs"] = step(ms.Tensor(data), ms.Tensor(labels))
            loss = float(state.net_outputs.asnumpy())
            if not np.isfinite(loss):
                raise ValueError(f"the training diverged: its loss is {loss} in epoch {epoch}")
            tell("step_end")
            if context.get_stop_requested():
                break
        tell("epoch_end")
        if context.get_stop_requested():
            break
    tell("end")


def listed(callbacks: Any) -> list[Any]:
    """One callback, several or None, as a list."""
    if callbacks is None:
        return []
    return list(callbacks) if isinstance(callbacks, (list, tuple)) else [callbacks]


def pairs(dataset: Any) -> Iterator[tuple[FloatArray, Array]]:
    """Pictures (N, C, H, W) and labels, batch by batch, of MindSpore's data set or any iterable."""
    for row in rows_of(dataset):
        if len(row) < 2:
            raise ValueError("dataset must give pictures and labels")
        pictures, labels = (each.asnumpy() if isinstance(each, ms.Tensor) else np.asarray(each) for each in row[:2])
        if pictures.ndim != 4 or len(labels) != len(pictures) or labels.ndim not in (1, 2):
            raise ValueError(
                "dataset must give batches of pictures (N, C, H, W) with labels (N,) or (N, num_classes), not "
                f"{pictures.shape} with {labels.shape}: call batch() on it"
            )
        yield pictures.astype(np.float32), labels


def class_ids(labels: Array) -> IntArray:
    """The class of each picture; where it shows several, the first one."""
    return np.asarray(labels if labels.ndim == 1 else labels.argmax(axis=1), np.int32)


def all_classes(labels: Array, count: int) -> FloatArray:
    """Labels as (N, num_classes) float32, 1 for each class that a picture shows."""
    if labels.ndim == 2:
        if labels.shape[1] != count:
            raise ValueError(f"labels have {labels.shape[1]} classes, and num_classes is {count}")
        return np.asarray(labels, np.float32)
    return np.eye(count, dtype=np.float32)[labels.astype(np.int64)]
