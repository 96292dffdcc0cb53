"""Commands, options and config keys that messages, help texts and documents name are there."""

import argparse
import ast
import functools
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from xai_client.command import main as client
from xai_console.command import main as console
from xai_sidecar.command import main as sidecar
from xai_sidecar.config import Config
from xai_sidecar.config.section import section_of

ROOT = Path(__file__).parents[2]
PARSERS = {"xai-client": client._parser(), "xai-console": console._parser(), "xai-sidecar": sidecar._parser()}
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *(ROOT / "docs").rglob("*.md"),
    *(ROOT / "deploy").rglob("*.md"),
]
SOURCES = [*(ROOT / "client").rglob("*.py"), *(ROOT / "sidecar").rglob("*.py")]

KEY = re.compile(r"(?<![\w./'\[-])(?:model|explainers|ood|server|evaluator)(?:\.[a-z_]+)+\b(?![(\w/*-])")
FILES = (".py", ".safetensors", ".toml", ".txt", ".ckpt", ".onnx", ".key", ".pem", ".db")


def parsers(parser):
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                yield from parsers(each)


@functools.cache
def texts():
    """Where it is, and what people read there: documents, and texts in the code that are no docstrings."""
    found = [(path.name, path.read_text()) for path in DOCUMENTS]
    for path in SOURCES:
        tree = ast.parse(path.read_text())
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        nodes = list(ast.walk(tree))
        docstrings = {id(node.body[0].value) for node in nodes
                      if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)}  # fmt: skip
        found += (
            (path.name, node.value)
            for node in nodes
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
        )
    return found


HELP = [(name, each.format_help()) for name, parser in PARSERS.items() for each in parsers(parser)]


def commands():
    """Every command line that is shown as one, by program."""
    for text in [*(path.read_text() for path in DOCUMENTS), *(text for _, text in HELP)]:
        for code in (*re.findall(r"`([^`\n]+)`", text), *text.splitlines()):
            found = re.match(r"\s*(?:\.venv/bin/)?(xai-client|xai-console|xai-sidecar) ([a-z-].*)", code)
            if found and "..." not in found[2]:
                yield found[1], found[2].partition("  ")[0]


COMMANDS = sorted(set(commands()))


def test_there_are_commands():
    assert len(COMMANDS) > 15
    assert {program for program, _ in COMMANDS} == set(PARSERS)


@pytest.mark.parametrize(("program", "command"), COMMANDS)
def test_every_command_shown_is_one(program, command, capsys):
    words = shlex.split(command.partition(" >")[0], comments=True)
    if program == "xai-sidecar" and len(words) == 1:  # a command's name, in a sentence
        words.append("--help")
    try:
        PARSERS[program].parse_args(words)
    except SystemExit as end:
        assert not end.code, capsys.readouterr().err


def test_every_option_named_is_one():
    known = {
        option for _, parser in PARSERS.items() for each in parsers(parser) for option in each._option_string_actions
    }
    known |= {"--hours", "--build", "--preload"}  # of bench.soak, docker compose, gunicorn
    known |= {"--build-arg", "--cpus", "--cpuset-cpus"}  # of docker
    known |= {"--cacert", "--cert", "--key"}  # of curl
    known |= {"--device", "--json", "--no-deps", "--no-index"}  # of bench.gpu and pip
    known |= {"--accent", "--columns"}  # variables of CSS
    named = {
        (option, where) for where, text in texts() for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+[a-z]", text)
    }
    assert len(named) > 30
    assert [each for each in sorted(named) if each[0] not in known] == []


def is_key(path):
    model = Config
    for part in path.split("."):
        field = getattr(model, "model_fields", {}).get(part)
        if field is None:
            return False
        model = section_of(field)
    return True


def test_every_key_named_is_one():
    named = {(key, where) for where, text in texts() for key in KEY.findall(text)}
    assert len(named) > 50
    wrong = [(key, where) for key, where in sorted(named) if not is_key(key) and not key.endswith(FILES)]
    assert wrong == []


@pytest.mark.parametrize("module", ["xai_sidecar", "xai_sidecar.cli", "xai_client", "xai_console"])
def test_commands_run_as_modules(module):
    done = subprocess.run([sys.executable, "-m", module, "--help"], capture_output=True, text=True, check=True)
    assert module.partition(".")[0].replace("_", "-") in done.stdout.splitlines()[0]
