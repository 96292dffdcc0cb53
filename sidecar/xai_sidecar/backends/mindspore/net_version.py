"""The version of a net: it depends on what the net is, not on the release, machine, process or file that made it.

It is a digest of the weights and of the net's cells: their classes, settings, and the order in which they ran. An
exported graph would also contain the operations that a `construct` calls between its cells. But not every net can be
exported, and the graph's nodes and names change with MindSpore's releases, as does MindSpore's own text of a net. So
there is one limit: a change of plain operations alone, where weights, cells and their settings stay the same, makes no
other version. Give such a net's class another name.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import sys
import types
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from xai_sidecar.backends.mindspore.runtime import ms, nn
from xai_sidecar.digest import array_text, canonical

_CELL_ATTRIBUTES = frozenset(vars(nn.Cell())) | {"_cell_init_args", "_is_dynamic_name", "__cell_as_list__"}
"""What MindSpore itself keeps in a cell."""

_DRAWING = frozenset({"seed", "seed0", "seed1"})
"""What a dropout draws by: it is used in training alone."""

_FOREIGN = sys.stdlib_module_names | {"mindspore", "numpy"}
"""Packages whose objects are named only: what they hold is their own affair."""


def net_version(net: nn.Cell, calls: Iterable[tuple[str, tuple[int, ...] | None]], *parts: object) -> str:
    """A digest of all that a net's answers depend on.

    Args:
        net: The net, before anything ran.
        calls: Its cells in the order in which they finish in a pass over one input, with the shapes of their outputs;
            None where that is no tensor.
        parts: What else counts, in values that have a canonical form: the input's shape and layout.

    Returns:
        12 hexadecimal digits.
    """
    digest = hashlib.sha256(canonical((list(calls), parts)).encode())
    for line in (*_structure(net), *_weights(net)):
        digest.update(f"\n{line}".encode())
    return digest.hexdigest()[:12]


def _weights(net: nn.Cell) -> Iterator[str]:
    """A line for each parameter, by name."""
    for parameter in sorted(net.get_parameters(), key=lambda each: str(each.name)):
        yield f"{parameter.name} {array_text(parameter.asnumpy())}"


def _structure(net: nn.Cell) -> Iterator[str]:
    """A line for each cell: its place, its class, and what it was set to."""
    text = _Values(net)
    for name, cell in net.cells_and_names():
        parameters = {place: each.name for place, each in cell.parameters_and_names(expand=False)}
        yield f"{name} {_class_name(type(cell))} {canonical(parameters)} {text.settings(cell)}"


class _Values:
    """Writes what cells hold.

    Args:
        net: The net whose cells they are; where one refers to another, that is named by its place.
    """

    def __init__(self, net: nn.Cell) -> None:
        self._places = {id(cell): name for name, cell in net.cells_and_names()}
        self._seen: dict[int, tuple[int, Any]] = {}  # by id; the objects are held, so that no id is used twice

    def settings(self, cell: nn.Cell) -> str:
        """The settings of a cell, by name: of one of MindSpore's own, what its constructor and its operations got."""
        held = {name: value for name, value in vars(cell).items() if name not in _CELL_ATTRIBUTES}
        if _package(type(cell)) == "mindspore":
            named = inspect.signature(type(cell).__init__).parameters
            held = {
                name: value
                for name, value in held.items()
                # Initial values are of no account: the weights are hashed themselves.
                if isinstance(value, ms.ops.Primitive) or (name in named and not name.endswith("_init"))
            }
        return canonical({name: value for name, value in held.items() if name not in _DRAWING}, self._other)

    def _other(self, value: Any) -> str:
        """Writes what is no plain value: in full the first time, after that by its number, however objects refer."""
        if id(value) in self._seen:
            return f"#{self._seen[id(value)][0]}"
        self._seen[id(value)] = (len(self._seen), value)
        return self._object(value)

    def _object(self, value: Any) -> str:
        name = _name(value)
        if name is not None:
            return name
        if isinstance(value, nn.Cell):
            return self._cell(value)
        if isinstance(value, ms.ops.Primitive):
            return f"{type(value).__qualname__}{canonical(_arguments(value), self._other)}"
        if isinstance(value, functools.partial):
            return f"partial{canonical((value.func, value.args, value.keywords), self._other)}"
        if isinstance(value, types.FunctionType):
            # What a decorator such as mindspore.jit adds differs from process to process.
            return self._function(inspect.unwrap(value))
        name = _class_name(type(value))
        return name if _package(type(value)) in _FOREIGN else f"{name}{canonical(_held(value), self._other)}"

    def _function(self, function: Any) -> str:
        """A function; of a user's own with its defaults, and with what it holds of the function around it."""
        if _package(function) in _FOREIGN or not isinstance(function, types.FunctionType):
            return _class_name(function)
        holds = [_contents(cell) for cell in function.__closure__ or ()]
        return f"{_class_name(function)}{canonical((function.__defaults__, holds), self._other)}"

    def _cell(self, cell: nn.Cell) -> str:
        if id(cell) in self._places:
            return f"cell {self._places[id(cell)]}"
        inner = {name: each for name, each in cell.cells_and_names() if name}
        return f"{_class_name(type(cell))}{self.settings(cell)}{canonical(inner, self._other)}"


def _name(value: Any) -> str | None:
    """What is known by its name, or by its bytes; None for everything else."""
    if isinstance(value, ms.Parameter):
        return f"parameter {value.name}"
    if isinstance(value, ms.Tensor):
        return array_text(value.asnumpy())
    if isinstance(value, (ms.Type, np.dtype)):
        return str(value)
    if isinstance(value, np.ufunc):
        return f"numpy.{value.__name__}"
    if isinstance(value, types.MethodType):
        return _class_name(value.__func__)
    return _class_name(value) if isinstance(value, (type, types.BuiltinFunctionType)) else None


def _held(value: Any) -> dict[str, Any]:
    return dict(getattr(value, "__dict__", {}))


def _contents(cell: types.CellType) -> Any:
    """What a function has of those around it; None where that is not set."""
    try:
        return cell.cell_contents
    except ValueError:
        return None


def _arguments(primitive: Any) -> dict[str, Any]:
    """What an operation's constructor got, where that is not the default."""
    signature = inspect.signature(type(primitive).__init__).parameters
    return {
        name: value
        for name, value in primitive.init_attrs.items()
        if name != "name"
        and name.lower() not in _DRAWING
        and (name not in signature or canonical(value, str) != canonical(signature[name].default, str))
    }


def _package(named: Any) -> str:
    return str(getattr(named, "__module__", None) or "").partition(".")[0]


def _class_name(named: Any) -> str:
    """With its module; of MindSpore, which moves its classes about, with the package alone."""
    package = _package(named)
    module = package if package in _FOREIGN else str(named.__module__)
    return f"{module}.{getattr(named, '__qualname__', named.__name__)}"
