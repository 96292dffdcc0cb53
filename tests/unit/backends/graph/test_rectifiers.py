"""Which operators of a graph the ReLU rules are about, and what the rules do there."""

import numpy as np
import pytest
from differences import model, run
from onnx import helper

from xai_sidecar.backends.graph.derivative import derive
from xai_sidecar.backends.graph.graph import read
from xai_sidecar.backends.graph.rectifiers import find_rectifiers
from xai_sidecar.backends.graph.rules.relu_rules import CHOSEN, FLOOR, THRESHOLD, rule_rows
from xai_sidecar.backends.graph.tracing import trace
from xai_sidecar.errors import PreconditionError

NUMBERS = {
    "zero": np.array(0.0),
    "zeros": np.zeros((2, 1, 1)),
    "sixth": np.array(1 / 6),
    "half": np.array(0.5),
    "one": np.array(1.0),
    "minus one": np.array(-1.0),
    "three": np.array(3.0),
    "six": np.array(6.0),
    "infinity": np.array(np.inf),
}

KERNELS = {f"kernel{place}": np.ones((2, 2, 1, 1)) for place in range(9)}


def graph_of(text, shape=(2, 3, 3), constants=None):
    """A graph of lines, "output = Operator(input, …)", from x, (n, *shape), to y; each Conv has a kernel of its own."""
    nodes = []
    for line in filter(None, map(str.strip, text.splitlines())):
        output, call = line.split(" = ")
        kind, inputs = call.rstrip(")").split("(")
        inputs = [name.strip() for name in inputs.split(",")]
        kernel = [f"kernel{len(nodes)}"] if kind == "Conv" else []
        attributes = {"Cast": {"to": 11}, "ThresholdedRelu": {"alpha": 0.0}, "LeakyRelu": {"alpha": 0.1}}.get(kind, {})
        nodes.append(helper.make_node(kind, inputs + kernel, [output], **attributes))
    used = {name for node in nodes for name in node.input}
    constants = NUMBERS | KERNELS | (constants or {})
    return read(model(nodes, shape, {name: value for name, value in constants.items() if name in used}))


def found(text):
    return sorted(find_rectifiers(graph_of(text)))


@pytest.mark.parametrize(
    "rectifier",
    [
        "r = Relu(a)",
        "r = Clip(a, zero, six)",
        "r = Clip(a, zero)",
        "r = Clip(a, zero, infinity)",
        "r = Max(a, zero)",
        "r = Max(zeros, a)",
        "r = ThresholdedRelu(a)",
        "r = PRelu(a, zero)",
        "p = Greater(a, zero)\n m = Cast(p)\n r = Mul(a, m)",
        "p = GreaterOrEqual(a, zeros)\n m = CastLike(p, a)\n r = Mul(m, a)",
        "p = Less(zero, a)\n m = Cast(p)\n r = Mul(a, m)",
        "p = Greater(a, zero)\n r = Where(p, a, zero)",
        "p = LessOrEqual(a, zero)\n r = Where(p, zeros, a)",
        "p = Less(a, zero)\n q = Not(p)\n r = Where(q, a, zero)",
        "s = Shape(a)\n n = ConstantOfShape(s)\n r = Max(a, n)",
        "s = Shape(a)\n n = Expand(zero, s)\n p = Greater(a, n)\n r = Where(p, a, n)",
    ],
)
def test_rectifiers_in_all_their_forms(rectifier):
    assert found(f"a = Conv(x)\n {rectifier}\n y = Conv(r)") == ["r"]


@pytest.mark.parametrize(
    "rectifier",
    [
        "r = Relu(a)\n s = Min(r, six)",
        "r = Max(a, zero)\n s = Min(six, r)",
        "r = Clip(a, zero)\n s = Clip(r, , six)",
        "r = Relu(a)\n s = Clip(r, minus one, six)",
        "r = Min(a, six)\n s = Max(r, zero)",
        "r = Clip(a, , six)\n s = Relu(r)",
    ],
)
def test_a_ceiling_before_or_after_belongs_to_the_rectifier(rectifier):
    assert found(f"a = Conv(x)\n {rectifier}\n y = Conv(s)") == ["r", "s"]


@pytest.mark.parametrize(
    "other",
    [
        "r = LeakyRelu(a)",
        "r = Elu(a)",
        "r = HardSwish(a)",
        "r = PRelu(a, half)",
        "r = Clip(a, minus one, one)",
        "r = Clip(a, one, six)",
        "r = Clip(a, , zero)",
        "r = Max(a, one)",
        "r = Min(a, zero)",
        "r = Min(a, six)",
        "r = Max(a, x)",
        "p = Less(a, zero)\n r = Where(p, a, zero)",
        "p = Greater(a, one)\n r = Where(p, a, zero)",
        "p = Greater(x, zero)\n m = Cast(p)\n r = Mul(a, m)",
    ],
)
def test_other_activations_are_no_rectifiers(other):
    with pytest.raises(PreconditionError, match="this model has no ReLU or the like"):
        found(f"a = Conv(x)\n {other}\n y = Conv(r)")


GATES = [
    "t = Add(a, three)\n r = Clip(t, zero, six)\n p = Mul(a, r)\n y = Div(p, six)",
    "t = Add(three, a)\n r = Clip(t, zero, six)\n d = Div(r, six)\n y = Mul(a, d)",
    "t = Add(a, three)\n r = Clip(t, zero, six)\n d = Mul(a, sixth)\n y = Mul(r, d)",
    "t = Add(a, three)\n r = Clip(t, zero, six)\n d = Mul(r, sixth)\n s = Identity(d)\n y = Mul(a, s)",
    "t = Add(a, three)\n r = Relu(t)\n s = Min(r, six)\n p = Mul(a, s)\n y = Mul(p, sixth)",
    "t = Add(a, three)\n r = Min(t, six)\n s = Max(r, zero)\n p = Mul(s, a)\n y = Mul(p, sixth)",
    "t = Add(a, three)\n r = Clip(t, zero)\n s = Clip(r, , six)\n p = Mul(a, s)\n y = Div(p, six)",
    "t = Mul(a, sixth)\n u = Add(t, half)\n r = Clip(u, zero, one)\n y = Mul(r, a)",
    "t = Add(a, three)\n u = Sub(a, three)\n r = Relu(t)\n s = Relu(u)\n d = Sub(r, s)\n y = Mul(a, d)",
    "t = Conv(a)\n r = Clip(t, zero, six)\n y = Mul(a, r)",  # its 3 has gone into the convolution before
    "r = Relu(a)\n y = Mul(a, r)",
]


@pytest.mark.parametrize("gate", GATES)
def test_what_multiplies_a_value_that_is_not_made_of_it_is_a_gate(gate):
    with pytest.raises(PreconditionError, match=r"what is like a ReLU in this model \(\w+.*\) is part of a hard swish"):
        found(f"a = Conv(x)\n {gate}")
    assert found(f"b = Conv(x)\n f = Relu(b)\n a = Conv(f)\n {gate}") == ["f"]


def test_a_hard_sigmoid_alone_is_no_rectifier():
    with pytest.raises(PreconditionError, match="part of a hard swish or hard sigmoid"):
        found("a = Conv(x)\n t = Add(a, three)\n r = Clip(t, zero, six)\n d = Div(r, six)\n y = Conv(d)")


def test_clipping_the_picture_is_no_rectifier():
    for first in ("p = Clip(x, zero, one)", "s = Mul(x, half)\n t = Add(s, half)\n p = Clip(t, zero, one)"):
        assert found(f"{first}\n a = Conv(p)\n r = Relu(a)\n y = Conv(r)") == ["r"]


@pytest.mark.parametrize("gate", ["Sigmoid(e)", "HardSigmoid(e)", "Clip(e, zero, one)", "Relu(e)"])
def test_in_squeeze_and_excite_the_last_is_a_gate_and_the_others_are_rectifiers(gate):
    text = f"""
        a = Conv(x)
        f = Relu(a)
        s = GlobalAveragePool(f)
        d = Conv(s)
        r = Relu(d)
        e = Conv(r)
        g = {gate}
        p = Mul(f, g)
        y = Conv(p)
    """
    assert found(text) == ["f", "r"]


def test_a_gate_that_is_reshaped_and_shifted_on_its_way_is_one():
    text = """
        a = Conv(x)
        f = Relu(a)
        s = GlobalAveragePool(f)
        d = Conv(s)
        g = Clip(d, zero, one)
        h = Add(g, one)
        i = Identity(h)
        p = Mul(i, f)
        y = Conv(p)
    """
    assert found(text) == ["f"]


def test_features_that_a_sigmoid_gates_are_of_a_rectifier_even_if_it_is_not_made_of_them():
    text = "a = Conv(x)\n f = Relu(a)\n b = Conv(x)\n g = {}\n y = Mul(f, g)"
    for gate in ("Sigmoid(b)", "Clip(b, zero, one)"):
        assert found(text.format(gate)) == ["f"]
    with pytest.raises(PreconditionError):
        found(text.format("Identity(b)"))


def test_features_that_are_squared_or_normalised_are_of_a_rectifier():
    assert found("a = Conv(x)\n f = Relu(a)\n y = Mul(f, f)") == ["f"]
    assert found("a = Conv(x)\n f = Relu(a)\n m = GlobalAveragePool(f)\n y = Div(f, m)") == ["f"]


# ------------------------------------------------------------------------------------------------ what the rules do

# Two layers, number by number: a = 2 x - 1, first rectified; b = w · first + 1, second rectified; y = v · second.
# Each row is a case; a and b are given for comparison.
TWO_LAYERS = """
    s = Add(x, x)
    a = Add(s, minus one)
    {}
    t = Mul(first, w)
    b = Add(t, one)
    {}
    y = Mul(second, v)
"""

CASES = np.array(
    # x,    w,    v,    a,    b,    gradient, guided, deconvolution; with a ceiling of 6: gradient, guided
    [
        [2.0, 1.0, 5.0, 3.0, 4.0, 10, 10, 10, 10, 10],  # all positive: 5 · 1 · 2
        [2.0, 3.0, 5.0, 3.0, 10.0, 30, 30, 30, 0, 0],  # the second is above a ceiling
        [4.0, 0.5, 5.0, 7.0, 4.5, 5, 5, 5, 0, 0],  # the first is
        [2.0, -0.2, 5.0, 3.0, 0.4, -2, 0, 0, -2, 0],  # negative where it comes to the first
        [2.0, 1.0, -5.0, 3.0, 4.0, -10, 0, 0, -10, 0],  # negative where it comes to the second
        [2.0, -0.2, -5.0, 3.0, 0.4, 2, 0, 0, 2, 0],  # a positive number in the end
        [0.0, 3.0, 5.0, -1.0, 1.0, 0, 0, 30, 0, 0],  # the first is off
        [0.5, 3.0, 5.0, 0.0, 1.0, 0, 0, 30, 0, 0],  # the first is at its zero
        [0.0, -1.0, 5.0, -1.0, 1.0, 0, 0, 0, 0, 0],
        [2.0, -3.0, 5.0, 3.0, -8.0, 0, 0, 0, 0, 0],  # the second is off
        [2.0, -3.0, -5.0, 3.0, -8.0, 0, 0, 0, 0, 0],
    ]
)

X, W, V, A, B, GRADIENT, GUIDED, DECONVOLUTION, GRADIENT_6, GUIDED_6 = CASES.T

RELU = "{0} = Relu({1})"

OPEN = [
    RELU,
    "{0} = Max(zero, {1})",
    "{0} = Clip({1}, zero)",
    "{0} = ThresholdedRelu({1})",
    "{0} = PRelu({1}, zero)",
    "p{0} = Greater({1}, zero)\n m{0} = Cast(p{0})\n {0} = Mul({1}, m{0})",
    "p{0} = LessOrEqual({1}, zero)\n {0} = Where(p{0}, zero, {1})",
]

RELU_6 = "{0} = Clip({1}, zero, six)"

CEILED = [
    RELU_6,
    "r{0} = Relu({1})\n {0} = Min(r{0}, six)",
    "r{0} = Min(six, {1})\n {0} = Max(r{0}, zero)",
    "r{0} = Clip({1}, , six)\n {0} = Clip(r{0}, zero)",
]


def two_layers(form, rule, chosen=False):
    """The gradient of the sum of y by x; with the rule chosen by inputs of the graph if it is."""
    text = TWO_LAYERS.format(form.format("first", "a"), form.format("second", "b"))
    constants = {"w": W, "v": V}
    folded, traced = trace(graph_of(text, X.shape, constants), X[None], run)
    rectifiers = find_rectifiers(folded) if rule or chosen else ()
    derived, names = derive(folded, traced, "y", "seed", ["x"], rectifiers, CHOSEN if chosen else rule)
    rules = dict(zip((FLOOR, THRESHOLD), (row.astype(float) for row in rule_rows(rule, 1)), strict=True))
    rows = {"x": X[None], "seed": np.ones((1, *X.shape))} | rules
    derived = derived.pruned([*names, "a", "b"])
    gradient, a, b = run(derived, tuple(rows[name] for name in derived.inputs))
    np.testing.assert_allclose(a[0], A, atol=1e-12)
    if form in OPEN:
        np.testing.assert_allclose(b[0], B, atol=1e-12)
    return gradient[0]


@pytest.mark.parametrize("form", OPEN)
def test_the_rules_by_hand(form):
    np.testing.assert_allclose(two_layers(form, "guided"), GUIDED, atol=1e-12)
    np.testing.assert_allclose(two_layers(form, "deconvolution"), DECONVOLUTION, atol=1e-12)


@pytest.mark.parametrize("form", CEILED)
def test_the_rules_by_hand_with_a_ceiling(form):
    # Deconvolution asks no more where the ceiling is than where zero is.
    np.testing.assert_allclose(two_layers(form, "guided"), GUIDED_6, atol=1e-12)
    np.testing.assert_allclose(two_layers(form, "deconvolution"), DECONVOLUTION, atol=1e-12)


def test_without_a_rule_the_gradient_is_that_of_mathematics():
    np.testing.assert_allclose(two_layers(RELU, ""), GRADIENT, atol=1e-12)
    np.testing.assert_allclose(two_layers(RELU_6, ""), GRADIENT_6, atol=1e-12)


@pytest.mark.parametrize("form", [RELU, "{0} = Clip({1}, zero)"])
def test_inputs_choose_the_rule(form):
    for rule, expected in {"": GRADIENT, "guided": GUIDED, "deconvolution": DECONVOLUTION}.items():
        np.testing.assert_allclose(two_layers(form, rule, chosen=True), expected, atol=1e-12, err_msg=rule)


@pytest.mark.parametrize("form", [RELU_6, "r{0} = Clip({1}, , six)\n {0} = Clip(r{0}, zero)"])
def test_inputs_choose_the_rule_with_a_ceiling(form):
    for rule, expected in {"": GRADIENT_6, "guided": GUIDED_6, "deconvolution": DECONVOLUTION}.items():
        np.testing.assert_allclose(two_layers(form, rule, chosen=True), expected, atol=1e-12, err_msg=rule)


@pytest.mark.parametrize("rule, expected", [("guided", [6, 0]), ("deconvolution", [6, 4])])
def test_a_rule_is_for_rectifiers_not_for_gates(rule, expected):
    # y = c · f · g with f = relu(x) and g = relu(3 - f), a gate. By f: c · (g - f), where the gate is open.
    # For x = 2 and c = -6 that is -6 · (1 - 2) = 6; by the rule the gate would hold its part back, -6 · 2 · -1.
    # For x = -1 and c = 4 / 3 it is 4 / 3 · 3 = 4, and the rectifier is off.
    text = "f = Relu(x)\n n = Neg(f)\n t = Add(n, three)\n g = Relu(t)\n p = Mul(f, g)\n y = Mul(p, c)"
    x = np.array([[2.0, -1.0]])
    constants = {"c": np.array([-6.0, 4 / 3])}
    folded, traced = trace(graph_of(text, (2,), constants), x, run)
    assert find_rectifiers(folded) == {"f"}
    derived, names = derive(folded, traced, "y", "seed", ["x"], find_rectifiers(folded), rule)
    (gradient,) = run(derived.pruned(names), (x, np.ones_like(x)))
    np.testing.assert_allclose(gradient[0], expected, atol=1e-12)
