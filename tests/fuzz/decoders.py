"""Searches for bytes from strangers that are not refused as they should be: `make fuzz`.

atheris follows which lines of a decoder an input reaches, and goes on from inputs that reach new ones. A decoder may
take an input or raise a typed error that blames the caller. An input that makes it raise anything else, take more than
some seconds or too much memory ends the search with exit status 1; the input is kept, and --again reads it once more.

It needs the extra `fuzz`. The unit tests test_fuzz.py draw messages at random instead, in every run.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import io
import json
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import atheris

READERS = ["xai_sidecar.imaging", "xai_sidecar.open_inference", "xai_sidecar.http", "xai_sidecar.rpc", "PIL"]

with contextlib.redirect_stderr(io.StringIO()), atheris.instrument_imports(include=READERS):
    import numpy as np
    from google.protobuf import json_format
    from google.protobuf.message import DecodeError, Message
    from PIL import Image

    from xai_proto import explanation_pb2 as pb
    from xai_proto import open_inference_pb2 as oip
    from xai_proto import quality_pb2 as qpb
    from xai_sidecar.errors import InvalidRequestError, PreconditionError
    from xai_sidecar.http import kserve_v1, open_inference_json
    from xai_sidecar.http.contract_json import read_message
    from xai_sidecar.imaging.preparing import InputSpec
    from xai_sidecar.imaging.reading import read as read_picture
    from xai_sidecar.open_inference import asked
    from xai_sidecar.rpc.decode import read_interval, read_request
    from xai_sidecar.rpc.open_inference import read_infer_request
    from xai_sidecar.serving.requests import EncodedPicture, PredictRequest

SPEC = InputSpec(3, 32, 32, 36, 36, False, "bicubic", (0.5,) * 3, (0.25,) * 3)
MOST_PIXELS = 1 << 20
MOST_IMAGES = 4
SECONDS_OF_AN_INPUT = 5
MIB_OF_A_SEARCH = 2048
LONGEST = 1 << 14
OF_THE_CALLER = (InvalidRequestError, PreconditionError)


# -------------------------------------------------------------------------------------------------- decoders


def contract(data: bytes) -> None:
    """A request of Predict or PredictStream, and all that the core looks at of it."""
    asked_for = pb.PredictStreamRequest.FromString(data)
    read_interval(asked_for)
    _look_at(read_request(asked_for.request))


def contract_json(data: bytes) -> None:
    """The same in JSON, as any of the contract's messages."""
    kinds: list[type[Message]] = [pb.PredictStreamRequest, pb.ReportGroundTruthRequest, qpb.ListSamplesRequest]
    for kind in kinds:
        with contextlib.suppress(*OF_THE_CALLER):
            read_message(data, kind)


def picture(data: bytes) -> None:
    """A picture's file, made a model input."""
    read_picture(data, SPEC, MOST_PIXELS)


def open_inference_message(data: bytes) -> None:
    """A ModelInfer request."""
    request = read_infer_request(oip.ModelInferRequest.FromString(data), len(data))
    _look_at(asked.read_request(request, "id", MOST_IMAGES).request)


def open_inference_body(data: bytes) -> None:
    """The same as JSON, with binary data behind it; the first two bytes are the length of the JSON, 0 for none."""
    (length,) = struct.unpack("<H", data[:2].ljust(2, b"\0"))
    found = open_inference_json.read_infer_request(data[2:], str(length) if length else None, "model", "")
    _look_at(asked.read_request(found.request, "id", MOST_IMAGES).request)


def kserve(data: bytes) -> None:
    """A body of KServe's first protocol, of a prediction and of an explanation."""
    body = kserve_v1.read_body(data)
    for explain in (False, True):
        with contextlib.suppress(*OF_THE_CALLER):
            _look_at(kserve_v1.core_request(body, "id", "model", len(data), MOST_IMAGES, explain=explain))


def _look_at(request: PredictRequest) -> None:
    for one in request.images:
        if isinstance(one, EncodedPicture):
            read_picture(one.data, SPEC, MOST_PIXELS)
    for each in request.explanations:
        repr(each)


# -------------------------------------------------------------------------------------------------- first inputs


def _file(kind: str, mode: str = "RGB", **options: object) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, kind, **options)
    return file.getvalue()


def _files() -> list[bytes]:
    exif = Image.Exif()
    exif[0x0112] = 6
    return [
        _file("JPEG", quality=50, exif=exif),
        _file("JPEG", progressive=True),
        _file("JPEG", "CMYK"),
        _file("PNG"),
        _file("PNG", "P", transparency=3),
        _file("PNG", "L"),
        _file("WEBP"),
        _file("WEBP", lossless=True, exif=exif),
        _file("GIF", "P"),
        _file("BMP"),
        _file("TIFF", compression="tiff_lzw"),
        _file("TIFF", "L", exif=exif),
    ]


def _contracts() -> list[pb.PredictStreamRequest]:
    found = []
    for number, file in enumerate(_files()[:4]):
        request = pb.PredictStreamRequest()
        request.progress_interval.FromMilliseconds(100)
        request.request.request_id, request.request.top_k = f"request-{number}", 3
        request.request.images.add(encoded=file)
        tensor = request.request.images.add().pixels
        tensor.dtype, tensor.data = pb.DATA_TYPE_UINT8, bytes(4 * 4 * 3)
        tensor.shape.extend([4, 4, 3])
        explanation = request.request.explanations.add(explainer=("rise", "gradcam", "occlusion", "auto")[number])
        explanation.targets.top_count, explanation.seed = 2, 7
        explanation.budget.FromSeconds(3)
        if number == 0:
            explanation.rise.mask_count = 64
        explanation.condition.top_probability_below = 0.3
        found.append(request)
    return found


def _json_bodies() -> list[bytes]:
    return [json_format.MessageToJson(each, indent=None).encode() for each in _contracts()]


def _infer_messages() -> list[bytes]:
    found = []
    for file in _files()[:3]:
        request = oip.ModelInferRequest(model_name="model", id="1")
        request.raw_input_contents.append(struct.pack("<I", len(file)) + file)
        tensor = request.inputs.add(name="image", datatype="BYTES")
        tensor.shape.append(1)
        output = request.outputs.add(name="saliency.rise")
        output.parameters["masks"].int64_param = 64
        output.parameters["targets"].string_param = "1,2"
        found.append(request.SerializeToString())
    request = oip.ModelInferRequest(model_name="model")
    tensor = request.inputs.add(name="model_input", datatype="FP32")
    tensor.shape.extend([1, 3, 2, 2])
    tensor.contents.fp32_contents.extend([0.5] * 12)
    return [*found, request.SerializeToString()]


def _infer_bodies() -> list[bytes]:
    file = _files()[3]
    blob = struct.pack("<I", len(file)) + file
    binary = {
        "inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": len(blob)}}],
        "outputs": [{"name": "saliency.rise", "parameters": {"masks": 16, "binary_data": True}}],
    }
    plain = {
        "id": "1",
        "inputs": [{"name": "model_input", "datatype": "FP32", "shape": [1, 1, 2, 2], "data": [[[[0, 1], [2, 3.5]]]]}],
        "outputs": [{"name": "probabilities", "parameters": {"classification": 2}}],
        "parameters": {"top_k": 2},
    }
    head = json.dumps(binary).encode()
    return [struct.pack("<H", len(head)) + head + blob, bytes(2) + json.dumps(plain).encode()]


def _kserve_bodies() -> list[bytes]:
    file = {"b64": base64.b64encode(_files()[3]).decode()}
    return [
        json.dumps({"instances": [file, {"image": file}], "parameters": {"top_k": 2}}).encode(),
        json.dumps({"instances": [[[[0, 1, 2]]]], "parameters": {"explainer": "rise", "masks": 16}}).encode(),
        json.dumps({"instances": [{"model_input": [[[0.5]]]}], "parameters": {"targets": [1], "seed": 3}}).encode(),
    ]


DECODERS: dict[str, tuple[Callable[[bytes], None], Callable[[], list[bytes]]]] = {
    "contract": (contract, lambda: [each.SerializeToString() for each in _contracts()]),
    "contract-json": (contract_json, _json_bodies),
    "picture": (picture, _files),
    "open-inference": (open_inference_message, _infer_messages),
    "open-inference-json": (open_inference_body, _infer_bodies),
    "kserve": (kserve, _kserve_bodies),
}


# -------------------------------------------------------------------------------------------------- the search


def _tried(decoder: Callable[[bytes], None]) -> Callable[[bytes], None]:
    def tried(data: bytes) -> None:
        try:
            decoder(data)
        except DecodeError:
            """No message at all: gRPC refuses it."""
        except OF_THE_CALLER:
            """Refused as it should be."""

    return tried


def _search(name: str, seconds: int, folder: Path) -> bool:
    """Runs a search in a process of its own, which libFuzzer ends; whether it found nothing."""
    known = folder / name
    known.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(DECODERS[name][1]()):
        (known / f"first-{number}").write_bytes(data)
    command = [
        sys.executable,
        __file__,
        "--inside",
        name,
        f"-max_total_time={seconds}",
        f"-timeout={SECONDS_OF_AN_INPUT}",
        f"-rss_limit_mb={MIB_OF_A_SEARCH}",
        f"-max_len={LONGEST}",
        f"-artifact_prefix={folder}/{name}-",
        "-print_final_stats=1",
        str(known),
    ]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    count = re.search(r"number_of_executed_units:\s*(\d+)", done.stderr)
    reached = re.findall(r" ft: (\d+)", done.stderr)
    if done.returncode == 0 and count and reached:
        print(f"{name}: {int(count[1]):,} inputs, {int(reached[-1]):,} branches reached, none at fault", flush=True)
        return True
    print(f"{name}: exit status {done.returncode}\n{(done.stdout + done.stderr)[-4000:]}", flush=True)
    return False


def main() -> int:
    """The command line."""
    if sys.argv[1:2] == ["--inside"]:
        name, *options = sys.argv[2:]
        atheris.Setup([sys.argv[0], *options], _tried(DECODERS[name][0]))
        atheris.Fuzz()
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("decoders", nargs="*", help=f"of {', '.join(DECODERS)}; all if none is named")
    parser.add_argument("--seconds", type=int, default=60, help="for each decoder (default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=Path(".venv/fuzz-inputs"), help="inputs that were found")
    parser.add_argument("--again", type=Path, help="a file that one decoder is to read once more")
    given = parser.parse_args()
    unknown = [each for each in given.decoders if each not in DECODERS]
    if unknown:
        parser.error(f"there is no decoder {unknown[0]}; there are {', '.join(DECODERS)}")
    if given.again:
        if len(given.decoders) != 1:
            parser.error("name the one decoder that is to read the file")
        DECODERS[given.decoders[0]][0](given.again.read_bytes())
        return 0
    found_nothing = [_search(name, given.seconds, given.folder) for name in given.decoders or DECODERS]
    return 0 if all(found_nothing) else 1


if __name__ == "__main__":
    sys.exit(main())
