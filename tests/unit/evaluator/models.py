"""A net in plain arithmetic, and what is evaluated of it; loaded by the tests of this folder with `runpy`."""

import threading
import time

import numpy as np
from prometheus_client import CollectorRegistry

from xai_sidecar.config import EvaluatorConfig
from xai_sidecar.evaluator.live_quality import LiveQuality
from xai_sidecar.evaluator.measurement import EvaluatedModel
from xai_sidecar.evaluator.records import Frame, Sample, SampleKey
from xai_sidecar.evaluator.runs import FAILURES, NOT_APPLICABLE
from xai_sidecar.explainers.activations import sigmoid, softmax
from xai_sidecar.explainers.base import ModelFacts
from xai_sidecar.explainers.gradient import Gradient
from xai_sidecar.explainers.occlusion import Occlusion
from xai_sidecar.explainers.rise import Rise
from xai_sidecar.imaging import Region
from xai_sidecar.telemetry import EvaluatorTelemetry, QualityCollector

HEIGHT, WIDTH, CLASSES = 6, 8, 3
WEIGHTS = np.random.default_rng(7).standard_normal((2 * HEIGHT * WIDTH, CLASSES)).astype(np.float32)
FRAME = Frame(HEIGHT, WIDTH, (2 * WIDTH, 2 * HEIGHT), Region(0, 0, 2 * WIDTH, 2 * HEIGHT))


class Net:
    """A backend of three classes. Every row is worked out alone, so that batches make no difference to any bit.

    Attributes:
        launches: Of each its kind's name and its rows.
        poison: Inputs that have this value fail their launch, and so do kinds of a name that is in `broken`.
        gate: Holds launches back while it is not set.
        entered: Is released once for each launch.
    """

    device = "cpu"
    engine = "arithmetic"
    engine_note = ""
    version = "1"
    class_count = CLASSES
    default_layer = None
    ood = None

    def __init__(self):
        self.layers = {}
        self.launches = []
        self.poison = None
        self.broken = set()
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)

    def warm_up(self, kinds, report):
        return {}

    def costs(self, kind):
        return {size: 1e-4 * (1 + size) for size in (1, 4, 16, 64)}

    def run(self, kind, rows):
        self.entered.release()
        assert self.gate.wait(20)
        self.launches.append((kind.name, len(rows[0])))
        if kind.name in self.broken:
            raise RuntimeError("broken")
        if kind.name.startswith("masked"):
            masks, images, fills = rows
            inputs = masks[:, np.newaxis] * images + (1 - masks[:, np.newaxis]) * fills
        else:
            inputs = rows[0]
        if self.poison is not None and (inputs == self.poison).any():
            raise RuntimeError("poisoned")
        if kind.name == "input_gradient":
            return (np.stack([self.gradient(*row) for row in zip(*rows, strict=True)]),)
        logits = np.stack([self.logits(one) for one in inputs])
        if "ood" in kind.name:
            return np.array([one.mean() for one in inputs], np.float32), np.full(len(inputs), 2.5, np.float32), logits
        return (logits,)

    @staticmethod
    def logits(image):
        hidden = np.maximum(image.ravel(), 0)
        return (hidden @ WEIGHTS).astype(np.float32)

    @staticmethod
    def gradient(image, target):
        return ((image.ravel() > 0) * WEIGHTS[:, target]).reshape(image.shape).astype(np.float32)

    def close(self):
        pass


class Clock:
    """Unix time that goes on when it is told to."""

    def __init__(self, now=1_700_000_000.0):
        self.now = now

    def __call__(self):
        return self.now


FACTS = ModelFacts(HEIGHT, WIDTH)


def methods(*names, masks=64):
    """The explainers by name with their parameters, resolved."""
    found = {}
    for explainer in (Gradient(), Occlusion(), Rise()):
        given = {"mask_count": masks, "grid_size": 3} if explainer.name == "rise" else {}
        found[explainer.name] = (explainer, explainer.resolve(explainer.parameters_type(**given), FACTS))
    return {name: found[name] for name in names or found}


def make_model(*names, version="m", labels=("cat", "dog", "owl"), one_class=True, has_ood=False, masks=64):
    facts = ModelFacts(HEIGHT, WIDTH, has_ood=has_ood)
    activation = softmax if one_class else sigmoid
    return EvaluatedModel(version, tuple(labels), facts, activation, methods(*names, masks=masks))


def make_quality(model, settings, clock=time.time):
    """A `LiveQuality` with its telemetry, on a registry of its own that shows its figures, too."""
    registry = CollectorRegistry()
    telemetry = EvaluatorTelemetry(registry, list(model.explainers), settings.metrics, FAILURES, NOT_APPLICABLE)
    quality = LiveQuality(model, settings, telemetry, clock)
    registry.register(QualityCollector(quality.figures))
    return quality, telemetry


METRICS = ["faithfulness/naive", "faithfulness/deletion_auc", "faithfulness/insertion_auc"]
METRICS += ["localization/pointing_game", "localization/iosr", "class_sensitivity", "robustness"]


def config(**settings):
    return EvaluatorConfig(**{"sample_rate": 1.0, "metrics": METRICS, "tolerance": 0.0, **settings})


def make_sample(name="request", index=0, seed=0, time=1_700_000_000.0, activation=softmax, **fields):
    """A sample of a random picture that the net has seen."""
    image = np.random.default_rng(seed).standard_normal((2, HEIGHT, WIDTH)).astype(np.float32)
    logits = fields.get("logits", Net.logits(image))
    probabilities = np.asarray(activation(logits), np.float32)
    positives = np.flatnonzero(probabilities >= 0.5) if activation is sigmoid else [logits.argmax()]
    says = {"logits": logits, "probabilities": probabilities, "positives": tuple(map(int, positives))}
    known = {"model_version": "m", "frame": FRAME, "image": image, **says}
    return Sample(**{"key": SampleKey(name, index), "time": time, **known, **fields})


def value_of(telemetry, name, **labels):
    return telemetry.registry.get_sample_value(name, labels)


def until(condition, seconds=60):
    """Waits until something is so; fails if it does not come."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.003)
