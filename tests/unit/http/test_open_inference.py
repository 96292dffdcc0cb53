"""The Open Inference Protocol over HTTP: JSON and binary data, what is wrong with either, and callers who leave."""

import asyncio
import base64
import io
import json
import socket
import struct

import numpy as np
import pytest
from PIL import Image
from structlog.testing import capture_logs
from toys import only

from xai_sidecar.errors import SidecarError
from xai_sidecar.http.open_inference import OpenInferenceRoutes
from xai_sidecar.http.open_inference_json import Binary, read_infer_request, write_infer_response
from xai_sidecar.open_inference.messages import InferResponse, OutputTensor
from xai_sidecar.open_inference.service import OpenInference
from xai_sidecar.open_inference.tensors import read_array, read_elements

LENGTH = "Inference-Header-Content-Length"
VALUES = {
    "BOOL": [True, False],
    **{name: [1, 255] for name in ("UINT8", "UINT16", "UINT32", "UINT64")},
    **{name: [1, -2] for name in ("INT8", "INT16", "INT32", "INT64")},
    **{name: [1, 0.5] for name in ("FP16", "FP32", "FP64")},
}


def read(message, blobs=b"", header_length=None):
    body = json.dumps(message).encode()
    return read_infer_request(body + blobs, header_length or (str(len(body)) if blobs else None), "m", "")


@pytest.mark.parametrize("datatype", VALUES)
def test_each_data_type_in_json(datatype):
    tensor = {"name": "x", "shape": [2], "datatype": datatype, "data": VALUES[datatype]}
    assert read_array(read({"inputs": [tensor]}).request.inputs[0]).tolist() == VALUES[datatype]


def test_rows_may_be_nested_and_bytes_are_base64():
    tensor = {"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [[1, 2], [3, 4]]}
    assert read_array(read({"inputs": [tensor]}).request.inputs[0]).tolist() == [[1, 2], [3, 4]]
    text = base64.b64encode(b"\xff\xd8").decode()
    for data in ([text, ""], [[text], [""]]):
        tensor = {"name": "x", "shape": [2], "datatype": "BYTES", "data": data}
        assert read_elements(read({"inputs": [tensor]}).request.inputs[0]) == [b"\xff\xd8", b""]


def test_binary_data_behind_the_json_in_the_order_of_the_inputs():
    inputs = [
        {"name": "a", "shape": [2], "datatype": "UINT8", "parameters": {"binary_data_size": 2}},
        {"name": "b", "shape": [1], "datatype": "UINT8", "data": [9]},
        {"name": "c", "shape": [1], "datatype": "FP32", "parameters": {"binary_data_size": 4, "p": 1}},
    ]
    outputs = [{"name": "x", "parameters": {"binary_data": True}}, {"name": "y", "parameters": {"binary_data": False}}]
    found = read({"inputs": inputs, "outputs": outputs}, b"\x01\x02" + struct.pack("<f", 0.5))
    assert [read_array(each).tolist() for each in found.request.inputs] == [[1, 2], [9], [0.5]]
    assert found.request.inputs[2].parameters == {"p": 1}
    assert [found.binary.of(name) for name in "xyz"] == [True, False, False]
    found = read({"inputs": [], "outputs": outputs, "parameters": {"binary_data_output": True}})
    assert [found.binary.of(name) for name in "xyz"] == [True, False, True]


def test_answers_in_json_and_with_binary_data():
    values = np.array([[1, np.nan]], np.float32)
    outputs = [OutputTensor("x", "FP32", (1, 2), values, {"a": 1}), OutputTensor("y", "BYTES", (1,), [b"abc"])]
    response = InferResponse("m", "v", "i", {"sampled": False}, outputs)
    body, length = write_infer_response(response, Binary(False, {}))
    assert length is None
    assert json.loads(body) == {
        "model_name": "m",
        "model_version": "v",
        "id": "i",
        "parameters": {"sampled": False},
        "outputs": [
            {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.0, None], "parameters": {"a": 1}},
            {"name": "y", "datatype": "BYTES", "shape": [1], "data": ["abc"]},
        ],
    }
    body, length = write_infer_response(response, Binary(True, {}))
    head = json.loads(body[:length])
    assert [each["parameters"]["binary_data_size"] for each in head["outputs"]] == [8, 7]
    assert not any("data" in each for each in head["outputs"])
    assert body[length:] == values.tobytes() + struct.pack("<I", 3) + b"abc"


X = {"name": "x", "shape": [1], "datatype": "UINT8"}
WRONG = [
    (b"{", None, "", "is no JSON, at line 1, column 2"),
    (b"[1]", None, "", "but no object"),
    (b"\xff", None, "", "is no JSON"),
    (b"[" * 100_000, None, "", "is no JSON"),
    (b'{"x": ' + b"9" * 5000 + b"}", None, "", "is no JSON"),
    ({"input": []}, None, "input", "There are id, parameters, inputs"),
    ({"inputs": {}}, None, "inputs", "give a list"),
    ({"inputs": [3]}, None, "inputs[0]", "give an object with name"),
    ({"inputs": [{**X, "shape": [1.5]}]}, None, "inputs[0].shape", "1.5 is no size"),
    ({"inputs": [{**X, "shape": [True]}]}, None, "inputs[0].shape", "True is no size"),
    ({"inputs": [{**X, "shape": [2**70]}]}, None, "inputs[0].shape", "is no size"),
    ({"inputs": [{**X, "shape": 3}]}, None, "inputs[0].shape", "give a list"),
    ({"inputs": [{**X, "datatype": 3}]}, None, "inputs[0].datatype", "give a text"),
    ({"inputs": [{**X, "data": "a"}]}, None, "inputs[0].data", "give a list"),
    ({"inputs": [{**X, "datatype": "BYTES", "data": ["&"]}]}, None, "inputs[0].data", "'&' is no base64"),
    ({"inputs": [{**X, "datatype": "BYTES", "data": [3]}]}, None, "inputs[0].data", "3 is no base64"),
    ({"inputs": [{**X, "parameters": []}]}, None, "inputs[0].parameters", "give an object"),
    ({"inputs": [{**X, "parameters": {"binary_data_size": 3}}]}, None, "inputs[0].parameters.binary_data_size", "0 b"),
    ({"inputs": [{**X, "parameters": {"binary_data_size": -1}}]}, None, "inputs[0].parameters.binary_data_size", "-1"),
    ({"inputs": [{**X, "data": [], "parameters": {"binary_data_size": 0}}]}, None, "inputs[0].data", "Send one of"),
    ({"outputs": [{"name": 3}]}, None, "outputs[0].name", "give a text"),
    ({"outputs": ["x"]}, None, "outputs[0]", "give an object with name"),
    ({"parameters": {"a": None}}, None, "parameters.a", "give a text, a number"),
    ({"parameters": {"a": {"b": 1}}}, None, "parameters.a", "give a text, a number"),
    ({"id": 3}, None, "id", "give a text"),
    ({}, "99", LENGTH, "the body has 2 bytes"),
    ({}, "-1", LENGTH, "Give the length of the JSON"),
    ({}, "1" * 5000, LENGTH, "Give the length of the JSON"),
    ({}, "1", "", "is no JSON"),
]


@pytest.mark.parametrize(("message", "length", "field", "says"), WRONG)
def test_bodies_that_are_none_by_the_protocol(message, length, field, says):
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    with pytest.raises(SidecarError) as caught:
        read_infer_request(body, length, "m", "")
    assert (caught.value.field, caught.value.code) == (field, "INVALID_ARGUMENT")
    assert says in caught.value.message


def test_bytes_that_belong_to_no_input():
    with pytest.raises(SidecarError, match="3 bytes follow that belong to no input") as caught:
        read({"inputs": [{**X, "parameters": {"binary_data_size": 1}}]}, b"abcd")
    assert caught.value.field == "inputs"


@pytest.fixture
def serving(serve, serving_http):
    service = OpenInference(serve(0.0005, *only("occlusion", "rise"))[0].core)

    def serving(**bounds):
        core = service._core
        return serving_http(core, lambda calls, bodies: OpenInferenceRoutes(service, calls, bodies).routes(), **bounds)

    serving.service = service
    return serving


@pytest.fixture
def message(picture):
    def message(*outputs, **fields):
        array = picture().array
        tensor = {"name": "model_input", "datatype": "FP32", "shape": [1, *array.shape], "data": array.ravel().tolist()}
        return {"inputs": [tensor], "outputs": [{"name": each} for each in outputs], **fields}

    return message


async def test_the_routes(serving, message):
    model = serving.service._core.state.model
    path = f"/v2/models/{model.config.model.name}"
    with serving() as ask:
        assert (await ask("GET", "/v2/health/live")).json["live"] is True
        assert (await ask("GET", "/v2/health/ready")).json["ready"] is True
        assert (await ask("GET", "/v2")).json["extensions"] == ["binary_tensor_data", "classification"]
        for version in ("", f"/versions/{model.version}"):
            assert (await ask("GET", f"{path}{version}/ready")).json == {"name": path[11:], "ready": True}
            found = (await ask("GET", f"{path}{version}")).json
            assert (found["versions"], found["inputs"][0]) == (
                [model.version],
                {"name": "image", "datatype": "BYTES", "shape": [-1]},
            )
            with capture_logs() as logs:
                answer = await ask("POST", f"{path}{version}/infer", message("logits", "status.occlusion", id="mine"))
            assert (answer.status, answer.json["id"], answer.headers["x-request-id"]) == (200, "mine", "mine")
            assert answer.json["outputs"][1]["data"] == ["OK"]
            (line,) = (each for each in logs if each["event"] == "request")
            assert (line["method"], line["pictures"], line["explainers"]) == ("ModelInfer", 1, "occlusion")


async def test_pictures_as_base64_and_as_binary_data_are_the_same(serving):
    pixels = np.random.default_rng(5).integers(0, 256, (12, 10, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    data = file.getvalue()
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1]}
    with serving() as ask:
        path = f"/v2/models/{serving.service._core.state.model.config.model.name}/infer"
        text = await ask("POST", path, {"inputs": [{**tensor, "data": [base64.b64encode(data).decode()]}]})
        blob = struct.pack("<I", len(data)) + data
        head = {"inputs": [{**tensor, "parameters": {"binary_data_size": len(blob)}}]}
        head = json.dumps({**head, "parameters": {"binary_data_output": True}}).encode()
        binary = await ask("POST", path, head + blob, **{LENGTH: str(len(head))})
        pixel = {"name": "image", "datatype": "UINT8", "shape": [1, 12, 10, 3], "data": pixels.tolist()}
        other = await ask("POST", path, {"inputs": [pixel]})
    length = int(binary.headers[LENGTH])
    first = json.loads(binary.body[:length])["outputs"][0]
    values = np.frombuffer(binary.body[length : length + first["parameters"]["binary_data_size"]], np.float32)
    assert text.json["outputs"][0]["data"] == values.tolist() == other.json["outputs"][0]["data"]


async def test_errors_are_the_protocols_and_have_a_status(serving, message):
    core = serving.service._core
    path = f"/v2/models/{core.state.model.config.model.name}"
    with serving(most_bytes=10_000) as ask:
        answer = await ask("POST", f"{path}/infer", message("softmax"))
        assert (answer.status, answer.json["error"][:32]) == (400, "outputs[0].name: There is no out")
        assert answer.headers["x-request-id"]
        assert (await ask("POST", "/v2/models/other/infer", message())).status == 404
        assert (await ask("GET", "/v2/models/other")).json["error"].startswith("name: There is no model 'other'")
        assert (await ask("GET", f"{path}/versions/1/ready")).status == 404
        assert (await ask("POST", f"{path}/infer", b" " * 10_001)).status == 413
        answer = await ask("POST", f"{path}/infer", b"{}", content_encoding="gzip", x_request_id="mine")
        assert (answer.status, answer.headers["x-request-id"]) == (400, "mine")
        answer = await ask("POST", f"{path}/infer", message(), grpc_timeout="soon")
        assert (answer.status, answer.json["error"][:13]) == (400, "grpc-timeout:")
        outputs = [{"name": "saliency.rise", "parameters": {"masks": 20_000}}]
        answer = await ask("POST", f"{path}/infer", {**message(), "outputs": outputs}, grpc_timeout="500m")
        assert answer.status == 504
        state, core.state = core.state, None
        assert (await ask("POST", f"{path}/infer", message())).status == 503
        assert (await ask("GET", "/v2/health/ready")).status == 503
        assert (await ask("GET", "/v2/health/live")).status == 200
        assert (await ask("GET", f"{path}/ready")).status == 503
        core.state = state


async def test_bodies_that_arrive_together_are_bounded(serving, message):
    path = f"/v2/models/{serving.service._core.state.model.config.model.name}/infer"
    with serving(most_bytes=100_000, most_incoming=150_000) as ask:
        head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 90000\r\n\r\n".encode()
        slow = socket.create_connection(("127.0.0.1", ask.port), timeout=10)
        slow.sendall(head + b" " * 80_000)
        await asyncio.sleep(0.3)
        answer = await ask("POST", path, b" " * 90_000)
        assert (answer.status, answer.headers["Retry-After"]) == (429, "1")
        slow.close()
        await asyncio.sleep(0.2)
        assert (await ask("POST", path, message())).status == 200


async def test_the_work_for_callers_who_leave_is_cancelled(serving, message):
    path = f"/v2/models/{serving.service._core.state.model.config.model.name}/infer"
    outputs = [{"name": "saliency.rise", "parameters": {"masks": 100_000}}]
    body = json.dumps({**message(), "outputs": outputs}).encode()
    with serving() as ask, capture_logs() as logs:
        with socket.create_connection(("127.0.0.1", ask.port), timeout=10) as hasty:
            hasty.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            while not ask.records.count:
                await asyncio.sleep(0.01)
        for _ in range(1000):
            if not ask.records.count:
                break
            await asyncio.sleep(0.01)
        assert not ask.records.count
        assert [each["code"] for each in logs if each["event"] == "request"] == ["CANCELLED"]
        assert (await ask("POST", path, message())).status == 200
