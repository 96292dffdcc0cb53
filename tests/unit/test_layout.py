"""The import rules of the layout: a room imports only rooms further in."""

import ast
import functools
import graphlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERVER = ROOT / "sidecar" / "xai_sidecar"
CLIENT = ROOT / "client" / "xai_client"
CONSOLE = ROOT / "client" / "xai_console"

ALLOWED = {
    # room: the rooms of xai_sidecar that it may import besides itself
    "cpus": set(),
    "digest": set(),
    "errors": set(),
    "interrupt": set(),
    "paths": set(),
    "process_state": set(),
    "picture_units": set(),
    "imaging": {"errors", "picture_units"},
    "extensions": {"errors"},
    "engine": {"errors"},
    "explainers": {"engine", "errors", "extensions", "picture_units"},
    "metrics": {"engine", "errors", "explainers", "extensions", "picture_units"},
    "ood": {"cpus", "engine", "errors", "explainers", "imaging", "paths", "picture_units"},
    "config": {"errors", "explainers", "imaging", "metrics", "paths"},
    "telemetry": {"engine", "errors", "explainers"},
    "evaluator": {
        "config",
        "digest",
        "engine",
        "errors",
        "explainers",
        "imaging",
        "metrics",
        "paths",
        "picture_units",
        "telemetry",
    },
    "backends": {
        "config",
        "cpus",
        "digest",
        "engine",
        "errors",
        "imaging",
        "interrupt",
        "ood",
        "paths",
        "process_state",
    },
    "zoo": {"errors", "paths"},
    "serving": {
        "config",
        "cpus",
        "digest",
        "engine",
        "errors",
        "evaluator",
        "explainers",
        "imaging",
        "metrics",
        "paths",
        "picture_units",
        "telemetry",
    },
    "runner": {
        "config",
        "cpus",
        "engine",
        "errors",
        "evaluator",
        "explainers",
        "imaging",
        "metrics",
        "ood",
        "picture_units",
        "serving",
        "telemetry",
    },
    "compat": {
        "backends",
        "config",
        "engine",
        "errors",
        "evaluator",
        "explainers",
        "metrics",
        "ood",
        "picture_units",
        "runner",
        "serving",
    },
    "open_inference": {"errors", "serving"},
    # The contract's messages are the same in JSON.
    "http": {"errors", "open_inference", "rpc", "serving", "telemetry"},
    "rpc": {
        "config",
        "engine",
        "errors",
        "evaluator",
        "explainers",
        "imaging",
        "metrics",
        "open_inference",
        "serving",
        "telemetry",
    },
    "command": {
        "backends",
        "config",
        "cpus",
        "engine",
        "errors",
        "evaluator",
        "explainers",
        "http",
        "interrupt",
        "ood",
        "open_inference",
        "paths",
        "rpc",
        "runner",
        "serving",
        "telemetry",
        "zoo",
    },
    "__main__": {"command"},
    "cli": {"command"},
}


@functools.cache
def imports(path):
    """Every module that a file imports anywhere, with the line."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} is a relative import"
            found += ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)
    return found


def rooms():
    for path in sorted(SERVER.rglob("*.py")):
        inside = path.relative_to(SERVER)
        room = inside.parts[0].removesuffix(".py")
        if room != "__init__":
            yield room, path


def test_every_room_has_a_rule():
    assert {room for room, _ in rooms()} == set(ALLOWED)


@pytest.mark.parametrize(("room", "path"), list(rooms()), ids=lambda value: str(value).removeprefix(f"{SERVER}/"))
def test_a_room_imports_only_rooms_further_in(room, path):
    for module, line in imports(path):
        parts = module.split(".")
        if parts[0] == "xai_sidecar":
            other = parts[1]
            assert other in ALLOWED[room] | {room, "__version__"}, f"{path}:{line} imports {module}"


def outermost(path):
    return {module.split(".")[0] for module, _ in imports(path)}


def test_mindspore_stays_in_its_backend():
    # Models are users' code, reached by name only; the sample one is no other.
    exempt = (SERVER / "backends" / "mindspore", SERVER / "zoo")
    users = {path for _, path in rooms() if {"mindspore", "mindcv"} & outermost(path)}
    assert users
    assert all(any(folder in path.parents for folder in exempt) for path in users), users
    models = SERVER / "zoo" / "efficientnet_lite.py"
    assert {path for path in users if SERVER / "zoo" in path.parents} == {models}
    for _, path in rooms():
        assert not any(module.startswith("xai_sidecar.zoo.efficientnet_lite") for module, _ in imports(path)), path


def test_the_house_has_no_circle():
    graph = {room: set() for room in ALLOWED}
    for room, path in rooms():
        parts = (module.split(".") for module, _ in imports(path))
        graph[room] |= {part[1] for part in parts if part[0] == "xai_sidecar"} & set(ALLOWED) - {room}
    list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError


def test_protocols_stay_in_their_adapters():
    outside = {
        "grpc": {"rpc", "command", "telemetry", "backends"},
        "xai_proto": {"http", "rpc", "command", "backends"},
        "google": {"http", "rpc", "backends"},
        "prometheus_client": {"http", "command", "runner", "telemetry"},
        "starlette": {"http", "command"},
        "uvicorn": {"http"},
    }
    for room, path in rooms():
        for package, allowed in outside.items():
            assert package not in outermost(path) or room in allowed, f"{path} imports {package}"
        if room == "backends" and {"grpc", "xai_proto"} & outermost(path):
            assert path.parent == SERVER / "backends" / "remote", path


def test_the_client_stands_alone():
    for path in CLIENT.rglob("*.py"):
        assert not {"xai_console", "xai_sidecar", "mindspore", "nicegui"} & outermost(path), path


def test_the_console_is_a_client_like_any_other():
    for path in CONSOLE.rglob("*.py"):
        assert not {"xai_sidecar", "xai_proto", "mindspore", "onnxruntime"} & outermost(path), path
        assert "grpc" not in outermost(path) or path.parent.name == "source", path


def test_pages_reach_the_sdk_by_their_source_alone():
    """An offline run's folder can then be shown by the same pages."""
    calling = {path.name for path in CONSOLE.rglob("*.py") if {"xai_client.AsyncClient", "xai_client.Client"} & {
        module for module, _ in imports(path)
    }}  # fmt: skip
    assert calling == {"live.py"}
    assert (CONSOLE / "source" / "live.py").is_file()


def test_the_console_loads_nothing_from_elsewhere():
    named = re.compile(r"""(?:https?:)?//[\w.-]+\.[a-z]{2,}""")
    for path in CONSOLE.rglob("*"):
        if path.suffix in (".css", ".js", ".svg"):
            found = set(named.findall(path.read_text())) - {"http://www.w3.org"}  # a namespace
            assert not found, (path, found)


def test_every_test_is_run_by_make():
    recipes = (ROOT / "Makefile").read_text()
    folders = {path.relative_to(ROOT / "tests").parts[0] for path in (ROOT / "tests").rglob("test_*.py")}
    assert "unit" in folders
    assert {
        folder for folder in folders if not re.search(rf"pytest.*\btests/{folder}\b", recipes, re.IGNORECASE)
    } == set()


def test_no_file_is_too_long_to_read():
    for path in [*(path for _, path in rooms()), *CONSOLE.rglob("*.py")]:
        assert len(path.read_text().splitlines()) <= 350, path


@pytest.mark.parametrize("folder", ["bench", "deploy", "docs", "tests"])
def test_what_others_import_of_the_product_is_there(folder):
    """No type checker looks at these, and benchmarks run rarely."""
    missing = set()
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
                ("xai_client", "xai_console", "xai_sidecar")
            ):
                missing |= {(path.name, node.module, name) for name in _missing(node)}
    assert not missing


def _missing(node):
    module = importlib.import_module(node.module)
    for alias in node.names:
        if not hasattr(module, alias.name) and importlib.util.find_spec(f"{node.module}.{alias.name}") is None:
            yield alias.name


def test_a_server_imports_nothing_slow_that_it_may_never_need():
    # What migrates databases, or computes what few callers ask for takes longer than all else.
    slow = ["alembic", "mako", "mindspore", "openvino", "scipy", "skimage"]
    code = "import sys; import xai_sidecar.command.server, xai_sidecar.command.demo, xai_sidecar.backends.loading"
    code += f"; print([name for name in {slow} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
