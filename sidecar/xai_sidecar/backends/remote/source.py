"""Which model on which server, and how its inputs are made."""

from __future__ import annotations

from dataclasses import dataclass

from xai_sidecar.config.upstream import UpstreamAddress, UpstreamConfig
from xai_sidecar.ood.head import OodHead


@dataclass(frozen=True)
class RemoteSource:
    """What a `RemoteBackend` is made of.

    Attributes:
        address: Where the model is.
        settings: The config's section.
        activation: "softmax" or "sigmoid".
        preparation: How pictures become inputs, as text.
        layout: "nchw" or "nhwc", the axes of the model's input; None for what its metadata say.
        channels: Of the input.
        height: Of the input.
        width: Of the input.
        batch_sizes: Those to try.
        ood: The head of the OoD net; None for none.
    """

    address: UpstreamAddress
    settings: UpstreamConfig
    activation: str
    preparation: str
    layout: str | None
    channels: int
    height: int
    width: int
    batch_sizes: tuple[int, ...]
    ood: OodHead | None

    def shape(self, layout: str) -> tuple[int, int, int]:
        """The shape of one input in a layout."""
        if layout == "nhwc":
            return self.height, self.width, self.channels
        return self.channels, self.height, self.width
