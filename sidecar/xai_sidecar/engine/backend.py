"""What the engine needs of the place where a model runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from xai_sidecar.engine.work import Array, Kind

Report = Callable[[str], None]
"""Told what is going on, a line at a time, while something slow runs."""


@dataclass(frozen=True)
class Layer:
    """A layer whose output lies on the picture, so that it can be explained.

    Attributes:
        name: As the net names it.
        channels: Channels of its output.
        height: Rows of its output.
        width: Columns of its output.
    """

    name: str
    channels: int
    height: int
    width: int


@dataclass(frozen=True)
class OodInfo:
    """Where a backend's OoD scores come from.

    Attributes:
        sample_count: Pictures that the OoD net was trained on.
        time: When, as Unix time.
        auroc: How well it tells held-out pictures from each kind of outlier, 0 to 1 with 0.5 for guessing.
    """

    sample_count: int
    time: float
    auroc: Mapping[str, float]


class Backend(Protocol):
    """A model on a device. Only the thread that made it may call it, but for `costs` and the read-only attributes.

    Attributes:
        device: As in the config: "cpu", "gpu:0".
        engine: What runs forward passes, with its version.
        engine_note: Why a faster engine does not; empty where none was passed over. Both are settled by `warm_up`.
        version: Digest of net, weights and preparation of the input; equal versions give equal answers but for
            rounding. It is the same on every machine and device, and stays when the sidecar, Python or a library is
            upgraded: OoD nets and measured quality are kept by it.
        weights: Where the weights came from, in a sentence.
        weights_warning: What is doubtful about that, with a cure; empty if nothing is.
        class_count: Number of logits.
        layers: The layers that `LayerGradient` accepts, by name, in the order in which they run.
        refused_layers: Why other layers, which look as if their output lay on the picture, are not accepted, by name.
        default_layer: The one that explains best by default; None when the net has no spatial layer.
        ood: Of its OoD net; None when it has none and cannot be asked for scores.
        compiling: Whether `run` compiles at this moment, which may take long; any thread may look.
    """

    device: str
    engine: str
    engine_note: str
    version: str
    weights: str
    weights_warning: str
    class_count: int
    layers: Mapping[str, Layer]
    refused_layers: Mapping[str, str]
    default_layer: str | None
    ood: OodInfo | None
    compiling: bool = False

    def warm_up(self, kinds: list[Kind], report: Report) -> Mapping[Kind, str]:
        """Compiles the kinds in all their batch sizes, checks them and measures what a launch costs.

        Returns:
            Kinds that cannot be had of this net, each with the reason. They must not be asked for.

        Raises:
            ConfigError: Forward passes cannot be had.
        """

    def costs(self, kind: Kind) -> Mapping[int, float]:
        """The batch sizes compiled for a kind, with the seconds that a launch of each takes. Any thread may ask."""

    def run(self, kind: Kind, rows: tuple[Array, ...]) -> tuple[Array, ...]:
        """One launch. The arrays have exactly one of the batch sizes as their first axis, and so have the results."""

    def close(self) -> None:
        """Lets go of the device."""
