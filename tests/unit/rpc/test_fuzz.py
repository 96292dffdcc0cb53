"""Any bytes to any method: a typed answer, soon, and no more of it than fits.

A few hundred messages by default; XAI_FUZZ=10000 for that many.
"""

import asyncio
import contextlib
import gc
import io
import math
import os
import random
import time

import cpu_time
import grpc
import numpy as np
import pytest
from google.protobuf.descriptor import FieldDescriptor as Field
from google.protobuf.struct_pb2 import Struct, Value
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from PIL import Image
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs
from toys import only

from xai_proto import explanation_pb2 as pb
from xai_proto import open_inference_pb2 as oip
from xai_sidecar.open_inference.service import OpenInference
from xai_sidecar.rpc.interceptors import CallInterceptor
from xai_sidecar.rpc.open_inference_servicer import OpenInferenceServicer
from xai_sidecar.serving.call_records import CallRecords
from xai_sidecar.telemetry import Telemetry

MESSAGES = int(os.environ.get("XAI_FUZZ", "300"))
LONGEST_SECONDS = 0.05
"""Of the event loop, in time of its own thread: a busy machine makes no difference."""

MOST_BYTES = 6000
"""Of a status, with its details, where metadata may have 8 KiB."""

KINDS = {
    "Predict": pb.PredictRequest,
    "PredictStream": pb.PredictStreamRequest,
    "ReportGroundTruth": pb.ReportGroundTruthRequest,
    "GetModelInfo": pb.GetModelInfoRequest,
    "ModelInfer": oip.ModelInferRequest,
}
TYPED = {"OK", "INVALID_ARGUMENT", "FAILED_PRECONDITION", "NOT_FOUND", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"}


def png(*shape):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, np.uint8)).save(file, "PNG")
    return file.getvalue()


INPUT = np.random.default_rng(1).uniform(0, 1, (3, 6, 8)).astype(np.float32)
BLOBS = [b"", b"x", bytes(576), b"\xff" * 576, INPUT.tobytes(), INPUT.astype("<f2").tobytes(), png(6, 8, 3), png(6, 8)]
BLOBS += [png(6, 8)[:40], b"\x89PNG\r\n\x1a\n", b"GIF89a" + bytes(50), bytes(200_000), b"\x7f\x7f\xff\xff" * 144]
BLOBS.append(np.full(144, -3e38, "<f4").tobytes())
IMAGES = [
    pb.Image(encoded=BLOBS[6]),
    pb.Image(model_input=pb.Tensor(dtype=1, shape=INPUT.shape, data=INPUT.tobytes())),
    pb.Image(pixels=pb.Tensor(dtype=3, shape=(6, 8, 3), data=bytes(range(144)))),
]
RISE = pb.ExplanationRequest(explainer="rise", rise=pb.RiseParameters(mask_count=16, tolerance=0.1), seed=2**64 - 1)
NAMED = Struct(fields={"masks": Value(number_value=16), "estimator": Value(string_value="plain")})
PREDICTS = [
    pb.PredictRequest(images=IMAGES, top_k=2, ood=False, request_id="known"),
    pb.PredictRequest(images=IMAGES[1:2], explanations=[RISE], request_id="known"),
    pb.PredictRequest(
        images=IMAGES[1:2],
        explanations=[
            pb.ExplanationRequest(explainer="auto", budget={"seconds": 5}, targets={"top_count": 2}),
            pb.ExplanationRequest(explainer="occlusion", encoding=3, condition={"top_probability_below": 0.99}),
            pb.ExplanationRequest(explainer="rise", name="named", named_parameters=NAMED),
        ],
    ),
]
BOX = pb.Region(left=1, top=1, right=4, bottom=5)
TRIANGLE = pb.Polygon(points=[pb.Point(x=0, y=0), pb.Point(x=5), pb.Point(y=5)])
REPORTS = [
    pb.ReportGroundTruthRequest(request_id="known", labels=["a"], boxes=[BOX]),
    pb.ReportGroundTruthRequest(
        request_id="known",
        image_index=1,
        class_ids=[1, 2],
        objects=[
            pb.GroundTruthObject(polygon=TRIANGLE, class_id=1),
            pb.GroundTruthObject(mask_png=BLOBS[7], label="b"),
        ],
    ),
]
TENSOR = {"name": "model_input", "datatype": "FP32", "shape": [1, *INPUT.shape]}
PIXELS = {"name": "image", "datatype": "UINT8", "shape": [1, 6, 8, 3]}
FILE = len(BLOBS[6]).to_bytes(4, "little") + BLOBS[6]
INFERS = [
    oip.ModelInferRequest(id="known", inputs=[TENSOR], raw_input_contents=[INPUT.tobytes()]),
    oip.ModelInferRequest(
        inputs=[{**TENSOR, "contents": {"fp32_contents": INPUT.ravel().tolist()}}],
        outputs=[
            {
                "name": "saliency.rise",
                "parameters": {"masks": {"int64_param": 16}, "class_ids": {"string_param": "1,2"}},
            },
            {"name": "status.rise"},
            {"name": "probabilities", "parameters": {"classification": {"int64_param": 2}}},
        ],
    ),
    oip.ModelInferRequest(
        inputs=[{"name": "image", "datatype": "BYTES", "shape": [1]}],
        raw_input_contents=[FILE],
        parameters={"explain": {"string_param": "occlusion,auto"}, "top_count": {"int64_param": 2}},
    ),
    oip.ModelInferRequest(
        inputs=[
            {"name": "image", "datatype": "UINT8", "shape": [1, 6, 8, 3], "contents": {"uint_contents": range(144)}}
        ],
        outputs=[{"name": "labels"}],
    ),
]
BLOBS.append(FILE)
VALID = {
    "ModelInfer": INFERS,
    "Predict": PREDICTS,
    "PredictStream": [pb.PredictStreamRequest(request=one, progress_interval={"nanos": 10**8}) for one in PREDICTS],
    "ReportGroundTruth": REPORTS,
    "GetModelInfo": [pb.GetModelInfoRequest()],
}


INTEGERS = [0, 1, -1, 2, 3, 6, 8, 48, 1000, 2**31 - 1, -(2**31), 2**62, 2**63 - 1, -(2**63), 2**64 - 1]
FLOATS = [0.0, -0.0, 0.5, 1.0, -1.0, 1e-45, 1e30, -1e30, 1e308, math.nan, math.inf, -math.inf, 3.0, 5.5]
TEXTS = ["", "a", "b", "rise", "gradcam", "occlusion", "auto", "late", "known", "x" * 129, "y" * 20_000]
TEXTS += ["image", "model_input", "FP32", "BYTES", "UINT8", "INT64", "logits", "saliency.rise", "status.a", "top_k"]
TEXTS += ["\N{SNOWMAN}" * 5000, "\0\n\r\x1b[31m", "{}%s{0.__class__}", "' OR 1=1; --", "../../etc/passwd", "a" * 129]
COUNTS = [0, 1, 1, 2, 3, 17, 1001, 30_000]
_RANGES = {
    Field.TYPE_INT32: (-(2**31), 2**31),
    Field.TYPE_INT64: (-(2**63), 2**63),
    Field.TYPE_UINT32: (0, 2**32),
    Field.TYPE_UINT64: (0, 2**64),
    Field.TYPE_ENUM: (-(2**31), 2**31),
}


def is_repeated(field):
    return field.is_repeated


def is_map(field):
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def inside(message):
    """The messages in a message."""
    for field, value in message.ListFields():
        if field.message_type is not None:
            yield from value.values() if is_map(field) else value if is_repeated(field) else [value]


def value_of(chance, field, blobs, depth):
    """A value of a field that is no repeated one."""
    kind = field.type
    if kind in _RANGES:
        low, high = _RANGES[kind]
        small = [number for number in (*INTEGERS, *range(5)) if low <= number < high]
        return chance.choice(small)
    if kind in (Field.TYPE_FLOAT, Field.TYPE_DOUBLE):
        value = chance.choice(FLOATS)
        return value if kind == Field.TYPE_DOUBLE or not math.isfinite(value) else max(-3e38, min(3e38, value))
    if kind == Field.TYPE_BOOL:
        return chance.random() < 0.5
    if kind == Field.TYPE_STRING:
        return chance.choice(TEXTS)
    if kind == Field.TYPE_BYTES:
        return chance.choice(blobs)
    message = field.message_type._concrete_class()
    fill(chance, message, blobs, depth + 1)
    return message


def put(chance, message, field, blobs, depth):
    """Sets a field to something, or clears it."""
    if not is_repeated(field):
        value = value_of(chance, field, blobs, depth)
        if field.message_type is not None:
            getattr(message, field.name).CopyFrom(value)
        else:
            setattr(message, field.name, value)
        return
    values = [value_of(chance, field, blobs, depth) for _ in range(chance.randrange(4))]
    if is_map(field):
        message.ClearField(field.name)
        for value in values:
            getattr(message, field.name)[value.key].CopyFrom(value.value)
        return
    # Very many are all the same: it is their number that counts.
    count = chance.choice(COUNTS) if len(values) == 1 else 1
    if len(values) == 1 and field.message_type is not None and values[0].ByteSize() > 100:
        count = min(count, 20)
    if field.type in (Field.TYPE_STRING, Field.TYPE_BYTES) and values and len(values[0]) > 1000:
        count = min(count, 20)
    message.ClearField(field.name)
    getattr(message, field.name).extend(values * count)


def fill(chance, message, blobs, depth=0):
    """Sets some fields of a message, the deeper the fewer."""
    for field in message.DESCRIPTOR.fields:
        if chance.random() < (0.6 if depth < 2 else 0.4):
            put(chance, message, field, blobs, depth)


def perturb(chance, message, blobs):
    """Sets one field somewhere in a message to something else."""
    while True:
        inner = list(inside(message))
        if not inner or chance.random() < 0.3:
            break
        message = chance.choice(inner)
    if message.DESCRIPTOR.fields:
        put(chance, message, chance.choice(message.DESCRIPTOR.fields), blobs, 0)


def hostile(kind, valid, blobs):
    """A strategy of messages: from nothing, or nearly valid; of those some as bytes that are cut or changed.

    Args:
        kind: The class of messages.
        valid: Messages that are.
        blobs: Values for bytes.
    """

    def make(seed):
        chance = random.Random(seed)
        message = kind()
        if chance.random() < 0.3:
            fill(chance, message, blobs)
        else:
            message.CopyFrom(chance.choice(valid))
            for _ in range(chance.choice([0, 1, 1, 1, 2, 3])):
                perturb(chance, message, blobs)
        data = message.SerializeToString()
        if data and chance.random() < 0.05:
            data = bytearray(data[: chance.randrange(len(data)) + 1])
            data[chance.randrange(len(data))] = chance.randrange(256)
        return bytes(data)

    return st.integers(0, 2**64 - 1).map(make)


class AbortedError(Exception):
    """As grpc.aio's own, which ends the method."""


class Context:
    """A call without a wire."""

    def __init__(self):
        self.code, self.told = "OK", 0
        self._trailing = ()

    def invocation_metadata(self):
        return ()

    def set_trailing_metadata(self, metadata):
        self._trailing = metadata

    def trailing_metadata(self):
        return self._trailing

    def time_remaining(self):
        return 5.0

    async def write(self, message):
        assert isinstance(message, bytes)

    async def abort(self, code, details, trailing_metadata=()):
        self.code = code.name
        self.told = len(details.encode()) + sum(len(value) for _, value in trailing_metadata)
        raise AbortedError


class Steps:
    """The longest that a step of the loop has taken, and what it was."""

    def __init__(self, monkeypatch):
        self.seconds, self.what = 0.0, ""
        run = asyncio.Handle._run

        def timed(handle):
            started = time.thread_time()
            run(handle)
            seconds = time.thread_time() - started
            if seconds > self.seconds:
                self.seconds, self.what = seconds, repr(handle)[:500]

        monkeypatch.setattr(asyncio.Handle, "_run", timed)


@pytest.fixture
def ask(serve, tmp_path):
    """Calls a method with some bytes; returns the context, once it has been answered."""
    limits = (
        "server.repeat_seconds=0",
        "server.max_passes=600",
        "server.queue_capacity=16",
        "explainers.rise.masks=16",
    )
    store = ("evaluator.sample_rate=1", f"evaluator.store=sqlite:///{tmp_path}/a.db", "evaluator.metrics=[]")
    off = only("occlusion", "rise", "rise_plus")
    servicer, admission = serve(0.0, *limits, *store[:2], *off, evaluated=True)
    calls = CallRecords(Telemetry(CollectorRegistry(), []), servicer.core.state.model.config.server)
    interceptor = CallInterceptor(calls)
    other = OpenInferenceServicer(OpenInference(servicer.core))

    async def ask(method, data):
        async def continuation(details):
            behave = getattr(other if method == "ModelInfer" else servicer, method)
            if method == "PredictStream":
                return grpc.unary_stream_rpc_method_handler(behave)
            return grpc.unary_unary_rpc_method_handler(behave)

        class Details:
            pass

        details = Details()
        details.method = f"/xai.v1.ExplanationService/{method}"
        handler = await interceptor.intercept_service(continuation, details)
        context = Context()
        with contextlib.suppress(AbortedError):
            await (handler.unary_stream or handler.unary_unary)(data, context)
        await asyncio.sleep(0)  # it has to be noticed
        assert await calls.finished(5)
        assert (admission.images.taken, admission.explanations.taken, admission.bytes.taken) == (0, 0, 0)
        return context

    return ask


def test_any_message_gets_a_typed_answer_soon(ask, monkeypatch):
    loop = asyncio.new_event_loop()
    steps = Steps(monkeypatch)
    codes = {}
    largest = 0
    anything = st.sampled_from(sorted(KINDS)).flatmap(
        lambda method: hostile(KINDS[method], VALID[method], BLOBS).map(lambda data: (method, data))
    )

    @seed(0)
    @settings(
        max_examples=MESSAGES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(anything)
    def check(asked):
        nonlocal largest
        method, data = asked
        if not sum(codes.values()) % 100:
            gc.collect()
        longest = []
        while len(longest) < cpu_time.ATTEMPTS and (not longest or longest[-1] >= LONGEST_SECONDS):
            steps.seconds = 0.0
            with capture_logs() as logs:
                context = loop.run_until_complete(asyncio.wait_for(ask(method, data), 30))
            longest.append(steps.seconds)
        codes[context.code] = codes.get(context.code, 0) + 1
        largest = max(largest, min(longest))
        assert context.code in TYPED, logs
        assert min(longest) < LONGEST_SECONDS, steps.what
        assert context.told < MOST_BYTES
        assert max(len(str(entry)) for entry in logs) < MOST_BYTES

    gc.disable()  # of a heap with all of the test's own
    try:
        check()
    finally:
        gc.enable()
        loop.close()
        print(f"{sum(codes.values()):,} messages: {codes}; longest step {1e3 * largest:.1f} ms ({steps.what})")
    assert codes["OK"] > MESSAGES / 20, "it has hardly got anywhere"
    assert codes["INVALID_ARGUMENT"] > MESSAGES / 5
