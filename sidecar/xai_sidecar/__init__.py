"""xai-sidecar: a model server that explains its own predictions while they happen."""

from importlib.metadata import version

__version__ = version("xai-sidecar")
