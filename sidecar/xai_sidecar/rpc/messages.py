"""From a request's bytes to its message, at a cost that is bounded before anything is parsed.

Parsing runs on the event loop and holds the interpreter's lock: 16 MiB of empty messages, two bytes each, take half a
second and half a gigabyte, while 16 MiB of one picture take two milliseconds. So the bytes of pictures and masks are
told from the rest, by their lengths alone, and only so much of a rest is parsed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from xai_sidecar.errors import InvalidRequestError

M = TypeVar("M", bound=Message)

MOST_REST_BYTES = 512 * 1024
"""Most bytes of a request besides its pictures and masks."""

_SMALL_BYTES = 64 * 1024
"""What is no larger is parsed sooner than looked through."""

_MOST_STEPS = 10_000
"""Fields looked at; a request of pictures and masks has a few for each."""

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5

Blobs = Mapping[int, Any]
"""By number the fields of a message that are bytes, with None, or messages that have such, with theirs."""


def blobs_of(descriptor: Any, within: tuple[Any, ...] = ()) -> Blobs:
    """Where the contract has bytes in a message; messages inside messages of their own kind, as a Struct has, left out.

    Args:
        descriptor: The message's descriptor.
        within: Descriptors of the messages that it is a part of.
    """
    found: dict[int, Any] = {}
    within = (*within, descriptor)
    for field in descriptor.fields:
        inner = field.message_type
        if field.type == FieldDescriptor.TYPE_BYTES:
            found[field.number] = None
        elif inner is not None and inner not in within and (blobs := blobs_of(inner, within)):
            found[field.number] = blobs
    return found


class Reader:
    """Reads requests of one kind.

    Args:
        kind: Their class.
    """

    def __init__(self, kind: type[M]) -> None:
        self._kind = kind
        self._blobs = blobs_of(kind.DESCRIPTOR)

    def read(self, data: bytes) -> Any:
        """The message.

        Raises:
            InvalidRequestError: It is none, or more of it than `MOST_REST_BYTES` is neither a picture nor a mask.
        """
        if len(data) > _SMALL_BYTES:
            rest = len(data) - blob_bytes(data, self._blobs)
            if rest > MOST_REST_BYTES:
                raise InvalidRequestError(
                    f"Besides pictures and masks, the message has {rest:,} bytes of at most {MOST_REST_BYTES:,}. "
                    "Send less of it at a time."
                )
        try:
            return self._kind.FromString(data)
        except DecodeError:
            raise InvalidRequestError(
                f"The {len(data):,} bytes are no {self._kind.DESCRIPTOR.full_name}. Encode them by the contract of "
                "this version."
            ) from None


def blob_bytes(data: bytes, blobs: Blobs) -> int:
    """How many bytes of a message are those of pictures and masks, found by lengths, without looking into any."""
    return _Walk(data).blob_bytes(0, len(data), blobs)


class _Walk:
    """A walk through a message, which ends early where there is too much to look at or nothing to make sense of."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._steps = 0

    def blob_bytes(self, at: int, end: int, blobs: Blobs) -> int:
        found = 0
        while at < end and self._steps < _MOST_STEPS:
            self._steps += 1
            tag, at = self._varint(at, end)
            number, wire = tag >> 3, tag & 7
            if wire == _LENGTH:
                length, at = self._varint(at, end)
                if length > end - at:
                    break
                if number in blobs:
                    inner = blobs[number]
                    found += length if inner is None else self.blob_bytes(at, at + length, inner)
                at += length
            elif wire == _VARINT:
                _, at = self._varint(at, end)
            elif wire in (_FIXED64, _FIXED32):
                at += 8 if wire == _FIXED64 else 4
            else:
                break
        return found

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        """The number at a place, and the place after it; the end where there is none."""
        value = 0
        for shift in range(0, 70, 7):
            if at >= end:
                break
            byte = self._data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value, at
        return 0, end
