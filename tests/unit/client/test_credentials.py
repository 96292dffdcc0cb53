"""TLS and tokens: from arguments, files and the environment, and never to be seen."""

import os
from pathlib import Path

import grpc
import pytest

from xai_client import ArgumentError, AsyncClient, Client, Tls
from xai_client.calls import Connection
from xai_client.command import common
from xai_client.command.main import _parser, main
from xai_client.credentials import Token, channel_credentials, tls_of, token_of

SECRET = "secret-of-shop"


@pytest.fixture(autouse=True)
def bare(monkeypatch):
    for name in [name for name in os.environ if name.startswith(("XAI_TLS", "XAI_TOKEN"))]:
        monkeypatch.delenv(name)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "shop.token"
    path.write_text(f"{SECRET}\n")
    return path


def test_the_environment_says_what_the_program_does_not(file):
    assert token_of(None, (), {}) is None
    assert token_of(None, (), {"XAI_TOKEN_FILE": str(file)}).metadata() == ("authorization", f"Bearer {SECRET}")
    assert token_of("other", (), {"XAI_TOKEN_FILE": str(file)}).metadata() == ("authorization", "Bearer other")
    assert token_of("", (), {"XAI_TOKEN_FILE": str(file)}) is None
    assert token_of(None, [("authorization", "Basic x")], {"XAI_TOKEN_FILE": str(file)}) is None
    assert tls_of(None, {}) is None
    assert tls_of(None, {"XAI_TLS": "1"}) == Tls()
    assert tls_of(None, {"XAI_TLS": "0"}) is None
    whole = {"XAI_TLS_CA": "ca.pem", "XAI_TLS_CERTIFICATE": "me.pem", "XAI_TLS_KEY": "me.key"}
    assert tls_of(None, whole) == Tls("ca.pem", "me.pem", "me.key")
    assert tls_of(False, whole) is None
    assert tls_of("other.pem", whole) == Tls("other.pem")


def test_a_file_is_read_anew_when_it_changes(file):
    token = Token(file)
    file.write_text("another-secret")
    assert token.metadata()[1] == "Bearer another-secret"
    file.write_text("")
    assert token.metadata()[1] == "Bearer another-secret"
    file.unlink()
    assert token.metadata()[1] == "Bearer another-secret"


@pytest.mark.parametrize("text", ["two\nlines", "with space", "", "ümlaut", "x" * 5000, "\x7f"])
def test_what_is_no_token_is_refused_and_not_repeated(file, text):
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ArgumentError, match="no token") as caught:
        Token(file)
    assert text == "" or text not in str(caught.value)
    if text:
        with pytest.raises(ArgumentError, match="no token") as caught:
            Client("127.0.0.1:1", token=text)
        assert text not in str(caught.value)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_token_goes_to_no_other_machine_without_encryption(kind, file):
    with pytest.raises(ArgumentError, match=r"for everybody on the way to read\. Give tls=") as caught:
        kind("models.example:50051", token=SECRET)
    assert SECRET not in str(caught.value)
    for options in ({"tls": True}, {"credentials": grpc.ssl_channel_credentials()}):
        assert kind("models.example:50051", token=file, **options)
    assert kind("127.0.0.1:50051", token=SECRET)
    assert kind("models.example:50051", metadata=[("authorization", f"Bearer {SECRET}")])


@pytest.mark.parametrize(
    "arguments",
    [{"tls": 3}, {"tls": True, "credentials": grpc.ssl_channel_credentials()}, {"token": 3}],
)
def test_what_is_no_credential_is_refused(arguments):
    with pytest.raises(ArgumentError):
        Client("127.0.0.1:1", **arguments)


def test_files_that_are_not_there_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"ca\.pem"):
        Client("127.0.0.1:1", tls=tmp_path / "ca.pem")
    with pytest.raises(FileNotFoundError, match="token"):
        Client("127.0.0.1:1", token=tmp_path / "token")
    with pytest.raises(ArgumentError, match="give both"):
        Tls(certificate="me.pem")


def test_it_shows_in_no_repr(file):
    metadata = (("authorization", f"Bearer {SECRET}"),)
    connection = Connection("127.0.0.1:1", None, metadata, False, Token(SECRET))
    assert SECRET not in repr(connection) + repr(Token(file)) + repr(vars(connection)["token"])
    with pytest.raises(ArgumentError) as caught:
        Client("127.0.0.1:1", metadata=[("authorization", f"Bearer {SECRET}", "more")])
    assert SECRET not in str(caught.value)


def test_it_is_sent_with_each_call(file):
    call = Connection("127.0.0.1:1", None, (("x-mine", "1"),), False, Token(file)).call()
    assert call.arguments()["metadata"][:2] == (("x-mine", "1"), ("authorization", f"Bearer {SECRET}"))


def test_the_options_of_commands(file, monkeypatch):
    def given(*words):
        return common.credentials_of(_parser().parse_args(["info", *words]))

    assert given() == {"tls": None, "token": None}
    assert given("--tls", "--token-file", str(file)) == {"tls": Tls(), "token": file}
    assert given("--ca", "ca.pem")["tls"] == Tls(Path("ca.pem"))
    monkeypatch.setenv("XAI_TLS_CERTIFICATE", "me.pem")
    monkeypatch.setenv("XAI_TLS_KEY", "me.key")
    assert given()["tls"] is None, "the client asks the environment itself"
    assert given("--ca", "ca.pem")["tls"] == Tls(Path("ca.pem"), "me.pem", "me.key")


@pytest.mark.parametrize("command", ["info", "predict", "feedback"])
def test_commands_take_no_token_itself(command, capsys):
    assert main([command, "--help"]) == 0
    text = capsys.readouterr().out
    assert "--token-file" in text
    assert "--token " not in text
    for words in (["--token", SECRET], [f"--token={SECRET}"]):
        assert main([command, "x", *words]) == 2
        told = capsys.readouterr().err
        assert "give --token-file" in told
        assert SECRET not in told


def test_without_any_there_is_no_encryption():
    assert channel_credentials("127.0.0.1:1", None, None, None) is None
