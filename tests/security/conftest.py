"""Servers that are closed to strangers, shared by the tests."""

import numpy as np
import pytest
from guarded_server import guarded, token_of

from xai_proto import explanation_pb2 as pb


@pytest.fixture(scope="package")
def closed(tmp_path_factory):
    """A server with TLS and tokens."""
    with guarded(tmp_path_factory.mktemp("closed"), "server.auth.tokens=tokens.toml") as server:
        yield server


@pytest.fixture(scope="package")
def mutual(tmp_path_factory):
    """A server with mutual TLS, and nothing else."""
    with guarded(
        tmp_path_factory.mktemp("mutual"), "server.tls.client_ca=ca.pem", "server.probes=127.0.0.1:0"
    ) as server:
        yield server


@pytest.fixture(scope="session")
def bearer():
    """The metadata with the token of a name."""
    return lambda name: [("authorization", f"Bearer {token_of(name)}")]


@pytest.fixture(scope="session")
def image():
    array = np.random.default_rng(0).standard_normal((3, 32, 32)).astype(np.float32)
    return pb.Image(model_input=pb.Tensor(dtype=pb.DATA_TYPE_FLOAT32, shape=array.shape, data=array.tobytes()))
