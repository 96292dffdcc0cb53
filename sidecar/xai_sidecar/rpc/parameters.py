"""From the contract's parameters of explainers to values by name, and from the names in errors back to its fields.

The contract has a message for each explainer that it knows, and a Struct for any explainer. The core has values by the
parameters' names, and calls them ``explanations[0].parameters.masks``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value

from xai_proto import explanation_pb2 as pb
from xai_sidecar.errors import ParameterError, SidecarError, quoted, shortened, within
from xai_sidecar.serving.planning import AUTO

_PARAMETER_NAMES = {"mask_count": "masks"}
_FIELD_NAMES = {parameter: field for field, parameter in _PARAMETER_NAMES.items()}
"""Parameters that have another name in the contract's messages than everywhere else."""

_INNER = {"rise_plus": "rise"}
"""Messages that have the parameters in a message within."""

_NAMED = "named_parameters"
_MOST_NAMED_BYTES = 8 * 1024
"""Of `named_parameters`: converting them on the event loop takes less than a millisecond."""

_LONGEST_FIELD = 64
_PATH = re.compile(r"explanations\[(\d+)\]\.parameters(?:\.(\w+))?")


def read_parameters(request: pb.ExplanationRequest) -> dict[str, Any]:
    """The parameters that a request for an explanation sets, by their names.

    Raises:
        ParameterError: They are set twice, for another explainer than the one asked for, or for "auto", or a value is
            malformed; with the field.
    """
    given = _given(request)
    if given is None:
        return {}
    if request.explainer == AUTO:
        instead = "an explainer by its name" if given == _NAMED else given
        raise ParameterError(
            f"auto takes no parameters, since it may choose any explainer. Ask for {instead}, or leave them out.",
            field=given,
        )
    if given == _NAMED:
        with within(_NAMED):
            return _named_values(request.named_parameters)
    if request.explainer != given:
        raise ParameterError(
            f"These are parameters of {given}, but {quoted(request.explainer)} is asked for. Ask for {given}, or leave "
            "them out.",
            field=given,
        )
    message, path = getattr(request, given), given
    if inner := _INNER.get(given):
        message, path = getattr(message, inner), f"{given}.{inner}"
    with within(path):
        return _set_fields(message)


@contextmanager
def contract_paths(request: pb.PredictRequest) -> Iterator[None]:
    """Has errors that pass name the contract's field of a parameter, as in ``explanations[0].rise.mask_count``."""
    try:
        yield
    except SidecarError as error:
        found = _PATH.match(error.field)
        if found:
            index, name = found.groups()
            path = [f"explanations[{index}]", *_field_of(request.explanations[int(index)], name)]
            error.field = ".".join(path) + error.field[found.end() :]
        raise


def _field_of(request: pb.ExplanationRequest, name: str | None) -> list[str]:
    """Where a request has its parameters, or one of them."""
    given = _given(request) or "parameters"
    if name is None:
        return [given]
    if given == _NAMED:
        return [given, name]
    return [given, *([_INNER[given]] if given in _INNER else []), _FIELD_NAMES.get(name, name)]


def _given(request: pb.ExplanationRequest) -> str | None:
    """Which field of a request has parameters.

    Raises:
        ParameterError: Both have.
    """
    typed: str | None = request.WhichOneof("parameters")
    if not request.HasField(_NAMED):
        return typed
    if typed is not None:
        raise ParameterError(f"Both {typed} and {_NAMED} are set. Set one of them.", field=_NAMED)
    return _NAMED


def _named_values(struct: Struct) -> dict[str, Any]:
    if struct.ByteSize() > _MOST_NAMED_BYTES:
        raise ParameterError(f"They take {struct.ByteSize():,} bytes of at most {_MOST_NAMED_BYTES:,}. Shorten them.")
    values = {}
    for name, value in struct.fields.items():
        try:
            values[name] = _plain(value)
        except ParameterError as error:
            error.field = shortened(name, _LONGEST_FIELD)
            raise
    return values


def _plain(value: Value) -> Any:
    """A value as Python's own; a number that is whole as an int, which stands for a float, too."""
    kind = value.WhichOneof("kind")
    if kind is None:
        raise ParameterError("It has no value. Give it one, or null for none.")
    if kind == "null_value":
        return None
    if kind == "number_value":
        return int(value.number_value) if value.number_value.is_integer() else value.number_value
    if kind == "list_value":
        return [_plain(one) for one in value.list_value.values]
    if kind == "struct_value":
        return {name: _plain(one) for name, one in value.struct_value.fields.items()}
    return getattr(value, kind)


def _set_fields(message: Message) -> dict[str, Any]:
    """The fields that are set, by the parameters' names; enums by the lower-case rest of theirs."""
    values = {}
    for field, value in message.ListFields():
        enum = field.enum_type
        if enum is not None:
            known = enum.values_by_number.get(value)
            if known is None:
                raise ParameterError(f"{value} is no {enum.name} of this version.", field=field.name)
            prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", enum.name).upper() + "_"
            value = known.name.removeprefix(prefix).lower()
        elif field.type == field.TYPE_FLOAT:
            value = float(str(np.float32(value)))  # 0.1, not the 0.10000000149 that is nearest to it
        values[_PARAMETER_NAMES.get(field.name, field.name)] = value
    return values
