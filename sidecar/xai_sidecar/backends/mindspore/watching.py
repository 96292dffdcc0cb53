"""Records the outputs of layers of a net, uncompiled."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

from xai_sidecar.backends.mindspore.runtime import ms, nn
from xai_sidecar.backends.mindspore.surgery import shared_copy
from xai_sidecar.engine.work import Array


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
        self._seen: dict[str, ms.Tensor] = {}
        self._until: str | None = None
        cells = dict(self._copy.cells_and_names())
        for name in names:
            cells[name].register_forward_hook(self._recorder(name))

    def run(self, inputs: Array, until: str | None = None) -> dict[str, Array]:
        """The outputs of all layers or of those up to one; see `Watched.run`."""
        self._seen, self._until = {}, until
        with contextlib.suppress(_ReachedError):
            self._copy(ms.Tensor(inputs))
        # Only now: to wait for each layer's values while the net runs takes longer than the pass.
        return {name: output.float().asnumpy() for name, output in self._seen.items()}

    def _recorder(self, name: str) -> Any:
        def record(cell: nn.Cell, inputs: Any, output: Any) -> None:
            self._seen[name] = output
            if name == self._until:
                raise _ReachedError

        return record
