"""ResNet-50 explained by a plain PyTorch loop, told by lines on stdin what to do; see peers.py."""

from __future__ import annotations

import sys

import torch
from torch import nn
from torch.nn import functional

_BATCH = 8


class Block(nn.Module):
    """A bottleneck: He et al., arXiv:1512.03385, figure 5."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        sizes = [(channels, width, 1, 1), (width, width, 3, stride), (width, 4 * width, 1, 1)]
        self.layers = nn.ModuleList(nn.Sequential(_convolution(*size), nn.BatchNorm2d(size[1])) for size in sizes)
        same = channels == 4 * width and stride == 1
        shortcut = [_convolution(channels, 4 * width, 1, stride), nn.BatchNorm2d(4 * width)]
        self.shortcut = nn.Identity() if same else nn.Sequential(*shortcut)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, channels, h, w) → (n, 4 width, h / stride, w / stride)."""
        y = functional.relu(self.layers[1](functional.relu(self.layers[0](x))))
        return functional.relu(self.layers[2](y) + self.shortcut(x))


def _convolution(inputs: int, outputs: int, side: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, side, stride, side // 2, bias=False)


def _body() -> nn.Sequential:
    layers: list[nn.Module] = [_convolution(3, 64, 7, 2), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for width, count, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for index in range(count):
            layers.append(Block(channels, width, stride if index == 0 else 1))
            channels = 4 * width
    return nn.Sequential(*layers)


body, head = _body().eval(), nn.Linear(2048, 1000)
image = torch.randn(1, 3, 224, 224)
masks = int(sys.argv[3])


def gradcam() -> torch.Tensor:
    """One forward pass, and back to the last layer."""
    with torch.no_grad():
        activations = body(image)
    activations.requires_grad_()
    head(activations.mean((2, 3)))[0, 7].backward()
    weights = activations.grad.mean((2, 3), keepdim=True)
    coarse = functional.relu((weights * activations).sum(1, keepdim=True))
    return functional.interpolate(coarse, size=(224, 224), mode="bilinear")


@torch.inference_mode()
def rise() -> torch.Tensor:
    """The paper's masks and average, in batches."""
    total = torch.zeros(224, 224)
    for _ in range(masks // _BATCH):
        cells = (torch.rand(_BATCH, 1, 7, 7) < 0.5).float()
        enlarged = functional.interpolate(cells, size=(256, 256), mode="bilinear")[..., 7:231, 11:235]
        scores = head(body(image * enlarged).mean((2, 3))).softmax(1)[:, 7]
        total += (scores[:, None, None] * enlarged[:, 0]).sum(0)
    return total


for line in sys.stdin:
    {"gradcam": gradcam, "rise": rise}[line.strip()]()
    print(f"done {line.strip()}", flush=True)
