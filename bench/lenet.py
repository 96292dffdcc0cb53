"""LeNet-5 as a MindSpore cell, and its training: in a file of its own, since compiled code must stand in one."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from xai_sidecar.backends.mindspore.device import select_device
from xai_sidecar.backends.mindspore.runtime import ms, nn
from xai_sidecar.engine.work import FloatArray, IntArray
from xai_sidecar.ood.progress import Progress, Step

FACTORY = "bench.lenet:lenet5"
SIDE = 32
_BATCH = 128
_LEARNING_RATE = 2e-3
_SEED = 0


class LeNet5(nn.Cell):
    """LeCun et al. 1998, Gradient-based learning applied to document recognition, figure 2; ReLUs and max pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5, pad_mode="valid", has_bias=True)
        self.conv2 = nn.Conv2d(6, 16, 5, pad_mode="valid", has_bias=True)
        self.pool = nn.MaxPool2d(2, 2)
        self.relu = nn.ReLU()
        self.flatten = nn.Flatten()
        self.dense1 = nn.Dense(400, 120)
        self.dense2 = nn.Dense(120, 84)
        self.classifier = nn.Dense(84, 10)

    def construct(self, x: ms.Tensor) -> ms.Tensor:
        """Pictures, (n, 1, 32, 32) float32 → logits, (n, 10) float32."""
        x = self.pool(self.relu(self.conv1(x)))
        x = self.flatten(self.pool(self.relu(self.conv2(x))))
        return self.classifier(self.relu(self.dense2(self.relu(self.dense1(x)))))


def lenet5() -> LeNet5:
    """The cell with random weights."""
    return LeNet5()


def trained(folder: Path, inputs: FloatArray, labels: IntArray, epochs: int, progress: Progress) -> Path:
    """A checkpoint of the net, trained if the folder does not have it yet.

    Args:
        folder: Where checkpoints are kept.
        inputs: (n, 1, 32, 32) float32.
        labels: (n,) int32, from 0 to 9.
        epochs: Passes over them.
        progress: Told after each epoch.
    """
    digest = hashlib.sha256(repr((epochs, ms.__version__)).encode() + Path(__file__).read_bytes())
    for array in (inputs, labels):
        digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    path = folder / f"lenet5-{digest.hexdigest()[:12]}.safetensors"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"unfinished-{path.name}")
        ms.save_checkpoint(_train(inputs, labels, epochs, progress), str(unfinished), format="safetensors")
        unfinished.replace(path)
    return path


def _train(inputs: FloatArray, labels: IntArray, epochs: int, progress: Progress) -> nn.Cell:
    """By Adam, with a learning rate that falls to 0 along a cosine."""
    select_device("cpu")
    ms.set_seed(_SEED)
    generator = np.random.default_rng(_SEED)
    net = lenet5().set_train()
    steps = len(inputs) // _BATCH
    rates = nn.cosine_decay_lr(0.0, _LEARNING_RATE, epochs * steps, steps, epochs)
    optimizer = nn.Adam(net.trainable_params(), rates)

    def loss_of(batch: ms.Tensor, classes: ms.Tensor) -> ms.Tensor:
        return ms.ops.cross_entropy(net(batch), classes)

    derive = ms.value_and_grad(loss_of, None, optimizer.parameters)

    @ms.jit
    def step(batch: ms.Tensor, classes: ms.Tensor) -> ms.Tensor:
        loss, gradients = derive(batch, classes)
        optimizer(gradients)
        return loss

    progress(Step("training LeNet-5", 0, epochs, "epochs"))
    for epoch in range(epochs):
        order = generator.permutation(len(inputs))
        losses = []
        for start in range(0, steps * _BATCH, _BATCH):
            rows = order[start : start + _BATCH]
            losses.append(float(step(ms.Tensor(inputs[rows]), ms.Tensor(labels[rows]))))
        progress(Step("training LeNet-5", epoch + 1, epochs, "epochs", f"loss {np.mean(losses):.3f}"))
    return net.set_train(False)
