"""From a request's bytes to its message, at a cost that is bounded before anything is parsed.

Parsing runs on the event loop and holds the interpreter's lock: 16 MiB of empty messages, two bytes each, take half a
second and half a gigabyte, while 16 MiB of one picture take two milliseconds. So the bytes of pictures and masks are
counted first, by the lengths on the wire alone, and a message with too many other bytes is refused unparsed.
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
"""Smaller messages take less time to parse than to count."""

_MOST_STEPS = 10_000
"""Most fields that counting looks at; a request has a few for each picture or mask."""

_COPIED = (FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE)
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5

Blobs = Mapping[int, Any]
"""Where a message has bytes, by field number: None for a field of bytes, else the `Blobs` of the message in it."""


def blobs_of(descriptor: Any, within: tuple[Any, ...] = ()) -> Blobs:
    """Where the contract has bytes in a message, or packed numbers of fixed size, which are copied as those are.

    Recursive messages, such as a Struct's values, are left out.

    Args:
        descriptor: The message's descriptor.
        within: Descriptors of the messages around it.
    """
    found: dict[int, Any] = {}
    within = (*within, descriptor)
    for field in descriptor.fields:
        inner = field.message_type
        if field.type in _COPIED:
            found[field.number] = None
        elif inner is not None and inner not in within and (blobs := blobs_of(inner, within)):
            found[field.number] = blobs
    return found


class Reader:
    """Parses requests of one message type.

    Args:
        kind: The message's class.
    """

    def __init__(self, kind: type[M]) -> None:
        self._kind = kind
        self._blobs = blobs_of(kind.DESCRIPTOR)

    def read(self, data: bytes) -> Any:
        """Parses a message.

        Raises:
            InvalidRequestError: The bytes are no such message, or more than `MOST_REST_BYTES` of them are neither of
                pictures nor of masks.
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
    """Counts the bytes of pictures and masks in an encoded message, without parsing it."""
    return _Walk(data).blob_bytes(0, len(data), blobs)


class _Walk:
    """A walk over the fields of an encoded message; ends early where there are too many, or the encoding is broken."""

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
        """The varint at an offset, and the offset after it; 0 and the end where there is none."""
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
