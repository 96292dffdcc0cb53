"""The ways in which PyTorch computes a pass, and a gradient by the input, on a CPU: as they come, and compiled."""

from __future__ import annotations

import copy
import logging
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from xai_sidecar.engine.work import Array

Ways = dict[str, Callable[[], Array]]


def passes(net: nn.Module, inputs: Array) -> Ways:
    """Forward passes of inputs (n, C, H, W): arrays in and out."""

    def way(forward: Callable[[torch.Tensor], torch.Tensor], layout: torch.memory_format) -> Callable[[], Array]:
        @torch.inference_mode()
        def run() -> Array:
            return np.asarray(forward(torch.from_numpy(inputs).contiguous(memory_format=layout)).numpy())

        return run

    return _in_all_layouts(net, way, freezing=True)


def gradients(net: nn.Module, inputs: Array, target: int) -> Ways:
    """Gradients of the target's logit by inputs (n, C, H, W)."""

    def way(forward: Callable[[torch.Tensor], torch.Tensor], layout: torch.memory_format) -> Callable[[], Array]:
        def run() -> Array:
            leaf = torch.from_numpy(inputs).contiguous(memory_format=layout).detach().requires_grad_()
            (gradient,) = torch.autograd.grad(forward(leaf)[:, target].sum(), leaf)
            return np.asarray(gradient.numpy())

        return run

    return _in_all_layouts(net, way)


def _in_all_layouts(
    net: nn.Module,
    way: Callable[[Callable[[torch.Tensor], torch.Tensor], torch.memory_format], Callable[[], Array]],
    **options: Any,
) -> Ways:
    """Each way with both layouts, as it comes and compiled; those that fail are left out, and said."""
    logging.getLogger("torch").setLevel(logging.ERROR)
    found: Ways = {}
    for name, layout in {"": torch.contiguous_format, "channels_last": torch.channels_last}.items():
        laid_out = copy.deepcopy(net).to(memory_format=layout)  # type: ignore[call-overload]
        for how, forward in {"eager": laid_out, "compiled": torch.compile(laid_out, options=options)}.items():
            title, run = f"{how} {name}".strip(), way(forward, layout)
            try:
                run()
            except Exception as error:  # of a compiler that is not there, or a net that it cannot compile
                print(f"  PyTorch, {title}: {str(error).strip().splitlines()[0]}", file=sys.stderr)
                continue
            found[title] = run
    return found
