"""Model servers that others wrote, each from an environment of its own, with an ONNX file under ONNX Runtime."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from xai_sidecar.cpus import usable_cpus

_START_SECONDS = 90
MODEL = "model"


@dataclass(frozen=True)
class Upstream:
    """A running server.

    Attributes:
        grpc: Port of gRPC.
        http: Port of REST.
        input: Name of the model's input.
    """

    grpc: int
    http: int
    input: str = "inputs"

    def address(self, scheme: str) -> str:
        """Of the model, as the config has it."""
        return f"{scheme}://127.0.0.1:{getattr(self, scheme)}/{MODEL}"


_SESSION = """
import onnxruntime

options = onnxruntime.SessionOptions()
options.intra_op_num_threads, options.inter_op_num_threads = {threads}, 1
options.add_session_config_entry("session.intra_op.allow_spinning", "0")
session = onnxruntime.InferenceSession({onnx!r}, options, providers=["CPUExecutionProvider"])
given = session.get_inputs()[0].name
"""

_TRITON_MODEL = """
import sys
sys.path.insert(0, {packages!r})
import numpy as np
import triton_python_backend_utils as utils
{session}

class TritonPythonModel:
    def execute(self, requests):
        rows = [utils.get_input_tensor_by_name(request, "inputs").as_numpy() for request in requests]
        logits = session.run(None, {{given: np.concatenate(rows)}})[0]
        ends = np.cumsum([len(each) for each in rows])[:-1]
        return [utils.InferenceResponse([utils.Tensor("logits", part)]) for part in np.split(logits, ends)]
"""

_TRITON_CONFIG = """
backend: "python"
max_batch_size: 8
input [{ name: "inputs", data_type: TYPE_FP32, dims: [3, 224, 224] }]
output [{ name: "logits", data_type: TYPE_FP32, dims: [1000] }]
instance_group [{ kind: KIND_CPU, count: 1 }]
dynamic_batching {}
"""

_MLSERVER_MODEL = """
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse
{session}

class OnnxModel(MLModel):
    async def load(self):
        return True

    async def predict(self, payload):
        logits = session.run(None, {{given: NumpyCodec.decode_input(payload.inputs[0])}})[0]
        outputs = [NumpyCodec.encode_output("logits", logits)]
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=outputs)
"""

_KSERVE_MODEL = """
import sys
from kserve import InferOutput, InferResponse, Model, ModelServer
{session}

class OnnxModel(Model):
    def __init__(self):
        super().__init__("model")
        self.ready = True

    def get_input_types(self):
        return [{{"name": "inputs", "datatype": "FP32", "shape": [-1, 3, 224, 224]}}]

    def get_output_types(self):
        return [{{"name": "logits", "datatype": "FP32", "shape": [-1, 1000]}}]

    def predict(self, payload, headers=None, response_headers=None):
        logits = session.run(None, {{given: payload.inputs[0].as_numpy()}})[0]
        output = InferOutput(name="logits", shape=list(logits.shape), datatype="FP32")
        output.set_data_from_numpy(logits, binary_data=False)
        return InferResponse(response_id=payload.id or "", model_name=self.name, infer_outputs=[output])


ModelServer(http_port={http}, grpc_port={grpc}, workers=1).start([OnnxModel()])
"""


@contextmanager
def triton(environment: Path, onnx: Path, folder: Path) -> Iterator[Upstream]:
    """Triton with its Python backend and dynamic batching; from nvidia-pytriton, onnxruntime and numpy < 2."""
    ask = "import sys, sysconfig; print(sysconfig.get_path('purelib'), f'{sys.version_info[0]}.{sys.version_info[1]}')"
    packages, version = subprocess.check_output([_python(environment), "-c", ask], text=True).split()
    installed = Path(packages) / "pytriton" / "tritonserver"
    model = folder / "models" / MODEL
    (model / "1").mkdir(parents=True)
    (model / "config.pbtxt").write_text(_TRITON_CONFIG)
    (model / "1" / "model.py").write_text(_TRITON_MODEL.format(packages=packages, session=_session(onnx)))
    shutil.copytree(installed / "backends" / "python", folder / "backends" / "python")
    stub = "triton_python_backend_stub"
    shutil.copy(installed / "python_backend_stubs" / version / stub, folder / "backends" / "python" / stub)
    upstream, metrics = Upstream(_free_port(), _free_port()), _free_port()
    command = [
        str(installed / "bin" / "tritonserver"),
        f"--model-repository={folder / 'models'}",
        f"--backend-directory={folder / 'backends'}",
        *(f"--{name}-address=127.0.0.1" for name in ("http", "grpc")),
        *(f"--{name}-port={port}" for name, port in (("http", upstream.http), ("grpc", upstream.grpc))),
        f"--metrics-port={metrics}",
    ]
    libraries = f"{Path(packages) / 'nvidia_pytriton.libs'}:{os.environ.get('LD_LIBRARY_PATH', '')}"
    with _running(command, folder, upstream, LD_LIBRARY_PATH=libraries):
        yield upstream


@contextmanager
def mlserver(environment: Path, onnx: Path, folder: Path) -> Iterator[Upstream]:
    """MLServer with a runtime of one class; from mlserver and onnxruntime."""
    upstream = Upstream(_free_port(), _free_port())
    settings = {
        "host": "127.0.0.1",
        "http_port": upstream.http,
        "grpc_port": upstream.grpc,
        "metrics_port": _free_port(),
        "parallel_workers": 0,
    }
    model = {
        "name": MODEL,
        "implementation": "onnx_model.OnnxModel",
        "inputs": [{"name": "inputs", "datatype": "FP32", "shape": [-1, 3, 224, 224]}],
        "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, 1000]}],
        "parameters": {"version": "1"},
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(model))
    (folder / "onnx_model.py").write_text(_MLSERVER_MODEL.format(session=_session(onnx)))
    with _running([str(environment / "bin" / "mlserver"), "start", str(folder)], folder, upstream):
        yield upstream


@contextmanager
def kserve(environment: Path, onnx: Path, folder: Path) -> Iterator[Upstream]:
    """KServe's model server with a model of one class; from kserve and onnxruntime."""
    upstream = Upstream(_free_port(), _free_port())
    program = folder / "serve.py"
    program.write_text(_KSERVE_MODEL.format(session=_session(onnx), http=upstream.http, grpc=upstream.grpc))
    with _running([str(_python(environment)), str(program)], folder, upstream):
        yield upstream


SERVERS: dict[str, Callable[[Path, Path, Path], AbstractContextManager[Upstream]]] = {
    "triton": triton,
    "mlserver": mlserver,
    "kserve": kserve,
}
"""Each takes its environment, an ONNX file of pictures (n, 3, 224, 224) and 1,000 classes, and an empty folder."""


def _session(onnx: Path) -> str:
    return _SESSION.format(threads=usable_cpus(), onnx=str(onnx))


def _python(environment: Path) -> Path:
    return environment / "bin" / "python"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def _running(command: list[str], folder: Path, upstream: Upstream, **variables: str) -> Iterator[None]:
    """A process of the server, once it listens; neither this process's path nor its packages are for it."""
    log = folder / "server.log"
    environment = {**os.environ, "PYTHONPATH": "", **variables}
    with (
        log.open("w") as out,
        subprocess.Popen(command, env=environment, cwd=folder, stdout=out, stderr=out) as process,
    ):
        try:
            for port in (upstream.grpc, upstream.http):
                _wait_for(process, port, log)
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_for(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    patience = time.monotonic() + _START_SECONDS
    while process.poll() is None and time.monotonic() < patience:
        with socket.socket() as probe:
            if not probe.connect_ex(("127.0.0.1", port)):
                return
        time.sleep(0.1)
    raise RuntimeError(f"the server did not start:\n{log.read_text()[-3000:]}")
