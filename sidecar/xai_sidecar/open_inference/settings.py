"""Settings by name, as requests, inputs and outputs of the protocol have them, to what the core takes."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sized
from typing import Any

from xai_sidecar.errors import ParameterError, quoted, shortened
from xai_sidecar.open_inference.messages import Parameters
from xai_sidecar.serving.plan import Condition, Targets
from xai_sidecar.serving.requests import ExplanationRequest

EXPLANATION_SETTINGS = (
    "class_ids",
    "top_count",
    "min_probability",
    "budget_seconds",
    "seed",
    "top_probability_below",
    "ood_percentile_below",
)
"""Settings of an explanation, whichever explainer makes it."""

_LONGEST_NAME = 64
_MOST_SETTINGS = 64
_SEEDS = 2**64


def check_count(parameters: Sized) -> None:
    """Refuses more settings than anything has; to be called before they are converted.

    Raises:
        ParameterError: There are more.
    """
    if len(parameters) > _MOST_SETTINGS:
        raise ParameterError(
            f"There are {len(parameters):,}, of at most {_MOST_SETTINGS}. Leave some out.", field="parameters"
        )


def check_known(parameters: Parameters, known: Collection[str], ignored: Collection[str] = ()) -> None:
    """Refuses settings that nothing here reads: one that is misspelt must not be left out in silence.

    Raises:
        ParameterError: There is one; `field` is its name.
    """
    for name in parameters:
        if name not in known and name not in ignored:
            there_are = f"There are: {', '.join(known)}." if known else "It has none."
            raise ParameterError(
                f"There is no parameter {quoted(name)} here. {there_are}", field=f"parameters.{_short(name)}"
            )


def explanation_request(name: str, settings: Parameters) -> ExplanationRequest:
    """A request for an explanation.

    Args:
        name: What the caller calls it; the explainer's name unless the setting ``explainer`` has that.
        settings: `EXPLANATION_SETTINGS` and, by their names, the explainer's parameters.

    Raises:
        ParameterError: A value is of a wrong type; `field` is its name among ``parameters``.
    """
    parameters = {key: _plain(value) for key, value in settings.items() if key not in EXPLANATION_SETTINGS}
    return ExplanationRequest(
        explainer=text(parameters, "explainer") or name,
        name=name,
        parameters={key: value for key, value in parameters.items() if key != "explainer"},
        targets=Targets(
            class_ids(settings),
            number(settings, "min_probability"),
            integer(settings, "top_count"),
        ),
        budget_seconds=number(settings, "budget_seconds"),
        seed=_seed(settings),
        condition=_condition(settings),
    )


def text(settings: Parameters, name: str) -> str:
    """A setting that is a text; empty if it is not set.

    Raises:
        ParameterError: It is something else.
    """
    value = settings.get(name, "")
    if not isinstance(value, str):
        raise _wrong(name, value, "a text")
    return value


def integer(settings: Parameters, name: str) -> int | None:
    """A setting that is a whole number; None if it is not set.

    Raises:
        ParameterError: It is something else.
    """
    value = _plain(settings.get(name))
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise _wrong(name, value, "a whole number")
    return value


def number(settings: Parameters, name: str) -> float | None:
    """A setting that is a number; None if it is not set.

    Raises:
        ParameterError: It is something else.
    """
    value = settings.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise _wrong(name, value, "a number")
    return float(value)


def names(settings: Parameters, name: str) -> list[str]:
    """A setting that is one or several names, with commas between them."""
    return [each.strip() for each in text(settings, name).split(",") if each.strip()]


def class_ids(settings: Parameters) -> tuple[int, ...]:
    """The setting ``class_ids``: a whole number, several with commas between them in a text, or a list of them.

    Raises:
        ParameterError: It is something else.
    """
    value = settings.get("class_ids")
    if value is None:
        return ()
    parts: Iterable[Any] = [value]
    if isinstance(value, str):
        parts = [each.strip() for each in value[:_LONGEST_LIST].split(",")]
        parts = [int(each) if each.isascii() and each.isdecimal() and len(each) < _DIGITS else each for each in parts]
    elif isinstance(value, (list, tuple)):
        parts = value
    if any(isinstance(each, bool) or not isinstance(each, int) for each in parts):
        raise _wrong("class_ids", value, 'class ids with commas between them, as in "281,282"')
    return tuple(parts)


_LONGEST_LIST = 16 * 1024
_DIGITS = 10


def _seed(settings: Parameters) -> int | None:
    seed = integer(settings, "seed")
    if seed is not None and not 0 <= seed < _SEEDS:
        raise _wrong("seed", seed, "a whole number from 0 to 2^64 - 1")
    return seed


def _condition(settings: Parameters) -> Condition | None:
    condition = Condition(number(settings, "top_probability_below"), number(settings, "ood_percentile_below"))
    return None if condition.always else condition


def _plain(value: Any) -> Any:
    """A value with a number that is whole as an int, which stands for a float, too."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _wrong(name: str, value: Any, wanted: str) -> ParameterError:
    return ParameterError(f"It is {quoted(value)}; give {wanted}.", field=f"parameters.{_short(name)}")


def _short(name: str) -> str:
    return shortened(name, _LONGEST_NAME)
