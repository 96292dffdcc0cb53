"""The rule of Einsum: the gradient by a factor is the sum over products of that by the output and the other factors."""

from __future__ import annotations

from string import ascii_letters

from xai_sidecar.backends.graph.emitter import Emitter
from xai_sidecar.backends.graph.graph import Node
from xai_sidecar.backends.graph.rules.registry import Gradients, NotDerivableError, rule

_ANY = "..."


@rule("Einsum")
def einsum(node: Node, gradient: str, emit: Emitter) -> Gradients:
    """The sum over the axes that a factor lacks; where an axis is in no other factor, it was summed over alone."""
    factors, output = _subscripts(node, emit)
    _check(node, [*factors, output], [*node.inputs, node.outputs[0]], emit)
    return [
        _by_factor(place, node, factors, output, gradient, emit) if emit.is_active(name) else None
        for place, name in enumerate(node.inputs)
    ]


def _by_factor(place: int, node: Node, factors: list[str], output: str, gradient: str, emit: Emitter) -> str:
    wanted = factors[place]
    others = [subscripts for other, subscripts in enumerate(factors) if other != place]
    names = [emit.own(name) for other, name in enumerate(node.inputs) if other != place]
    known = set(output).union(*others)
    found = "".join(axis for axis in wanted if axis in known)
    value = gradient
    if names or found != output:
        value = emit.op("Einsum", gradient, *names, equation=f"{','.join([output, *others])}->{found}")
    if found == wanted:
        return value
    alone = [axis for axis, label in enumerate(wanted) if label not in known]
    return emit.expanded_like(emit.unsqueezed(value, alone), node.inputs[place])


def _subscripts(node: Node, emit: Emitter) -> tuple[list[str], str]:
    """The letters of the axes of each factor, and of the output; those that "..." stands for have letters, too."""
    equation = str(node.attributes["equation"]).replace(" ", "")
    left, arrow, output = equation.partition("->")
    factors = left.split(",")
    free = [letter for letter in ascii_letters if letter not in equation]
    lengths = [emit.rank(name) - len(each.replace(_ANY, "")) for each, name in zip(factors, node.inputs, strict=True)]
    every = "".join(free[: max(lengths)])
    named = [each.replace(_ANY, every[len(every) - n :]) for each, n in zip(factors, lengths, strict=True)]
    if not arrow:
        letters = left.replace(",", "").replace(_ANY, "")
        output = _ANY + "".join(sorted(each for each in set(letters) if letters.count(each) == 1))
    return named, output.replace(_ANY, every)


def _check(node: Node, subscripts: list[str], names: list[str], emit: Emitter) -> None:
    """Refuses what is no product of matrices: diagonals, and axes that are repeated.

    Raises:
        NotDerivableError: A factor has an axis twice, or an axis has two lengths.
    """
    lengths: dict[str, int | None] = {}
    for letters, name in zip(subscripts, names, strict=True):
        if len(set(letters)) < len(letters):
            raise NotDerivableError.of(node, "takes a diagonal (equation), which has no derivative here.")
        for letter, length in zip(letters, emit.shape(name), strict=True):
            if lengths.setdefault(letter, length) != length:
                raise NotDerivableError.of(
                    node, "repeats an axis of length 1 (equation), which has no derivative here."
                )
