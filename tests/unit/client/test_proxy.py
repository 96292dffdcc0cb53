"""Proxies of the environment: never to this machine, and named where a call fails behind one."""

import os

import pytest

from xai_client import AsyncClient, Client, DeadlineError, UnavailableError
from xai_client.channel import channel_options
from xai_client.proxy import is_local, proxy_in_use

NOBODY = "http://127.0.0.1:9"
REMOTE = "192.0.2.1:50051"  # reserved for documentation, RFC 5737


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    for name in list(os.environ):
        if "proxy" in name.lower():
            monkeypatch.delenv(name)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:1",
        "127.8.9.10:1",
        "localhost:1",
        "LocalHost.:1",
        "here.localhost:1",
        "[::1]:1",
        "[::ffff:127.0.0.1]:1",
        "0.0.0.0:1",
        "dns:localhost:1",
        "dns:///localhost:1",
        "dns://8.8.8.8/localhost:1",
        "dns:///[::1]:1",
        "ipv4:127.0.0.1:1",
        "ipv4:127.0.0.1:1,127.0.0.2:2",
        "ipv6:[::1]:1",
        "unix:relative.sock",
        "unix:///run/absolute.sock",
        "unix-abstract:name",
    ],
)
def test_this_machine(address):
    assert is_local(address)
    assert dict(channel_options((), address))["grpc.enable_http_proxy"] == 0


@pytest.mark.parametrize(
    "address",
    [
        REMOTE,
        "example.com:1",
        "localhost.example.com:1",
        "notlocalhost:1",
        "[2001:db8::1]:1",
        "dns:///example.com:1",
        "ipv4:127.0.0.1:1,192.0.2.1:2",
        "128.0.0.1:1",
    ],
)
def test_other_machines(address):
    assert not is_local(address)
    assert "grpc.enable_http_proxy" not in dict(channel_options((), address))


def test_the_callers_option_wins():
    assert dict(channel_options([("grpc.enable_http_proxy", 1)], "localhost:1"))["grpc.enable_http_proxy"] == 1


@pytest.mark.parametrize(
    ("environment", "address", "named"),
    [
        ({}, REMOTE, ""),
        ({"http_proxy": NOBODY}, REMOTE, "http_proxy (http://127.0.0.1:9)"),
        ({"https_proxy": NOBODY, "http_proxy": "http://other:1"}, REMOTE, "https_proxy (http://127.0.0.1:9)"),
        ({"grpc_proxy": NOBODY, "https_proxy": "http://other:1"}, REMOTE, "grpc_proxy (http://127.0.0.1:9)"),
        ({"http_proxy": "http://me:secret@proxy:3128"}, REMOTE, "http_proxy (http://proxy:3128)"),
        # gRPC reads none of these.
        ({"HTTPS_PROXY": NOBODY, "HTTP_PROXY": NOBODY, "all_proxy": NOBODY}, REMOTE, ""),
        ({"grpc_proxy": "", "http_proxy": NOBODY}, REMOTE, ""),
        ({"http_proxy": "https://127.0.0.1:9"}, REMOTE, ""),
        ({"http_proxy": NOBODY}, "localhost:1", ""),
        ({"http_proxy": NOBODY, "no_proxy": "10.0.0.0/8, 192.0.2.0/24"}, REMOTE, ""),
        ({"http_proxy": NOBODY, "no_proxy": "192.0.3.0/24,nonsense/9"}, REMOTE, "http_proxy (http://127.0.0.1:9)"),
        ({"http_proxy": NOBODY, "NO_PROXY": "192.0.2.0/24"}, REMOTE, "http_proxy (http://127.0.0.1:9)"),
        (
            {"http_proxy": NOBODY, "no_grpc_proxy": "", "no_proxy": "192.0.2.1"},
            REMOTE,
            "http_proxy (http://127.0.0.1:9)",
        ),
        ({"http_proxy": NOBODY, "no_proxy": ".example.com"}, "xai.Example.com:1", ""),
        ({"http_proxy": NOBODY, "no_proxy": "ample.com"}, "example.com:1", "http_proxy (http://127.0.0.1:9)"),
    ],
)
def test_the_variable_that_applies(monkeypatch, environment, address, named):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert proxy_in_use(address) == named


@pytest.mark.parametrize("variable", ["grpc_proxy", "https_proxy", "http_proxy"])
async def test_a_proxy_is_not_asked_the_way_to_this_machine(monkeypatch, fake, variable):
    monkeypatch.setenv(variable, NOBODY)
    port = fake.address.rpartition(":")[2]
    for address in (fake.address, f"localhost:{port}", f"dns:///localhost:{port}", f"ipv4:127.0.0.1:{port}"):
        with Client(address, timeout=5) as client:
            assert client.model_info().name == "lite0"
    async with AsyncClient(fake.address, timeout=5) as client:
        assert (await client.model_info()).name == "lite0"


def test_nor_by_the_command_line(monkeypatch, run):
    monkeypatch.setenv("https_proxy", NOBODY)
    assert run("info")[0] == 0


async def test_a_failure_behind_a_proxy_names_it_and_the_cure(monkeypatch):
    monkeypatch.setenv("https_proxy", NOBODY)
    with Client(REMOTE, timeout=1.5) as client, pytest.raises((UnavailableError, DeadlineError)) as caught:
        client.model_info()
    assert "https_proxy (http://127.0.0.1:9)" in caught.value.message
    assert "no_proxy" in caught.value.message
    async with AsyncClient(REMOTE, timeout=1.5) as client:
        with pytest.raises((UnavailableError, DeadlineError), match=r"https_proxy \(http://127.0.0.1:9\)"):
            await client.model_info()
