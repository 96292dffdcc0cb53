"""Environment variables that must be set before NumPy is imported."""

from __future__ import annotations

import os


def prepare_environment() -> None:
    """Makes NumPy's matrix products run on one thread, unless the environment says otherwise.

    They are small here, and OpenBLAS's threads would contend with the device's: products of masks take four times as
    long on two threads as on one.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
