"""Digests: equal for equal values only, whatever process or release writes them."""

import enum
import hashlib
import os
import subprocess
import sys
from dataclasses import dataclass, field

import numpy as np
import pytest

from xai_sidecar.digest import canonical, digest


class Colour(enum.Enum):
    RED = 1


@dataclass(frozen=True)
class Point:
    x: int
    y: int = 0
    tags: list = field(default_factory=list)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ((1, 2.5, "ä", None, True), '[1,2.5,"\\u00e4",null,true]'),
        ([np.int64(1), np.float32(2.5)], "[1,2.5]"),
        ({"b": 1, "a": {2, 1}}, '{"a":<1,2>,"b":1}'),
        (Colour.RED, "Colour.RED"),
        (Point(3), '{"x":3}'),
        (Point(3, 1, ["t"]), '{"tags":["t"],"x":3,"y":1}'),
        (b"\0", "bytes(b'\\x00')"),
    ],
)
def test_a_value_as_text(value, text):
    assert canonical(value) == text
    assert digest(value) == hashlib.sha256(f"[{text}]".encode()).hexdigest()[:12]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, "1"),
        (1, True),
        (1, 1.0),
        (0.1, np.nextafter(0.1, 1)),
        ([[1], 2], [[1, 2]]),
        ({1: 2}, {2: 1}),
        (np.zeros(2, np.float32), np.zeros(2, np.int32)),
        (np.zeros((2, 1)), np.zeros((1, 2))),
        (np.array([0.0]), np.array([1.0])),
        (["a,b"], ["a", "b"]),
    ],
)
def test_what_differs_has_another_digest(one, other):
    assert digest(one) != digest(other)


def test_what_contains_itself():
    ring = [1]
    ring.append(ring)
    assert canonical(ring) == "[1,itself]"
    assert canonical([ring[:1], ring[:1]]) == "[[1],[1]]"


def test_objects_in_a_set_have_no_order():
    assert canonical({Colour.RED, 1, "a"}) == '<"a",1,Colour.RED>'
    written = []
    assert (
        canonical([object(), {object(), object()}], lambda each: written.append(each) or "#") == "[#,<object,object>]"
    )
    assert len(written) == 1


def test_what_has_no_canonical_form_is_refused_by_its_type():
    with pytest.raises(TypeError, match="a Random has no canonical form"):
        digest([__import__("random").Random()])


def test_other_processes_write_the_same():
    script = "from xai_sidecar.digest import digest; print(digest({'b', 'a', 'xyz'}, {'k': {'p', 'q'}}))"
    seen = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "2")
    }
    assert seen == {f"{digest({'b', 'a', 'xyz'}, {'k': {'p', 'q'}})}\n"}
