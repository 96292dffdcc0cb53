"""Writes what the comments of the contract say of messages, fields and values: python descriptions.py SET OUT.json.

SET is a set of file descriptors with source info. The generated code has no comments, and the server describes its
messages to those who speak JSON.
"""

import json
import sys
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet

_MESSAGE, _ENUM, _FIELD, _NESTED, _VALUE = 4, 5, 2, 3, 2
"""Numbers of the fields of FileDescriptorProto, DescriptorProto and EnumDescriptorProto that paths are made of."""


def named(file):
    """Each path in a file, with the full name of what is there."""
    for number, message in enumerate(file.message_type):
        yield from within((_MESSAGE, number), f"{file.package}.{message.name}", message)
    for number, enum in enumerate(file.enum_type):
        yield (_ENUM, number), f"{file.package}.{enum.name}"
        for place, value in enumerate(enum.value):
            yield (_ENUM, number, _VALUE, place), f"{file.package}.{enum.name}.{value.name}"


def within(path, name, message):
    """The same of a message and what is in it."""
    yield path, name
    for number, field in enumerate(message.field):
        yield (*path, _FIELD, number), f"{name}.{field.name}"
    for number, inner in enumerate(message.nested_type):
        yield from within((*path, _NESTED, number), f"{name}.{inner.name}", inner)


def main(source, target):
    """Reads the set and writes the file."""
    found = {}
    for file in FileDescriptorSet.FromString(Path(source).read_bytes()).file:
        comments = {tuple(each.path): each.leading_comments for each in file.source_code_info.location}
        for path, name in named(file):
            if text := " ".join(comments.get(path, "").split()):
                found[name] = text
    Path(target).write_text(json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
