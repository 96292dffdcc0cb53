"""A model server that speaks the Open Inference Protocol, by gRPC and by REST, and misbehaves where it is told to.

It is written from the standard alone, and shares no code with what is tested.
"""

import contextlib
import json
import socket
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import numpy as np

from xai_proto import open_inference_pb2 as pb
from xai_proto import open_inference_pb2_grpc as pb_grpc

SHAPE = (3, 6, 8)
CLASSES = 5
FEATURES = 7
DTYPES = {"FP16": np.float16, "FP32": np.float32, "FP64": np.float64}


class RefusalError(Exception):
    """What the server answers instead."""

    def __init__(self, code, words):
        super().__init__(words)
        self.code = code


class OipModel:
    """A net of two layers, in arithmetic.

    Attributes:
        requests: The batch sizes that it was asked for.
        delay: Seconds that each batch takes.
        refusal: Raised for each batch, if it is set.
        ready: Whether it says that it is.
    """

    def __init__(self, seed=0, layout="nchw", softmax=False, sigmoid=False, datatype="FP32", version="1", shape=SHAPE):
        generator = np.random.default_rng(seed)
        self.shape = shape
        self.first = generator.standard_normal((FEATURES, *shape)).astype(np.float32) / 12
        self.second = generator.standard_normal((CLASSES, FEATURES)).astype(np.float32)
        self.layout, self.softmax, self.sigmoid, self.datatype = layout, softmax, sigmoid, datatype
        self.name, self.version, self.platform = "net", version, "arithmetic"
        self.batch = -1
        self.most_rows = None
        self.refusal = None
        self.delay = 0.0
        self.ready = True
        self.requests = []
        self.says_tensors = True
        self.raw = True  # answers by raw contents, or by numbers
        self.per_batch = 0.0  # how much answers depend on the batch size

    def features_of(self, inputs):
        return np.maximum(np.tensordot(inputs, self.first, ([1, 2, 3], [1, 2, 3])), 0).astype(np.float32)

    def logits_of(self, inputs):
        """What the net says of inputs (n, C, H, W): (n, classes) float32."""
        return (self.features_of(inputs) @ self.second.T).astype(np.float32)

    @property
    def inputs(self):
        return [("pictures", self.datatype, [self.batch, *self.inputs_shape])] if self.says_tensors else []

    @property
    def outputs(self):
        if not self.says_tensors:
            return []
        return [("scores", self.datatype, [self.batch, CLASSES]), ("features", self.datatype, [self.batch, FEATURES])]

    def answer(self, name, version, datatype, inputs, wanted):
        """The outputs that are wanted, by name, for a batch as the request has it."""
        self.check(name, version)
        if self.refusal is not None:
            raise self.refusal
        if self.most_rows and len(inputs) > self.most_rows:
            raise RefusalError(grpc.StatusCode.INVALID_ARGUMENT, f"batch size must be at most {self.most_rows}")
        if datatype != self.datatype or list(inputs.shape[1:]) != self.inputs_shape:
            raise RefusalError(grpc.StatusCode.INVALID_ARGUMENT, f"unexpected {datatype} of {inputs.shape}")
        self.requests.append(len(inputs))
        time.sleep(self.delay)
        inputs = np.asarray(inputs, np.float32)
        if self.layout == "nhwc":
            inputs = inputs.transpose(0, 3, 1, 2)
        scores = self.logits_of(inputs) + self.per_batch * len(inputs)
        if self.softmax:
            exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
            scores = exponentials / exponentials.sum(axis=1, keepdims=True)
        if self.sigmoid:
            scores = 1 / (1 + np.exp(-np.clip(np.asarray(scores, np.float64), -700, 700)))
        found = {"scores": scores, "features": self.features_of(inputs)}
        return {key: found[key].astype(DTYPES[self.datatype]) for key in wanted or found}

    @property
    def inputs_shape(self):
        return list(self.shape if self.layout == "nchw" else (*self.shape[1:], self.shape[0]))

    def check(self, name, version):
        if name != self.name or version not in ("", self.version):
            raise RefusalError(grpc.StatusCode.NOT_FOUND, f"unknown model {name} {version}".strip())


class _Servicer(pb_grpc.GRPCInferenceServiceServicer):
    def __init__(self, model):
        self.model = model

    def ServerMetadata(self, request, context):  # noqa: N802
        return pb.ServerMetadataResponse(name="toy", version="2.1")

    def ModelReady(self, request, context):  # noqa: N802
        with refused(context):
            self.model.check(request.name, request.version)
        return pb.ModelReadyResponse(ready=self.model.ready)

    def ModelMetadata(self, request, context):  # noqa: N802
        model, tensor = self.model, pb.ModelMetadataResponse.TensorMetadata
        with refused(context):
            model.check(request.name, request.version)
        versions = [model.version] if model.version else []
        inputs = [tensor(name=name, datatype=kind, shape=shape) for name, kind, shape in model.inputs]
        outputs = [tensor(name=name, datatype=kind, shape=shape) for name, kind, shape in model.outputs]
        return pb.ModelMetadataResponse(
            name=model.name, versions=versions, platform=model.platform, inputs=inputs, outputs=outputs
        )

    def ModelInfer(self, request, context):  # noqa: N802
        (given,) = request.inputs
        (content,) = request.raw_input_contents
        inputs = np.frombuffer(content, DTYPES[given.datatype]).reshape(tuple(given.shape))
        wanted = [each.name for each in request.outputs]
        with refused(context):
            found = self.model.answer(request.model_name, request.model_version, given.datatype, inputs, wanted)
        response = pb.ModelInferResponse(model_name=self.model.name, model_version=self.model.version)
        for name, values in found.items():
            output = response.outputs.add(name=name, datatype=self.model.datatype, shape=values.shape)
            if self.model.raw:
                response.raw_output_contents.append(values.tobytes())
            else:
                numbers = {"FP32": output.contents.fp32_contents, "FP64": output.contents.fp64_contents}
                numbers[self.model.datatype].extend(values.ravel().tolist())
        return response


class refused:  # noqa: N801
    """Ends a call with the refusal that is raised in it."""

    def __init__(self, context):
        self.context = context

    def __enter__(self):
        pass

    def __exit__(self, kind, error, traceback):
        if isinstance(error, RefusalError):
            self.context.abort(error.code, str(error))


class GrpcOipServer:
    """Serves a model by gRPC until `stop`, which calls in progress do not outlive; by TLS with (certificate, key)."""

    def __init__(self, model, port=0, pair=None):
        self.scheme = "grpc" if pair is None else "grpcs"
        options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)]
        self._server = grpc.server(ThreadPoolExecutor(8), options=options)
        pb_grpc.add_GRPCInferenceServiceServicer_to_server(_Servicer(model), self._server)
        address = f"127.0.0.1:{port}"
        if pair is None:
            self.port = self._server.add_insecure_port(address)
        else:
            credentials = grpc.ssl_server_credentials([tuple(path.read_bytes() for path in reversed(pair))])
            self.port = self._server.add_secure_port(address, credentials)
        self._server.start()

    def stop(self):
        self._server.stop(0).wait(10)


class HttpOipServer:
    """Serves a model by REST until `stop`. `binary` says whether it takes binary tensors; by TLS with `pair`."""

    def __init__(self, model, port=0, binary=True, pair=None):
        self.scheme = "http" if pair is None else "https"
        handler = type("Handler", (_Handler,), {"model": model, "binary": binary})
        self._server = ThreadingHTTPServer(("127.0.0.1", port), handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *of_callers_who_left: None
        self.port = self._server.server_port
        if pair is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*pair)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self):
        self._server.shutdown()
        self._server.server_close()
        for handler in list(_Handler.open):
            with contextlib.suppress(OSError):
                handler.connection.shutdown(socket.SHUT_RDWR)


_STATUSES = {
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNAVAILABLE: 503,
}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    open = set()  # noqa: RUF012

    def setup(self):
        super().setup()
        self.open.add(self)

    def finish(self):
        self.open.discard(self)
        super().finish()

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        model = self.model
        base = f"/v2/models/{model.name}"
        if self.path == "/v2":
            self.reply({"name": "toy", "version": "2.1", "extensions": []})
        elif self.path in (f"{base}/ready", f"{base}/versions/{model.version}/ready"):
            self.reply({"name": model.name, "ready": model.ready}, 200 if model.ready else 503)
        elif self.path in (base, f"{base}/versions/{model.version}"):
            tensors = {
                key: [{"name": name, "datatype": kind, "shape": shape} for name, kind, shape in each]
                for key, each in (("inputs", model.inputs), ("outputs", model.outputs))
            }
            versions = [model.version] if model.version else []
            self.reply({"name": model.name, "versions": versions, "platform": model.platform, **tensors})
        else:
            self.reply({"error": f"nothing at {self.path}"}, 404)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        length = int(self.headers.get("Inference-Header-Content-Length", len(body)))
        if length < len(body) and not self.binary:
            self.reply({"error": "that is no JSON"}, 422)
            return
        asked, rest = json.loads(body[:length]), body[length:]
        (given,) = asked["inputs"]
        dtype, shape = DTYPES[given["datatype"]], tuple(given["shape"])
        values = np.asarray(given["data"], dtype) if "data" in given else np.frombuffer(rest, dtype)
        outputs = asked.get("outputs", [])
        parts = self.path.split("/")
        version = parts[5] if "versions" in parts else ""
        try:
            found = self.model.answer(
                parts[3], version, given["datatype"], values.reshape(shape), [each["name"] for each in outputs]
            )
        except RefusalError as error:
            self.reply({"error": str(error)}, _STATUSES[error.code])
            return
        binary = bool(outputs and outputs[0].get("parameters", {}).get("binary_data"))
        self.answer(found, binary)

    def answer(self, found, binary):
        tensors, contents = [], []
        for name, values in found.items():
            tensor = {"name": name, "datatype": self.model.datatype, "shape": list(values.shape)}
            if binary:
                tensor["parameters"] = {"binary_data_size": values.nbytes}
                contents.append(values.tobytes())
            else:
                tensor["data"] = values.ravel().tolist()
            tensors.append(tensor)
        head = {"model_name": self.model.name, "model_version": self.model.version, "outputs": tensors}
        self.reply(head, contents=contents)

    def reply(self, head, status=200, contents=()):
        text = json.dumps(head).encode()
        body = b"".join([text, *contents])
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if contents:
            self.send_header("Inference-Header-Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(body)
