"""The interface of engines, which load ONNX graphs, and of programs, the graphs that they have loaded."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np

from xai_sidecar.engine.work import Array

Precision: TypeAlias = Literal["float32", "bfloat16", "float16"]
"""What an engine computes products in. What goes in and comes out is float32 whichever it is."""


class EngineError(Exception):
    """An engine cannot be used, or cannot load or run a graph. The message is one line that says why."""


class LazyModel:
    """A model that is serialised when an engine has to read it: where all is kept that engines made of it, none has.

    It is serialised once, whichever engines ask for it at the same time.

    Args:
        digest: Tells it from all others.
        serialise: Makes the serialised model.
    """

    def __init__(self, digest: str, serialise: Callable[[], bytes]) -> None:
        self.digest = digest
        self._serialise = serialise
        self._content: bytes | None = None
        self._lock = threading.Lock()

    @property
    def content(self) -> bytes:
        """The serialised model."""
        with self._lock:
            if self._content is None:
                self._content = self._serialise()
            return self._content


Model: TypeAlias = bytes | Path | LazyModel
"""A serialised model, or its path. One of more than 2 GB has to be a path, with external data beside."""


def read_by(model: Model) -> bytes | Path:
    """A model as a library reads it."""
    return model.content if isinstance(model, LazyModel) else model


class Program(Protocol):
    """A graph that an engine has loaded. Any thread may call it, several at once, too.

    Attributes:
        inputs: Names of the graph's inputs, in the graph's order.
        outputs: Names of its outputs, in the graph's order.
    """

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs."""

    def __call__(self, rows: tuple[Array, ...]) -> tuple[Array, ...]:
        """Runs the graph.

        Args:
            rows: An array for each of `inputs`. They may be views of any strides, and are not changed. Numbers of
                another size are converted, as float64 to float32. Further arrays are ignored.

        Returns:
            An array for each of `outputs`, with memory of its own. Floating-point numbers are float32 whatever the
            graph has; others are as the graph has them.

        Raises:
            Exception: The engine's own: the arrays do not fit the graph.
        """


class Engine(Protocol):
    """A library that runs ONNX graphs on a device. Nothing is imported before it is asked something.

    Attributes:
        name: The library's, and the device's if it is not the CPU: "openvino", "onnxruntime-cuda".
        fixed_up_to: Largest batch size for which a program that is made for it alone may be faster than one for any;
            0 where none is.
    """

    name: str
    fixed_up_to: int

    @property
    def version(self) -> str:
        """The library's version. Nothing may be missing."""

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """Precisions that gain speed on this machine, "float32" first. Nothing may be missing."""

    def missing(self) -> str | None:
        """Why the engine cannot be used in this process, naming the package or library; None if it can."""

    def load(
        self,
        model: Model,
        *,
        batch_size: int | None = None,
        precision: Precision = "float32",
        threads: int | None = None,
    ) -> Program:
        """Loads a graph.

        Args:
            model: The graph.
            batch_size: Length of the first axis of all inputs in every call; None if it varies. A program that was
                made for one size may refuse others.
            precision: One of `precisions`.
            threads: Number of threads on the CPU, the caller's included; None for one on each usable CPU.

        Raises:
            EngineError: It cannot load the graph, lacks the precision, or something is missing.
        """

    def settle(self, program: Program) -> Program:
        """A program as it is to serve: kept for later starts, and in no more memory than it needs.

        What is loaded may turn out to be the slower one, so this is done of what was chosen.

        Args:
            program: What `load` has returned.

        Returns:
            It, or another one in its place, which has to be compared anew.

        Raises:
            EngineError: It cannot be done.
        """


def described(engine: Engine) -> str:
    """An engine's name and version, as they are shown to users. Nothing may be missing."""
    return f"{engine.name} {engine.version}"


def one_line(error: Exception) -> str:
    """An error in one line: its type and the first line of its message that has words."""
    lines = (line.strip() for line in str(error).splitlines())
    first = next((line for line in lines if re.search(r"\w", line)), "")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def fitted(array: Array, dtype: np.dtype[Any]) -> Array:
    """An array as a graph's input wants it: contiguous, of a dtype of the same kind.

    Raises:
        TypeError: It is of another kind, as integers for floating-point numbers.
    """
    if array.dtype.kind != dtype.kind:
        raise TypeError(f"the graph takes {dtype} where {array.dtype} was given")
    return np.asarray(array, dtype, order="C")


def returned(array: Array) -> Array:
    """An array as programs return it: floating-point numbers as float32."""
    return array.astype(np.float32, copy=False) if array.dtype.kind == "f" else array
