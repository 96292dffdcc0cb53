"""What the second process does: it loads the model that it is sent, and runs batches of it.

It ends when the first process has, however that ended, since its connections end then.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection

import structlog

from xai_sidecar.backends.background.messages import Answered, Asked, Warmed, receive, send
from xai_sidecar.backends.graph.backend import GraphBackend
from xai_sidecar.backends.runtimes.program import one_line


def answer(numbers: Sequence[int]) -> None:
    """Answers until the first process has ended, and then ends this one.

    Args:
        numbers: Of the connections' files, the first one for control, the others for batches.
    """
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    control, *batches = [Connection(number) for number in numbers]
    try:
        backend = GraphBackend(receive(control))
        send(control, backend.version)
        for connection in batches:
            threading.Thread(target=_run, args=(connection, backend), name="batches", daemon=True).start()
        while True:
            _warm_up(control, backend)
    except (EOFError, OSError):
        _end()


def _warm_up(control: Connection, backend: GraphBackend) -> None:
    """Gets ready for the kinds of work that are asked for."""
    kinds = [receive(control)]
    while control.poll():
        kinds.append(receive(control))
    refused = backend.warm_up(kinds, lambda line: None)
    for kind in kinds:
        why = refused.get(kind, "")
        send(control, Warmed(kind, {} if why else dict(backend.costs(kind)), why))


def _run(connection: Connection, backend: GraphBackend) -> None:
    """Runs batch after batch."""
    try:
        while True:
            asked: Asked = receive(connection)
            try:
                rows, error = backend.run(asked.kind, asked.rows), ""
            except Exception as failure:
                rows, error = (), one_line(failure)
            send(connection, Answered(rows, error, time.process_time()))
            del asked, rows
    except (EOFError, OSError):
        _end()


def _end() -> None:
    """Ends at once: threads may be in the middle of a batch, for which nobody waits any more."""
    os._exit(0)
