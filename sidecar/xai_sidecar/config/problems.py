"""Errors of pydantic as errors that name the key and the cure."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from xai_sidecar.config.section import key_path, section_of
from xai_sidecar.config.sections import Config
from xai_sidecar.errors import ConfigError


def config_error(error: ValidationError) -> ConfigError:
    """The first problem that pydantic found, unknown keys before the rest, as those often cause it."""
    found = sorted(error.errors(), key=lambda problem: problem["type"] != "extra_forbidden")
    by_key: dict[tuple[str, ...], list[Any]] = {}
    for problem in found:
        by_key.setdefault(_path(problem["loc"]), []).append(problem)
    (path, problems), *others = by_key.items()
    field = key_path(path)
    more = f" ({len(others)} more after this one.)" if others else ""
    problem = problems[0]
    if problem["type"] == "extra_forbidden":
        return ConfigError(f"there is no such key.{_suggestion(path)}{more}", field=field)
    if problem["type"] == "missing":
        return ConfigError(f"this key is required.{_description(path)}{more}", field=field)
    # Where several types are allowed there is a problem for each; that of a value of the right type is the point.
    fitting = [one for one in problems if not one["type"].endswith(("_type", "_strict", "_attributes_type"))]
    if len(problems) > 1 and len(fitting) != 1:
        text = "this is no value for it"
    else:
        text = (fitting or problems)[0]["msg"].removeprefix("Value error, ")
    # The input of a whole section would be the whole section.
    got = "" if isinstance(problem["input"], (dict, BaseModel)) else f" (got {problem['input']!r})"
    return ConfigError(f"{text[:1].lower()}{text[1:]}{got}.{_description(path)}{more}", field=field)


def _path(location: Sequence[int | str]) -> tuple[str, ...]:
    """Where a problem is, as far as that names keys: pydantic adds list indices and the names of types."""
    path: list[str] = []
    section: type[BaseModel] | None = Config
    for part in location:
        path.append(str(part))
        field = section.model_fields.get(str(part)) if section else None
        section = section_of(field) if field else None
        if field is not None and section is None:
            break
    return tuple(path)


def _section(path: Sequence[str]) -> type[BaseModel] | None:
    section: type[BaseModel] | None = Config
    for part in path:
        field = section.model_fields.get(part) if section else None
        section = section_of(field) if field else None
    return section


def _suggestion(path: Sequence[str]) -> str:
    section = _section(path[:-1])
    if section is None:
        return ""
    known = list(section.model_fields)
    close = difflib.get_close_matches(path[-1], known, n=1)
    return f" Did you mean {close[0]!r}?" if close else f" Known here: {', '.join(known)}."


def _description(path: Sequence[str]) -> str:
    section = _section(path[:-1]) if path else None
    field = section.model_fields.get(path[-1]) if section else None
    return f" {field.description}" if field and field.description else ""
