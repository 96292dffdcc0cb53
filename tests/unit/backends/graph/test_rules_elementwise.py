"""Rules of arithmetic, element by element."""

import numpy as np
import pytest
from differences import check
from onnx import helper

OTHERS = {"full": (3, 4), "rows": (3, 1), "columns": (4,), "one": (), "more axes": (1, 1, 3, 4)}


@pytest.mark.parametrize("kind", ["Add", "Mul"])
@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_arithmetic_with_a_constant(kind, other):
    constant = np.random.default_rng(1).uniform(0.5, 2, other)
    check(helper.make_node(kind, ["x", "c"], ["y"]), (3, 4), {"c": constant})
    check(helper.make_node(kind, ["c", "x"], ["y"]), (3, 4), {"c": constant})


@pytest.mark.parametrize("kind", ["Add", "Mul"])
def test_arithmetic_with_itself_and_with_a_part_of_itself(kind):
    check(helper.make_node(kind, ["x", "x"], ["y"]), (3, 4))
    mean = helper.make_node("Mul", ["x", "c"], ["scaled"])
    check([mean, helper.make_node(kind, ["x", "scaled"], ["y"])], (3, 4), {"c": np.array(3.0)})
