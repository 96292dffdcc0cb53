"""Keys that name explainers or metrics."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, TypeAlias

from pydantic import AfterValidator

from xai_sidecar.explainers.discovery import installed_explainers
from xai_sidecar.metrics.discovery import installed_metrics


def known_explainers(names: Iterable[str]) -> list[str]:
    """The names, each once.

    Raises:
        ValueError: There is no such explainer.
    """
    return _known(names, list(installed_explainers()), "explainer")


def known_metrics(names: Iterable[str]) -> list[str]:
    """The names, each once.

    Raises:
        ValueError: There is no such metric.
    """
    return _known(names, list(installed_metrics()), "metric")


def _known(names: Iterable[str], known: list[str], what: str) -> list[str]:
    found = list(dict.fromkeys(names))
    for name in found:
        if name not in known:
            raise ValueError(f"there is no {what} {name!r}; there are {', '.join(known)}")
    return found


Explainers: TypeAlias = Annotated[list[str], AfterValidator(known_explainers)]
"""A key with names of explainers, each once."""

Metrics: TypeAlias = Annotated[list[str], AfterValidator(known_metrics)]
"""A key with names of metrics, each once."""
