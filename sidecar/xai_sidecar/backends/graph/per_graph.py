"""What was made of graphs, remembered for the last few of them, since the same one is often asked for several times."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from xai_sidecar.backends.graph.graph import Graph

T = TypeVar("T")

_KEPT = 8


class PerGraph(Generic[T]):
    """Makes something of each graph, once while it is remembered; in any thread. Graphs must not be changed afterwards.

    Args:
        make: Makes it.
    """

    def __init__(self, make: Callable[[Graph], T]) -> None:
        self._make = make
        self._made: dict[int, tuple[Graph, T]] = {}
        self._lock = threading.Lock()

    def __call__(self, graph: Graph) -> T:
        """What was made of a graph."""
        with self._lock:
            known = self._made.get(id(graph))
            if known is None:
                # The graph is kept with it, so that its id is not used for another one.
                known = self._made[id(graph)] = graph, self._make(graph)
                while len(self._made) > _KEPT:
                    del self._made[next(iter(self._made))]
            return known[1]

    def forget(self) -> None:
        """Lets go of all graphs."""
        with self._lock:
            self._made.clear()
