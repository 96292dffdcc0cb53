"""Driving explainers by hand, partial results and all."""

import numpy as np
import pytest

from xai_sidecar.engine.batching import masked
from xai_sidecar.engine.work import Partial
from xai_sidecar.explainers.activations import softmax
from xai_sidecar.explainers.base import Context


def inlier(inputs):
    return inputs.mean(axis=(1, 2, 3))


def answered_by(model, work):
    """What a piece of work is sent, of a model that is a function of inputs (n, C, H, W)."""
    inputs = masked(*work.rows)
    logits = np.asarray(model(inputs), np.float32)
    if "ood" not in work.kind.name:
        return work.result((logits,))
    return work.result((np.asarray(inlier(inputs), np.float32), logits[:, 0], logits))


def watched(explainer, model, image, targets, parameters, activation=softmax, seed=0, asked=lambda rows: True):
    """Runs an explainer; returns its result, the partial ones by the rows before them, and all its work."""
    steps = explainer.explain(image, targets, parameters, Context(activation, seed))
    rows, partials, works, sent = 0, {}, [], None
    try:
        while True:
            step = steps.send(sent)
            sent = None
            if isinstance(step, Partial):
                assert rows not in partials
                partials[rows] = step.make() if asked(rows) else None
            else:
                rows += len(step.rows[0])
                works.append(step)
                sent = answered_by(model, step)
    except StopIteration as stop:
        assert rows not in partials, "the result itself follows at once"
        return stop.value, partials, works


@pytest.fixture(scope="session")
def answered():
    return answered_by


@pytest.fixture(scope="session")
def watch():
    return watched
