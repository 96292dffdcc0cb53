"""Loads the net of the config's `[model]` with its weights, or raises one clear error."""

from __future__ import annotations

import importlib
import inspect
import random
import re
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xai_sidecar.backends.mindspore.runtime import ms, nn
from xai_sidecar.errors import ConfigError
from xai_sidecar.process_state import held

_SHOWN = 3
"""Parameters that a message names; of further ones it gives the number."""


_SHOWN_FRAMES = 6

_SEED = 0
"""Seed of a factory's random numbers, so that a config gives the same weights at each start."""


@dataclass(frozen=True)
class Loaded:
    """A net with its weights.

    Attributes:
        net: The net.
        weights: Where they came from, in a sentence.
        warning: Why these weights may not be the ones meant, with a cure; empty if there is no doubt.
    """

    net: nn.Cell
    weights: str
    warning: str = ""


def load_net(factory: str, arguments: Mapping[str, Any], checkpoint: Path | None) -> Loaded:
    """Makes a net and loads its weights.

    Args:
        factory: ``module:callable``; the callable returns a MindSpore cell.
        arguments: Keyword arguments of the callable.
        checkpoint: A .ckpt or .safetensors file; None keeps the weights that the factory gave.

    Raises:
        ConfigError: The factory cannot be imported or raises, or the checkpoint does not fit the net.
    """
    with held():
        _seed(_SEED)
        net = _make(factory, arguments)
    if checkpoint is not None:
        return Loaded(net, _load_weights(net, checkpoint))
    with held():
        drawn = _random_parameters(net, factory, arguments)
    count = len(list(net.get_parameters()))
    if not drawn:
        return Loaded(net, f"All {count} parameters as the factory gives them, the same each time; no checkpoint.")
    count_text = f"{len(drawn)} of {count} parameters are drawn at random by the factory; no checkpoint."
    return Loaded(
        net,
        count_text,
        f"No weights were loaded for {_some(drawn)}: {count_text.rstrip('.')} was loaded, and what the net says means "
        "nothing. Set model.checkpoint, or have the factory load its weights.",
    )


def _seed(seed: int) -> None:
    ms.set_seed(seed)  # NumPy's as well
    random.seed(seed)


def _random_parameters(net: nn.Cell, factory: str, arguments: Mapping[str, Any]) -> list[str]:
    """Names of the parameters that differ when the factory is called again with another seed."""
    _seed(_SEED + 1)
    try:
        other = _make(factory, arguments)
    except ConfigError:  # it can be called once only
        return []
    finally:
        _seed(_SEED)
    again = {parameter.name: parameter for parameter in other.get_parameters()}
    return [
        parameter.name
        for parameter in net.get_parameters()
        if parameter.name in again
        and not np.array_equal(parameter.asnumpy(), again[parameter.name].asnumpy(), equal_nan=True)
    ]


def _make(factory: str, arguments: Mapping[str, Any]) -> nn.Cell:
    module_name, _, name = factory.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise ConfigError(
            f"importing {module_name!r} failed with {error_line(error)}. Install it, or put its folder on PYTHONPATH.",
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
        called = f"{factory}{_signature(make)} raised {error_line(error)} when called with {dict(arguments)}"
        frames = traceback.extract_tb(error.__traceback__)[1:]  # without this one
        where = " > ".join(f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in frames[-_SHOWN_FRAMES:])
        cure = f"It came from {where}. Correct that, or model.arguments." if frames else "Correct model.arguments."
        raise ConfigError(f"{called}. {cure}", field="model.factory") from error
    # Scripts like to set these for a whole process, where they hide a net's layers or move it to another device.
    ms.set_context(mode=ms.PYNATIVE_MODE)
    if not isinstance(net, nn.Cell):
        raise ConfigError(
            f"{factory} returned a {type(net).__name__}, not a mindspore.nn.Cell. Name a callable that returns one.",
            field="model.factory",
        )
    return net


def _load_weights(net: nn.Cell, path: Path) -> str:
    """Loads the weights of a file into a net; returns a sentence on where they came from."""
    field = "model.checkpoint"
    try:
        weights = ms.load_checkpoint(str(path), format="safetensors" if path.suffix == ".safetensors" else "ckpt")
    except Exception as error:
        raise ConfigError(
            f"{path} cannot be read: {error_line(error)}. Give a checkpoint saved by MindSpore.", field=field
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
            f"the weights of {path} cannot be put into the net: {error_line(error)}. Convert them to the net's types.",
            field=field,
        ) from error
    more = len(weights) - len(parameters)
    others = f"; {more} more in the file are not the net's" if more else ""
    return f"All {len(parameters)} parameters from {path.name}{others}."


def _some(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def error_line(error: Exception) -> str:
    """An error in one line: its type and the first line of its message, after MindSpore's rule of dashes."""
    lines = (line.strip() for line in str(error).splitlines())
    first = next((line for line in lines if re.search(r"\w", line)), "")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _signature(make: Any) -> str:
    try:
        return str(inspect.signature(make))
    except (TypeError, ValueError):
        return "(…)"
