"""KServe's InferenceClient against the server: python kserve_client.py GRPC HTTP EXPECTED.npz.

Runs in an environment of KServe's own. Exits with 0 if all is as expected.
"""

import asyncio
import base64
import sys

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig
from kserve.protocol.infer_type import RequestedOutput

grpc_address, http_address, path = sys.argv[1:]
want = dict(np.load(path))
url = f"http://{http_address}"


def tensor(name, array, datatype, binary=False):
    given = InferInput(name, list(array.shape), datatype)
    given.set_data_from_numpy(array, binary_data=binary)
    return given


def request(*inputs, outputs=None):
    wanted = None if outputs is None else [RequestedOutput(*each) for each in outputs]
    return InferRequest(model_name="model", infer_inputs=list(inputs), request_id="1", request_outputs=wanted)


def check(answer):
    outputs = {each.name: each.as_numpy() for each in answer.outputs}
    np.testing.assert_allclose(outputs["logits"], want["logits"], rtol=1e-5, atol=1e-5)
    assert answer.id == "1"


def check_maps(answer):
    outputs = {each.name: each.as_numpy() for each in answer.outputs}
    np.testing.assert_allclose(outputs["saliency.gradcam"], want["maps"], rtol=1e-5, atol=1e-6)
    assert list(outputs) == ["saliency.gradcam", "status.gradcam"]


EXPLAINED = [("saliency.gradcam", {"class_ids": "0,3"}), ("status.gradcam", {})]


async def over_rest():
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    assert await client.is_server_live(url)
    assert await client.is_server_ready(url)
    assert await client.is_model_ready(url, "model")
    for binary in (False, True):
        check(
            await client.infer(url, request(tensor("model_input", want["inputs"], "FP32", binary)), model_name="model")
        )
    given = tensor("model_input", want["inputs"], "FP32", True)
    check_maps(await client.infer(url, request(given, outputs=EXPLAINED), model_name="model"))
    await client.close()


async def over_the_first_protocol():
    client = InferenceRESTClient(RESTConfig(protocol="v1"))
    assert await client.is_model_ready(url, "model")
    instances = {"instances": [{"b64": base64.b64encode(want["png"].tobytes()).decode()}]}
    found = await client.infer(url, instances, model_name="model")
    best = found["predictions"][0]["classes"][0]
    assert best["class_id"] == want["file_logits"][0].argmax()
    explained = await client.explain(url, model_name="model", data=instances)
    explanation = explained["explanations"][0]
    assert np.asarray(explanation["maps"][0]["saliency"]).shape == (32, 32)
    await client.close()


async def over_grpc():
    client = InferenceGRPCClient(grpc_address)
    assert await client.is_server_live()
    assert await client.is_server_ready()
    assert await client.is_model_ready("model")
    for binary in (False, True):
        check(await client.infer(request(tensor("model_input", want["inputs"], "FP32", binary))))
    given = tensor("model_input", want["inputs"], "FP32", True)
    check_maps(await client.infer(request(given, outputs=EXPLAINED)))
    await client.close()


async def main():
    await over_rest()
    await over_the_first_protocol()
    await over_grpc()


asyncio.run(main())
print("as expected")
