"""How right predictions were, by class, as part of the caller's transaction."""

from __future__ import annotations

import enum
import functools
import operator
from collections.abc import Collection, Mapping

from sqlalchemy import Connection, delete, insert, select, update

from xai_sidecar.evaluator.store.tables import class_outcomes, ground_truth_classes, predictions, samples


class Outcome(enum.IntFlag):
    """How right a prediction was about a class; of a sample, about any of its classes."""

    UNKNOWN = 1  # it is not known which classes apply
    TRUE_POSITIVE = 2
    FALSE_POSITIVE = 4
    FALSE_NEGATIVE = 8


def outcomes_of(predicted: Collection[int], true: Collection[int]) -> dict[int, Outcome]:
    """The outcome of each class that was predicted or applies.

    Args:
        predicted: The classes that were predicted.
        true: Those that apply; none where that is not known.
    """
    if not true:
        return dict.fromkeys(predicted, Outcome.UNKNOWN)
    found = {each: Outcome.TRUE_POSITIVE if each in true else Outcome.FALSE_POSITIVE for each in predicted}
    return {**found, **{each: Outcome.FALSE_NEGATIVE for each in true if each not in predicted}}


def put_unknown(connection: Connection, sample_id: int, predicted: Collection[int]) -> None:
    """Stores the outcomes of a new sample, of which nothing is known; `samples.outcomes` has that already."""
    if predicted:
        connection.execute(insert(class_outcomes), _rows(sample_id, outcomes_of(predicted, ())))


def update_outcomes(connection: Connection, sample_id: int) -> None:
    """Puts a sample's outcomes in place of its former ones, by its predictions and its ground truth."""
    predicted, true = (
        list(connection.scalars(select(table.c.class_id).where(table.c.sample_id == sample_id)))
        for table in (predictions, ground_truth_classes)
    )
    found = outcomes_of(predicted, true)
    connection.execute(delete(class_outcomes).where(class_outcomes.c.sample_id == sample_id))
    if found:
        connection.execute(insert(class_outcomes), _rows(sample_id, found))
    together = functools.reduce(operator.or_, found.values(), Outcome(0)) or Outcome.UNKNOWN
    connection.execute(update(samples).where(samples.c.id == sample_id).values(outcomes=int(together)))


def _rows(sample_id: int, found: Mapping[int, Outcome]) -> list[dict[str, int]]:
    return [
        {"sample_id": sample_id, "class_id": class_id, "outcome": int(outcome)} for class_id, outcome in found.items()
    ]
