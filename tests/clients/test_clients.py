"""Clients that others wrote talk to the server: `make test-clients` makes an environment for each, and runs these."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = ROOT / ".venv-clients"


def run(*command, **environment):
    """Runs a client's program in its own environment, which knows nothing of ours."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        list(map(str, command)), env={**clean, **environment}, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("as expected\n")


@pytest.mark.parametrize("flavour", ["grpc", "http", "grpc-aio", "http-aio"])
def test_tritonclient(server, expected, flavour):
    address = server.grpc if flavour.startswith("grpc") else server.http
    run(ENVIRONMENTS / "triton/bin/python", Path(__file__).parent / "triton_client.py", flavour, address, expected.npz)


def test_kserves_client(server, expected):
    program = Path(__file__).parent / "kserve_client.py"
    run(ENVIRONMENTS / "kserve/bin/python", program, server.grpc, server.http, expected.npz)


def test_a_client_in_node(server, expected):
    node = shutil.which("node")
    assert node, "there is no node; on Debian: apt install nodejs npm"
    program, proto = Path(__file__).parent / "node_client.js", ROOT / "proto/inference/open_inference.proto"
    modules = str(ENVIRONMENTS / "node/node_modules")
    run(node, program, proto, server.grpc, server.http, expected.json, NODE_PATH=modules)
