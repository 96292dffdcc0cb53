"""Lines that repeat an explanation outside the console: of Python, and for a shell."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

_OPTIONS = ("budget", "seed", "targets", "top_count")


def python_lines(server: str, picture: str, calls: Mapping[str, Mapping[str, Any]]) -> str:
    """A program that asks the same of a picture.

    Args:
        server: Address of the server.
        picture: Name of the file.
        calls: What to pass to `Explain`, by explainer.
    """
    return _program(server, calls, [], repr(picture), "", repr(picture))


def sample_lines(server: str, request_id: str, image_index: int, calls: Mapping[str, Mapping[str, Any]]) -> str:
    """A program that asks the same of what the model saw of a sample, which is no traffic.

    Args:
        server: Address of the server.
        request_id: Id of the sample's request.
        image_index: Index of its picture.
        calls: What to pass to `Explain`, by explainer.
    """
    fetch = ["info = client.model_info()", f"sample = client.sample({request_id!r}, {image_index})"]
    return _program(server, calls, fetch, "sample.model_input(info.input)", ", skip_sampling=True", "sample.picture")


def _program(
    server: str, calls: Mapping[str, Mapping[str, Any]], fetch: Sequence[str], image: str, more: str, drawn_on: str
) -> str:
    explain = ", ".join(_explain(name, options) for name, options in calls.items())
    names = "Client, Explain" if any(calls.values()) else "Client"
    lines = [
        *fetch,
        f"prediction = client.predict({image}, explain=[{explain}]{more})",
        f"prediction.panel({drawn_on}).save('panel.png')",
    ]
    inside = "\n    ".join(lines)
    return f"from xai_client import {names}\n\nwith Client({server!r}) as client:\n    {inside}"


def _explain(name: str, options: Mapping[str, Any]) -> str:
    if not options:
        return repr(name)
    return f"Explain({name!r}, {', '.join(f'{key}={value!r}' for key, value in options.items())})"


def shell_lines(server: str, picture: str, calls: Mapping[str, Mapping[str, Any]]) -> str:
    """Command lines that ask the same: one, or as many as there are seeds, since a command has one for all explainers.

    Args:
        server: Address of the server.
        picture: Name of the file.
        calls: What to pass to `Explain`, by explainer.
    """
    seeds = list(dict.fromkeys(options["seed"] for options in calls.values() if "seed" in options))
    parts: dict[Any, dict[str, Mapping[str, Any]]] = {seed: {} for seed in seeds or [None]}
    for name, options in calls.items():  # what is not random goes with the first
        parts[options.get("seed", next(iter(parts)))][name] = options
    return " && ".join(_shell_line(server, picture, part) for part in parts.values())


def _shell_line(server: str, picture: str, calls: Mapping[str, Mapping[str, Any]]) -> str:
    words = ["xai-client", "predict", picture]
    if calls:
        words += ["--explain", ",".join(calls)]
    shared: dict[str, Any] = {}
    for name, options in calls.items():
        for key, value in options.items():
            if key in _OPTIONS:
                shared[key] = value
            else:
                words += ["--param", f"{name}.{key}={value}"]
    for key, value in shared.items():
        words += _option(key, value)
    return shlex.join([*words, "--out", "maps", "--server", server])


def _option(key: str, value: Any) -> list[str]:
    if key == "targets":
        return [word for each in value for word in ("--target", str(each))]
    return [f"--{key.replace('_', '-')}", str(value)]
