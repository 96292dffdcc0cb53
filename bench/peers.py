"""Grad-CAM and RISE beside mindspore-xai 1.8.1 and a plain PyTorch loop, where these are installed.

Each peer runs in a process and, since their requirements clash with ours, as a rule in an environment of its own:

    XAI_BENCH_MINDSPORE_XAI   a Python with mindspore-xai 1.8.1, mindcv, and, for MindSpore 2, a module `peer_shim`
                              on its PYTHONPATH that makes the two work together
    XAI_BENCH_TORCH           a Python with PyTorch; by default this one, if it has it
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from bench import models
from bench.figure import Figure, interleaved, ratio
from xai_sidecar.engine.batch import Lane
from xai_sidecar.engine.engine import Engine
from xai_sidecar.explainers.base import ModelFacts
from xai_sidecar.explainers.discovery import installed_explainers

_MASKS = 128
_ROUNDS = 5
_LAYERS = {models.RESNET: "layer4", models.SAMPLE: "head"}


def figures() -> list[Figure]:
    """How many times quicker we are. A peer that is not there is left out, and said so."""
    found = []
    for name, title, bar in (("mindspore_xai", "mindspore-xai 1.8.1", 3.0), ("torch", "a plain PyTorch loop", None)):
        python = _python(name)
        if python is None:
            print(f"  {title} is not installed; see bench/peers.py", file=sys.stderr)
            continue
        for model, factory in (("ResNet-50", models.RESNET), ("EfficientNet-Lite0", models.SAMPLE)):
            if name == "torch" and factory != models.RESNET:
                continue
            with (
                models.engine(factory, "auto", 1, 8) as (engine, backend),
                _peer(name, python, factory) as theirs,
            ):
                facts = ModelFacts(224, 224, backend.layers, backend.default_layer)
                for task in ("gradcam", "rise"):
                    ours, other = interleaved(_ROUNDS, _explained(task, engine, facts), lambda task=task: theirs(task))
                    found.append(Figure(f"{title} over ours, {task}, {model}", ratio(other, ours), "×", at_least=bar))
    return found


def _explained(name: str, engine: Engine, facts: ModelFacts) -> Callable[[], object]:
    explainer = installed_explainers()[name]
    values = {"masks": _MASKS} if name == "rise" else {}
    parameters = explainer.resolve(explainer.parameters_type(**values), facts)
    image, target = models.image(), np.array([7], np.int32)
    return lambda: engine.submit(explainer.explain(image, target, parameters), Lane.EXPLAIN).result()


def _python(name: str) -> str | None:
    given = os.environ.get(f"XAI_BENCH_{name.upper()}")
    return given or (sys.executable if importlib.util.find_spec(name) else None)


@contextmanager
def _peer(name: str, python: str, factory: str) -> Iterator[Callable[[str], None]]:
    """A peer's process; what is yielded has it do one task and waits."""
    script = Path(__file__).with_name(f"peer_{name}.py")
    path = os.pathsep.join([str(Path(__file__).parents[1] / "sidecar"), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [python, str(script), factory, _LAYERS[factory], str(_MASKS)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": path, "ONEDNN_MAX_CPU_ISA": "AVX2", "GLOG_v": "4"},
        text=True,
    )

    def run(task: str) -> None:
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("the peer has no pipes")
        process.stdin.write(f"{task}\n")
        process.stdin.flush()
        for line in process.stdout:
            if line.strip() == f"done {task}":
                return
        raise RuntimeError(f"{name} ended; run {python} {script} {factory} {_LAYERS[factory]} {_MASKS} to see why")

    try:
        yield run
    finally:
        process.kill()
        process.wait(30)
