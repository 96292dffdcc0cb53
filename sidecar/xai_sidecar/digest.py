"""Digests that are the same in every process, on every machine and with every Python; versions are made of them.

Values are written in a canonical form. Neither pickle nor `repr` would do: they contain addresses, the order of sets,
and fields that a release has added to a class.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


def digest(*values: object) -> str:
    """The first 12 hexadecimal digits of the SHA-256 of some values in canonical form.

    Raises:
        TypeError: A value has no canonical form.
    """
    return hashlib.sha256(canonical(values).encode()).hexdigest()[:12]


def _refused(value: Any) -> str:
    raise TypeError(f"a {type(value).__qualname__} has no canonical form")


def canonical(value: Any, other: Callable[[Any], str] = _refused, _within: tuple[int, ...] = ()) -> str:
    """A value as text; equal texts mean equal values.

    Lists and tuples count as the same, and so do NumPy's numbers and Python's. Fields of dataclasses at their defaults
    are left out, so that a field added by a release changes no digest until somebody sets it. What contains itself is
    written once.

    Args:
        value: Numbers, texts, bytes, None, arrays, enumerations, and sequences, sets, mappings and dataclasses of
            these.
        other: Converts values that are none of these.

    Raises:
        TypeError: By default, if a value is none of these.
    """
    plain = _plain(value)
    if plain is not None:
        return plain
    if id(value) in _within:
        return "itself"

    def inner(each: Any) -> str:
        return canonical(each, other, (*_within, id(value)))

    if isinstance(value, Mapping):
        items = sorted((inner(key), inner(each)) for key, each in value.items())
        return "{" + ",".join(f"{key}:{each}" for key, each in items) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(inner, value)) + "]"
    if isinstance(value, (set, frozenset)):
        # Other objects by their class alone: they come in any order, by which they must not be written.
        by_class = other if other is _refused else (lambda each: type(each).__qualname__)
        return "<" + ",".join(sorted(canonical(each, by_class) for each in value)) + ">"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return inner(_set_fields(value))
    return other(value)


def _plain(value: Any) -> str | None:
    """A value that contains no others, as text; None if it is none."""
    if isinstance(value, enum.Enum):
        return f"{type(value).__qualname__}.{value.name}"
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return json.dumps(value)
    if isinstance(value, (complex, bytes)):
        return f"{type(value).__name__}({value!r})"
    return array_text(value) if isinstance(value, np.ndarray) else None


def array_text(array: np.ndarray[Any, Any]) -> str:
    """An array as text: shape, dtype and a digest of its bytes."""
    return f"array({list(array.shape)},{array.dtype},{hashlib.sha256(array.tobytes()).hexdigest()})"


def _set_fields(value: Any) -> dict[str, Any]:
    """The fields of a dataclass that are not at their defaults."""
    found = {}
    for field in dataclasses.fields(value):
        default = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
        content = getattr(value, field.name)
        if default is dataclasses.MISSING or canonical(content, repr) != canonical(default, repr):
            found[field.name] = content
    return found
