"""`xai-sidecar token`: a token that only its file has, and an entry that the server takes."""

import stat

import pytest

from xai_sidecar.command.main import main
from xai_sidecar.serving.access import Access


def test_what_is_made_is_what_the_server_takes(tmp_path, capsys):
    tokens, out = tmp_path / "tokens.toml", tmp_path / "shop.token"
    for name, roles in (("shop", "explain,predict"), ("a/b c", "read")):
        file = out if name == "shop" else tmp_path / "other"
        assert main(["token", "--name", name, "--roles", roles, "--out", str(file)]) == 0
        told = capsys.readouterr()
        assert file.read_text().strip() not in told.out + told.err
        with tokens.open("a") as entries:
            entries.write(told.out)
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    token = out.read_text().strip()
    assert len(token) > 40
    caller = Access(tokens).by_token(f"Bearer {token}")
    assert (caller.name, sorted(caller.roles)) == ("shop", ["explain", "predict"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--name", "two\nlines", "--roles", "read"], "--name: it is not 1 to 128"),
        (["--name", 'quo"te', "--roles", "read"], "--name: it is not 1 to 128"),
        (["--name", "shop", "--roles", "read", "--out", "there"], "--out: there cannot be written: File exists"),
    ],
)
def test_what_cannot_be_made_is_told(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").write_text("a token that somebody uses")
    assert main(["token", *arguments]) == 2
    assert words in capsys.readouterr().err
    assert (tmp_path / "there").read_text() == "a token that somebody uses"


@pytest.mark.parametrize("roles", ["", "write", "read,,predict"])
def test_roles_are_those_there_are(capsys, roles):
    with pytest.raises(SystemExit):
        main(["token", "--name", "shop", "--roles", roles])
    assert "predict, explain, feedback, read" in capsys.readouterr().err
