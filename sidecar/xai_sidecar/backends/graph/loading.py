"""Loads a classifier from an ONNX file: one input of pictures with a free batch axis, one output of logits, float32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xai_sidecar.backends.graph.graph import Graph, Node, read
from xai_sidecar.errors import ConfigError

if TYPE_CHECKING:
    from onnx import ModelProto

_FIELD = "model.onnx"

_OLDEST = 11
"""The oldest version of ONNX's operators that graphs are read in; older files are converted."""

_CONVERTED = 13
"""The version that older files are converted to."""

_ENDS = {"Softmax": "softmax", "LogSoftmax": "softmax", "Sigmoid": "sigmoid"}
"""Operators that turn logits into probabilities, and the activation that they are."""

_PASSING = frozenset({"Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Cast", "Dropout"})
"""Operators that may stand behind an activation, and change no number."""

_HALVES = ("float16", "bfloat16", "float64")


@dataclass(frozen=True)
class Classifier:
    """A classifier's graph, ready to be run and derived.

    Attributes:
        graph: With one input, (batch, …), and one output, the logits, all in float32.
        source: What it was loaded from, in a sentence.
        activation: What the file applied to the logits, and is left out: "softmax", "sigmoid", or "" for nothing.
        was_static: The batch size that the file fixed; None if its batch axis is free.
    """

    graph: Graph
    source: str
    activation: str = ""
    was_static: int | None = None

    @property
    def input(self) -> str:
        """Name of the input."""
        return next(iter(self.graph.inputs))

    @property
    def logits(self) -> str:
        """Name of the logits."""
        return self.graph.outputs[0]


def load_file(path: Path, input_name: str | None, output_name: str | None, shape: Sequence[int]) -> Classifier:
    """Loads a classifier from a file.

    Args:
        path: An ONNX file; external data lies beside it.
        input_name: Name of the input of pictures; None if there is only one.
        output_name: Name of the logits, or of what an activation made of them; None if there is only one output.
        shape: Shape of one input as the config has it, in the order of the net's axes.

    Raises:
        ConfigError: It is no such file, or holds no such classifier.
    """
    return prepare(_loaded(path), input_name, output_name, shape, path.name)


def prepare(
    model: ModelProto, input_name: str | None, output_name: str | None, shape: Sequence[int], source: str
) -> Classifier:
    """Makes a classifier of a model. Arguments and errors are as of `load_file`."""
    model = _converted(_inlined(model), source)
    try:
        graph = read(model)
    except ValueError as error:
        raise ConfigError(f"{source} cannot be served. {error}", field=_FIELD) from error
    graph = _with_input(graph, input_name, tuple(shape), source)
    static = next(iter(graph.inputs.values()))[0]
    graph.inputs = dict.fromkeys(graph.inputs, (None, *shape))
    graph = _with_output(graph, model, output_name, source)
    graph, activation = _cut(_in_single_precision(graph))
    return Classifier(graph, f"All weights from {source}.", activation, static)


# ---------------------------------------------------------------------------------------- the file


def _loaded(path: Path) -> ModelProto:
    import onnx
    from google.protobuf.message import DecodeError

    if not path.is_file():
        raise ConfigError(f"there is no file {path}. Name an ONNX file.", field=_FIELD)
    try:
        model = onnx.load_model_from_string(path.read_bytes())  # onnx.load goes by the file's name
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error}. Allow it.", field=_FIELD) from error
    except DecodeError as error:
        raise ConfigError(f"{path} is no ONNX file, or was cut short. Export it anew.", field=_FIELD) from error
    if not model.graph.node:
        raise ConfigError(f"{path} holds no graph. Name an ONNX file.", field=_FIELD)
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise ConfigError(
            f"the weights of {path} that lie in other files cannot be read: {error} Put them beside it.", field=_FIELD
        ) from error
    return model


def _inlined(model: ModelProto) -> ModelProto:
    """The model with the bodies of its own functions in their place."""
    if not model.functions:
        return model
    from onnx import inliner

    return inliner.inline_local_functions(model)


def _converted(model: ModelProto, source: str) -> ModelProto:
    """The model in a version of ONNX's operators that is read."""
    from onnx import version_converter

    version = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 1)
    if version >= _OLDEST:
        return model
    try:
        model.ir_version = max(model.ir_version, 8)  # in the oldest format, weights had to be inputs as well
        return version_converter.convert_version(model, _CONVERTED)
    except Exception as error:  # of an operator that it does not know
        raise ConfigError(
            f"{source} has version {version} of ONNX's operators, and converting it to {_CONVERTED} failed: {error} "
            f"Export it anew, with version {_OLDEST} or later.",
            field=_FIELD,
        ) from error


# ---------------------------------------------------------------------------------------- its input and its output


def _with_input(graph: Graph, name: str | None, shape: tuple[int, ...], source: str) -> Graph:
    """The graph with the input of pictures alone."""
    wanted = "model.onnx_input"
    if name is None:
        if len(graph.inputs) != 1:
            raise ConfigError(
                f"{source} has the inputs {_listed(graph.inputs)}. Set model.onnx_input to that of the pictures; the "
                "others must have a default in the file.",
                field=wanted,
            )
        (name,) = graph.inputs
    elif name not in graph.inputs:
        raise ConfigError(f"{source} has no input {name!r}, but {_listed(graph.inputs)}. Name one.", field=wanted)
    elif others := [each for each in graph.inputs if each != name]:
        raise ConfigError(
            f"{source} has further inputs, {_listed(others)}, for which there would be no values. Export it with one "
            "input.",
            field=_FIELD,
        )
    _check_shape(graph, name, shape, source)
    return graph


def _check_shape(graph: Graph, name: str, shape: tuple[int, ...], source: str) -> None:
    has = graph.inputs[name]
    dtype = graph.input_dtypes[name]
    if dtype.name not in ("float32", *_HALVES):
        raise ConfigError(
            f"{source} takes {dtype} numbers, and a picture is prepared as float32. Export it without its own "
            "preparation, and set model.input instead.",
            field=_FIELD,
        )
    fits = len(has) == len(shape) + 1 and all(one in (None, other) for one, other in zip(has[1:], shape, strict=True))
    if not fits:
        turned = len(has) == 4 and (has[1] in (1, 3)) != (has[3] in (1, 3)) and _is_turned(has, shape)
        cure = "Set model.input.layout" if turned else "Correct model.input.size, channels or layout"
        raise ConfigError(
            f"{source} takes pictures of shape ({_axes(has)}), and model.input makes them ({_axes((None, *shape))}). "
            f"{cure}.",
            field="model.input.layout" if turned else "model.input.size",
        )


def _is_turned(has: Sequence[int | None], shape: tuple[int, ...]) -> bool:
    """Whether the channels are last in one and first in the other."""
    return (has[1] in (1, 3)) == (shape[2] in (1, 3) and shape[0] not in (1, 3))


def _axes(shape: Sequence[int | None]) -> str:
    return ", ".join("any" if axis is None else str(axis) for axis in shape)


def _with_output(graph: Graph, model: ModelProto, name: str | None, source: str) -> Graph:
    """The part of the graph that the logits need."""
    wanted = "model.onnx_output"
    if name is None:
        if len(graph.outputs) != 1:
            raise ConfigError(
                f"{source} has the outputs {_listed(graph.outputs)}. Set model.onnx_output to that of the logits.",
                field=wanted,
            )
        name = graph.outputs[0]
    elif name not in graph.makers():
        raise ConfigError(f"{source} has no output {name!r}, but {_listed(graph.outputs)}. Name one.", field=wanted)
    (picture,) = graph.inputs
    if picture not in graph.before([name]):
        raise ConfigError(f"{name!r} of {source} does not depend on the picture. Name the logits.", field=wanted)
    return graph.pruned([name])


def _listed(names: Mapping[str, Any] | Sequence[str]) -> str:
    return ", ".join(map(repr, names)) or "none"


# ---------------------------------------------------------------------------------------- numbers


def _in_single_precision(graph: Graph) -> Graph:
    """The graph with all floating-point numbers as float32."""

    def single(value: Any) -> Any:
        if isinstance(value, np.ndarray) and value.dtype.name in _HALVES:
            return value.astype(np.float32)
        return value

    result = graph.copy()
    result.constants = {name: single(value) for name, value in graph.constants.items()}
    result.input_dtypes = dict.fromkeys(graph.inputs, np.dtype(np.float32))
    result.nodes = [replace(node, attributes=_single_attributes(node, single)) for node in graph.nodes]
    return result


def _single_attributes(node: Node, single: Any) -> dict[str, Any]:
    from onnx import TensorProto

    floats = (TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE)
    attributes = {name: single(value) for name, value in node.attributes.items()}
    if node.kind in ("Cast", "EyeLike", "RandomNormalLike", "RandomUniformLike"):
        attributes.update({key: TensorProto.FLOAT for key in ("to", "dtype") if attributes.get(key) in floats})
    return attributes


# ---------------------------------------------------------------------------------------- logits


def _cut(graph: Graph) -> tuple[Graph, str]:
    """The graph without an activation at its end, and which one that was; "" if there is none."""
    makers = graph.makers()
    users = graph.users()
    passed: list[Node] = []
    name = graph.outputs[0]
    while (node := makers.get(name)) and node.kind in _PASSING and len(users.get(name, ())) <= 1:
        passed.append(node)
        name = node.inputs[0]
    if node is None or node.kind not in _ENDS or _is_gate(node, graph) or node.attributes.get("axis") == 0:
        return graph, ""
    return _bypassed(graph, node, passed), _ENDS[node.kind]


def _is_gate(node: Node, graph: Graph) -> bool:
    """Whether what seems to be the last activation is also used elsewhere, as by an attention."""
    return len(graph.users().get(node.outputs[0], ())) > 1


def _bypassed(graph: Graph, end: Node, passed: Sequence[Node]) -> Graph:
    """The graph whose output is made of what went into its last activation."""
    if not passed:
        return graph.pruned([end.inputs[0]])
    cut = graph.copy()
    first = cut.nodes.index(passed[-1])
    cut.nodes[first] = passed[-1].renamed({end.outputs[0]: end.inputs[0]})
    return cut.pruned(graph.outputs)
