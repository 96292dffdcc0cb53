"""Programs that several kinds of work have in common, since their graph is the same one.

An engine lays the weights of a graph out anew, which takes as much memory as the file and most of the time of loading.
"""

from __future__ import annotations

from weakref import WeakValueDictionary

from xai_sidecar.backends.runtimes.trial import Choice, Examples, disagreement_of


class SharedPrograms:
    """What runs graphs at present, for as long as somebody uses it."""

    def __init__(self) -> None:
        self._choices: WeakValueDictionary[tuple[str, str], Choice] = WeakValueDictionary()

    def find(self, digest: str, precision: str, examples: Examples) -> Choice | None:
        """What runs a graph, compared at each of its batch sizes with further examples; None if that is not right.

        Args:
            digest: Tells the graph from all others.
            precision: What it is computed in; empty for float32.
            examples: What the programs are compared with.
        """
        choice = self._choices.get((digest, precision))
        if choice is None:
            return None
        programs = ((size, chosen.program) for size, chosen in choice.by_size.items())
        try:
            right = all(disagreement_of(program, [size], examples) is None for size, program in programs)
        except Exception:  # an engine's own
            return None
        return choice if right else None

    def add(self, digest: str, precision: str, choice: Choice) -> None:
        """Notes what runs a graph. Arguments are as of `find`."""
        self._choices.setdefault((digest, precision), choice)
