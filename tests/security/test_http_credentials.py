"""Who gets in by HTTP, and to which routes: on a real server, with TLS."""

import http.client
import json
import re
import ssl
from collections import Counter

import certificates
import pytest
from google.protobuf import json_format
from starlette.routing import Route

from xai_proto import explanation_pb2 as pb
from xai_sidecar.http.access import guarded
from xai_sidecar.http.roles import METHODS, ROLES
from xai_sidecar.serving.access import Access
from xai_sidecar.serving.callers import ANYBODY

GUARDED = {path: roles for path, roles in ROLES.items() if roles != ANYBODY}
NEEDED = [(path, role) for path, roles in GUARDED.items() if len(roles) == 1 for role in roles]


def ask(address, path, context=None, headers=(), body=None):
    """The answer to a request, a GET without a body: status, headers and text."""
    host, _, port = address.rpartition(":")
    made = http.client.HTTPConnection if context is None else http.client.HTTPSConnection
    options = {} if context is None else {"context": context}
    connection = made(host, int(port), timeout=10, **options)
    try:
        connection.request("GET" if body is None else "POST", path, body, dict(headers))
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


def body_of(path):
    """An empty body for what takes one."""
    return b"{}" if path.endswith(("predict", "stream", "infer", "explain")) else None


@pytest.mark.parametrize("path", GUARDED)
def test_without_a_token_no_route_is_had(closed, context, path):
    for headers in ({}, {"Authorization": "Bearer wrong-secret"}, {"Authorization": "Basic c2VjcmV0"}):
        status, given, text = ask(closed.http, path, context, headers, body_of(path))
        assert (status, given["www-authenticate"]) == (401, "Bearer")
        assert "token" in json.loads(text)["error"] or "Bearer" in json.loads(text)["error"]
        assert "secret" not in text


def test_what_is_refused_is_counted(closed, context, bearer):
    def counts():
        text = ask(closed.http, "/metrics", context, bearer("all"))[2]
        found = re.findall(r'xai_requests_total\{code="(\w+)",method="(\w+)"[^}]*\} ([\d.]+)', text)
        return Counter({(method, code): int(float(count)) for code, method, count in found})

    before = counts()
    paths = [path for path in GUARDED if path in METHODS]
    for path in paths:
        ask(closed.http, path, context, {"Authorization": "Bearer wrong"}, b"{}")
        ask(closed.http, path, context, bearer("all but predict"), b"{}")
    refused = Counter((METHODS[path], code) for path in paths for code in ("UNAUTHENTICATED", "PERMISSION_DENIED"))
    assert counts() - before == refused


def test_every_call_that_is_counted_has_its_method():
    assert set(METHODS) == {path for path in ROLES if body_of(path)}


@pytest.mark.parametrize(("path", "role"), NEEDED)
def test_a_role_too_few_is_named(closed, context, bearer, path, role):
    status, _, text = ask(closed.http, path, context, bearer(f"all but {role.value}"), body_of(path))
    assert status == 403
    assert json.loads(text)["error"].startswith(f"{path} needs the role {role.value}, and the token ")
    assert ask(closed.http, path, context, bearer("all"), body_of(path))[0] not in (401, 403, 405)


@pytest.mark.parametrize("path", ["/v1/predict", "/v1/predict:stream"])
def test_explanations_need_a_role_of_their_own(closed, context, bearer, image, path):
    def asked(name, **more):
        request = {**json_format.MessageToDict(pb.PredictRequest(images=[image])), **more}
        body = json.dumps({"request": request} if path.endswith("stream") else request)
        return ask(closed.http, path, context, bearer(name), body)

    explanations = [{"explainer": "gradcam"}]
    assert asked("nothing but predict")[0] == 200
    assert asked("all but read", explanations=explanations)[0] == 200
    status, _, text = asked("nothing but predict", explanations=explanations)
    words = "An explanation needs the role explain, and the token 'nothing but predict' has predict."
    assert words in text
    assert status == 403
    lines = [line for line in closed.log if '"event": "request"' in line and '"caller": "nothing but predict"' in line]
    assert lines, "calls by HTTP go by their callers, too"


def test_a_route_without_a_role_is_not_served():
    with pytest.raises(KeyError):
        guarded([Route("/new", lambda request: None)], Access(), lambda *_: None)


def test_probes_need_no_token(closed, context):
    for path in ("/healthz", "/readyz"):
        assert ask(closed.http, path, context)[0] == 200


def test_what_is_not_encrypted_is_not_answered(closed):
    with pytest.raises((http.client.HTTPException, OSError)):
        ask(closed.http, "/readyz")


def test_the_port_of_probes_needs_neither_tls_nor_tokens(mutual):
    for path in ("/healthz", "/readyz", "/metrics"):
        assert ask(mutual.ready["probes"], path)[0] == 200
    assert ask(mutual.ready["probes"], "/v2")[0] == 404


@pytest.mark.parametrize("who", ["nobody", "expired", "not yet", "another CA's"])
def test_who_has_no_certificate_of_the_ca_does_not_get_in(mutual, tmp_path, who):
    pairs = {
        "nobody": None,
        "expired": mutual.authority.issue("caller", days=(-2, -1)),
        "not yet": mutual.authority.issue("caller", days=(1, 2)),
        "another CA's": certificates.Authority("others").issue("caller"),
    }
    with pytest.raises(OSError):
        ask(mutual.http, "/readyz", trusting(mutual.authority, tmp_path, pairs[who]))


def test_who_has_one_gets_in(mutual, tmp_path):
    context = trusting(mutual.authority, tmp_path, mutual.authority.issue("lorry"))
    assert ask(mutual.http, "/metrics", context)[0] == 200
