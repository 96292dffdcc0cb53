"""Describes the contract in JSON as OpenAPI 3.1, made from the descriptors of its messages by proto3's JSON mapping."""

from __future__ import annotations

import functools
import json
from importlib import resources
from typing import Any, Final

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.rpc import status_pb2

from xai_proto import explanation_pb2 as pb

_SCHEMAS = "#/components/schemas/"
_NUMBER = {"anyOf": [{"type": "number"}, {"enum": ["NaN", "Infinity", "-Infinity"]}]}
_LARGE_INTEGER = {"type": ["string", "integer"], "pattern": "^-?[0-9]+$"}

_REPEATED = 3
"""FieldDescriptorProto.Label.LABEL_REPEATED."""

_SCALARS: Final[dict[int, dict[str, Any]]] = {
    FieldDescriptor.TYPE_STRING: {"type": "string"},
    FieldDescriptor.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.TYPE_INT32: {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1},
    FieldDescriptor.TYPE_UINT32: {"type": "integer", "minimum": 0, "maximum": 2**32 - 1},
    FieldDescriptor.TYPE_INT64: _LARGE_INTEGER,
    FieldDescriptor.TYPE_UINT64: _LARGE_INTEGER,
    FieldDescriptor.TYPE_FLOAT: _NUMBER,
    FieldDescriptor.TYPE_DOUBLE: _NUMBER,
}

_WELL_KNOWN: Final[dict[str, dict[str, Any]]] = {
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?s$", "examples": ["0.25s"]},
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Struct": {"type": "object"},
    "google.protobuf.Value": {},
    "google.protobuf.Any": {"type": "object", "properties": {"@type": {"type": "string"}}},
}


def openapi(version: str) -> dict[str, Any]:
    """The description.

    Args:
        version: The server's.
    """
    schemas: dict[str, Any] = {}
    for message in (pb.PredictRequest, pb.PredictResponse, pb.PredictStreamRequest, pb.PredictStreamResponse):
        _add(message.DESCRIPTOR, schemas)
    _add(status_pb2.Status.DESCRIPTOR, schemas)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "xai-sidecar",
            "version": version,
            "description": "Predictions of an image classifier and explanations of them: the messages of "
            "xai.v1.ExplanationService in JSON. Descriptions have the contract's own names of fields, which are "
            "taken, too. A header grpc-timeout, such as 500m, says how long the caller waits; x-request-id names a "
            "call.",
        },
        "paths": {
            "/v1/predict": {
                "post": _operation("predict", "Classifies and explains pictures.", "PredictRequest", _answer())
            },
            "/v1/predict:stream": {
                "post": _operation(
                    "predictStream",
                    "As /v1/predict, but sends the predictions at once and explanations as they come: server-sent "
                    "events predicted, progress, explained and finished, or error, which has a google.rpc.Status.",
                    "PredictStreamRequest",
                    {
                        "description": "The events; each one's data is a PredictStreamResponse.",
                        "content": {"text/event-stream": {"schema": _ref("PredictStreamResponse")}},
                    },
                )
            },
        },
        "components": {"schemas": schemas},
    }


def _operation(name: str, summary: str, request: str, answer: dict[str, Any]) -> dict[str, Any]:
    return {
        "operationId": name,
        "summary": summary,
        "requestBody": {"required": True, "content": _json(request)},
        "responses": {"200": answer, "default": {"description": "Why it failed.", "content": _json("Status")}},
    }


def _answer() -> dict[str, Any]:
    return {"description": "Predictions and explanations.", "content": _json("PredictResponse")}


def _json(schema: str) -> dict[str, Any]:
    return {"application/json": {"schema": _ref(schema)}}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"{_SCHEMAS}{name}"}


def _add(message: Any, schemas: dict[str, Any]) -> None:
    """Adds a message's schema, and those of the messages in it."""
    if message.name in schemas:
        return
    schema: dict[str, Any] = {"type": "object", **_described(message.full_name), "additionalProperties": False}
    schemas[message.name] = schema
    schema["properties"] = {
        field.json_name: {**_field(field, schemas), **_described(field.full_name, field.enum_type)}
        for field in message.fields
    }


@functools.cache
def _descriptions() -> dict[str, str]:
    """What the contract's comments say, by full name; made by `make proto`."""
    found: dict[str, str] = json.loads(resources.files("xai_proto").joinpath("descriptions.json").read_text("utf-8"))
    return found


def _described(name: str, enum: EnumDescriptor | None = None) -> dict[str, str]:
    """What something is, and each value of it that it may have, where these have names; empty where nothing is said."""
    known = _descriptions()
    values = [] if enum is None else [(each.name, known.get(f"{enum.full_name}.{each.name}")) for each in enum.values]
    lines = [known.get(name), *(f"- {value}: {text}" for value, text in values if text)]
    text = "\n".join(filter(None, lines))
    return {"description": text} if text else {}


def _field(field: FieldDescriptor, schemas: dict[str, Any]) -> dict[str, Any]:
    inner = field.message_type
    if inner is not None and inner.GetOptions().map_entry:
        return {"type": "object", "additionalProperties": _one(inner.fields_by_name["value"], schemas)}
    one = _one(field, schemas)
    return {"type": "array", "items": one} if _is_repeated(field) else one


def _one(field: FieldDescriptor, schemas: dict[str, Any]) -> dict[str, Any]:
    """The schema of a field's value, or of one of several."""
    inner, enum = field.message_type, field.enum_type
    if inner is not None and inner.full_name in _WELL_KNOWN:
        return _WELL_KNOWN[inner.full_name]
    if inner is not None:
        _add(inner, schemas)
        return _ref(inner.name)
    return _names(enum) if enum is not None else _SCALARS[field.type]


def _names(enum: EnumDescriptor) -> dict[str, Any]:
    return {"type": "string", "enum": [value.name for value in enum.values]}


def _is_repeated(field: FieldDescriptor) -> bool:
    """Whether a field has any number of values; newer releases of protobuf have a property instead of the label."""
    found = getattr(field, "is_repeated", None)
    return bool(getattr(field, "label", 0) == _REPEATED if found is None else found)
