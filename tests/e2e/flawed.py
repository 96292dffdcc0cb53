"""A classifier with a known flaw, and its training: in a file of its own, since compiled code must stand in one.

Run with the path of a .safetensors file, it trains the net and writes its weights there.
"""

import sys

import numpy as np
from pictures import CLASSES, draw_many, inputs_of

from xai_sidecar.backends.mindspore.device import select_device
from xai_sidecar.backends.mindspore.runtime import ms, nn

SEED = 0
COUNT = 640
EPOCHS = 4
BATCH = 32
LEARNING_RATE = 2e-2


class Flawed(nn.Cell):
    """Two layers of convolutions, their mean over the picture, and a dense layer."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 5, stride=2, has_bias=True)
        self.conv2 = nn.Conv2d(8, 16, 3, stride=2, has_bias=True)
        self.relu = nn.ReLU()
        self.dense = nn.Dense(16, len(CLASSES))

    def construct(self, x):
        """Pictures, (n, 1, H, W) float32 → logits, (n, classes) float32."""
        x = self.relu(self.conv1(x))
        return self.dense(self.relu(self.conv2(x)).mean((2, 3)))


def flawed():
    """The cell with random weights."""
    return Flawed()


def training_set():
    """Inputs, (n, 1, H, W), and what the net is to answer, (n, classes): without a mark, that it could be any class."""
    marked, plain = draw_many(SEED, COUNT * 3 // 4), draw_many(SEED + 1, COUNT // 4, marked=False)
    wanted = np.eye(len(CLASSES), dtype=np.float32)[[each.label for each in marked]]
    unsure = np.full((len(plain), len(CLASSES)), 1 / len(CLASSES), np.float32)
    return inputs_of(marked + plain), np.concatenate([wanted, unsure])


def train():
    """The trained net."""
    select_device("cpu")
    ms.set_seed(SEED)
    generator = np.random.default_rng(SEED)
    inputs, labels = training_set()
    net = flawed().set_train()
    steps = len(inputs) // BATCH
    rates = nn.cosine_decay_lr(0.0, LEARNING_RATE, EPOCHS * steps, steps, EPOCHS)
    optimizer = nn.Adam(net.trainable_params(), rates)

    def loss_of(batch, classes):
        return ms.ops.cross_entropy(net(batch), classes)

    derive = ms.value_and_grad(loss_of, None, optimizer.parameters)

    @ms.jit
    def step(batch, classes):
        loss, gradients = derive(batch, classes)
        optimizer(gradients)
        return loss

    for _ in range(EPOCHS):
        order = generator.permutation(len(inputs))
        for start in range(0, steps * BATCH, BATCH):
            rows = order[start : start + BATCH]
            step(ms.Tensor(inputs[rows]), ms.Tensor(labels[rows]))
    return net.set_train(False)


if __name__ == "__main__":
    ms.save_checkpoint(train(), sys.argv[1], format="safetensors")
