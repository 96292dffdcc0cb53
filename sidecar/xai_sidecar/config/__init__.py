"""The config file: its keys, how it is read, and errors that name the key and the cure."""

from xai_sidecar.config.drift import DriftConfig
from xai_sidecar.config.evaluation import EvaluatorConfig
from xai_sidecar.config.reading import load_config, load_labels, parse_config
from xai_sidecar.config.run import RunConfig
from xai_sidecar.config.sections import Config, ServerConfig

__all__ = [
    "Config",
    "DriftConfig",
    "EvaluatorConfig",
    "RunConfig",
    "ServerConfig",
    "load_config",
    "load_labels",
    "parse_config",
]
