"""CPU time that a piece of work takes, on a machine that others may use, too."""

import time

ATTEMPTS = 3
"""What is slow each time is slow; once, it may have been a garbage collection or a neighbour in the caches."""


def least_cpu_seconds(work):
    """The CPU time of this thread that `work` takes, the least of a few times."""
    return min(_cpu_seconds(work) for _ in range(ATTEMPTS))


def _cpu_seconds(work):
    started = time.thread_time()
    work()
    return time.thread_time() - started
