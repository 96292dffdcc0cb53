"""Where rules are kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from xai_sidecar.backends.graph.emitter import Emitter
from xai_sidecar.backends.graph.graph import Node
from xai_sidecar.backends.graph.rules.relu_rules import ruled

Gradients: TypeAlias = Sequence[str | None]
"""Names of gradients; None for zero."""

Rule: TypeAlias = Callable[[Node, Gradients, Emitter], Gradients]
"""See the package."""

Simple: TypeAlias = Callable[[Node, str, Emitter], Gradients]
"""A rule for operators of whose outputs only the first has a gradient."""


class NotDerivableError(Exception):
    """An operator has no rule, or none for its attributes; the message names both."""

    @classmethod
    def of(cls, node: Node, why: str) -> NotDerivableError:
        """For an operator: `why` goes on after its name."""
        return cls(f"The operator {node.kind} ({node.name or node.outputs[0]}) {why}")


RULES: dict[str, Rule] = {}
"""The rules by operator."""


def rule(*kinds: str) -> Callable[[Simple], Simple]:
    """Registers a rule for operators of whose outputs only the first can have a gradient."""

    def register(simple: Simple) -> Simple:
        def whole(node: Node, gradients: Gradients, emit: Emitter) -> Gradients:
            if any(gradients[1:]):
                return ()  # its other outputs matter; there is no rule for that
            gradient = gradients[0]
            if not gradient:
                return ()
            return ruled(node, gradient, emit) if emit.is_ruled(node) else simple(node, gradient, emit)

        RULES.update(dict.fromkeys(kinds, whole))
        return simple

    return register


def rule_of_outputs(*kinds: str) -> Callable[[Rule], Rule]:
    """Registers a rule for operators several of whose outputs can have a gradient."""

    def register(whole: Rule) -> Rule:
        RULES.update(dict.fromkeys(kinds, whole))
        return whole

    return register


def without_gradient(*kinds: str) -> None:
    """Registers operators whose outputs do not change with small changes of their inputs."""
    RULES.update(dict.fromkeys(kinds, lambda node, gradients, emit: (None,) * len(node.inputs)))
