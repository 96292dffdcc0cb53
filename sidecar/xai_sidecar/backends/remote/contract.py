"""Which tensors of a model on another server are used, and how; found in its metadata and the config."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xai_sidecar.backends.remote.protocol import NUMBERS, ModelMetadata, Tensor
from xai_sidecar.backends.remote.source import RemoteSource
from xai_sidecar.errors import ConfigError

_FREE = -1


@dataclass(frozen=True)
class Contract:
    """What of a model is used.

    Attributes:
        input: What takes the pictures.
        output: What gives logits or probabilities.
        features: What gives the inputs of the last dense layer; None for nothing.
        layout: "nchw" or "nhwc".
        batch_sizes: The batch sizes to try: those configured, or the one that the model fixes.
    """

    input: Tensor
    output: Tensor
    features: Tensor | None
    layout: str
    batch_sizes: tuple[int, ...]

    @property
    def columns(self) -> int | None:
        """Number of classes, where the metadata say so."""
        axes = [axis for axis in self.output.shape[1:] if axis != 1]
        return axes[0] if len(axes) == 1 and axes[0] > 0 else None


def contract_of(metadata: ModelMetadata, source: RemoteSource) -> Contract:
    """What of a model is used.

    Raises:
        ConfigError: Its metadata and the config do not fit together.
    """
    settings = source.settings
    given = _chosen(metadata.inputs, settings.input, "input", source)
    features = _chosen(metadata.outputs, settings.features, "features", source) if settings.features else None
    others = [each for each in metadata.outputs if features is None or each.name != features.name]
    output = _chosen(others, settings.output, "output", source)
    for tensor in filter(None, (given, output, features)):
        _check_type(tensor, source)
    layout = _layout(given, source)
    batch = given.shape[0] if given.shape else _FREE
    return Contract(given, output, features, layout, source.batch_sizes if batch == _FREE else (batch,))


def _chosen(tensors: Sequence[Tensor], name: str | None, what: str, source: RemoteSource) -> Tensor:
    """The tensor of a name, or the only one."""
    field, names = f"model.upstream.{what}", ", ".join(each.name for each in tensors)
    kind = "input" if what == "input" else "output"
    if name is not None:
        found = [each for each in tensors if each.name == name]
        if tensors and not found:
            raise ConfigError(
                f"{source.address} has no {kind} {name!r}. It has {names}: name one of these.", field=field
            )
        return found[0] if found else Tensor(name)
    if len(tensors) == 1:
        return tensors[0]
    if not tensors:
        raise ConfigError(f"{source.address} says nothing of its {kind}s. Name the one that is meant.", field=field)
    raise ConfigError(f"{source.address} has several {kind}s: {names}. Name the one that is meant.", field=field)


def _check_type(tensor: Tensor, source: RemoteSource) -> None:
    if tensor.datatype and tensor.datatype not in NUMBERS:
        raise ConfigError(
            f"{tensor.name!r} of {source.address} is of {tensor.datatype}, where a model to be explained takes and "
            f"gives numbers of {', '.join(NUMBERS)}. Serve the model without what comes before or after it.",
            field="model.oip",
        )


def _layout(given: Tensor, source: RemoteSource) -> str:
    """The layout that the input's shape has, and the config where that says nothing."""
    if not given.shape:
        return source.layout or "nchw"
    fitting = [
        layout
        for layout in (["nchw", "nhwc"] if source.layout is None else [source.layout])
        if len(given.shape) == 4
        and all(axis in (_FREE, wanted) for axis, wanted in zip(given.shape[1:], source.shape(layout), strict=True))
    ]
    if fitting:
        return fitting[0]
    shape = ", ".join("n" if axis == _FREE else str(axis) for axis in given.shape)
    wanted = ", ".join(map(str, source.shape(source.layout or "nchw")))
    raise ConfigError(
        f"the input {given.name!r} of {source.address} has the shape ({shape}), where the config makes pictures of "
        f"(n, {wanted}). Set size, channels and layout in model.input to what the model takes; its first axis has to "
        "be the batch.",
        field="model.input",
    )
