"""Records the outputs of layers of a net, uncompiled."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from xai_sidecar.backends.mindspore.runtime import ms, nn
from xai_sidecar.backends.mindspore.surgery import shared_copy
from xai_sidecar.engine.work import Array

_PENDING_BYTES = 2**24
"""Outputs that MindSpore's memory holds at a time: it keeps for good the most that it ever took. To wait for each one's
values while the net runs takes longer than the pass, to wait every so many does not."""


class _ReachedError(Exception):
    """Ends a pass at the last layer that is needed."""


class WatchedNet:
    """A copy of a net that records the outputs of layers, as a `Watched`.

    Args:
        net: The net; it is not changed.
        names: The layers.
    """

    def __init__(self, net: nn.Cell, names: Iterable[str]) -> None:
        self._copy = shared_copy(net)
        self._pending: dict[str, ms.Tensor] = {}
        self._pending_bytes = 0
        self._seen: dict[str, Array] = {}
        self._until: str | None = None
        cells = dict(self._copy.cells_and_names())
        for name in names:
            cells[name].register_forward_hook(self._recorder(name))

    def run(self, inputs: Array, until: str | None = None) -> dict[str, Array]:
        """The outputs of all layers or of those up to one; see `Watched.run`."""
        self._until = until
        try:
            with contextlib.suppress(_ReachedError):
                self._copy(ms.Tensor(inputs))
            self._take_in()
            return self._seen
        finally:
            self._pending, self._pending_bytes, self._seen = {}, 0, {}

    def _recorder(self, name: str) -> Any:
        def record(cell: nn.Cell, inputs: Any, output: Any) -> None:
            self._pending[name] = output
            self._pending_bytes += output.nbytes
            if self._pending_bytes > _PENDING_BYTES:
                self._take_in()
            if name == self._until:
                raise _ReachedError

        return record

    def _take_in(self) -> None:
        """Copies the values of what has been seen, and lets go of the tensors, whose memory they would else share."""
        self._seen |= {name: np.array(output.float().asnumpy()) for name, output in self._pending.items()}
        self._pending, self._pending_bytes = {}, 0
