"""What all sections of the config file have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A section of the config file: its keys are fixed, and so are its values once read."""

    model_config = ConfigDict(extra="forbid", frozen=True)
