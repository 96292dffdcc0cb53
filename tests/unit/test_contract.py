"""The committed stubs are those of the contract, and the contract is clean."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

from xai_proto import explanation_pb2, quality_pb2

MODULES = {"explanation": explanation_pb2, "quality": quality_pb2}
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
    contract = next(file for file in files if file.name == f"xai/v1/{name}.proto")
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
    assert {path.stem for path in (PROTO / "xai" / "v1").glob("*.proto")} == set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_every_enum_begins_with_unspecified(name):
    for enum in MODULES[name].DESCRIPTOR.enum_types_by_name.values():
        assert enum.values_by_number[0].name.endswith("_UNSPECIFIED")


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("suffix", ["_pb2.py", "_pb2_grpc.py"])
def test_the_stubs_import_nothing_named_xai(name, suffix):
    """`xai` would be a top-level name that others may use."""
    text = (PROTO / "xai_proto" / f"{name}{suffix}").read_text()
    assert "from xai." not in text
    assert "import xai" not in text.replace("from xai_proto import", "")
