"""MindSpore itself, imported with the process set up for it."""

from __future__ import annotations

import atexit
import os
import sys
import tempfile
from pathlib import Path

# Before MindSpore, which would have protobuf's slow pure-Python implementation chosen.
import google.protobuf.descriptor  # noqa: F401
import structlog

_log = structlog.get_logger(__name__)

# oneDNN as built into MindSpore's CPU kernels falls back to its reference convolution where it finds AVX-512, which is
# up to 100 times slower than the AVX2 one. It reads this once, when it is loaded.
_ENVIRONMENT = {
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "GLOG_v": "3",
    # What it dumps when a net cannot be compiled would otherwise land in the working directory.
    "MS_OM_PATH": str(Path(tempfile.gettempdir()) / "xai-sidecar-dumps"),
}

if "mindspore" in sys.modules:
    if "ONEDNN_MAX_CPU_ISA" not in os.environ:
        _log.warning("mindspore_imported_early", cure="set ONEDNN_MAX_CPU_ISA=AVX2 before importing mindspore")
else:
    for _name, _value in _ENVIRONMENT.items():
        os.environ.setdefault(_name, _value)

_PROTOBUF = "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"
_protobuf = os.environ.get(_PROTOBUF)

import mindspore  # noqa: E402
from mindspore import nn  # noqa: E402
from mindspore.graph import api  # noqa: E402

# It asks for the slow implementation for every process that this one starts, too.
if _protobuf is None:
    os.environ.pop(_PROTOBUF, None)
else:
    os.environ[_PROTOBUF] = _protobuf

ms = mindspore

__all__ = ["api", "ms", "nn"]


@atexit.register
def _silence_cells() -> None:
    """Avoids a traceback for every cell at interpreter exit, when its finaliser needs modules already unloaded."""
    nn.Cell.__del__ = lambda self: None
