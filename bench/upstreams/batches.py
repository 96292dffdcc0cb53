"""A process that sends ready-made batches to a model server, and does nothing else: what the server can answer.

As a program: ADDRESS MODEL INPUT FILE; takes lines of JSON, (size, at once, seconds), and answers each with rows per
second.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np

METHOD = "/inference.GRPCInferenceService/ModelInfer"


@contextmanager
def sending(address: str, name: str, image: np.ndarray) -> Iterator[Callable[[int, int, float], float]]:
    """A process that sends batches of an image; yields what has it do so, and returns rows per second.

    Args:
        address: Of the model, as in the config.
        name: Of its input.
        image: (C, H, W) float32.
    """
    server, model = address.removeprefix("grpc://").split("/")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "image.npy"
        np.save(file, image)
        command = [sys.executable, __file__, server, model, name, str(file)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

            def send(size: int, at_once: int, seconds: float) -> float:
                print(json.dumps([size, at_once, seconds]), file=process.stdin, flush=True)
                line = process.stdout.readline() if process.stdout else ""
                if not line:
                    raise RuntimeError("the process that sends batches failed; it has said why")
                return float(line)

            try:
                yield send
            finally:
                process.kill()


def main() -> None:
    """Answers orders until there are no more."""
    import grpc

    from xai_proto import open_inference_pb2 as oip

    server, model, name, file = sys.argv[1:]
    image = np.load(file)
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(server, options) as channel:
        infer = channel.unary_unary(METHOD, None, None)
        for line in sys.stdin:
            size, at_once, seconds = json.loads(line)
            rows = np.repeat(image[None], size, axis=0)
            given = oip.ModelInferRequest.InferInputTensor(name=name, datatype="FP32", shape=rows.shape)
            request = oip.ModelInferRequest(model_name=model, inputs=[given], raw_input_contents=[rows.tobytes()])
            print(_rate(infer, request.SerializeToString(), size, at_once, seconds), flush=True)


def _rate(infer: Callable[..., bytes], request: bytes, size: int, at_once: int, seconds: float) -> float:
    """Rows per second; 0 where the server takes no such batch."""
    import grpc

    counts = [0] * at_once
    started = time.perf_counter()
    end = started + seconds

    def run(index: int) -> None:
        with suppress(grpc.RpcError):
            while time.perf_counter() < end:
                infer(request, timeout=60)
                counts[index] += size

    threads = [threading.Thread(target=run, args=(index,)) for index in range(at_once)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
