"""The committed stubs are those of the contract, and the contract is clean."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

from xai_proto import explanation_pb2, open_inference_pb2, quality_pb2

MODULES = {
    "xai/v1/explanation": explanation_pb2,
    "xai/v1/quality": quality_pb2,
    "inference/open_inference": open_inference_pb2,
}
PROTO = Path(__file__).parents[2] / "proto"
BUF = shutil.which("buf", path=str(Path(sys.executable).parent)) or shutil.which("buf")


def run_buf(*arguments):
    assert BUF, "buf is missing; install the extra dev"
    return subprocess.run([BUF, *arguments], cwd=PROTO, capture_output=True, timeout=60, check=False)


def test_the_contract_passes_lint():
    done = run_buf("lint")
    assert done.returncode == 0, done.stdout.decode()


@pytest.mark.parametrize("name", MODULES)
def test_the_stubs_are_not_stale(name):
    done = run_buf("build", "--exclude-source-info", "-o", "-#format=binpb")
    assert done.returncode == 0, done.stderr.decode()
    files = descriptor_pb2.FileDescriptorSet.FromString(done.stdout).file
    contract = next(file for file in files if file.name == f"{name}.proto")
    stubs = descriptor_pb2.FileDescriptorProto()
    MODULES[name].DESCRIPTOR.CopyToProto(stubs)
    for file in (contract, stubs):
        strip_json_names(file.message_type)
    contract.DiscardUnknownFields()
    assert stubs == contract, "run `make proto`"


def strip_json_names(messages):
    """Compilers differ in whether they write down these, which follow from the names."""
    for message in messages:
        for field in message.field:
            field.ClearField("json_name")
        strip_json_names(message.nested_type)


def test_every_contract_has_its_stubs():
    assert {str(path.relative_to(PROTO).with_suffix("")) for path in PROTO.rglob("*.proto")} == set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_every_enum_begins_with_unspecified(name):
    for enum in MODULES[name].DESCRIPTOR.enum_types_by_name.values():
        assert enum.values_by_number[0].name.endswith("_UNSPECIFIED")


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("suffix", ["_pb2.py", "_pb2_grpc.py"])
def test_the_stubs_import_nothing_named_xai(name, suffix):
    """`xai` would be a top-level name that others may use."""
    text = (PROTO / "xai_proto" / f"{Path(name).name}{suffix}").read_text()
    assert "from xai." not in text
    assert "import xai" not in text.replace("from xai_proto import", "")


def test_the_open_inference_protocol_has_the_numbers_of_the_standard():
    """As its specification has them, and, for the stream, Triton's grpc_service.proto."""
    messages = open_inference_pb2.DESCRIPTOR.message_types_by_name
    request, response = messages["ModelInferRequest"], messages["ModelInferResponse"]
    tensor = "name:1 datatype:2 shape:3 parameters:4 contents:5"
    want = {
        messages["ServerLiveResponse"]: "live:1",
        messages["ServerReadyResponse"]: "ready:1",
        messages["ModelReadyRequest"]: "name:1 version:2",
        messages["ModelReadyResponse"]: "ready:1",
        messages["ServerMetadataResponse"]: "name:1 version:2 extensions:3",
        messages["ModelMetadataRequest"]: "name:1 version:2",
        messages["ModelMetadataResponse"]: "name:1 versions:2 platform:3 inputs:4 outputs:5",
        messages["ModelMetadataResponse"].nested_types_by_name["TensorMetadata"]: "name:1 datatype:2 shape:3",
        request: "model_name:1 model_version:2 id:3 parameters:4 inputs:5 outputs:6 raw_input_contents:7",
        request.nested_types_by_name["InferInputTensor"]: tensor,
        request.nested_types_by_name["InferRequestedOutputTensor"]: "name:1 parameters:2",
        response: "model_name:1 model_version:2 id:3 parameters:4 outputs:5 raw_output_contents:6",
        response.nested_types_by_name["InferOutputTensor"]: tensor,
        messages["ModelStreamInferResponse"]: "error_message:1 infer_response:2",
        messages["InferParameter"]: "bool_param:1 int64_param:2 string_param:3 double_param:4 uint64_param:5",
        messages["InferTensorContents"]: "bool_contents:1 int_contents:2 int64_contents:3 uint_contents:4 "
        "uint64_contents:5 fp32_contents:6 fp64_contents:7 bytes_contents:8",
    }
    for message, fields in want.items():
        assert " ".join(f"{field.name}:{field.number}" for field in message.fields) == fields, message.full_name
    service = open_inference_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"]
    methods = "ServerLive ServerReady ModelReady ServerMetadata ModelMetadata ModelInfer ModelStreamInfer"
    assert (service.full_name, [each.name for each in service.methods]) == (
        "inference.GRPCInferenceService",
        methods.split(),
    )
