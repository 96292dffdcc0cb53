"""The seven explainers' maps of a PyTorch net without this product: by captum, or by plain loops."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from captum import attr
from torch import nn
from torch.nn import functional

from bench.torch_nets import SIDE, head
from xai_sidecar.engine.work import FloatArray
from xai_sidecar.explainers.masks import MaskGrid

WINDOW, STRIDE = 112, 56
MASKS = 32
GRID = MaskGrid(SIDE, SIDE, 7, 0.5)
FILL = 0.0

_BATCH = 8


class TorchMaps:
    """Maps, (side, side) float32, of one picture for one target.

    Args:
        net: The net, in evaluation mode.
        picture: (3, side, side) float32.
        target: The class.
        seed: Of RISE's masks.
        layer: The module whose output Grad-CAM is of, and what makes (n, channels, rows, columns) of that.
        directions: Weights of the OoD net's classes, (k, features) float32.
    """

    def __init__(
        self,
        net: nn.Module,
        picture: FloatArray,
        target: int,
        seed: int,
        layer: tuple[nn.Module, Callable[[torch.Tensor], torch.Tensor]],
        directions: FloatArray,
    ) -> None:
        self._net = net
        self._picture = torch.from_numpy(picture)
        self._target = target
        self._seed = seed
        self._layer = layer
        self._directions = functional.normalize(torch.from_numpy(directions), dim=1)

    def maps(self) -> dict[str, tuple[FloatArray, str]]:
        """The maps, and how they were made, by explainer; without those by ReLU rules where there is no ReLU."""
        found = {
            "gradient": (self._by_gradient(attr.Saliency(self._net), abs=False), "captum"),
            "gradcam": (self._gradcam(), "autograd"),
            "occlusion": (self._occlusion(), "captum"),
            "rise": (self._rise(lambda probabilities, _: probabilities), "a plain loop"),
            "rise_plus": (self._rise(self._weighted), "a plain loop"),
        }
        if any(isinstance(module, nn.ReLU) for module in self._net.modules()):
            found["guided_backprop"] = self._by_gradient(attr.GuidedBackprop(self._net)), "captum"
            found["deconvolution"] = self._by_gradient(attr.Deconvolution(self._net)), "captum"
        return found

    def _by_gradient(self, method: Any, **options: Any) -> FloatArray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of hooks, and of a gradient that is asked for
            gradient = method.attribute(self._picture[None].clone().requires_grad_(), target=self._target, **options)
        return gradient.detach().abs().amax(dim=1)[0].numpy()

    def _gradcam(self) -> FloatArray:
        """Where the layer's output is (n, channels, rows, columns), captum's has to be the same."""
        module, to_nchw = self._layer
        kept: list[torch.Tensor] = []
        handle = module.register_forward_hook(lambda module, inputs, output: kept.append(output))
        logits = self._net(self._picture[None].clone().requires_grad_())
        handle.remove()
        (gradient,) = torch.autograd.grad(logits[0, self._target], kept[0])
        activations, gradients = (to_nchw(each.detach()) for each in (kept[0], gradient))
        coarse = (gradients.mean(dim=(2, 3), keepdim=True) * activations).sum(dim=1, keepdim=True).relu()
        if activations.shape == kept[0].shape:
            theirs = attr.LayerGradCam(self._net, module).attribute(
                self._picture[None].clone().requires_grad_(), target=self._target, relu_attributions=True
            )
            torch.testing.assert_close(theirs.detach(), coarse)
        return functional.interpolate(coarse, size=(SIDE, SIDE), mode="bilinear")[0, 0].numpy()

    def _occlusion(self) -> FloatArray:
        method = attr.Occlusion(lambda pictures: self._net(pictures).softmax(dim=1))
        with torch.inference_mode():
            found = method.attribute(
                self._picture[None],
                target=self._target,
                sliding_window_shapes=(3, WINDOW, WINDOW),
                strides=(3, STRIDE, STRIDE),
                baselines=FILL,
                perturbations_per_eval=_BATCH,
            )
        return found[0, 0].numpy()

    def _rise(self, score: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> FloatArray:
        """Σ score M / (n q): arXiv:1806.07421, equation 5.

        Args:
            score: Of the target's probabilities, (n,), and the features, (n, features).
        """
        total = torch.zeros(SIDE, SIDE)
        for coarse in GRID.draw(self._seed, MASKS, _BATCH):
            masks = torch.from_numpy(GRID.enlarge(coarse))
            features, logits = self._run(masks)
            scores = score(logits.softmax(dim=1)[:, self._target], features)
            total += (scores[:, None, None] * masks).sum(dim=0)
        return (total / (MASKS * GRID.keep_probability)).numpy()

    def _weighted(self, probabilities: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        ends, _ = self._run(torch.stack([torch.zeros(SIDE, SIDE), torch.ones(SIDE, SIDE)]))
        low, high = self._inlier(ends)
        return (self._inlier(features).clip(low, high) - low) / (high - low) * probabilities

    def _inlier(self, features: torch.Tensor) -> torch.Tensor:
        """The largest cosine with a class's weights, (n,)."""
        return (functional.normalize(features, dim=1) @ self._directions.T).amax(dim=1)

    @torch.inference_mode()
    def _run(self, masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The features and logits of the picture under masks."""
        masked = self._picture * masks[:, None] + FILL * (1 - masks[:, None])
        return features_and_logits(self._net, masked)


def features_and_logits(net: nn.Module, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What goes into the last dense layer, and what comes out of it."""
    kept: list[torch.Tensor] = []
    handle = head(net).register_forward_pre_hook(lambda module, inputs: kept.append(inputs[0]))
    logits = net(inputs)
    handle.remove()
    return kept[0], logits


def layer_like(
    net: nn.Module, picture: FloatArray, output: FloatArray
) -> tuple[nn.Module, Callable[[torch.Tensor], torch.Tensor]] | None:
    """The module whose output is what a layer was found to give, and what brings it into that form.

    Args:
        net: The net.
        picture: (3, side, side) float32.
        output: (1, channels, rows, columns), the layer's output for the picture.
    """
    kept: dict[nn.Module, list[torch.Tensor]] = {}

    def keep(module: nn.Module, inputs: Any, result: Any) -> None:
        if isinstance(result, torch.Tensor):
            kept.setdefault(module, []).append(result)

    handles = [module.register_forward_hook(keep) for module in net.modules()]
    with torch.inference_mode():
        net(torch.from_numpy(picture)[None])
    for handle in handles:
        handle.remove()
    _, channels, rows, columns = output.shape
    for module, results in kept.items():
        to_nchw = _to_nchw(tuple(results[0].shape), channels, rows, columns)
        if len(results) == 1 and to_nchw and np.allclose(to_nchw(results[0]).numpy(), output, rtol=1e-3, atol=1e-3):
            return module, to_nchw
    return None


def _to_nchw(
    shape: tuple[int, ...], channels: int, rows: int, columns: int
) -> Callable[[torch.Tensor], torch.Tensor] | None:
    """What makes (n, channels, rows, columns) of an output; tokens may have one in front that is no patch."""
    if shape == (1, channels, rows, columns):
        return lambda value: value
    if shape == (1, rows, columns, channels):
        return lambda value: value.permute(0, 3, 1, 2)
    extra = shape[1] - rows * columns if len(shape) == 3 else -1
    if extra in (0, 1) and shape[2] == channels:
        return lambda value: value[:, extra:].transpose(1, 2).unflatten(2, (rows, columns))
    return None
