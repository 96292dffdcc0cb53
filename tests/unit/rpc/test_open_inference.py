"""The Open Inference Protocol over gRPC: its messages, raw or not, to requests, and its methods on a real server."""

from contextlib import asynccontextmanager

import grpc
import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs
from toys import only

from xai_proto import open_inference_pb2 as pb
from xai_proto import open_inference_pb2_grpc as pb_grpc
from xai_sidecar.errors import SidecarError
from xai_sidecar.open_inference.messages import InferResponse, OutputTensor
from xai_sidecar.open_inference.service import OpenInference
from xai_sidecar.open_inference.tensors import read_array, read_elements
from xai_sidecar.rpc.interceptors import CallInterceptor
from xai_sidecar.rpc.open_inference import infer_response, read_infer_request
from xai_sidecar.rpc.open_inference_servicer import OpenInferenceServicer
from xai_sidecar.serving.call_records import CallRecords
from xai_sidecar.telemetry import Telemetry

CONTENTS = {
    "BOOL": {"bool_contents": [True, False]},
    "INT8": {"int_contents": [1, -2]},
    "INT16": {"int_contents": [1, -2]},
    "INT32": {"int_contents": [1, -2]},
    "INT64": {"int64_contents": [1, -2]},
    "UINT8": {"uint_contents": [1, 255]},
    "UINT16": {"uint_contents": [1, 65535]},
    "UINT32": {"uint_contents": [1, 2**32 - 1]},
    "UINT64": {"uint64_contents": [1, 2**64 - 1]},
    "FP32": {"fp32_contents": [1, 0.5]},
    "FP64": {"fp64_contents": [1, 0.1]},
    "BYTES": {"bytes_contents": [b"a", b""]},
}


def request_of(*inputs, **fields):
    return pb.ModelInferRequest(inputs=inputs, **fields)


def parameter(**choice):
    return pb.InferParameter(**choice)


@pytest.mark.parametrize("datatype", CONTENTS)
def test_contents_of_each_data_type(datatype):
    (values,) = CONTENTS[datatype].values()
    tensor = {"name": "x", "datatype": datatype, "shape": [2], "contents": CONTENTS[datatype]}
    (found,) = read_infer_request(request_of(tensor), 0).inputs
    read = read_elements if datatype == "BYTES" else read_array
    assert list(read(found)) == values


def test_raw_contents_and_all_fields():
    request = request_of(
        {"name": "image", "datatype": "UINT8", "shape": [1, 2], "parameters": {"p": parameter(bool_param=True)}},
        raw_input_contents=[b"\x01\x02"],
        model_name="m",
        model_version="v",
        id="i",
        parameters={"top_k": parameter(int64_param=3), "explain": parameter(string_param="rise")},
        outputs=[
            {"name": "logits"},
            {"name": "saliency.rise", "parameters": {"tolerance": parameter(double_param=0.5)}},
            {"name": "status.rise", "parameters": {"seed": parameter(uint64_param=2**64 - 1)}},
        ],
    )
    found = read_infer_request(request, 99)
    assert (found.model_name, found.model_version, found.id, found.byte_count) == ("m", "v", "i", 99)
    assert found.parameters == {"top_k": 3, "explain": "rise"}
    assert [(each.name, each.parameters) for each in found.outputs] == [
        ("logits", {}),
        ("saliency.rise", {"tolerance": 0.5}),
        ("status.rise", {"seed": 2**64 - 1}),
    ]
    assert found.inputs[0].parameters == {"p": True}
    assert read_array(found.inputs[0]).tolist() == [[1, 2]]


IMAGE = {"name": "image", "datatype": "UINT8", "shape": [1]}


@pytest.mark.parametrize(
    ("message", "field", "says"),
    [
        (request_of(IMAGE, raw_input_contents=[b"", b""]), "raw_input_contents", "2 raw contents for 1 inputs"),
        (
            request_of({**IMAGE, "contents": {"uint_contents": [1]}}, raw_input_contents=[b"1"]),
            "inputs[0].contents",
            "Use one of them for all inputs",
        ),
        (
            request_of({**IMAGE, "contents": {"int_contents": [1]}}),
            "inputs[0].contents.int_contents",
            "UINT8 has its elements in uint_contents",
        ),
        (request_of({**IMAGE, "datatype": "FP16"}), "inputs[0].contents", "Send it in raw_input_contents"),
        (request_of({**IMAGE, "datatype": "BF16"}), "inputs[0].contents", "Send it in raw_input_contents"),
        (request_of(IMAGE, parameters={"top_k": parameter()}), "parameters.top_k", "has no value"),
        (request_of(IMAGE, outputs=[{"name": "x", "parameters": {"a": {}}}]), "outputs[0].parameters.a", "no value"),
    ],
)
def test_messages_that_are_none_by_the_protocol(message, field, says):
    with pytest.raises(SidecarError) as caught:
        read_infer_request(message, 0)
    assert (caught.value.field, caught.value.code) == (field, "INVALID_ARGUMENT")
    assert says in caught.value.message


def test_an_answer_has_raw_contents_and_its_parameters():
    parameters = {"a": True, "b": 3, "c": 2**64 - 1, "d": 0.5, "e": "text"}
    outputs = [
        OutputTensor("x", "FP32", (1, 2), np.array([[1, -2]], np.float32), parameters),
        OutputTensor("y", "BYTES", (2,), [b"abc", b""]),
    ]
    message = infer_response(InferResponse("m", "v", "i", {}, outputs))
    assert message.raw_output_contents == [
        bytes.fromhex("0000803f000000c0"),
        bytes.fromhex("03000000") + b"abc" + bytes(4),
    ]
    assert [(each.name, each.datatype, each.shape) for each in message.outputs] == [
        ("x", "FP32", [1, 2]),
        ("y", "BYTES", [2]),
    ]
    choices = {name: each.WhichOneof("parameter_choice") for name, each in message.outputs[0].parameters.items()}
    assert choices == {
        "a": "bool_param",
        "b": "int64_param",
        "c": "uint64_param",
        "d": "double_param",
        "e": "string_param",
    }
    assert (message.model_name, message.model_version, message.id) == ("m", "v", "i")


@pytest.fixture
def serving(serve):
    """A stub of a server, and its service."""
    service = OpenInference(serve(0.0005, *only("occlusion", "rise"))[0].core)

    @asynccontextmanager
    async def serving():
        records = CallRecords(Telemetry(CollectorRegistry(), []), service._core.limits)
        server = grpc.aio.server(interceptors=[CallInterceptor(records)])
        pb_grpc.add_GRPCInferenceServiceServicer_to_server(OpenInferenceServicer(service), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield pb_grpc.GRPCInferenceServiceStub(channel), service
        await server.stop(0)

    return serving


@pytest.fixture
def request_for(picture):
    def request_for(*outputs, **fields):
        array = picture().array
        tensor = {"name": "model_input", "datatype": "FP32", "shape": [1, *array.shape]}
        outputs = [{"name": each} for each in outputs]
        return request_of(tensor, outputs=outputs, raw_input_contents=[array.tobytes()], **fields)

    return request_for


async def test_the_methods(serving, request_for):
    async with serving() as (stub, service):
        model = service._core.state.model
        name = model.config.model.name
        assert (await stub.ServerLive(pb.ServerLiveRequest())).live
        assert (await stub.ServerReady(pb.ServerReadyRequest())).ready
        assert (await stub.ModelReady(pb.ModelReadyRequest(name=name))).ready
        server = await stub.ServerMetadata(pb.ServerMetadataRequest())
        assert server.name == "xai-sidecar"
        metadata = await stub.ModelMetadata(pb.ModelMetadataRequest(name=name, version=model.version))
        assert (metadata.name, metadata.versions) == (name, [model.version])
        assert metadata.outputs[0].name == "probabilities"
        with capture_logs() as logs:
            call = stub.ModelInfer(request_for("logits", "saliency.occlusion", id="mine"))
            answer = await call
        assert (answer.id, answer.model_name) == ("mine", name)
        assert dict(await call.trailing_metadata())["x-request-id"] == "mine"
        logits = np.frombuffer(answer.raw_output_contents[0], np.float32)
        assert logits.shape == (len(model.labels),)
        (line,) = (each for each in logs if each["event"] == "request")
        assert (line["method"], line["pictures"], line["explainers"]) == ("ModelInfer", 1, "occlusion")


async def refused(call):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code(), caught.value.details()


async def test_errors_have_a_code_and_say_what_to_do(serving, request_for):
    async with serving() as (stub, service):
        code, says = await refused(stub.ModelInfer(request_for("softmax")))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert says.startswith("outputs[0].name: There is no output 'softmax'. There are probabilities")
        code, says = await refused(stub.ModelReady(pb.ModelReadyRequest(name="other")))
        assert (code, says[:24]) == (grpc.StatusCode.NOT_FOUND, "name: There is no model ")
        code, says = await refused(stub.ModelMetadata(pb.ModelMetadataRequest(version="1")))
        assert (code, says[:29]) == (grpc.StatusCode.NOT_FOUND, "version: There is no version ")
        call = stub.ModelStreamInfer(iter([request_for()]))
        code, says = await refused(call.read())
        assert code is grpc.StatusCode.UNIMPLEMENTED
        assert "Call ModelInfer" in says
        service._core.state = None
        code, _ = await refused(stub.ModelInfer(request_for()))
        assert code is grpc.StatusCode.UNAVAILABLE
        assert not (await stub.ServerReady(pb.ServerReadyRequest())).ready


async def test_the_callers_deadline_holds(serving, request_for):
    async with serving() as (stub, _):
        request = request_for("saliency.rise")
        request.outputs[0].parameters["masks"].int64_param = 20_000
        code, _ = await refused(stub.ModelInfer(request, timeout=0.5))
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_large_inputs_that_are_not_raw_are_taken_where_they_are_quick_to_parse(serving, picture):
    """Packed numbers of fixed size are copied; others take a step each, and a megabyte of them is refused."""
    async with serving() as (stub, _):
        tensor = {"name": "model_input", "datatype": "FP32", "shape": [1], "contents": {"fp32_contents": [0] * 300_000}}
        code, says = await refused(stub.ModelInfer(request_of(tensor)))
        assert says.startswith("inputs[0].shape: ")
        tensor = {"name": "image", "datatype": "UINT8", "shape": [1], "contents": {"uint_contents": [0] * 600_000}}
        code, says = await refused(stub.ModelInfer(request_of(tensor)))
        assert (code, "at most 524,288" in says) == (grpc.StatusCode.INVALID_ARGUMENT, True)
