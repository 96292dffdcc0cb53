"""Names of requests, by which logs, answers and reports of ground truth refer to them."""

from __future__ import annotations

import os
import re

_REQUEST_ID = re.compile(r"[A-Za-z0-9._:\-]{1,128}")


def valid_request_id(request_id: str) -> bool:
    """Whether a name for a request is one that logs and headers can carry."""
    return _REQUEST_ID.fullmatch(request_id) is not None


def new_request_id() -> str:
    """A name that no other request has."""
    return os.urandom(16).hex()
