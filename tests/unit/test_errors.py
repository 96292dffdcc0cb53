"""What errors repeat of a request, and how much of it."""

from pathlib import Path

import pytest

import xai_sidecar
from xai_sidecar.errors import ConfigError, InvalidRequestError, SidecarError, quoted, shortened


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a cat", "'a cat'"),
        ("it's\n", '"it\'s\\n"'),
        ("x" * 80, f"'{'x' * 80}'"),
        ("x" * 81, f"'{'x' * 80}' …"),
        (b"\0" * 100, "b'" + "\\x00" * 80 + "' …"),
        (1.5, "1.5"),
        (10**100, "1" + "0" * 79 + " …"),
    ],
)
def test_quoting(value, expected):
    assert quoted(value) == expected


def test_shortening():
    assert shortened("abc", 3) == "abc"
    assert shortened("abcd", 3) == "abc …"


def tree(error=SidecarError):
    for each in error.__subclasses__():
        yield each
        yield from tree(each)


def test_every_error_is_of_use_somewhere():
    """The series of calls have a row for the code of each."""
    sources = [path.read_text() for path in Path(xai_sidecar.__file__).parent.rglob("*.py") if path.name != "errors.py"]
    unused = {error.__name__ for error in tree() if not any(f"{error.__name__}(" in source for source in sources)}
    assert not unused


def test_messages_are_bounded():
    error = InvalidRequestError("x" * 10**6)
    assert error.message == str(error) == "x" * 1000 + " …"
    assert len(ConfigError("x" * 5000).message) == 5000, "people read these on a terminal, whole"
