"""A model on a server that is closed to strangers: it is shown a token or a certificate, by gRPC and by REST."""

import contextlib
import re
import time

import certificates
import numpy as np
import pytest
from guarded_server import token_of

from xai_sidecar.backends.loading import load_backend
from xai_sidecar.config import parse_config
from xai_sidecar.engine.work import Forward
from xai_sidecar.errors import ConfigError, UpstreamError

SHAPE = (3, 32, 32)


@contextlib.contextmanager
def asking(server, scheme, **upstream):
    """The model of a server, as a backend."""
    address = server.grpc if scheme == "grpcs" else server.http
    model = {
        "oip": f"{scheme}://{address}/model",
        "upstream": {
            "input": "model_input",
            "output": "logits",
            "ca": str(server.folder / "ca.pem"),
            **{key: str(path) for key, path in upstream.items()},
        },
        "input": {"size": SHAPE[1]},
    }
    backend = load_backend(parse_config({"model": model}))
    try:
        yield lambda: backend.run(Forward.kind, (np.zeros((2, *SHAPE), np.float32),))[0]
    finally:
        backend.close()


def let_in_again(ask):
    """The answer, once the server is known to be back."""
    for _ in range(200):
        try:
            return ask()
        except UpstreamError:
            time.sleep(0.05)
    pytest.fail("it was not let in again")


@pytest.fixture(params=["grpcs", "https"])
def scheme(request):
    return request.param


def test_a_token_lets_in_and_may_be_replaced(closed, scheme, tmp_path):
    token = tmp_path / "token"
    token.write_text(f"{token_of('all')}\n")
    with asking(closed, scheme, token=token) as ask:
        first = ask()
        token.write_text("secret-of-nobody")
        with pytest.raises(UpstreamError, match="wants to know who asks"):
            ask()
        token.write_text("")  # half written: the last one is sent
        with pytest.raises(UpstreamError, match="wants to know who asks"):
            ask()
        token.write_text(token_of("nothing but predict"))
        np.testing.assert_array_equal(let_in_again(ask), first)
    assert not re.search("secret-of", "".join(closed.log))


def test_who_shows_nothing_or_has_another_role_does_not_get_in(closed, scheme, tmp_path):
    (tmp_path / "token").write_text(token_of("all but predict"))
    for upstream, says in (({}, "wants to know who asks"), ({"token": tmp_path / "token"}, "does not allow it")):
        with pytest.raises(ConfigError, match=says), asking(closed, scheme, **upstream):
            pytest.fail("it got in")


def test_a_certificate_lets_in(mutual, scheme, tmp_path):
    certificates.write_pair(tmp_path, mutual.authority.issue("caller"), "caller")
    pair = {"certificate": tmp_path / "caller.pem", "key": tmp_path / "caller.key"}
    with asking(mutual, scheme, **pair) as ask:
        assert np.isfinite(ask()).all()
    with pytest.raises(ConfigError, match="does not answer"), asking(mutual, scheme):
        pytest.fail("it got in")
