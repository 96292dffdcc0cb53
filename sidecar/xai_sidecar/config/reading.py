"""Reading the config: a file, then the environment, then what the command line sets; the later one counts.

Relative paths in all of them are relative to the file.
"""

from __future__ import annotations

import codecs
import copy
import os
import re
import string
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from xai_sidecar.config.environment import overrides_in
from xai_sidecar.config.problems import config_error
from xai_sidecar.config.section import Section
from xai_sidecar.config.sections import Config, ServerConfig
from xai_sidecar.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

S = TypeVar("S", bound=Section)

_AROUND = string.whitespace + "\ufeff\u00a0"
"""What is no part of a label: byte order marks are left in the middle where files are put together."""


def load_config(
    path: Path,
    overrides: Sequence[str] = (),
    *,
    environment: Mapping[str, str] = os.environ,
    needs_ood: bool = True,
) -> Config:
    """Reads a config file.

    Args:
        path: The TOML file.
        overrides: ``key.path=value`` each; the value is TOML, or else a text as it stands.
        environment: Variables; see `overrides_in`. Their values are read like those of overrides.
        needs_ood: Whether the file of the OoD net has to be there.

    Raises:
        ConfigError: Something in it is wrong; the first thing found is named.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}. Name a config file with --config.") from error
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}. Correct that line.") from error
    return parse_config(data, overrides, path.resolve().parent, environment=environment, needs_ood=needs_ood)


def parse_config(
    data: dict[str, Any],
    overrides: Sequence[str] = (),
    folder: Path | None = None,
    *,
    environment: Mapping[str, str] | None = None,
    needs_ood: bool = True,
) -> Config:
    """Checks a config that is already a dict; see `load_config`. Paths are relative to `folder`."""
    data = copy.deepcopy(data)
    variables = overrides_in(environment or {})
    for key, name in variables.items():
        _apply(data, key, (environment or {})[name], name)
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key.strip().rpartition(".")[2]:
            raise ConfigError(f"--set {override!r} is not of the form key.path=value, as in --set model.device=cpu.")
        _apply(data, key.strip(), value, f"--set {override!r}")
        variables.pop(key.strip(), None)
    try:
        return _with_files(_validated(data), folder or Path.cwd(), needs_ood)
    except ConfigError as error:
        if error.field in variables:  # nobody would look for it there
            text = f"{error.message} The environment variable {variables[error.field]} sets it."
            raise ConfigError(text, field=error.field) from error
        raise


def _validated(data: dict[str, Any]) -> Config:
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        raise config_error(error) from None


def load_labels(labels: Path | list[str] | None, class_count: int) -> tuple[str, ...]:
    """The label of every class.

    Raises:
        ConfigError: They cannot be read, or there are not as many as the net has outputs.
    """
    if labels is None:
        return tuple(str(class_id) for class_id in range(class_count))
    where = "model.labels has"
    if isinstance(labels, Path):
        where, labels = f"{labels} has", _label_lines(labels)
    if len(labels) != class_count:
        raise ConfigError(
            f"{where} {len(labels)} labels, but the net has {class_count} outputs. "
            "Give one label for each output, in their order.",
            field="model.labels",
        )
    return tuple(label.strip(_AROUND) for label in labels)


def _label_lines(path: Path) -> list[str]:
    """The labels of a file, a line each: in UTF-8, or in UTF-16 with a byte order mark, as Windows' editors write it.

    Raises:
        ConfigError: It cannot be read, or a line in the middle is blank.
    """
    try:
        data = path.read_bytes()
        text = data.decode("utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} cannot be read: {error}. Give a UTF-8 text file with one label a line.", field="model.labels"
        ) from error
    if "\0" in text:
        raise ConfigError(
            f"{path} has zeros between its characters, as UTF-16 has. Save it as UTF-8, one label a line.",
            field="model.labels",
        )
    # Not str.splitlines, which divides at characters that labels may have.
    lines = re.split(r"\r\n|\n|\r", text)
    while lines and not lines[-1].strip(_AROUND):
        lines.pop()
    blank = next((number for number, line in enumerate(lines, 1) if not line.strip(_AROUND)), None)
    if blank is not None:
        raise ConfigError(
            f"line {blank} of {path} is blank, with labels after it. Remove the line, or give that class a label.",
            field="model.labels",
        )
    return lines


def _apply(data: dict[str, Any], path: str, value: str, origin: str) -> None:
    """Sets a key; the value is TOML, or else a text as it stands."""
    *parents, key = (part.strip("\"' ") for part in path.split("."))  # no key has a dot in it
    for parent in parents:
        data = data.setdefault(parent, {})
        if not isinstance(data, dict):
            raise ConfigError(f"{origin}: {parent!r} is a value, not a section.", field=path)
    try:
        data[key] = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        data[key] = value.strip()


def _with_files(config: Config, folder: Path, needs_ood: bool) -> Config:
    """The config with absolute paths, all of which exist; the OoD net's only where it is needed."""
    changes: dict[str, Any] = {}
    for key in ("checkpoint", "labels", "onnx"):
        path = getattr(config.model, key)
        if isinstance(path, Path):
            changes[key] = _existing(path, folder, f"model.{key}")
    upstream = _with_paths(config.model.upstream, "model.upstream", folder)
    if upstream is not config.model.upstream:  # what is put here counts as set
        changes["upstream"] = upstream
    if isinstance(config.model.compile_cache, Path):
        changes["compile_cache"] = folder / config.model.compile_cache.expanduser()
    ood = config.ood
    if ood.checkpoint is not None:
        find = _existing if needs_ood else _absolute
        ood = ood.model_copy(update={"checkpoint": find(ood.checkpoint, folder, "ood.checkpoint")})
    model = config.model.model_copy(update=changes)
    return config.model_copy(update={"model": model, "ood": ood, "server": _with_guards(config.server, folder)})


def _with_guards(server: ServerConfig, folder: Path) -> ServerConfig:
    """The section with absolute paths of the files of TLS and tokens, all of which exist."""
    sections: dict[str, Section] = {"tls": server.tls, "auth": server.auth}
    found = {name: _with_paths(section, f"server.{name}", folder) for name, section in sections.items()}
    return server.model_copy(update=found)


def _with_paths(section: S, name: str, folder: Path) -> S:
    """A section with absolute paths of its files, all of which exist; the same one if it names none."""
    paths = {key: path for key in type(section).model_fields if isinstance(path := getattr(section, key), Path)}
    found = {key: _existing(path, folder, f"{name}.{key}") for key, path in paths.items()}
    return section.model_copy(update=found) if found else section


def _absolute(path: Path, folder: Path, key: str) -> Path:
    return folder / os.path.expanduser(path)  # noqa: PTH111 - leaves an unknown user's ~ alone


def _existing(path: Path, folder: Path, key: str) -> Path:
    path = _absolute(path, folder, key)
    if not path.is_file():
        raise ConfigError(f"there is no file {path}. Correct the path.", field=key)
    return path
