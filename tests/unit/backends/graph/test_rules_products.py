"""Rules of matrix products and of Einsum."""

import numpy as np
import pytest
from differences import check, gradient_graph
from onnx import helper

from xai_sidecar.backends.graph.rules import NotDerivableError


def array(*shape):
    return np.random.default_rng(5).standard_normal(shape)


@pytest.mark.parametrize("bias", [(3,), (1, 3), (1, 1), (), None], ids=str)
def test_gemm_as_a_dense_layer(bias):
    constants = {"w": array(5, 3)} | ({} if bias is None else {"b": array(*bias)})
    check(helper.make_node("Gemm", ["x", *constants], ["y"], alpha=0.5, beta=2.0), (5,), constants, opset=11)


@pytest.mark.parametrize("by", ["both", "the first", "the second"])
@pytest.mark.parametrize(("trans_a", "trans_b"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_gemm_by_either_matrix(by, trans_a, trans_b):
    """(batch, 3) times (3, batch), or one of them constant."""
    nodes = [helper.make_node("Transpose", ["x"], ["t"])]
    constants = {}
    one, other = "t" if trans_a else "x", "x" if trans_b else "t"
    if by == "the first":
        constants, other = {"w": array(4, 3) if trans_b else array(3, 4)}, "w"
    elif by == "the second":
        constants, one = {"w": array(3, 4) if trans_a else array(4, 3)}, "w"
    nodes.append(helper.make_node("Gemm", [one, other], ["y"], transA=trans_a, transB=trans_b, alpha=1.5))
    check(nodes, (3,), constants, opset=11, sizes=(1, 3))


@pytest.mark.parametrize("bias", ["column", "whole", "sums"])
def test_gemm_by_its_bias(bias):
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["column"], axes=[1]),
        helper.make_node("ReduceSum", ["x"], ["sums"], axes=[0], keepdims=0),
        helper.make_node("Neg", ["x"], ["whole"]),
        helper.make_node("Gemm", ["x", "w", bias], ["y"], beta=0.5),
    ]
    check(nodes, (3,), {"w": array(3, 3)}, opset=11, sizes=(2,))


PRODUCTS = {
    "rows": ((5,), (5, 3)),
    "sequences": ((4, 5), (5, 3)),
    "as many matrices": ((2, 4, 5), (2, 5, 3)),
    "more batch axes": ((4, 5), (2, 1, 5, 3)),
    "one matrix": ((4, 5), (1, 5, 3)),
    "repeated": ((1, 4, 5), (3, 5, 2)),
    "a vector": ((4, 5), (5,)),
    "rows and a vector": ((5,), (5,)),
}


@pytest.mark.parametrize(("shape", "other"), PRODUCTS.values(), ids=PRODUCTS)
def test_product_with_a_constant(shape, other):
    check(helper.make_node("MatMul", ["x", "w"], ["y"]), shape, {"w": array(*other)}, sizes=(1, 3))


@pytest.mark.parametrize("other", [(3, 4), (1, 3, 4), (2, 1, 3, 4), (4,)], ids=str)
def test_product_with_a_constant_before(other):
    check(helper.make_node("MatMul", ["w", "x"], ["y"]), (4, 5), {"w": array(*other)}, sizes=(1, 3))


@pytest.mark.parametrize("opset", [11, 21])
def test_products_of_attention(opset):
    nodes = [
        helper.make_node("Mul", ["x", "c"], ["queries"]),
        helper.make_node("Transpose", ["x"], ["keys"], perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["queries", "keys"], ["scores"]),
        helper.make_node("MatMul", ["scores", "x"], ["y"]),
    ]
    check(nodes, (2, 3, 4), {"c": array(4)}, opset=opset, sizes=(1, 3), apart=True)


@pytest.mark.parametrize("factors", [("x", "v"), ("v", "t"), ("v", "v")], ids=str)
def test_product_by_vectors(factors):
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["v"], axes=[0, 1], keepdims=0),
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 2, 1]),
        helper.make_node("MatMul", factors, ["y"]),
    ]
    check(nodes, (2, 3), opset=11, sizes=(1, 2))


@pytest.mark.parametrize("activation", ["Sigmoid", "Erf"])
@pytest.mark.parametrize(("kind", "shape"), [("MatMul", (2, 16)), ("Gemm", (16,)), ("Einsum", (2, 16))], ids=str)
def test_the_forward_pass_and_the_gradient_use_the_same_matrix(kind, shape, activation):
    # OpenVINO packs a constant once for all, by its rows or by its columns: square ones it mixes up.
    attributes = {"equation": "bij,jk->bik"} if kind == "Einsum" else {}
    nodes = [
        helper.make_node(kind, ["x", "w"], ["product"], **attributes),
        helper.make_node(activation, ["product"], ["y"]),
    ]
    check(nodes, shape, {"w": array(16, 16) / 4}, sizes=(1, 3), apart=True)


EINSUMS = {
    "bhid,bhjd->bhij": [(2, 3, 4)] * 2,
    "bihd,bjhd->bhij": [(3, 2, 4)] * 2,
    "bhij,bhjd->bhid": [(2, 3, 3), (2, 3, 4)],
    "bij,jk->bik": [(3, 4), [4, 2]],
    "ij,bjk->bik": [[2, 3], (3, 4)],
    "bhwc,hkc->bhwk": [(2, 3, 4), [2, 5, 4]],
    "bchw,oc->bohw": [(2, 3, 2), [4, 2]],
    "...ij,jk->...ik": [(2, 3, 4), [4, 2]],
    "...id,...jd->...ij": [(2, 3, 4)] * 2,
    "b i d, b j d -> b i j": [(3, 4)] * 2,
    "bij,jk": [(3, 4), [4, 2]],
    "bi,bi->b": [(3,), (3,)],
    "bi,bj->bij": [(3,), (2,)],
    "bi,ij,bj->b": [(3,), [3, 2], (2,)],
    "bchw->bc": [(2, 3, 2)],
    "bij,bk->bk": [(2, 3), (2,)],
    "bij->bji": [(2, 3)],
}


@pytest.mark.parametrize(("equation", "shapes"), EINSUMS.items(), ids=EINSUMS)
def test_einsum(equation, shapes):
    """Shapes in tuples are parts of the picture, those in lists are of constants."""
    length = sum(int(np.prod(each)) for each in shapes if isinstance(each, tuple))
    nodes, constants, start = [], {}, 0
    for place, each in enumerate(shapes):
        if isinstance(each, list):
            constants[f"f{place}"] = array(*each)
            continue
        end = start + int(np.prod(each))
        constants |= {f"shape{place}": np.array([-1, *each])}
        constants |= {f"{name}{place}": np.array([number]) for name, number in (("start", start), ("end", end))}
        nodes.append(helper.make_node("Slice", ["x", f"start{place}", f"end{place}", "axis"], [f"part{place}"]))
        nodes.append(helper.make_node("Reshape", [f"part{place}", f"shape{place}"], [f"f{place}"]))
        start = end
    nodes.append(helper.make_node("Einsum", [f"f{place}" for place in range(len(shapes))], ["y"], equation=equation))
    check(nodes, (length,), constants | {"axis": np.array([1])}, opset=12, sizes=(1, 3), apart=True)


@pytest.mark.parametrize(
    ("equation", "shape"), [("bii->bi", (3, 3)), ("bij,kj->bik", (3, 1))], ids=["diagonal", "repeated"]
)
def test_einsum_that_is_no_product_is_refused(equation, shape):
    factors = ["x", "w"][: equation.count(",") + 1]
    with pytest.raises(NotDerivableError, match=r"Einsum .*\(equation\)"):
        gradient_graph(helper.make_node("Einsum", factors, ["y"], equation=equation), shape, {"w": array(2, 4)})
