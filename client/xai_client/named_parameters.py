"""Parameters of explainers that the contract does not know by name, as the Struct that takes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from google.protobuf.struct_pb2 import Struct, Value

from xai_client.errors import ParameterError

_LARGEST_WHOLE = 2**53
"""Larger whole numbers are not all told apart in a Struct, whose numbers are float64."""


def named_parameters(parameters: Mapping[str, Any]) -> Struct:
    """Parameters by name as a Struct; those that are None are left out.

    Args:
        parameters: Truth values, numbers, texts, or lists and dicts of such; NumPy's, too.

    Raises:
        ParameterError: A value is something else, or a whole number too large for a Struct.
    """
    given = {name: value for name, value in parameters.items() if value is not None}
    return Struct(fields={name: _value(value, name) for name, value in given.items()})


def parse_named(text: str) -> Any:
    """A parameter's value from a text: JSON, or else the text as it stands."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _value(value: Any, name: str) -> Value:
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.tolist()
    message = Value()
    if value is None:
        message.null_value = 0  # type: ignore[assignment]
    elif isinstance(value, bool):
        message.bool_value = value
    elif isinstance(value, (int, float)):
        if isinstance(value, int) and abs(value) > _LARGEST_WHOLE:
            raise ParameterError(f"{name} is {value}, beyond ±2**53", field=name)
        message.number_value = value
    elif isinstance(value, str):
        message.string_value = value
    elif isinstance(value, Mapping):
        message.struct_value.CopyFrom(Struct(fields={str(key): _value(each, name) for key, each in value.items()}))
    elif isinstance(value, (list, tuple)):
        message.list_value.values.extend(_value(each, name) for each in value)
    else:
        raise ParameterError(f"{name} must be a number, text, truth value, list or dict, not {value!r}", field=name)
    return message
