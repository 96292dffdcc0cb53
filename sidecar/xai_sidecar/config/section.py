"""What all sections of the config file have in common."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema


class Section(BaseModel):
    """A section of the config file: its keys are fixed, and so are its values once read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True)
class MadeSection:
    """Says of a field, as an annotation, that its section is made of what is installed when a config is read.

    Attributes:
        make: Returns the section's class, a subclass of the field's type.
    """

    make: Callable[[], type[BaseModel]]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Has pydantic ask the class that is made."""
        return core_schema.no_info_plain_validator_function(lambda value: self.make().model_validate(value))


def key_path(keys: Iterable[str]) -> str:
    """Where a key is, as TOML has it: those that are no plain words are in quotes."""
    return ".".join(key if re.fullmatch(r"[\w-]+", key) else f'"{key}"' for key in keys)


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """The section that a field is; None if it is a key."""
    for mark in field.metadata:
        if isinstance(mark, MadeSection):
            return mark.make()
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None
