"""The command line: what it takes, and what it refuses."""

import importlib.util

import pytest

from xai_console.command.main import _parser, _settings, main


def settings(*words):
    parser = _parser()
    return _settings(parser, parser.parse_args(words))


def test_it_listens_on_this_machine_alone():
    made = settings()
    assert (made.host, made.port) == ("127.0.0.1", 8080)
    assert settings("--listen", ":0").host == "127.0.0.1"
    assert settings("--listen", "[::1]:9").host == "::1"


@pytest.mark.parametrize("listen", ["0.0.0.0:8080", "[::]:8080", "10.0.0.5:80", "console.example:80"])
def test_it_listens_beyond_only_with_the_name_that_browsers_use(listen, capsys):
    with pytest.raises(SystemExit):
        settings("--listen", listen)
    assert "--public-host" in capsys.readouterr().err
    assert settings("--listen", listen, "--public-host", "console.example").public_hosts == ("console.example",)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--listen", "here"], "HOST:PORT"),
        (["--listen", "127.0.0.1:99999"], "HOST:PORT"),
        (["--certificate", "x.pem"], "give both"),
        (["--tls", "--ca", "/nowhere/x.pem"], "/nowhere/x.pem"),
        (["--token-file", "/nowhere/token"], "/nowhere/token"),
        (["--timeout", "0"], "--timeout"),
        (["--run", "/nowhere/RUN"], "/nowhere/RUN"),
        (["--run", "/", "--server", "127.0.0.1:1"], "--server"),
        (["--run", "/", "--tls"], "--server"),
    ],
)
def test_what_is_wrong_is_named(words, said, capsys):
    assert main(words) == 2
    assert said in capsys.readouterr().err


def test_a_token_is_one_line_of_a_file(tmp_path, capsys):
    file = tmp_path / "token"
    file.write_text("secret\n")
    assert settings("--token-file", str(file)).token_file == file
    file.write_text("two\nlines")
    assert main(["--token-file", str(file)]) == 2
    assert "lines" not in capsys.readouterr().err


def test_help_shows_examples(capsys):
    assert main(["--help"]) == 0
    assert "xai-console --server 127.0.0.1:50051" in capsys.readouterr().out


def test_a_run_needs_the_servers_packages(monkeypatch, capsys, tmp_path):
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "xai_sidecar" else found(name))
    assert main(["--run", str(tmp_path), "--listen", ":0"]) == 2
    assert "pip install 'xai-sidecar[console,onnx]'" in capsys.readouterr().err


def test_a_run_is_named_by_its_folder(tmp_path):
    made = settings("--run", str(tmp_path))
    assert (made.run, made.name) == (str(tmp_path), str(tmp_path))
    assert settings("--server", "a:1").name == "a:1"


def test_without_its_packages_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert main([]) == 2
    assert "pip install 'xai-sidecar[console]'" in capsys.readouterr().err
