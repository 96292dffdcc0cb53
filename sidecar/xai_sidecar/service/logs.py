"""Structured logs to stderr: for people on a terminal, JSON lines otherwise."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog


def set_up_logs(level: str, format: str) -> None:  # noqa: A002
    """Sets up the logs of the process.

    Args:
        level: "debug", "info", "warning" or "error".
        format: "text", "json", or "auto" for text on a terminal and JSON otherwise.
    """
    people = sys.stderr.isatty() if format == "auto" else format == "text"
    renderer: Any = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S" if people else "iso", utc=not people),
    ]
    if not people:
        processors += [structlog.processors.format_exc_info]
        renderer = structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[*processors, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
