"""The seven explainers under MindSpore XAI's names and signatures.

What is better than in MindSpore XAI, for all of them:

- Pictures need not be square: there, RISE refuses others, and GradCAM transposes their maps.
- A class that the net does not have is a ValueError, and so is whatever else cannot be explained: there, Gradient gives
  zeros, and RISE the map of another class.
- Several classes of each picture may be asked for at once.
- The net is never changed, neither hooks nor modes, and its weights are not copied, so that explainers may share a net
  and be used by any number of runners: there, each call of GradCAM leaves a hook.
- What is random has a seed.
- ReLUs are reached whether they are cells or functions: there, GuidedBackprop and Deconvolution compute each other's
  maps on MindSpore 2.
"""

from __future__ import annotations

import warnings
from typing import Any, ClassVar

import numpy as np

from xai_sidecar.backends.mindspore.runtime import nn
from xai_sidecar.compat.arguments import Tensor, check_cell, check_positive, check_type, to_inputs, to_targets
from xai_sidecar.compat.layers import InputGradCam
from xai_sidecar.compat.model import Compiled, activation_of, model_of
from xai_sidecar.compat.ood_net import OoDNet
from xai_sidecar.compat.visual import shown_as_images
from xai_sidecar.engine.jointly import together
from xai_sidecar.engine.work import FloatArray, IntArray, Steps
from xai_sidecar.errors import SidecarError
from xai_sidecar.explainers import gradcam, gradient, occlusion, rise
from xai_sidecar.explainers.base import Context, Explainer, Saliency
from xai_sidecar.metrics.instance import ExplainerCall

_RETURNED = ("tensor", "image")

_DEFAULT_BATCH = 32

_MOST_NAMED = 5
"""Maps that a warning names."""


class SaliencyWarning(UserWarning):
    """A map cannot be relied on; the message says which one, and why."""


class CellExplainer:
    """The base of all: an explainer of a net that a script holds.

    Args:
        network: Pictures (N, C, H, W) → logits (N, classes).
        explainer: What computes the maps.
        parameters: Its parameters.
        activation_fn: What turns logits into probabilities; None for softmax.
        batch_size: Masked pictures at once.
        seed: Of what is random.
    """

    def __init__(
        self,
        network: nn.Cell,
        explainer: Explainer[Any],
        parameters: Any,
        activation_fn: nn.Cell | None = None,
        batch_size: int = _DEFAULT_BATCH,
        seed: int = 0,
    ) -> None:
        check_cell("network", network)
        check_type("seed", seed, int)
        self._network = network
        self._explainer = explainer
        self._parameters = parameters
        self._batch_size = batch_size
        self._activation_fn = activation_fn
        self._context = Context(seed=seed) if activation_fn is None else Context(activation_of(activation_fn), seed)

    @property
    def network(self) -> nn.Cell:
        """The net that is explained."""
        return self._network

    @property
    def activation_fn(self) -> nn.Cell | None:
        """What turns the net's logits into probabilities; None where they do not matter."""
        return self._activation_fn

    @property
    def batch_size(self) -> int:
        """Masked pictures that go through the net at once."""
        return self._batch_size

    def __call__(self, inputs: Tensor, targets: Tensor | int, ret: str = "tensor", show: bool | None = None) -> Any:
        """Explains pictures.

        Args:
            inputs: (N, C, H, W), a tensor or an array, as the net takes them.
            targets: The class that is explained: one for all pictures, or (N,), one for each, or (N, l), several for
                each.
            ret: "tensor" for the maps, "image" for pictures of them.
            show: Whether to show the maps on their pictures; None shows them in notebooks.

        Returns:
            Maps (N, l, H, W) float32, of the type that the inputs have; l is 1 but for targets (N, l). For "image" a
            list with one list of l `PIL.Image.Image` for each picture, or only the image where l is 1.

        Raises:
            TypeError: An argument is of a wrong type.
            ValueError: An argument has a wrong value, or the net cannot be explained so.
        """
        if ret not in _RETURNED:
            raise ValueError(f"ret must be one of {', '.join(_RETURNED)}, not {ret!r}")
        check_type("show", show, bool, type(None))
        pictures = to_inputs(inputs)
        classes = to_targets(targets, len(pictures.images))
        maps = self.maps(pictures.images, classes)
        images = shown_as_images(maps, pictures.images, show, wanted=ret == "image")
        return images if ret == "image" else pictures.like(maps)

    def maps(self, images: FloatArray, targets: IntArray, net: Compiled | None = None) -> FloatArray:
        """Explains pictures.

        Args:
            images: (N, C, H, W).
            targets: Their classes, (N, l).
            net: The net for them, if it is at hand.

        Returns:
            The maps, (N, l, H, W) float32.
        """
        net = net or self.compiled(images.shape[1:])
        if targets.max() >= net.class_count:
            raise ValueError(f"there is no class {targets.max()}: the net has 0 to {net.class_count - 1}")
        call = self.call(net)
        explain = call.explainer.explain
        steps = [
            explain(image, row, call.parameters, self._context) for image, row in zip(images, targets, strict=True)
        ]
        found = self.compute(together(steps), net)
        _warn_of(found, targets)
        return np.stack([saliency.maps for saliency in found])

    def compiled(self, shape: tuple[int, ...]) -> Compiled:
        """The net for inputs of a shape (C, H, W), with its weights as they are now."""
        return model_of(self._network).compiled(shape, self._batch_size)

    def compute(self, steps: Steps[Any], net: Compiled) -> Any:
        """Runs a computation on the net; see `Compiled.compute`."""
        return net.compute(steps)

    def call(self, net: Compiled) -> ExplainerCall:
        """The explainer with its parameters, resolved for a net."""
        try:
            parameters = self._explainer.resolve(self._parameters, net.facts)
        except SidecarError as error:
            raise ValueError(error.message) from error
        return ExplainerCall(self._explainer, parameters, self._context.seed)


def _warn_of(found: list[Saliency], targets: IntArray) -> None:
    """Warns once of all maps that cannot be relied on."""
    doubtful = [
        f"of picture {number} for class {target} ({status.value})"
        for number, (saliency, row) in enumerate(zip(found, targets.tolist(), strict=True))
        for status, target in zip(saliency.statuses, row, strict=True)
        if not status.believed
    ]
    if doubtful:
        shown = ", ".join(doubtful[:_MOST_NAMED]) + (", …" if len(doubtful) > _MOST_NAMED else "")
        warnings.warn(f"{len(doubtful)} maps cannot be relied on: {shown}", SaliencyWarning, stacklevel=4)


class Gradient(CellExplainer):
    """The gradient of a class's logit by the picture, its largest absolute value over the channels.

    Args:
        network: The net.
    """

    _kind: ClassVar[type[gradient.Gradient]] = gradient.Gradient

    def __init__(self, network: nn.Cell) -> None:
        super().__init__(network, self._kind(), gradient.GradientParameters())


class GuidedBackprop(Gradient):
    """As `Gradient`, with the gradient rectified at each ReLU on top of the ReLU's own mask."""

    _kind = gradient.GuidedBackprop


class Deconvolution(Gradient):
    """As `Gradient`, with the gradient rectified at each ReLU instead of the ReLU's own mask."""

    _kind = gradient.Deconvolution


class GradCAM(CellExplainer):
    """Grad-CAM of a layer.

    Maps are enlarged as numbers: MindSpore XAI's go through 8 bits, where small values are lost and large ones wrap.

    Args:
        network: The net.
        layer: Name of the layer, as `cells_and_names` has it: the last convolution, or the block with it, as a rule.
            Empty for the picture itself.
    """

    def __init__(self, network: nn.Cell, layer: str = "") -> None:
        check_type("layer", layer, str)
        explainer: Explainer[Any] = gradcam.GradCam() if layer else InputGradCam()
        super().__init__(
            network, explainer, explainer.parameters_type(layer=layer) if layer else explainer.parameters_type()
        )


class Occlusion(CellExplainer):
    """The drop of a class's probability when a window of the picture is covered by 0.

    Windows of a 32nd of the shorter side, side by side; 3 pixels wide and one apart where that side has at most 32.
    The drop keeps its sign, and is averaged over the windows that cover a pixel: MindSpore XAI drops the sign, and
    divides by one window too many.

    Args:
        network: The net.
        activation_fn: What turns its logits into probabilities: `nn.Softmax()`, `nn.Sigmoid()` or another cell.
        perturbation_per_eval: Masked pictures that go through the net at once.
    """

    def __init__(self, network: nn.Cell, activation_fn: nn.Cell, perturbation_per_eval: int = _DEFAULT_BATCH) -> None:
        check_cell("activation_fn", activation_fn)
        check_positive("perturbation_per_eval", perturbation_per_eval)
        super().__init__(
            network, occlusion.Occlusion(), occlusion.OcclusionParameters(), activation_fn, perturbation_per_eval
        )


class RISE(CellExplainer):
    """Randomised input sampling: which pixels go with a high probability under random masks.

    Masks are those of RISE's authors: a grid of 7 cells a side, enlarged, and shifted by up to a cell. By default maps
    are estimated by regression, which needs fewer masks for the same map than the authors' average.

    Args:
        network: The net.
        activation_fn: What turns its logits into probabilities.
        perturbation_per_eval: Masked pictures that go through the net at once.
        masks: Masks of each picture; MindSpore XAI spends 6,000.
        estimator: "regression", or "plain" for the authors' average.
        seed: Of the masks: equal seeds give equal maps.
    """

    _kind: ClassVar[type[rise.Rise]] = rise.Rise

    def __init__(
        self,
        network: nn.Cell,
        activation_fn: nn.Cell,
        perturbation_per_eval: int = _DEFAULT_BATCH,
        *,
        masks: int = 1000,
        estimator: str = "regression",
        seed: int = 0,
    ) -> None:
        check_cell("activation_fn", activation_fn)
        check_positive("perturbation_per_eval", perturbation_per_eval)
        try:
            parameters = rise.RiseParameters.model_validate({"masks": masks, "estimator": estimator})
        except ValueError as error:  # pydantic's, of several lines
            raise ValueError(f"masks and estimator cannot be {masks!r} and {estimator!r}: {error}") from error
        super().__init__(network, self._kind(), parameters, activation_fn, perturbation_per_eval, seed)


class RISEPlus(RISE):
    """RISE with every mask weighted by how much of an inlier the masked picture is.

    Args:
        ood_net: An OoD net that was trained, or loaded from a checkpoint.
        network: The net that is explained.
        activation_fn: What turns its logits into probabilities.
        perturbation_per_eval: Masked pictures that go through the net at once.
        masks: As of `RISE`.
        estimator: As of `RISE`.
        seed: As of `RISE`.
    """

    _kind = rise.RisePlus

    def __init__(
        self,
        ood_net: OoDNet,
        network: nn.Cell,
        activation_fn: nn.Cell,
        perturbation_per_eval: int = _DEFAULT_BATCH,
        *,
        masks: int = 1000,
        estimator: str = "regression",
        seed: int = 0,
    ) -> None:
        check_type("ood_net", ood_net, OoDNet)
        super().__init__(network, activation_fn, perturbation_per_eval, masks=masks, estimator=estimator, seed=seed)
        self._ood_net = ood_net

    @property
    def ood_net(self) -> OoDNet:
        """The OoD net."""
        return self._ood_net

    def compute(self, steps: Steps[Any], net: Compiled) -> Any:
        """Runs a computation on the net, with the OoD net's scores; see `Compiled.compute`."""
        return net.compute(steps, self._ood_net)
