"""Structured logs to stderr: for people on a terminal, JSON lines otherwise."""

from __future__ import annotations

import atexit
import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from xai_sidecar.errors import shortened
from xai_sidecar.telemetry.lines import LineHandler, LineLogger, LineWriter

_LONGEST_VALUE = 1500
_LONGEST_TRACEBACK = 20_000


def set_up_logs(level: str, format: str) -> LineWriter:  # noqa: A002
    """Sets up the logs of the process.

    Args:
        level: "debug", "info", "warning" or "error".
        format: "text", "json", or "auto" for text on a terminal and JSON otherwise.

    Returns:
        The writer; to be flushed where the process ends by `os._exit`.
    """
    people = sys.stderr.isatty() if format == "auto" else format == "text"
    # Not by rich, which structlog takes where it is installed: it shows variables, and so pictures and passwords.
    plain = structlog.dev.plain_traceback
    renderer: Any = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)
    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if people else "iso", utc=not people),
    ]
    if not people:
        renderer = structlog.processors.JSONRenderer()
    processors += [structlog.processors.format_exc_info, _bounded]
    writer = LineWriter(sys.stderr)
    logger = LineLogger(writer)
    structlog.configure(
        processors=[*processors, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=lambda *_: logger,
    )
    logging.lastResort = LineHandler(writer)
    atexit.register(writer.flush)
    return writer


def _bounded(logger: Any, method: str, entry: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Shortens long values, so that a line stays readable."""
    for key, value in entry.items():
        if isinstance(value, str):
            entry[key] = shortened(value, _LONGEST_TRACEBACK if key == "exception" else _LONGEST_VALUE)
    return entry
