"""A classifier whose weights are in memory only while programs are made of it: engines have copies of their own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from xai_sidecar.backends.graph.loaded import Loaded, weights_again
from xai_sidecar.backends.graph.source import GraphSource


class RestingClassifier:
    """A classifier that is read when it is wanted.

    Args:
        source: Its file and settings.
        load: Loads it for the first time.
    """

    def __init__(self, source: GraphSource, load: Callable[[], Loaded]) -> None:
        self._source = source
        self._load = load
        self._loaded: Loaded | None = None
        self._awake = False

    def __call__(self) -> Loaded:
        """The classifier, with its weights until `rest`.

        Raises:
            ConfigError: It cannot be loaded, or the file has changed since it was.
        """
        if self._loaded is None:
            self._loaded, self._awake = self._load(), True
        if not self._awake:
            self._loaded = _with_weights(self._loaded, self._source)
            self._awake = True
        return self._loaded

    def rest(self) -> None:
        """Lets go of the weights that the file has."""
        if self._loaded is not None and self._awake:
            self._loaded = _without_weights(self._loaded)
            self._awake = False


def _without_weights(loaded: Loaded) -> Loaded:
    graph = loaded.classifier.graph
    own = {name: value for name, value in graph.constants.items() if name not in loaded.from_file}
    return replace(loaded, classifier=replace(loaded.classifier, graph=replace(graph.copy(), constants=own)))


def _with_weights(loaded: Loaded, source: GraphSource) -> Loaded:
    graph = loaded.classifier.graph
    weights = weights_again(source, loaded.found.version)
    constants = graph.constants | {name: weights[name] for name in loaded.from_file}
    return replace(loaded, classifier=replace(loaded.classifier, graph=replace(graph.copy(), constants=constants)))
