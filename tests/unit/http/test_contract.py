"""The contract in JSON: the answers of the core's own requests, streams of events, errors, and its description."""

import asyncio
import base64
import gzip
import io
import json
import os
import re
import socket
import zlib
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import json_format
from PIL import Image
from structlog.testing import capture_logs
from toys import only

from xai_proto import explanation_pb2 as pb
from xai_sidecar.errors import InvalidRequestError, RoleMissingError
from xai_sidecar.http.contract import ContractRoutes
from xai_sidecar.http.contract_json import read_message
from xai_sidecar.http.kserve_v1_routes import KServeV1Routes
from xai_sidecar.http.openapi import openapi
from xai_sidecar.http.requests import MOST_JSON_VALUES, read_json
from xai_sidecar.rpc.answerer import Answerer, ReceivedCall
from xai_sidecar.serving.callers import Caller, Role, calling

PIXELS = np.random.default_rng(5).integers(0, 256, (12, 10, 3), np.uint8)


def png():
    file = io.BytesIO()
    Image.fromarray(PIXELS).save(file, "PNG")
    return file.getvalue()


ENCODED = base64.b64encode(png()).decode()
RISE = {"explainer": "rise", "seed": "3", "rise": {"maskCount": 64}, "targets": {"classIds": [0, 3]}}


@pytest.fixture
def serving(serve, serving_http):
    core = serve(0.0005, *only("occlusion", "rise"))[0].core

    def make_routes(calls, bodies):
        routes = ContractRoutes(serving.answerer, calls, bodies).routes()
        return routes + KServeV1Routes(core, calls, bodies).routes()

    def serving(**bounds):
        return serving_http(core, make_routes, **bounds)

    serving.core, serving.answerer = core, Answerer(core)
    return serving


async def test_predict_answers_as_over_grpc(serving):
    message = {"images": [{"encoded": ENCODED}], "explanations": [RISE], "topK": 2, "requestId": "mine"}
    asked = json_format.ParseDict(message, pb.PredictRequest())
    want, _ = await serving.answerer.predict(asked, ReceivedCall("mine", None, float("inf"), named=False))
    with serving() as ask, capture_logs() as logs:
        answer = await ask("POST", "/v1/predict", message)
        again = await ask("POST", "/v1/predict", message)
    found = json_format.ParseDict(answer.json, pb.PredictResponse())
    for one in (found, want):
        one.predictions[0].explanations[0].ClearField("elapsed")
    assert found == want
    assert answer.headers["x-request-id"] == "mine"
    assert "x-repeat" not in answer.headers
    assert (again.json, again.headers["x-repeat"]) == (answer.json, "repeated")
    assert any(each["classId"] == 0 for each in answer.json["predictions"][0]["explanations"][0]["maps"])
    first = next(each for each in logs if each["event"] == "request")
    assert (first["method"], first["explainers"]) == ("Predict", "rise")


PACKED = {"gzip": gzip.compress, "deflate": zlib.compress}


@pytest.mark.parametrize("coding", PACKED)
async def test_bodies_may_be_packed(serving, coding):
    message = {"images": [{"encoded": ENCODED}], "topK": 2, "requestId": "mine"}
    body = json.dumps(message).encode()
    with serving() as ask:
        plain = await ask("POST", "/v1/predict", body)
        packed = await ask("POST", "/v1/predict", PACKED[coding](body), content_encoding=coding.upper())
    assert packed.status == 200
    assert packed.json == plain.json


async def test_a_packed_body_larger_than_a_step_of_unpacking(serving):
    noise = base64.b64encode(os.urandom(2**20)).decode()
    body = gzip.compress(json.dumps({"images": [{"encoded": noise}]}).encode())
    with serving(most_bytes=2**21) as ask:
        answer = await ask("POST", "/v1/predict", body, content_encoding="gzip")
    assert answer.json["message"].startswith("images[0].encoded: ")  # no picture, but received


async def test_packed_bodies_that_are_not_unpacked(serving):
    body = json.dumps({"images": [{"encoded": ENCODED}]}).encode()
    packed = gzip.compress(body)
    with serving(most_bytes=100_000) as ask, capture_logs() as logs:

        async def refused(body, coding):
            answer = await ask("POST", "/v1/predict", body, content_encoding=coding)
            assert answer.headers["x-request-id"] == logs[-1]["request_id"]
            return answer.status, answer.json["message"]

        for broken in (body, packed[:-1], packed + b"more", packed[:20] + b"\0\0\0\0" + packed[24:], b""):
            status, words = await refused(broken, "gzip")
            assert (status, words[:21]) == (400, "The body is not whole")
        assert (await refused(packed, "br"))[1].startswith("The body is encoded as 'br'. Send it as it is, or ")
        assert (await refused(gzip.compress(bytes(10**8)), "gzip"))[0] == 413
        count = ask.telemetry.registry.get_sample_value
        assert count("xai_requests_total", {"method": "Predict", "code": "INVALID_ARGUMENT"}) == 7
    assert [(each["event"], each["method"]) for each in logs] == [("refused", "Predict")] * 7


def events_of(body):
    """The events of a stream, as a browser reads them."""
    found = []
    for block in body.decode().strip().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines())
        found.append((lines["event"], json.loads(lines["data"])))
    return found


async def test_a_stream_is_server_sent_events(serving):
    message = {"request": {"images": [{"encoded": ENCODED}], "explanations": [RISE]}, "progressInterval": "0.02s"}
    with serving() as ask:
        answer = await ask("POST", "/v1/predict:stream", message, x_request_id="mine")
    assert answer.headers["Content-Type"] == "text/event-stream"
    events = events_of(answer.body)
    names = [name for name, _ in events]
    assert (names[0], names[-1]) == ("predicted", "finished")
    assert set(names[1:-1]) <= {"progress", "explained"}
    assert {data["requestId"] for _, data in events} == {answer.headers["x-request-id"]} == {"mine"}
    last = events[-2][1]["explained"]["explanation"]
    assert last["status"] == "EXPLANATION_STATUS_COMPLETE"
    for name, data in events:
        assert json_format.ParseDict(data, pb.PredictStreamResponse()).WhichOneof("event") == name


async def test_errors_are_a_status_of_google_rpc(serving):
    with serving() as ask:
        for path, message in (
            ("/v1/predict", {"images": [{}]}),
            ("/v1/predict:stream", {"request": {"images": [{}]}}),
        ):
            answer = await ask("POST", path, message, x_request_id="mine")
            assert (answer.status, answer.json["code"]) == (400, 3)
            info, bad = answer.json["details"]
            assert info["@type"] == "type.googleapis.com/google.rpc.ErrorInfo"
            assert (info["reason"], info["metadata"]) == ("PICTURE", {"request_id": "mine"})
            assert bad["fieldViolations"][0]["field"].endswith("images[0]")
        answer = await ask("POST", "/v1/predict", {"images": []}, grpc_timeout="x")
        assert answer.json["details"][1]["fieldViolations"][0]["field"] == "grpc-timeout"
        answer = await ask("POST", "/v1/predict", {"images": [{"encoded": ENCODED}], "model": "other"})
        assert (answer.status, answer.json["code"]) == (404, 5)
        state, serving.core.state = serving.core.state, None
        for path in ("/v1/predict", "/v1/predict:stream"):
            assert (await ask("POST", path, {})).status == 503
        serving.core.state = state


async def test_an_error_in_the_middle_of_a_stream_is_its_last_event(serving):
    rise = {**RISE, "rise": {"maskCount": 20_000}}
    message = {"request": {"images": [{"encoded": ENCODED}], "explanations": [rise]}}
    with serving() as ask:
        asking = asyncio.ensure_future(ask("POST", "/v1/predict:stream", message))
        while not ask.records.count:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        ask.records.cut_off(InvalidRequestError("Enough of it."))
        events = events_of((await asking).body)
    assert events[0][0] == "predicted"
    assert (events[-1][0], events[-1][1]["message"]) == ("error", "Enough of it.")


@pytest.mark.parametrize("path", ["/v1/predict", "/v1/predict:stream"])
async def test_the_work_for_callers_who_leave_is_cancelled(serving, path):
    message = {"images": [{"encoded": ENCODED}], "explanations": [{**RISE, "rise": {"maskCount": 50_000}}]}
    body = json.dumps({"request": message} if "stream" in path else message).encode()
    with serving() as ask, capture_logs() as logs:
        with socket.create_connection(("127.0.0.1", ask.port), timeout=10) as hasty:
            hasty.sendall(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            while not ask.records.count:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)
        for _ in range(1000):
            if not ask.records.count:
                break
            await asyncio.sleep(0.01)
        assert not ask.records.count
        assert [each["code"] for each in logs if each["event"] == "request"] == ["CANCELLED"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"imagess": []}, "imagess"),
        ({"images": {}}, "images"),
        ({"images": [{}, {"encoded": 3}]}, "images[1].encoded"),
        ({"images": [3]}, "images[0]"),
        ({"topK": "many"}, "topK"),
        ({"top_k": 1e40}, "top_k"),
        ({"explanations": [{"budget": "soon"}]}, "explanations[0].budget"),
        ({"explanations": [{"seed": -1}]}, "explanations[0].seed"),
        ({"explanations": [{"encoding": "MAP_ENCODING_GIF"}]}, "explanations[0].encoding"),
        ({"explanations": [{"rise": {"maskCount": 1.5}}]}, "explanations[0].rise.maskCount"),
        ({"explanations": [{"rise": {}, "gradient": {}}]}, "explanations[0]"),
    ],
)
def test_bodies_that_are_no_message(body, field):
    with pytest.raises(InvalidRequestError, match=r"The body is no xai\.v1\.PredictRequest in JSON") as caught:
        read_message(json.dumps(body).encode(), pb.PredictRequest)
    assert caught.value.field == field


def test_a_message_that_nests_too_deep_is_refused():
    value = "[" * 500 + "]" * 500
    text = f'{{"explanations": [{{"namedParameters": {{"a": {value}}}}}]}}'
    with pytest.raises(InvalidRequestError):
        read_message(text.encode(), pb.PredictRequest)


def test_json_of_many_values_is_refused_unparsed():
    with pytest.raises(InvalidRequestError, match=r"500,00. values or more"):
        read_json(b'{"a": [' + b"1," * MOST_JSON_VALUES + b"1]}")


async def test_the_caller_is_known_on_the_cores_event_loop(serving):
    """A role is asked for there, and given by what is around the routes on the event loop of HTTP."""
    with serving() as ask:
        message = {"images": [{"encoded": ENCODED}], "explanations": [RISE]}
        assert (await ask("POST", "/v1/predict", message)).status == 200
    asked = json_format.ParseDict(message, pb.PredictRequest())
    with calling(Caller("shop", frozenset({Role.PREDICT}), "token")), pytest.raises(RoleMissingError):
        await serving.answerer.predict(asked, ReceivedCall("x", None, float("inf"), named=False))


def test_the_description_has_every_message_and_only_what_it_names():
    found = openapi("1.0")
    schemas = found["components"]["schemas"]
    text = json.dumps(found)
    referred = {each.split('"')[0] for each in text.split("#/components/schemas/")[1:]}
    assert referred <= set(schemas)
    request = schemas["PredictRequest"]["properties"]
    assert request["topK"]["type"] == "integer"
    images = {"type": "array", "items": {"$ref": "#/components/schemas/Image"}}
    assert {name: request["images"][name] for name in images} == images
    assert schemas["Image"]["properties"]["encoded"]["contentEncoding"] == "base64"
    assert "MAP_ENCODING_PNG" in schemas["ExplanationRequest"]["properties"]["encoding"]["enum"]
    parameters = schemas["Explanation"]["properties"]["parameters"]
    assert (parameters["type"], parameters["additionalProperties"]) == ("object", {})
    assert set(found["paths"]) == {"/v1/predict", "/v1/predict:stream"}


def test_every_field_is_described_by_the_comments_of_the_contract():
    """Where this fails: make proto."""
    folder = Path(pb.__file__).parents[1] / "xai" / "v1"
    comments = " ".join(
        " ".join(re.findall(r"^\s*// ?(.*)$", file.read_text(), re.MULTILINE)) for file in folder.glob("*.proto")
    )
    comments = " ".join(comments.split())
    known = json.loads(resources.files("xai_proto").joinpath("descriptions.json").read_text())
    assert len(known) > 300
    assert [name for name, text in known.items() if text not in comments] == []
    schemas = openapi("1.0")["components"]["schemas"]
    ours = {name: each for name, each in schemas.items() if name in pb.DESCRIPTOR.message_types_by_name}
    assert [name for name, each in ours.items() if "description" not in each] == []
    fields = {(name, key): each for name, one in ours.items() for key, each in one["properties"].items()}
    assert [key for key, each in fields.items() if "description" not in each] == []
    encoding = fields["ExplanationRequest", "encoding"]["description"]
    assert "\n- MAP_ENCODING_PNG: " in encoding


async def test_an_answer_is_as_described(serving):
    message = {"images": [{"encoded": ENCODED}], "explanations": [RISE]}
    with serving() as ask:
        answer = (await ask("POST", "/v1/predict", message)).json
        schemas = (await ask("GET", "/openapi.json")).json["components"]["schemas"]

    def check(value, schema):
        if "$ref" in schema:
            schema = schemas[schema["$ref"].rpartition("/")[2]]
        if isinstance(value, dict) and "properties" in schema:
            assert set(value) <= set(schema["properties"])
            for name, inner in value.items():
                check(inner, schema["properties"][name])
        elif isinstance(value, list):
            assert schema["type"] == "array"
            for each in value:
                check(each, schema["items"])
        elif "type" in schema:
            types = {"string": str, "integer": int, "boolean": bool, "object": dict}
            names = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
            assert isinstance(value, tuple(types[name] for name in names)), (value, schema)

    check(answer, {"$ref": "#/components/schemas/PredictResponse"})


async def test_kserves_first_protocol(serving):
    name = serving.core.state.model.config.model.name
    path = f"/v1/models/{name}"
    want, _ = await serving.answerer.predict(
        json_format.ParseDict({"images": [{"encoded": ENCODED}], "explanations": [RISE]}, pb.PredictRequest()),
        ReceivedCall("x", None, float("inf"), named=False),
    )
    with serving() as ask:
        assert (await ask("GET", "/v1/models")).json == {"models": [name]}
        assert (await ask("GET", path)).json == {"name": name, "ready": True}
        assert (await ask("GET", "/v1/models/other")).status == 404
        for instance in ({"b64": ENCODED}, {"image": {"b64": ENCODED}}, PIXELS.tolist()):
            answer = (await ask("POST", f"{path}:predict", {"instances": [instance], "parameters": {"top_k": 2}})).json
            best = answer["predictions"][0]["classes"]
            assert len(best) == 2
            assert best[0]["class_id"] == want.predictions[0].classes[0].class_id
            assert np.float32(best[0]["probability"]) == np.float32(want.predictions[0].classes[0].probability)
        settings = {"explainer": "rise", "seed": 3, "masks": 64, "class_ids": [0, 3]}
        answer = (await ask("POST", f"{path}:explain", {"instances": [{"b64": ENCODED}], "parameters": settings})).json
        (explanation,) = answer["explanations"]
        (wanted,) = want.predictions[0].explanations
        for found, saliency in zip(explanation["maps"], wanted.maps, strict=True):
            assert found["class_id"] == saliency.class_id
            values = np.frombuffer(saliency.tensor.data, np.float32).reshape(saliency.tensor.shape)
            np.testing.assert_array_equal(np.float32(found["saliency"]), values)
        answer = await ask("POST", f"{path}:explain", {"instances": [{"b64": ENCODED}]})
        assert answer.json["explanations"][0]["explainer"] in ("occlusion", "rise")


@pytest.mark.parametrize(
    ("verb", "body", "says"),
    [
        ("predict", {}, "instances: It is missing"),
        ("predict", {"instances": []}, "instances: There are 0 instances"),
        ("predict", {"instances": [3]}, "instances[0]: 3 is no picture"),
        ("predict", {"instances": [{"b64": "&"}]}, "instances[0].b64: It is no base64"),
        ("predict", {"instances": [{"b64": "AAAA"}]}, "instances[0]: The 3 bytes"),
        ("predict", {"instances": [[1, 2]]}, "instances[0]: Its lists are 1 deep"),
        ("predict", {"instances": [[[[1, 2, 300]]]]}, "instances[0]: UINT8 cannot hold"),
        ("predict", {"instances": [{"model_input": [[[1.0]]]}]}, "instances[0]: "),
        ("predict", {"instances": [{"b64": ENCODED}], "parameters": {"explainer": "rise"}}, "parameters.explainer: "),
        ("predict", {"instances": [{"b64": ENCODED}], "parameters": {"top_k": 99}}, "parameters.top_k: "),
        ("predict", {"instance": []}, "There is no 'instance' here"),
        ("explain", {"instances": [{"b64": ENCODED}], "parameters": {"explainer": "lime"}}, "parameters.explainer: "),
        ("explain", {"instances": [{"b64": ENCODED}], "parameters": {"masks": 3}}, "parameters"),
        ("explain", {"instances": [{"b64": ENCODED}], "parameters": {"explainer": 3}}, "parameters.explainer: "),
        ("explain", {"instances": [{"b64": ENCODED}], "parameters": {"budget_seconds": -1}}, "parameters.budget_"),
    ],
)
async def test_what_is_wrong_in_kserves_first_protocol(serving, verb, body, says):
    with serving() as ask:
        path = f"/v1/models/{serving.core.state.model.config.model.name}:{verb}"
        answer = await ask("POST", path, body)
    assert answer.status == 400
    assert answer.json["error"].startswith(says)
