"""What the second process runs; see `process`.

Its arguments are the number of a scheduling policy, and those of its connections, the first one for control.

It ends when the first process has, however that ended, since its connections end then. Signals that a terminal or an
init system sends to all processes are the first one's to heed.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xai_sidecar.backends.graph.backend import GraphBackend

_OOM_SCORE = "500"
"""Where memory ends, this process is ended before the one that answers."""


def main() -> None:
    """Loads the model that it is sent, and answers until the first process has ended."""
    policy, *numbers = map(int, sys.argv[1:])
    _be_last(policy)
    # Only now: what is imported takes a second of CPU time, and may start threads.
    import structlog

    from xai_sidecar.backends.background.messages import receive, send
    from xai_sidecar.backends.graph.backend import GraphBackend

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    control, *batches = [Connection(number) for number in numbers]
    try:
        backend = GraphBackend(receive(control))
        send(control, backend.version)
        for connection in batches:
            threading.Thread(target=_answer, args=(connection, backend), name="batches", daemon=True).start()
        while True:
            _warm_up(control, backend)
    except (EOFError, OSError):
        _end()


def _be_last(policy: int) -> None:
    """Takes what CPU time nobody else wants; threads that are started later do so, too."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.sched_setscheduler(0, policy, os.sched_param(0))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)


def _warm_up(control: Connection, backend: GraphBackend) -> None:
    """Gets ready for the kinds of work that are asked for."""
    from xai_sidecar.backends.background.messages import Warmed, receive, send

    kinds = [receive(control)]
    while control.poll():
        kinds.append(receive(control))
    refused = backend.warm_up(kinds, lambda line: None)
    for kind in kinds:
        why = refused.get(kind, "")
        send(control, Warmed(kind, {} if why else dict(backend.costs(kind)), why))


def _answer(connection: Connection, backend: GraphBackend) -> None:
    """Runs batch after batch."""
    from xai_sidecar.backends.background.messages import Answered, receive, send
    from xai_sidecar.backends.runtimes.program import one_line

    try:
        while True:
            asked = receive(connection)
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


if __name__ == "__main__":
    main()
