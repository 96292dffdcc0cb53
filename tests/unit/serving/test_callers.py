"""Who calls, by what it shows, and what it may do."""

import asyncio
import hashlib
import os

import pytest
from structlog.testing import capture_logs

from xai_sidecar.errors import ConfigError, RoleMissingError, UnauthenticatedError
from xai_sidecar.serving import fresh_files
from xai_sidecar.serving.access import Access, read_callers
from xai_sidecar.serving.callers import ALL_ROLES, ANYBODY, Caller, Role, calling, current_caller
from xai_sidecar.serving.fresh_files import FreshFiles

SECRET = "correct-horse-battery"
ENTRY = '[[tokens]]\nname = "shop"\nsha256 = "{digest}"\nroles = ["predict", "explain"]\n'
CERTIFICATE = '[[certificates]]\nname = "prometheus"\nroles = ["read"]\n'


def entry(token, name="shop"):
    return ENTRY.format(digest=hashlib.sha256(token.encode()).hexdigest()).replace("shop", name)


@pytest.fixture
def tokens(tmp_path):
    path = tmp_path / "tokens.toml"
    path.write_text(entry(SECRET) + entry("another", "lab") + CERTIFICATE)
    return path


@pytest.fixture
def at_once(monkeypatch):
    """Files are looked at whenever somebody asks."""
    monkeypatch.setattr(fresh_files, "_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(fresh_files, "_SETTLED_SECONDS", -10.0)


def test_a_token_says_who_calls(tokens):
    access = Access(tokens)
    caller = access.by_token(f"Bearer {SECRET}")
    assert (caller.name, caller.roles) == ("shop", {Role.PREDICT, Role.EXPLAIN})
    assert access.by_token(b"bearer another").name == "lab"
    assert access.caller(f"Bearer {SECRET}", ("prometheus",), "10.0.0.1").name == "shop"


@pytest.mark.parametrize(
    "authorization",
    [f"Bearer {SECRET}x", f"Bearer {SECRET[:-1]}", "Bearer ", "Bearer", SECRET, f"Basic {SECRET}", "",
     f"Bearer {'x' * 5000}", f"Bearer {hashlib.sha256(SECRET.encode()).hexdigest()}", "Bearer \udce4",
     b"Bearer \xff\x00"],
)  # fmt: skip
def test_what_nobody_has_been_given_is_refused_and_not_repeated(tokens, authorization):
    with pytest.raises(UnauthenticatedError) as caught:
        Access(tokens).by_token(authorization)
    assert "horse" not in str(caught.value)


def test_a_certificate_says_who_calls_where_there_is_no_token(tokens):
    access = Access(tokens)
    assert access.takes_certificates
    assert access.caller(None, ("somebody", "prometheus"), "10.0.0.1") == Caller(
        "prometheus", frozenset({Role.READ}), "certificate"
    )
    with pytest.raises(UnauthenticatedError, match="certificate 'somebody' is in no entry"):
        access.caller(None, ("somebody",), "10.0.0.1")
    with pytest.raises(UnauthenticatedError, match="has no token\\. Send"):
        access.caller(None, (), "10.0.0.1")


def test_without_a_file_whoever_reaches_the_server_may_do_everything():
    access = Access()
    assert access.is_open
    assert access.caller("Bearer whatever", (), "10.0.0.1") == Caller("10.0.0.1", ALL_ROLES, "address")
    assert access.caller(None, ("shop", "shop.example.com"), "10.0.0.1") == Caller("shop", ALL_ROLES, "certificate")


def test_a_role_too_few_is_named():
    caller = Caller("shop", frozenset({Role.READ, Role.PREDICT}), "token")
    caller.check({Role.PREDICT}, "Predict")
    caller.check(ANYBODY, "Check")
    caller.check(ALL_ROLES, "GetModelInfo")
    with pytest.raises(RoleMissingError) as caught:
        caller.check({Role.EXPLAIN}, "An explanation")
    text = "An explanation needs the role explain, and the token 'shop' has predict and read. "
    assert caught.value.message.startswith(text)
    with pytest.raises(RoleMissingError, match="the role explain or feedback, and"):
        caller.check({Role.FEEDBACK, Role.EXPLAIN}, "Both")


async def test_tasks_know_who_called():
    async def inner():
        return current_caller().name

    assert current_caller() == Caller()
    with calling(Caller("shop")):
        task = asyncio.ensure_future(inner())
    assert (await task, current_caller().name) == ("shop", "")


def test_a_token_is_taken_back_without_a_restart(tokens, at_once):
    access = Access(tokens)
    kept, taken = f"Bearer {SECRET}", "Bearer another"
    assert access.by_token(taken).name == "lab"
    tokens.write_text(entry(SECRET) + entry("a new one", "lab"))
    assert access.by_token("Bearer a new one").name == "lab"
    assert access.by_token(kept).name == "shop"
    assert not access.takes_certificates
    with pytest.raises(UnauthenticatedError):
        access.by_token(taken)


@pytest.mark.parametrize("wrong", ["tokens = 3", "[[tokens]", None])
def test_a_file_that_became_wrong_changes_nothing_and_is_told(tokens, at_once, wrong):
    access = Access(tokens)
    with capture_logs() as logs:
        tokens.unlink() if wrong is None else tokens.write_text(wrong)
        for _ in range(3):
            assert access.by_token(f"Bearer {SECRET}").name == "shop"
    assert [entry["event"] for entry in logs] == ["files_not_taken"]
    tokens.write_text(entry("mended"))
    assert access.by_token("Bearer mended").name == "shop"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[tokens]]\nsha256 = 'SECRET'", "[[tokens]] 1 not exactly the keys name, roles, sha256"),
        (entry("a") + ENTRY.format(digest="SECRET"), "[[tokens]] 2 a sha256 that is not 64 hexadecimal digits"),
        (entry("a").replace('"explain"', '"SECRET"'), "a list of some of predict, explain, feedback, read"),
        (entry("a").replace('["predict", "explain"]', '"predict"'), "a list of some of"),
        (entry("a").replace('["predict", "explain"]', "[]"), "a list of some of"),
        (entry("a").replace('["predict", "explain"]', "[[1]]"), "a list of some of"),
        (entry("a").replace('"shop"', '""'), "a name that is not 1 to 128"),
        (entry("a").replace('"shop"', '"two\\nlines"'), "a name that is not 1 to 128"),
        (entry("a") + entry("a", "lab"), "a digest twice"),
        ("SECRET = SECRET", "not valid TOML"),
        ('SECRET = "SECRET"', "1 keys besides [[tokens]] and [[certificates]]"),
        ("[tokens]\nname = 'SECRET'", "write [[tokens]]"),
        (CERTIFICATE + "sha256 = 'SECRET'", "[[certificates]] 1 not exactly the keys name, roles"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_and_no_value_repeated(tmp_path, text, words):
    path = tmp_path / "tokens.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_callers(path)
    assert words in caught.value.message
    assert "SECRET" not in str(caught.value)
    assert caught.value.field == "server.auth.tokens"


def test_a_file_that_is_being_written_is_not_read(tmp_path, monkeypatch):
    """It is when it is old enough, or has been the same at two looks: clocks of other machines may be ahead."""
    monkeypatch.setattr(fresh_files, "_LOOK_SECONDS", 0.0)
    path = tmp_path / "file"
    path.write_text("first")
    made = FreshFiles("key", [path], path.read_text)
    path.write_text("")
    assert made.current() == "first"
    path.write_text("second")
    assert [made.current(), made.current()] == ["first", "second"]
    path.write_text("third")
    os.utime(path, (0, 0))
    assert made.current() == "third"


def test_a_look_at_files_is_not_taken_with_each_question(tmp_path):
    path = tmp_path / "file"
    path.write_text("first")
    made = FreshFiles("key", [path], path.read_text)
    path.write_text("another")
    assert [made.current() for _ in range(3)] == ["first"] * 3
