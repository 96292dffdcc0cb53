"""Who gets in by HTTP, and to which routes: on a real server, with TLS."""

import http.client
import json
import ssl

import certificates
import pytest

from xai_sidecar.http.roles import ROLES
from xai_sidecar.serving.callers import ANYBODY

GUARDED = {path: roles for path, roles in ROLES.items() if roles != ANYBODY}


def get(address, path, context=None, headers=()):
    """The answer to a request: status, headers and text."""
    host, _, port = address.rpartition(":")
    made = http.client.HTTPConnection if context is None else http.client.HTTPSConnection
    options = {} if context is None else {"context": context}
    connection = made(host, int(port), timeout=10, **options)
    try:
        connection.request("GET", path, headers=dict(headers))
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read().decode()
    finally:
        connection.close()


def trusting(authority, folder=None, pair=None):
    context = ssl.create_default_context(cadata=authority.pem.decode())
    if pair is not None:
        context.load_cert_chain(*certificates.write_pair(folder, pair, "caller"))
    return context


@pytest.fixture(scope="module")
def context(closed):
    return trusting(closed.authority)


@pytest.mark.parametrize("path", GUARDED)
def test_without_a_token_no_route_is_had(closed, context, path):
    for headers in ({}, {"Authorization": "Bearer wrong-secret"}, {"Authorization": "Basic c2VjcmV0"}):
        status, given, text = get(closed.http, path, context, headers)
        assert (status, given["www-authenticate"]) == (401, "Bearer")
        assert "token" in json.loads(text)["error"] or "Bearer" in json.loads(text)["error"]
        assert "secret" not in text


@pytest.mark.parametrize(("path", "role"), [(path, role) for path, roles in GUARDED.items() for role in roles])
def test_a_role_too_few_is_named(closed, context, bearer, path, role):
    status, _, text = get(closed.http, path, context, bearer(f"all but {role.value}"))
    assert status == 403
    assert json.loads(text)["error"].startswith(f"{path} needs the role {role.value}, and the token ")
    assert get(closed.http, path, context, bearer("all"))[0] not in (401, 403)


def test_probes_need_no_token(closed, context):
    for path in ("/healthz", "/readyz"):
        assert get(closed.http, path, context)[0] == 200


def test_what_is_not_encrypted_is_not_answered(closed):
    with pytest.raises((http.client.HTTPException, OSError)):
        get(closed.http, "/readyz")


def test_the_port_of_probes_needs_neither_tls_nor_tokens(mutual):
    for path in ROLES:
        if path in ("/healthz", "/readyz", "/metrics"):
            assert get(mutual.ready["probes"], path)[0] == 200
    assert get(mutual.ready["probes"], "/v2")[0] == 404


@pytest.mark.parametrize("who", ["nobody", "expired", "not yet", "another CA's"])
def test_who_has_no_certificate_of_the_ca_does_not_get_in(mutual, tmp_path, who):
    pairs = {
        "nobody": None,
        "expired": mutual.authority.issue("caller", days=(-2, -1)),
        "not yet": mutual.authority.issue("caller", days=(1, 2)),
        "another CA's": certificates.Authority("others").issue("caller"),
    }
    with pytest.raises(OSError):
        get(mutual.http, "/readyz", trusting(mutual.authority, tmp_path, pairs[who]))


def test_who_has_one_gets_in(mutual, tmp_path):
    context = trusting(mutual.authority, tmp_path, mutual.authority.issue("lorry"))
    assert get(mutual.http, "/metrics", context)[0] == 200
