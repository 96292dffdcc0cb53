"""What data sets are made of, and how labels become classes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from numpy.typing import NDArray

from xai_sidecar.errors import ConfigError
from xai_sidecar.evaluator.records import TruthObject
from xai_sidecar.ood.pictures import class_id_of, plain_label

_SHOWN = 3

Content: TypeAlias = "Path | bytes | NDArray[Any]"
"""A picture's file, or the bytes of one; or its pixels, (H, W), (H, W, 1) or (H, W, 3) uint8; or a model input,
(C, H, W) float32."""


@dataclass(frozen=True, eq=False)
class DataItem:
    """A picture of a data set.

    Attributes:
        name: What tells it from all others of the set: its path there, or its number.
        content: The picture.
        class_ids: What is on it, rising; empty if that is not known.
        objects: Where, as far as it is known.
    """

    name: str
    content: Content
    class_ids: tuple[int, ...] = ()
    objects: tuple[TruthObject, ...] = ()


class DataSet(Protocol):
    """A data set, in an order that is the same each time."""

    @property
    def description(self) -> str:
        """What it is, in a few words."""

    @property
    def notes(self) -> Sequence[str]:
        """What is doubtful about it, in sentences."""

    def __len__(self) -> int:
        """Number of its pictures; 0 where it is not known."""

    def __iter__(self) -> Iterator[DataItem]:
        """Its pictures."""


@dataclass(frozen=True)
class ListedData:
    """A data set whose pictures are known beforehand.

    Attributes:
        description: As of `DataSet`.
        items: The pictures.
        notes: As of `DataSet`.
    """

    description: str
    items: Sequence[DataItem]
    notes: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[DataItem]:
        return iter(self.items)


@dataclass(frozen=True)
class Labels:
    """The classes of a model, by label or by id.

    Attributes:
        labels: By class id; may be empty.
        class_count: Number of classes.
    """

    labels: Sequence[str]
    class_count: int

    @cached_property
    def _by_label(self) -> Mapping[str, tuple[int, ...]]:
        found: dict[str, tuple[int, ...]] = {}
        for class_id, label in enumerate(self.labels):
            found[plain_label(label)] = (*found.get(plain_label(label), ()), class_id)
        return found

    def class_id(self, name: str) -> int | None:
        """The class of a label, which may also be written as an id; None if there is none.

        Raises:
            ConfigError: Several classes have this label; field "data".
        """
        plain = plain_label(name)
        known = self._by_label.get(plain, ())
        if len(known) > 1:
            raise ConfigError(f"several classes are called {name!r}: {known}. Give the class id.", field="data")
        if known:
            return known[0]
        return class_id_of(plain, self.class_count)

    def class_ids(self, names: Sequence[str], where: str) -> dict[str, int]:
        """The classes of labels, by label.

        Args:
            names: The labels.
            where: What has them, for the message.

        Raises:
            ConfigError: One of them is no class, or several; field "data".
        """
        ids = {name: self.class_id(name) for name in names}
        unknown = [name for name, class_id in ids.items() if class_id is None]
        if unknown:
            shown = ", ".join(map(repr, unknown[:_SHOWN]))
            more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
            known = f"its labels, such as {self.labels[0]!r}, or " if self.labels else ""
            raise ConfigError(
                f"{where} has {shown}{more}, which are no classes of the model. Use {known}class ids from 0 to "
                f"{self.class_count - 1}.",
                field="data",
            )
        return {name: class_id for name, class_id in ids.items() if class_id is not None}
