"""Reference results: the uncompiled net on a few inputs. Every program is checked against them before it serves."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from xai_sidecar.backends.graph.programs import KindProgram
from xai_sidecar.backends.mindspore.features import features_net
from xai_sidecar.backends.mindspore.layers import layer_gradients, layer_output
from xai_sidecar.backends.mindspore.loading import error_line
from xai_sidecar.backends.mindspore.programs import Program, as_arrays
from xai_sidecar.backends.mindspore.rectifiers import rectified_copy
from xai_sidecar.backends.mindspore.runtime import ms, nn
from xai_sidecar.backends.runtimes.agreement import GRADIENT_TOLERANCE, LOGIT_TOLERANCE, disagreement
from xai_sidecar.backends.spatial.layers import SpatialLayer
from xai_sidecar.engine.work import Array, Features, Forward, Kind
from xai_sidecar.errors import ConfigError


class WrongOutputError(ConfigError):
    """A program's results differ from the net's."""


class Reference:
    """The results of the uncompiled net.

    Args:
        net: The net, for inference.
        inputs: Some inputs as the net takes them, (n, …) float32, all different.
        logits: Those of the first input, (1, classes) float32.
        layers: Its layers.
    """

    def __init__(self, net: nn.Cell, inputs: Array, logits: Array, layers: Mapping[str, SpatialLayer]) -> None:
        self._net = net
        self._inputs = inputs
        self._class_count = logits.shape[1]
        self._layers = layers
        self._known: dict[Kind, list[tuple[Array, ...]]] = {Forward.kind: [(logits,)]}

    def inputs(self, kind: Kind, size: int, start: int = 0) -> tuple[Array, ...]:
        """Some of the inputs, with targets for kinds that need them."""
        inputs = self._inputs[start : start + size]
        if kind.name in (Forward.kind.name, Features.kind.name):
            return (inputs,)
        return inputs, np.arange(start, start + size, dtype=np.int32) % self._class_count

    def forward(self, kind: Kind, size: int, start: int = 0) -> tuple[Array, ...]:
        """Expected results of a program without a gradient; each row is computed in a pass of its own."""
        known = self._known.setdefault(kind, [])
        if len(known) < start + size:
            cell = self._net if kind == Forward.kind else features_net(self._net, self._inputs[:1], self._class_count)
            for row in range(len(known), start + size):
                known.append(as_arrays(cell(ms.Tensor(self._inputs[row : row + 1]))))
        return tuple(np.concatenate(column) for column in zip(*known[start : start + size], strict=True))

    def gradient(self, kind: Kind, row: int, program: KindProgram | None = None) -> tuple[Array, ...]:
        """Expected results of a program with a gradient, for one input.

        Args:
            kind: The kind.
            row: The input's place.
            program: The program, if it is a graph's: what its graph gives counts where the cell itself cannot say.
        """
        # Rules reach a graph's rectifiers, functional ones as well, which they do not in a cell.
        if program and kind.relu_rule:
            return program.plainly(self.inputs(kind, 1, row))
        try:
            return self._gradient(kind, row)
        except Exception:  # of a cell that knows its layers, and takes no other in the place of one
            if program:
                return program.plainly(self.inputs(kind, 1, row))
            raise

    def _gradient(self, kind: Kind, row: int) -> tuple[Array, ...]:
        (logits,) = self.forward(Forward.kind, 1, row)
        example, target = self.inputs(kind, 1, row)
        chosen = np.zeros((1, self._class_count), np.float32)
        chosen[0, target[0]] = 1
        if kind.name == "layer_gradient":
            layer = self._layers[kind.layer]
            (gradient,) = layer_gradients(self._net, [layer], example, chosen)
            return layer_output(self._net, layer, example), gradient, logits
        net = rectified_copy(self._net, kind.relu_rule) if kind.relu_rule else self._net
        derive = ms.grad(lambda x: (net(x) * ms.Tensor(chosen)).sum())
        return derive(ms.Tensor(example)).asnumpy(), logits


def first_logits(net: nn.Cell, example: Array, layout: str) -> Array:
    """Runs a net for the first time.

    Args:
        net: The net.
        example: One input in the configured layout, (1, …) float32.
        layout: "nchw" or "nhwc", as configured.

    Returns:
        Its logits, (1, classes).

    Raises:
        ConfigError: It does not accept the input, or does not return logits.
    """
    try:
        logits = net(ms.Tensor(example))
    except Exception as error:
        raise ConfigError(
            f"the net does not take an input of shape {example.shape} ({layout}): {error_line(error)}. "
            "Correct model.input.size, channels or layout.",
            field="model.input",
        ) from error
    if not isinstance(logits, ms.Tensor) or logits.ndim != 2 or len(logits) != 1:
        got = f"shape {tuple(logits.shape)}" if isinstance(logits, ms.Tensor) else type(logits).__name__
        raise ConfigError(
            f"the net returned {got} for one picture where logits of shape (1, classes) were expected. "
            "Name a factory whose cell returns only the logits.",
            field="model.factory",
        )
    return logits.asnumpy()  # type: ignore[no-any-return]


def one_by_one(program: Program, rows: tuple[Array, ...]) -> tuple[Array, ...]:
    """The program's outputs for each row run alone."""
    alone = [program(tuple(array[i : i + 1] for array in rows)) for i in range(len(rows[0]))]
    return tuple(np.concatenate(column) for column in zip(*alone, strict=True))


def check(outputs: tuple[Array, ...], expected: tuple[Array, ...], what: str) -> None:
    """Compares a program's outputs, the logits last, with the expected ones.

    Raises:
        WrongOutputError: They differ by more than rounding explains.
    """
    tolerances = [GRADIENT_TOLERANCE] * (len(expected) - 1) + [LOGIT_TOLERANCE]
    if how := disagreement(outputs, expected, tolerances, reference="the net's own"):
        raise WrongOutputError(f"{what} {how}.")
