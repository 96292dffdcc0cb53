"""Nets of torchvision and timm with made-up weights, and their export to ONNX by both of PyTorch's exporters."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import nn
from torchvision.models.resnet import Bottleneck

from xai_sidecar.engine.work import FloatArray

SIDE = 224
"""Rows and columns of the input."""

EXPORTERS = {"script": False, "dynamo": True}
"""Whether an exporter is that of `torch.export`, by name; the other one traces TorchScript."""

_PICTURES = 8
"""What statistics are taken over."""

_SPREAD = 2.0
"""Standard deviation of a class's logit over pictures, as in trained nets: probabilities go up and down."""

_BRANCH = 0.25
"""Scale of what a block of a ResNet adds. With 1, as they begin training, ReLUs switch at the smallest steps, and no
gradient, though right, can be compared with differences."""

_SHIFT = 1.0
"""What normalized values in a DenseNet are shifted by, for the same reason: most of its ReLUs pass."""


def _vit() -> Any:
    import timm

    return timm.create_model("vit_tiny_patch16_224")


def _densenet() -> nn.Module:
    """With the ReLU behind the last block as a module, which captum's rules act on, too."""
    net = torchvision.models.densenet121(weights=None)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.constant_(module.bias, _SHIFT)
    return nn.Sequential(net.features, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), net.classifier)


def _of_torchvision(name: str) -> Callable[[], Any]:
    return lambda: getattr(torchvision.models, name)(weights=None)


NETS: dict[str, Callable[[], Any]] = {
    "resnet50": _of_torchvision("resnet50"),
    "efficientnet_b0": _of_torchvision("efficientnet_b0"),
    "mobilenet_v3_large": _of_torchvision("mobilenet_v3_large"),
    "convnext_tiny": _of_torchvision("convnext_tiny"),
    "densenet121": _densenet,
    "vit_tiny": _vit,
    "swin_tiny": _of_torchvision("swin_t"),
}
"""What makes a net, by name."""


def made(name: str) -> nn.Module:
    """A net in evaluation mode: the same weights each time, normalizations and logits as those of a trained one."""
    torch.manual_seed(0)
    net: nn.Module = NETS[name]()
    net.train()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
        elif isinstance(module, Bottleneck):
            nn.init.constant_(module.bn3.weight, _BRANCH)
        elif hasattr(module, "inplace"):
            module.inplace = False  # hooks have to see what a module put out, and not what the next one made of it
    pictures = torch.from_numpy(np.stack([picture(seed) for seed in range(1, 1 + _PICTURES)]))
    with torch.no_grad():
        net(pictures)  # which sets what batch norms have seen
        net.eval()
        _spread(head(net), net(pictures))
    for parameter in net.parameters():
        parameter.requires_grad_(False)  # nobody asks for their gradients: PyTorch is quicker without
    return net


def head(net: nn.Module) -> nn.Linear:
    """The last dense layer."""
    return [module for module in net.modules() if isinstance(module, nn.Linear)][-1]


def _spread(layer: nn.Linear, logits: torch.Tensor) -> None:
    """Changes the last layer so that each logit is 0 on average, and varies."""
    factor = _SPREAD / logits.std(dim=0).mean()
    layer.weight *= factor
    layer.bias.copy_((layer.bias - logits.mean(dim=0)) * factor)


def picture(seed: int = 0) -> FloatArray:
    """A model input, (3, side, side) float32: blots of colour, and noise."""
    generator = np.random.default_rng(seed)
    blots = generator.standard_normal((3, 8, 8)).repeat(SIDE // 8, axis=1).repeat(SIDE // 8, axis=2)
    return (blots + 0.5 * generator.standard_normal(blots.shape)).astype(np.float32)


def export(net: nn.Module, exporter: str, path: Path) -> None:
    """Writes a net as an ONNX file with a free batch axis.

    Args:
        net: The net.
        exporter: Of `EXPORTERS`.
        path: Where to.
    """
    inputs = torch.from_numpy(np.stack([picture(1), picture(2)]))
    by_dynamo = EXPORTERS[exporter]
    axes: dict[str, Any] = {"dynamic_axes": {"pictures": {0: "batch"}}}
    if by_dynamo:
        axes = {"dynamic_shapes": ({0: torch.export.Dim("batch", min=1, max=64)},)}
    silence = io.StringIO()
    with warnings.catch_warnings(), redirect_stdout(silence), redirect_stderr(silence):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            net, (inputs,), path, input_names=["pictures"], output_names=["logits"], dynamo=by_dynamo, **axes
        )
