"""The contract in JSON, as its Protocol Buffers have it: messages from bodies, bodies and errors from messages."""

from __future__ import annotations

import re
from typing import Any, TypeVar

from google.protobuf import json_format, message_factory
from google.protobuf.message import Message

from xai_sidecar.errors import InvalidRequestError, SidecarError, shortened
from xai_sidecar.http.requests import read_json
from xai_sidecar.rpc.status import status_of

M = TypeVar("M", bound=Message)

_LONGEST_WHY = 300
_LONGEST_PATH = 100
_OURS = "xai."

_MOST_VALUES = 20_000
"""Messages have few values besides files; to make one of a value takes ten times as long as to parse it."""

_LOOKED_AT = 100
"""Items of a list and fields of a message of which the one at fault is looked for."""
_PREFIX = re.compile(r"^Failed to parse [\w.]+ field: ")


def read_message(body: bytes, kind: type[M]) -> M:
    """A message, by proto3's JSON mapping.

    Raises:
        InvalidRequestError: The body is none.
    """
    found = read_json(body, most_values=_MOST_VALUES)
    message = kind()
    why = _problem(found, message)
    if why:
        raise InvalidRequestError(
            f"The body is no {kind.DESCRIPTOR.full_name} in JSON: {shortened(why, _LONGEST_WHY)}. /openapi.json has "
            "its fields.",
            field=shortened(_path(found, message), _LONGEST_PATH),
        )
    return message


def _problem(found: Any, message: Message) -> str:
    """Why an object is no message; empty if it is, and the message is then what it says."""
    try:
        json_format.ParseDict(found, message)
    except (json_format.ParseError, ValueError, TypeError, OverflowError, RecursionError) as error:
        return _PREFIX.sub("", " ".join(str(error).split())).rstrip(".") or type(error).__name__
    return ""


def _path(found: Any, message: Message) -> str:
    """The path of what makes an object no message, as far as it can be told; empty if it cannot."""
    if not isinstance(found, dict):
        return ""
    fields = {name: field for field in message.DESCRIPTOR.fields for name in (field.json_name, field.name)}
    for name, value in list(found.items())[:_LOOKED_AT]:
        if name not in fields or _problem({name: value}, type(message)()):
            return str(name) + (_inner_path(name, value, fields[name], message) if name in fields else "")
    return ""


def _inner_path(name: str, value: Any, field: Any, message: Message) -> str:
    """What follows a field in the path."""
    inner = field.message_type
    if inner is None or not inner.full_name.startswith(_OURS):
        return ""
    index = ""
    if isinstance(value, list):
        wrong = [at for at, each in enumerate(value[:_LOOKED_AT]) if _problem({name: [each]}, type(message)())]
        if not wrong:
            return ""
        index, value = f"[{wrong[0]}]", value[wrong[0]]
    rest = _path(value, message_factory.GetMessageClass(inner)())
    return index + (f".{rest}" if rest else "")


def message_json(message: Message) -> bytes:
    """A message in JSON, with the fields that are zero, such as the class id 0."""
    return json_format.MessageToJson(
        message, indent=None, ensure_ascii=False, always_print_fields_with_no_presence=True
    ).encode()


def error_json(error: SidecarError, request_id: str) -> bytes:
    """An error as a google.rpc.Status in JSON."""
    return message_json(status_of(error, request_id))
