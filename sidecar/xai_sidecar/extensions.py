"""Explainers and metrics, found rather than listed: each is a class in a module of its own.

The built-in ones are the modules of a package of xai-sidecar's. Others come with packages that name theirs in entry
points: `importlib.metadata` finds those of everything that is installed.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from abc import ABC
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from xai_sidecar.errors import ConfigError

_LONGEST_NAME = 64


class Extension(ABC):
    """An explainer or a metric. It holds no state.

    Attributes:
        name: To ask for it by.
        description: What it does, in a sentence, with its source.
        version: Version of what it computes: to be raised where the same parameters give something else than before,
            since scores of different versions do not compare.
        order: Its place in lists, ascending; by name among equals.
        parameters_type: Its parameters, each with its description, range and default.
    """

    name: ClassVar[str]
    description: ClassVar[str]
    version: ClassVar[int] = 1
    order: ClassVar[int] = 1000
    parameters_type: type[Any]


E = TypeVar("E", bound=Extension)


@dataclass(frozen=True)
class Group(Generic[E]):
    """Extensions of one kind.

    Attributes:
        noun: What one is called in errors.
        base: What they are subclasses of.
        parameters_base: What their parameters are subclasses of.
        package: Package with the modules of the built-in ones.
        entry_points: Name of the group of entry points that other packages have theirs in.
        names: Pattern of their names.
        reserved: Names that none may have.
        fault: Finds what is wrong with one beyond what all extensions have in common: a sentence, or nothing.
    """

    noun: str
    base: type[Any]
    parameters_base: type[BaseModel]
    package: str
    entry_points: str
    names: str
    reserved: frozenset[str]
    fault: Callable[[E], str]


def built_in(group: Group[E]) -> Mapping[str, E]:
    """The extensions of xai-sidecar itself by name, in the order in which they are listed.

    Raises:
        ConfigError: One of them is not what it has to be, or two have the same name.
    """
    return _by_name({}, _of_modules(group), group)


def installed(group: Group[E]) -> Mapping[str, E]:
    """The built-in extensions, and after them those of other packages.

    Raises:
        ConfigError: One of them cannot be loaded or is not what it has to be, or two have the same name; the package
            and its entry point are named.
    """
    points = sorted(entry_points(group=group.entry_points), key=lambda point: (_package(point), point.name))
    return _by_name(built_in(group), ((_source(point), _loaded(point)) for point in points), group)


def _by_name(before: Mapping[str, E], classes: Iterable[tuple[str, object]], group: Group[E]) -> Mapping[str, E]:
    """Adds extensions to those there are.

    Args:
        before: Those there are.
        classes: Where each of the others comes from, and what should be its class.
        group: Their kind.
    """
    sources = dict.fromkeys(before, "xai-sidecar itself")
    found = []
    for source, value in classes:
        extension = _checked(source, value, group)
        if extension.name in sources:
            raise ConfigError(
                f"{source} brings the {group.noun} {extension.name!r}, which {sources[extension.name]} brings, too. "
                "Rename it, or uninstall one of the packages."
            )
        sources[extension.name] = source
        found.append(extension)
    found.sort(key=lambda extension: (extension.order, extension.name))
    return MappingProxyType({**before, **{extension.name: extension for extension in found}})


def _of_modules(group: Group[E]) -> Iterator[tuple[str, object]]:
    """The classes of a package's modules, each where it is defined."""
    folders = importlib.import_module(group.package).__path__
    for info in pkgutil.iter_modules(folders, f"{group.package}."):
        for value in list(vars(importlib.import_module(info.name)).values()):
            here = inspect.isclass(value) and value.__module__ == info.name
            if here and issubclass(value, group.base) and not inspect.isabstract(value):
                yield f"the module {info.name}", value


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else "unknown"


def _source(point: EntryPoint) -> str:
    return f"the package {_package(point)}, by its entry point {point.group}: {point.name} = {point.value},"


def _loaded(point: EntryPoint) -> object:
    try:
        return point.load()
    except (Exception, SystemExit) as error:  # whatever somebody else's module does
        raise ConfigError(
            f"{_source(point)} cannot be loaded: {type(error).__name__}: {error}. Repair the package or uninstall it."
        ) from error


def _checked(source: str, value: object, group: Group[E]) -> E:
    """The extension that something should be the class of."""
    if not (inspect.isclass(value) and issubclass(value, group.base)):
        base = f"{group.base.__module__}.{group.base.__qualname__}"
        raise ConfigError(f"{source} brings {value!r}, which is no subclass of {base}. {_REPAIR}")
    try:
        extension: Any = value()
        fault = _fault(extension, group) or group.fault(extension)
    except Exception as error:  # somebody else's code, too
        fault = f"{type(error).__name__}: {error}."
    if fault:
        raise ConfigError(f"{source} brings no usable {group.noun}. {fault} {_REPAIR}")
    usable: E = extension
    return usable


_REPAIR = "Repair the package or uninstall it."


def _fault(extension: Extension, group: Group[Any]) -> str:
    """What is wrong with an extension; empty if nothing is."""
    name, parameters = getattr(extension, "name", None), getattr(extension, "parameters_type", None)
    if not isinstance(name, str) or not re.fullmatch(group.names, name) or len(name) > _LONGEST_NAME:
        return f"Its name is {name!r}; give it one of at most {_LONGEST_NAME} characters that matches {group.names}."
    if name in group.reserved:
        return f"The name {name!r} is taken for something else."
    if not getattr(extension, "description", ""):
        return f"{name} has no description."
    if type(extension.version) is not int or extension.version < 1:
        return f"The version of {name} is {extension.version!r}; give a whole number from 1 on."
    if type(extension.order) is not int:
        return f"The order of {name} is {extension.order!r}; give a whole number."
    if not (inspect.isclass(parameters) and issubclass(parameters, group.parameters_base)):
        base = f"{group.parameters_base.__module__}.{group.parameters_base.__qualname__}"
        return f"The parameters_type of {name} is no subclass of {base}."
    for key, field in parameters.model_fields.items():
        if field.is_required() or not field.description:
            return f"The parameter {key!r} of {name} has no {'default' if field.is_required() else 'description'}."
    defaults = {key: field.get_default(call_default_factory=True) for key, field in parameters.model_fields.items()}
    try:
        parameters(**defaults)
    except ValidationError as error:
        at, problem = error.errors()[0]["loc"][0], error.errors()[0]["msg"]
        return f"The default of the parameter {at!r} of {name} is none: {problem}."
    return ""
