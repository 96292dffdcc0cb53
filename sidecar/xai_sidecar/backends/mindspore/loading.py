"""From the config's `[model]` to a net with its weights, or one clear error."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xai_sidecar.backends.mindspore.runtime import ms, nn
from xai_sidecar.errors import ConfigError
from xai_sidecar.process_state import held

_SHOWN = 3
"""How many parameters a message names before it says how many more there are."""


def load_net(factory: str, arguments: Mapping[str, Any], checkpoint: Path | None) -> nn.Cell:
    """Makes a net and loads its weights.

    Args:
        factory: ``module:callable``; the callable returns a MindSpore cell.
        arguments: Keyword arguments of the callable.
        checkpoint: A .ckpt or .safetensors file; None keeps the weights that the factory gave.

    Raises:
        ConfigError: The factory cannot be had or raises, or the checkpoint does not fit the net.
    """
    with held():
        net = _make(factory, arguments)
    if checkpoint is not None:
        _load_weights(net, checkpoint)
    return net


def _make(factory: str, arguments: Mapping[str, Any]) -> nn.Cell:
    module_name, _, name = factory.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise ConfigError(
            f"importing {module_name!r} failed with {told(error)}. Install it, or put its folder on PYTHONPATH.",
            field="model.factory",
        ) from error
    make = getattr(module, name, None)
    if not callable(make):
        raise ConfigError(
            f"the module {module_name!r} has no callable {name!r}. Name one that returns a cell.", field="model.factory"
        )
    try:
        net = make(**arguments)
    except Exception as error:
        raise ConfigError(
            f"{factory}{_signature(make)} raised {told(error)} when called with {dict(arguments)}. "
            "Correct model.arguments.",
            field="model.factory",
        ) from error
    # Scripts like to set these for a whole process, where they hide a net's layers or move it to another device.
    ms.set_context(mode=ms.PYNATIVE_MODE)
    if not isinstance(net, nn.Cell):
        raise ConfigError(
            f"{factory} returned a {type(net).__name__}, not a mindspore.nn.Cell. Name a callable that returns one.",
            field="model.factory",
        )
    return net


def _load_weights(net: nn.Cell, path: Path) -> None:
    field = "model.checkpoint"
    try:
        weights = ms.load_checkpoint(str(path), format="safetensors" if path.suffix == ".safetensors" else "ckpt")
    except Exception as error:
        raise ConfigError(
            f"{path} cannot be read: {told(error)}. Give a checkpoint saved by MindSpore.", field=field
        ) from error
    parameters = {parameter.name: parameter for parameter in net.get_parameters()}
    missing = [name for name in parameters if name not in weights]
    if missing:
        raise ConfigError(
            f"{path} has no weights for {_some(missing)} of the net. Factory and checkpoint must belong together.",
            field=field,
        )
    misfits = [
        f"{name} ({tuple(weights[name].shape)} in the file, {tuple(parameter.shape)} in the net)"
        for name, parameter in parameters.items()
        if weights[name].shape != parameter.shape
    ]
    if misfits:
        raise ConfigError(
            f"{path} does not fit the net: {_some(misfits)}. Check model.arguments, such as the number of classes.",
            field=field,
        )
    try:
        ms.load_param_into_net(net, {name: weights[name] for name in parameters})
    except Exception as error:
        raise ConfigError(
            f"the weights of {path} cannot be put into the net: {told(error)}. Convert them to the net's types.",
            field=field,
        ) from error


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def told(error: Exception) -> str:
    """The type of an error and the first line of what it says; MindSpore begins with a rule of dashes."""
    lines = (line.strip() for line in str(error).splitlines())
    first = next((line for line in lines if re.search(r"\w", line)), "")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _signature(make: Any) -> str:
    try:
        return str(inspect.signature(make))
    except (TypeError, ValueError):
        return "(…)"
