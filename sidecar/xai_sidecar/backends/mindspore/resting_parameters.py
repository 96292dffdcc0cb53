"""Parameters of a cell in a file in memory, whose pages are read again when the cell itself runs."""

from __future__ import annotations

import structlog

from xai_sidecar.backends.mindspore.loading import error_line
from xai_sidecar.backends.mindspore.runtime import ms, nn
from xai_sidecar.backends.runtimes.mapped import MappedFile, in_a_file

_log = structlog.get_logger(__name__)


class RestingParameters:
    """The parameters of a net that nobody else has.

    Args:
        net: The net, on the CPU; the numbers of its parameters stay what they are. None if it is somebody else's.
    """

    def __init__(self, net: nn.Cell | None) -> None:
        self._net = net
        self._file: MappedFile | None = None

    def rest(self) -> None:
        """Gives their memory back, until the net runs the next time. No program of it may have been compiled."""
        if self._net is not None and self._file is None:
            found = {each.name: each for each in self._net.get_parameters() if each.dtype == ms.float32}
            try:
                arrays, self._file = in_a_file({name: each.asnumpy() for name, each in found.items()})
                for name, array in arrays.items() if self._file else ():
                    found[name].set_data(ms.Tensor.from_numpy(array))
            except Exception as error:  # MindSpore's own; each parameter has its numbers here or there
                _log.warning("parameters_not_mapped", error=error_line(error))
        if self._file is not None:
            self._file.release()
