"""Trials at start: the first passes of explanations are run, to estimate what explanations take beyond their passes."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import structlog

from xai_sidecar.engine.batch import Flow, Lane
from xai_sidecar.engine.dispatcher import BatchRecord, Observer
from xai_sidecar.engine.engine import Engine
from xai_sidecar.engine.job import JobOutcome
from xai_sidecar.engine.work import Partial, Steps
from xai_sidecar.explainers.activations import ACTIVATIONS
from xai_sidecar.explainers.base import Context
from xai_sidecar.serving.model import ExplainerSetup, ServedModel

_PASS_SECONDS = 0.5
"""The most time that the passes of all trials may take together."""

_TRIES = 2
"""The most trials of an explainer, one of an earlier start included."""

_MOST_PASSES = 64
_LEAST_PASSES = 12
"""Explainers with fewer are not tried: they end before the overhead of a pass shows."""

_LONGEST_SECONDS = 5.0
"""How long a trial may take on a busy machine; where it takes longer, the passes alone are the estimate."""

_PLAIN_RATIO = 1.5
"""A larger one may be the machine's, which was busy: it is tried again, at each start, and the least counts."""

_log = structlog.get_logger(__name__)


class Unseen:
    """Hides trials from an observer: before the server is ready, batches and jobs of explanations are not passed on.

    Args:
        observer: Gets everything else.

    Attributes:
        ready: Whether the server is ready.
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


async def try_explainers(
    model: ServedModel, engine: Engine, known: Mapping[str, float] | None = None
) -> dict[str, float]:
    """Runs the first passes of an explanation by every explainer of many passes, from which the engine learns.

    Args:
        model: The model.
        engine: Ready and idle.
        known: Seconds that explanations take over those of their passes, by explainer, as an earlier call has returned
            them: these are tried again only where they are large.

    Returns:
        The same of all that were tried, now or earlier.
    """
    tried = list(_of_many_passes(model))
    ratios: dict[str, float] = {}
    for setup in tried:
        name = setup.explainer.name
        found = [known[name]] if known and name in known else []
        try:
            while len(found) < _TRIES and min(found, default=math.inf) > _PLAIN_RATIO:
                found.append(await _try(setup, model, engine, _PASS_SECONDS / len(tried), f"{name}, {len(found)}"))
        except Exception as error:  # the device's; whether it will do for explanations shows when somebody asks for one
            _log.warning("trial_failed", explainer=name, error=f"{type(error).__name__}: {error}")
        if found:
            ratios[name] = min(found)
            engine.expect_slowdown(name, ratios[name])
    return ratios


def _of_many_passes(model: ServedModel) -> Iterable[ExplainerSetup]:
    for setup in model.explainers.values():
        explainer, defaults = setup.explainer, setup.defaults
        if setup.unavailable or explainer.kind(defaults) not in setup.kinds:
            continue
        if explainer.pass_counts(1, defaults, model.facts).most >= _LEAST_PASSES:
            yield setup


async def _try(setup: ExplainerSetup, model: ServedModel, engine: Engine, seconds: float, label: str) -> float:
    """Tries an explainer once, counted by a label of its own; returns its ratio."""
    explainer, kind, spec = setup.explainer, model.default_kind(setup), model.input
    most = min(_MOST_PASSES, int(seconds / max(engine.seconds(kind, 1), 1e-9)))
    if most < _LEAST_PASSES:
        return 1.0  # with passes as slow as this, the overhead does not matter
    noise = np.random.default_rng(0).standard_normal((spec.channels, spec.height, spec.width)).astype(np.float32)
    reduced = explainer.reduced(setup.defaults, model.facts)
    context = Context(ACTIVATIONS[model.config.model.activation], units=model.facts.units, reduced=reduced)
    steps = explainer.explain(noise, np.zeros(1, np.int32), setup.defaults, context)
    latest, flow = time.monotonic() + _LONGEST_SECONDS, Flow(label=label)
    job = engine.submit(beginning(steps, most), Lane.EXPLAIN, deadline=latest, flow=flow)
    await asyncio.wrap_future(job)
    await asyncio.wait_for(asyncio.wrap_future(engine.caught_up()), _LONGEST_SECONDS)
    return engine.usual_slowdown(label)


def beginning(steps: Steps[Any], most: int) -> Steps[int]:
    """A computation cut after its first units of work, up to `most` passes.

    Returns:
        The passes run.
    """
    sent, count = None, 0
    try:
        while True:
            asked = steps.send(sent)
            sent = None
            if isinstance(asked, Partial):
                continue
            if count + len(asked.rows[0]) > most:
                break
            sent = yield asked
            count += len(asked.rows[0])
    except StopIteration:
        pass
    finally:
        steps.close()
    return count
