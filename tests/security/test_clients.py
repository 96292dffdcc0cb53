"""The SDK and the command line on a server that is closed to strangers."""

import asyncio
import os
import re
import subprocess
import sys

import certificates
import pytest
from guarded_server import TOKENS

from xai_client import AsyncClient, Client, PermissionDeniedError, Tls, UnauthenticatedError, UnavailableError


@pytest.fixture
def token_file(closed, tmp_path, bearer):
    def written(name):
        path = tmp_path / "caller.token"
        path.write_text(dict(bearer(name))["authorization"].removeprefix("Bearer "))
        return path

    return written


def test_with_a_token_it_calls(closed, token_file):
    ca = closed.folder / "ca.pem"
    with Client(closed.grpc, tls=ca, token=token_file("all")) as client:
        assert client.model_info().explainers
    with Client(closed.grpc, tls=ca) as client, pytest.raises(UnauthenticatedError, match="XAI_TOKEN_FILE"):
        client.model_info()
    with (
        Client(closed.grpc, tls=ca, token=token_file("all but read")) as client,
        pytest.raises(PermissionDeniedError, match="ListSamples needs the role read, and the token 'all but read'"),
    ):
        client.list_samples()
    with Client(closed.grpc, tls=True) as client, pytest.raises(UnavailableError, match="Give `tls` the root"):
        client.model_info()
    with Client(closed.grpc) as client, pytest.raises(UnavailableError, match="check the port, and `tls`"):
        client.model_info(timeout=5)


@pytest.mark.parametrize("name", TOKENS)
def test_a_caller_is_told_its_roles(name, closed, token_file):
    given = {"tls": closed.folder / "ca.pem", "token": token_file(name)}

    async def asked():
        async with AsyncClient(closed.grpc, **given) as client:
            return await client.model_info()

    with Client(closed.grpc, **given) as client:
        assert client.model_info().roles == asyncio.run(asked()).roles == TOKENS[name]


def test_a_token_that_is_replaced_is_sent_with_the_next_call(closed, token_file):
    path = token_file("all but read")
    with Client(closed.grpc, tls=closed.folder / "ca.pem", token=path) as client:
        with pytest.raises(PermissionDeniedError):
            client.quality()
        token_file("all")
        with pytest.raises(Exception, match="evaluator") as caught:
            client.quality()
    assert not isinstance(caught.value, PermissionDeniedError)


def test_with_a_certificate_it_calls(mutual, tmp_path):
    certificate, key = certificates.write_pair(tmp_path, mutual.authority.issue("app"), "app")

    async def asked():
        async with AsyncClient(mutual.grpc, tls=Tls(mutual.folder / "ca.pem", certificate, key)) as client:
            return await client.model_info()

    info = asyncio.run(asked())
    assert info.explainers
    assert info.roles is None  # a certificate of the CA is all that it takes, and a token would be none the wiser


def test_the_command_line_shows_no_token(closed, token_file):
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("XAI_")},
        "XAI_SERVER": closed.grpc,
        "XAI_TLS_CA": str(closed.folder / "ca.pem"),
        "XAI_TOKEN_FILE": str(token_file("nothing but predict")),
    }
    command = [sys.executable, "-m", "xai_client"]
    done = subprocess.run([*command, "info"], env=environment, capture_output=True, text=True, timeout=60)
    assert re.search(r"^you may +predict$", done.stdout, re.MULTILINE)
    assert done.returncode == 0, done.stderr
    feedback = [*command, "feedback", "some-id", "--class-id", "1"]
    done = subprocess.run(feedback, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "needs the role feedback, and the token 'nothing but predict' has predict." in done.stderr
    assert "secret" not in done.stderr
