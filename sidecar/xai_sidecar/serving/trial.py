"""The beginnings of explanations, run at start: so that the first one's time is not promised by its passes alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any

import numpy as np
import structlog

from xai_sidecar.engine.batch import Lane
from xai_sidecar.engine.dispatcher import BatchRecord, Observer
from xai_sidecar.engine.engine import Engine
from xai_sidecar.engine.job import JobOutcome
from xai_sidecar.engine.work import Partial, Steps
from xai_sidecar.explainers.activations import ACTIVATIONS
from xai_sidecar.explainers.base import Context
from xai_sidecar.serving.explanation_costs import ExplanationCosts
from xai_sidecar.serving.model import ExplainerSetup, ServedModel

_PASS_SECONDS = 0.8
"""What the passes of all trials may take together."""

_MOST_PASSES = 64
_LEAST_PASSES = 12
"""Those with fewer are not tried: they are over before their passes show what comes on top of them."""

_LONGEST_SECONDS = 5.0
"""How long a trial may take on a busy machine; without its figure, there is that of the passes."""

_log = structlog.get_logger(__name__)


class Unseen:
    """An observer that is told of no explanations until the server is ready: trials are none of the traffic.

    Args:
        observer: Told of all that comes later.

    Attributes:
        ready: Whether it is.
    """

    def __init__(self, observer: Observer) -> None:
        self.ready = False
        self._observer = observer

    def batch_ran(self, record: BatchRecord) -> None:
        """See `Observer`."""
        if self.ready or record.lane is not Lane.EXPLAIN:
            self._observer.batch_ran(record)

    def ended(self, lane: Lane, outcome: JobOutcome) -> None:
        """See `Observer`."""
        if self.ready or lane is not Lane.EXPLAIN:
            self._observer.ended(lane, outcome)


async def try_explainers(model: ServedModel, engine: Engine, costs: ExplanationCosts) -> None:
    """Runs the beginning of an explanation by every explainer of many passes, and takes down what it takes.

    Args:
        model: The model.
        engine: Ready, and with nothing else to do.
        costs: Told of it.
    """
    tried = list(_of_many_passes(model))
    for offered in tried:
        try:
            await _try(offered, model, engine, costs, _PASS_SECONDS / len(tried))
        except Exception as error:  # the device's; whether it will do for explanations shows when somebody asks for one
            _log.warning("trial_failed", explainer=offered.explainer.name, error=f"{type(error).__name__}: {error}")


def _of_many_passes(model: ServedModel) -> Iterable[ExplainerSetup]:
    for offered in model.explainers.values():
        explainer, defaults = offered.explainer, offered.defaults
        if offered.unavailable or explainer.kind(defaults) not in offered.kinds:
            continue
        if explainer.pass_counts(1, defaults, model.facts).most >= _LEAST_PASSES:
            yield offered


async def _try(
    offered: ExplainerSetup, model: ServedModel, engine: Engine, costs: ExplanationCosts, seconds: float
) -> None:
    explainer, kind, spec = offered.explainer, offered.explainer.kind(offered.defaults), model.input
    most = min(_MOST_PASSES, int(seconds / max(engine.seconds(kind, 1), 1e-9)))
    if most < _LEAST_PASSES:
        return  # next to passes that take so long, the rest is nothing
    noise = np.random.default_rng(0).standard_normal((spec.channels, spec.height, spec.width)).astype(np.float32)
    context = Context(ACTIVATIONS[model.config.model.activation], units=model.facts.units)
    steps = explainer.explain(noise, np.zeros(1, np.int32), offered.defaults, context)
    job = engine.submit(beginning(steps, most), Lane.EXPLAIN, deadline=time.monotonic() + _LONGEST_SECONDS)
    done = await asyncio.wrap_future(job)
    costs.tried(explainer.name, done.device_seconds, done.value)


def beginning(steps: Steps[Any], most: int) -> Steps[float]:
    """The first pieces of work of a computation, up to so many passes, and the rest of it never.

    Returns:
        The seconds from when the first piece is asked for to when the one after the last is.
    """
    sent, count = None, 0
    began: float | None = None
    try:
        while True:
            asked = steps.send(sent)
            sent = None
            if isinstance(asked, Partial):
                continue
            began = time.monotonic() if began is None else began
            count += len(asked.rows[0])
            if count > most:
                break
            sent = yield asked
    except StopIteration:
        pass
    finally:
        steps.close()
    return 0.0 if began is None else time.monotonic() - began
