"""A served model without a net behind it, and a net in plain arithmetic that takes its time."""

import asyncio
import gc
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from xai_proto import explanation_pb2 as pb
from xai_sidecar.config import EvaluatorConfig, parse_config
from xai_sidecar.engine.backend import Layer
from xai_sidecar.engine.engine import Engine
from xai_sidecar.engine.work import Forward
from xai_sidecar.evaluator.live_quality import LiveQuality
from xai_sidecar.evaluator.measurement import EvaluatedModel
from xai_sidecar.evaluator.runs import FAILURES
from xai_sidecar.explainers.activations import softmax
from xai_sidecar.explainers.base import ModelFacts
from xai_sidecar.explainers.discovery import installed_explainers
from xai_sidecar.explainers.rise import Rise
from xai_sidecar.imaging import Prepared
from xai_sidecar.rpc.servicer import ExplanationServicer
from xai_sidecar.serving.admission import Admission
from xai_sidecar.serving.core import Core, ServingState
from xai_sidecar.serving.evaluation import Evaluation, start_evaluation
from xai_sidecar.serving.model import served_model
from xai_sidecar.serving.plan import Condition, ExplanationPlan, ModelOutput, Targets
from xai_sidecar.serving.predictor import Predictor
from xai_sidecar.telemetry import EvaluatorTelemetry, Telemetry

HEIGHT, WIDTH = 6, 8


@pytest.fixture
def make_model():
    """Makes a `ServedModel` of four classes and two layers; takes overrides of the config."""

    def make_model(*overrides, layers=("early", "late"), ood=None, backend=None):
        config = parse_config(
            {
                "model": {
                    "factory": "nets:small",
                    "labels": ["a", "b", "c", "d"],
                    "input": {"size": [HEIGHT, WIDTH]},
                }
            },
            overrides,
        )
        backend = backend or SimpleNamespace(
            device="cpu",
            engine="none 1.0",
            engine_note="",
            version="abc",
            class_count=4,
            layers={name: Layer(name, 2, 3, 4) for name in layers},
            default_layer=layers[-1] if layers else None,
            ood=ood,
            costs=lambda kind: {1: 0.01, 4: 0.02} if kind == Forward.kind else {1: 0.03},
        )
        return served_model(config, backend)

    return make_model


@pytest.fixture
def model(make_model):
    return make_model()


class SlowNet:
    """A backend of four classes. Every row is worked out alone, so that batches make no difference to any bit.

    Attributes:
        seconds: What a launch takes.
        launches: Of each its kind's name and its batch size.
        poison: Masked inputs that have this value fail their launch.
        gate: Holds launches back while it is not set.
    """

    device = "cpu"
    engine = "arithmetic"
    engine_note = ""
    version = "1"
    class_count = 4
    default_layer = None
    ood = None

    def __init__(self, seconds):
        self.seconds = seconds
        self.layers = {}
        self.launches = []
        self.poison = None
        self.gate = threading.Event()
        self.gate.set()

    def warm_up(self, kinds, report):
        return {}

    def costs(self, kind):
        return dict.fromkeys((1, 2, 4, 8), max(self.seconds, 1e-4))

    def run(self, kind, rows):
        assert self.gate.wait(20)
        time.sleep(self.seconds)
        self.launches.append((kind.name, len(rows[0])))
        if not kind.name.startswith("masked"):
            inputs = rows[0]
        else:
            masks, images, fills = rows
            inputs = masks[:, np.newaxis] * images + (1 - masks[:, np.newaxis]) * fills
            if self.poison is not None and (inputs == self.poison).any():
                raise RuntimeError("poisoned")
        logits = np.stack([self.logits(one) for one in inputs])
        if "ood" not in kind.name:
            return (logits,)
        scores = np.array([one.sum() for one in inputs], np.float32)
        return scores, np.full(len(inputs), 12.5, np.float32), logits

    @staticmethod
    def logits(image):
        """Of one input: sure of class 2 where its corner is bright, more so where its middle is, too."""
        corner, middle = float(image[:, :2, :3].mean()), float(image[:, 2:4, 3:6].mean())
        return np.array([0.0, image.mean(), 4 * corner + 6 * corner * middle, -1.0], np.float32)

    def close(self):
        pass


@pytest.fixture
def make_net(request):
    """Makes a `SlowNet`; its gate is opened in the end."""

    def make_net(seconds=0.0):
        net = SlowNet(seconds)
        request.addfinalizer(net.gate.set)
        return net

    return make_net


@pytest.fixture
def make_quality():
    """Makes a `LiveQuality` of four classes and all explainers, on a registry of its own; takes keys of the config."""

    def make_quality(registry=None, **settings):
        settings = EvaluatorConfig(**settings)
        facts = ModelFacts(HEIGHT, WIDTH, has_ood=True)
        methods = {name: (explainer, explainer.parameters_type()) for name, explainer in installed_explainers().items()}
        model = EvaluatedModel("m", tuple("abcd"), facts, softmax, methods)
        telemetry = EvaluatorTelemetry(registry or CollectorRegistry(), list(methods), settings.metrics, FAILURES)
        return LiveQuality(model, settings, telemetry)

    return make_quality


@pytest.fixture
def start(request, make_quality):
    """Starts a `Predictor` on an engine on a backend."""

    def start(backend, activation="softmax", quality=None, least_positive=None, **options):
        telemetry = Telemetry(CollectorRegistry(), installed_explainers())
        engine = Engine(lambda: backend, observer=telemetry, **options)
        engine.start(lambda _: []).result(10)
        request.addfinalizer(lambda: (backend.gate.set(), engine.close(10)))
        return Predictor(engine, activation, 4, telemetry, quality or make_quality(), least_positive)

    return start


@pytest.fixture
def serve(start, make_net, make_model, make_quality, request):
    """A servicer, once its model is loaded, on a net whose launches take some time; measures only what it is given."""

    def serve(seconds=0.0, *overrides, quality=None, evaluated=False):
        net = make_net(seconds)
        model = make_model(*overrides, backend=net)
        predictor = start(net, quality=quality)
        evaluation = Evaluation(predictor._quality, "v")
        if evaluated:
            evaluation = start_evaluation(model, predictor.engine, CollectorRegistry())
            request.addfinalizer(lambda: (net.gate.set(), evaluation.close()))
            predictor._quality = evaluation.quality
        admission = Admission(predictor.costs, model.config.server, 3 * 4 * 48, 4 * 48)
        core = Core(model.config.server)
        request.addfinalizer(core.close)
        core.state = ServingState(model, admission, predictor, evaluation, time.time())
        return ExplanationServicer(core), admission

    return serve


@pytest.fixture
def request_of(picture):
    """A request for explanations of two pictures."""

    def request_of(*explanations, **fields):
        arrays = [picture(seed).array for seed in range(2)]
        images = [
            pb.Image(model_input=pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=array.shape, data=array.tobytes()))
            for array in arrays
        ]
        return pb.PredictRequest(images=images, explanations=explanations, **fields)

    return request_of


@pytest.fixture
def idle():
    """Waits until an engine has no job left."""

    async def idle(engine):
        end = time.monotonic() + 10
        while engine._open and time.monotonic() < end:
            await asyncio.sleep(0.002)
        assert not engine._open

    return idle


@pytest.fixture
def complaints():
    """Has asyncio's complaints collected; call it, and again for those so far."""
    collected = []

    def complaints():
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: collected.append(context["message"]))
        gc.collect()  # it complains of errors that nobody looked at when their futures go
        return collected

    return complaints


@pytest.fixture
def make_plan():
    """Makes an `ExplanationPlan`, of RISE unless told otherwise; takes the explainer's parameters."""

    def make_plan(explainer=None, name="", targets=None, seed=3, budget=None, condition=None, **parameters):
        explainer, targets = explainer or Rise(), targets or Targets()
        facts = ModelFacts(HEIGHT, WIDTH, has_ood=True)
        resolved = explainer.resolve(explainer.parameters_type(**parameters), facts)
        counts = explainer.pass_counts(targets.fewest, resolved, facts)
        kind = explainer.kind(resolved)
        return ExplanationPlan(
            name or explainer.name,
            explainer,
            resolved,
            targets,
            kind,
            counts,
            seed,
            budget,
            condition or Condition(),
        )

    return make_plan


@pytest.fixture
def picture():
    """Makes a model input, bright in one corner."""

    def picture(seed=0):
        array = np.random.default_rng(seed).uniform(0, 0.5, (3, HEIGHT, WIDTH)).astype(np.float32)
        array[:, :2, :3] += 0.5
        return Prepared(array, None, None)

    return picture


@pytest.fixture
def predicted(picture):
    """Makes what `SlowNet` says of a picture."""

    def predicted(prepared=None, ood=None):
        prepared = prepared or picture()
        logits = SlowNet.logits(prepared.array)
        return ModelOutput(prepared, logits, np.asarray(softmax(logits), np.float32), ood)

    return predicted
