"""tritonclient against the server: python triton_client.py grpc|http|grpc-aio|http-aio ADDRESS EXPECTED.npz.

Runs in an environment of tritonclient's own. Exits with 0 if all is as expected.
"""

import asyncio
import importlib
import inspect
import sys

import numpy as np
from tritonclient.utils import InferenceServerException

flavour, address, path = sys.argv[1:]
module = importlib.import_module("tritonclient." + flavour.replace("-", "."))
is_grpc = flavour.startswith("grpc")
want = dict(np.load(path))
count = len(want["inputs"])


async def result_of(value):
    """What a call of either kind of client returns."""
    return await value if inspect.isawaitable(value) else value


def tensor(name, array, datatype, binary=True):
    given = module.InferInput(name, array.shape, datatype)
    given.set_data_from_numpy(array, **({} if is_grpc else {"binary_data": binary}))
    return given


def output(name, binary=True, **parameters):
    classes = parameters.pop("class_count", 0)
    found = module.InferRequestedOutput(name, class_count=classes, **({} if is_grpc else {"binary_data": binary}))
    for key, value in parameters.items():  # the client has no way of its own to set them
        if is_grpc:
            field = {int: "int64_param", float: "double_param", str: "string_param"}[type(value)]
            setattr(found._output.parameters[key], field, value)
        else:
            found._parameters[key] = value
    return found


def field(answer, name):
    return getattr(answer, name) if is_grpc else answer.get(name)


async def refused(call, part):
    try:
        await result_of(call())
    except InferenceServerException as error:
        assert part in error.message(), error.message()
        return
    raise AssertionError(f"not refused: {part}")


async def main():
    client = module.InferenceServerClient(address)

    async def infer(*arguments, **options):
        return await result_of(client.infer("model", *arguments, **options))

    assert await result_of(client.is_server_live())
    assert await result_of(client.is_server_ready())
    assert await result_of(client.is_model_ready("model"))
    assert field(await result_of(client.get_server_metadata()), "name") == "xai-sidecar"
    metadata = await result_of(client.get_model_metadata("model"))
    version = field(metadata, "versions")[0]
    assert await result_of(client.is_model_ready("model", version))
    shapes = {field(each, "name"): [int(size) for size in field(each, "shape")] for each in field(metadata, "inputs")}
    assert shapes == {"image": [-1], "model_input": [-1, 3, 32, 32]}

    for binary in (True, False):
        found = await infer([tensor("model_input", want["inputs"], "FP32", binary)], request_id="1")
        assert field(found.get_response(), "id") == "1"
        np.testing.assert_allclose(found.as_numpy("logits"), want["logits"], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(found.as_numpy("probabilities").sum(1), 1, rtol=1e-5)
        best = np.argsort(-want["logits"], axis=1)
        assert (found.as_numpy("labels") == best.astype("S").astype(object)).all()

    # Files as BYTES, pixels as UINT8: the same picture.
    files = np.array([want["png"].tobytes()], object)
    by_file = await infer([tensor("image", files, "BYTES")], outputs=[output("logits")], model_version=version)
    by_pixels = await infer([tensor("image", want["pixels"][None], "UINT8")], outputs=[output("logits")])
    np.testing.assert_array_equal(by_file.as_numpy("logits"), by_pixels.as_numpy("logits"))
    np.testing.assert_allclose(by_file.as_numpy("logits"), want["file_logits"], rtol=1e-5, atol=1e-5)
    half = await infer([tensor("model_input", want["inputs"].astype(np.float16), "FP16")], outputs=[output("logits")])
    np.testing.assert_allclose(half.as_numpy("logits"), want["logits"], atol=0.05)

    # Explanations, with parameters of the requested output, and of the request.
    for binary in (True, False):
        names = ("saliency", "status", "class_ids", "standard_error")
        outputs = [output(f"{name}.gradcam", binary, class_ids="0,3") for name in names]
        found = await infer([tensor("model_input", want["inputs"], "FP32")], outputs=outputs)
        np.testing.assert_allclose(found.as_numpy("saliency.gradcam"), want["maps"], rtol=1e-5, atol=1e-6)
        assert (found.as_numpy("class_ids.gradcam") == [[0, 3]] * count).all()
        # JSON has text, and this client leaves it as it is.
        statuses = {
            str(each, "utf-8") if isinstance(each, bytes) else each for each in found.as_numpy("status.gradcam").flat
        }
        assert statuses <= {"OK", "ALL_ZERO"}
        assert np.isnan(found.as_numpy("standard_error.gradcam")).all()
        assert found.get_output("logits") is None
    outputs = [output("saliency.rise", masks=64, tolerance=0.0), output("standard_error.rise")]
    settings = {"top_count": 2, "seed": 7}
    found = await infer([tensor("model_input", want["inputs"], "FP32")], outputs=outputs, parameters=settings)
    again = await infer([tensor("model_input", want["inputs"], "FP32")], outputs=outputs, parameters=settings)
    assert found.as_numpy("saliency.rise").shape == (count, 2, 32, 32)
    np.testing.assert_array_equal(found.as_numpy("saliency.rise"), again.as_numpy("saliency.rise"))

    for algorithm in ("gzip", "deflate"):
        packed = {("compression_algorithm" if is_grpc else "request_compression_algorithm"): algorithm}
        found = await infer([tensor("model_input", want["inputs"], "FP32")], **packed)
        np.testing.assert_allclose(found.as_numpy("logits"), want["logits"], rtol=1e-5, atol=1e-5)

    found = await infer([tensor("model_input", want["inputs"], "FP32")], outputs=[output("logits", class_count=2)])
    first = found.as_numpy("logits")[0][0].decode().split(":")
    assert int(first[1]) == want["logits"][0].argmax()

    given = [tensor("model_input", want["inputs"], "FP32")]
    await refused(lambda: client.infer("other", given), "There is no model 'other'")
    await refused(lambda: client.infer("model", given, model_version="9"), "no version '9'")
    await refused(lambda: client.infer("model", given, outputs=[output("softmax")]), "no output 'softmax'")
    await refused(lambda: client.infer("model", [tensor("x", want["inputs"], "FP32")]), "no input 'x'")
    timeout = {"timeout": 1000}
    slow = [output("saliency.rise", masks=100_000)]
    await refused(lambda: client.infer("model", given, outputs=slow, **timeout), "")
    await result_of(client.close())


asyncio.run(main())
print("as expected")
