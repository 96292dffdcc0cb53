"""What a process of the server sets for itself: environment variables, Python's lock, what garbage is looked for in."""

from __future__ import annotations

import gc
import os
import sys

_SWITCH_SECONDS = 0.0003
"""For how long a thread may keep Python's lock while others wait for it; by itself 5 ms, most of a small net's pass."""


def prepare_environment() -> None:
    """Makes NumPy's matrix products run on one thread, unless the environment says otherwise.

    They are small here, and OpenBLAS's threads would contend with the device's: products of masks take four times as
    long on two threads as on one.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def switch_often() -> None:
    """Has Python's lock change hands as soon as the event loop wants it, for the whole process.

    A prediction changes threads four times, and at each change may wait for a thread that steps an explanation. The
    command line's servers do this; a program that has a server of its own in it decides for itself.
    """
    sys.setswitchinterval(_SWITCH_SECONDS)


def keep_for_good() -> None:
    """Has Python look for garbage no more in what there is now: modules, the model, the server.

    A collection that looks at all of it stops every thread for 130 to 180 ms, whenever enough has been added. To be
    called once a server is ready, in a process that does nothing else.
    """
    gc.freeze()
