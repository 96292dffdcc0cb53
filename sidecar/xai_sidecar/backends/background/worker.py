"""Where the second process begins; see `process`.

Its arguments are the number of a scheduling policy, and those of its connections, the first one for control. Signals
that a terminal or an init system sends to all processes are the first one's to heed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path

_OOM_SCORE = "500"
"""Where memory ends, this process is ended before the one that answers."""


def main() -> None:
    """Steps back, and answers until the first process has ended."""
    policy, *numbers = map(int, sys.argv[1:])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.sched_setscheduler(0, policy, os.sched_param(0))  # threads that are started later have it from this one
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)
    # Only now: what this imports takes a second of CPU time, and may start threads.
    from xai_sidecar.backends.background.answering import answer

    answer(numbers)


if __name__ == "__main__":
    main()
