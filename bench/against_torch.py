"""Files that PyTorch exported: all maps against captum's or a plain loop's, gradients and passes against PyTorch's.

    pip install "xai-sidecar[onnx,openvino]" torch torchvision timm captum onnxscript

It needs no MindSpore, and where its requirements clash, an environment of its own: XAI_BENCH_TORCH names its Python.
XAI_BENCH_NETS has the nets, by commas, where not all are wanted; each takes some minutes, most of it torch.compile's.
"""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.figure import Figure, MissingError, interleaved, ratio
from xai_sidecar.backends.graph.backend import GraphBackend
from xai_sidecar.backends.graph.source import GraphSource
from xai_sidecar.cpus import usable_cpus
from xai_sidecar.engine.batching import Run, in_batches
from xai_sidecar.engine.work import INPUT_GRADIENT, FloatArray, Forward, Kind, OodScore, drive
from xai_sidecar.explainers.base import Context, ModelFacts
from xai_sidecar.explainers.discovery import installed_explainers
from xai_sidecar.ood.head import OodHead, TrainingRecord

if TYPE_CHECKING:
    from torch import nn

_PACKAGES = ("torch", "torchvision", "timm", "captum", "onnxscript")
_TARGET = 7
_SEED = 3
_ROUNDS = 15
_LAYERS_TRIED = 6
_BATCH = 8


def figures() -> list[Figure]:
    """The correlation of all maps, and the ratios of medians, one row at a time.

    Raises:
        MissingError: A package is not installed.
    """
    if python := os.environ.get("XAI_BENCH_TORCH"):
        return _figures_of(python)
    if missing := [name for name in _PACKAGES if not importlib.util.find_spec(name)]:
        wanted = f'pip install "xai-sidecar[onnx,openvino]" {" ".join(_PACKAGES)}'
        raise MissingError(f"{', '.join(missing)} not installed: {wanted}, or set XAI_BENCH_TORCH to a Python with it")
    import torch

    from bench.torch_nets import NETS

    torch.set_num_threads(usable_cpus())
    wanted = os.environ.get("XAI_BENCH_NETS", ",".join(NETS)).split(",")
    return [figure for name in wanted for figure in _told(_of(name))]


def _told(found: list[Figure]) -> list[Figure]:
    """The figures of a net, said at once: the next takes minutes."""
    for each in found:
        print(f"  {each.name}: {each.value:.4g} {each.unit}  {each.note}", file=sys.stderr, flush=True)
    return found


def _figures_of(python: str) -> list[Figure]:
    """The figures that another Python measures."""
    root = Path(__file__).parents[1]
    path = [str(root / room) for room in (".", "sidecar", "client", "proto")]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "figures.json"
        environment = {name: value for name, value in os.environ.items() if name != "XAI_BENCH_TORCH"}
        subprocess.run(
            [python, "-m", "bench", "torch", "--json", str(file)],
            env={**environment, "PYTHONPATH": os.pathsep.join(path)},
            stdout=subprocess.DEVNULL,
        )
        if not file.exists():
            raise MissingError(f"{python} measured nothing; it said why")
        rows = json.loads(file.read_text())
    return [Figure(**{name: value for name, value in row.items() if name != "met"}) for row in rows]


def _of(name: str) -> list[Figure]:
    """Maps of a net as both exporters write it, and times of the same."""
    from bench.torch_nets import EXPORTERS, export, made, picture

    net, image = made(name), picture()
    directions = _directions(net, image)
    found: list[Figure] = []
    loaded: dict[str, GraphBackend] = {}
    with tempfile.TemporaryDirectory() as folder:
        for exporter in EXPORTERS:
            print(f"  {name}, {exporter}", file=sys.stderr, flush=True)
            path = Path(folder) / exporter / "net.onnx"
            path.parent.mkdir()
            export(net, exporter, path)
            loaded[exporter] = _loaded(path, directions)
            found += _compared(f"{name}, {exporter}", net, image, loaded[exporter], directions)
    found += _timed(name, net, image, loaded)
    return found


# ---------------------------------------------------------------------------------------- maps


def _loaded(path: Path, directions: FloatArray) -> GraphBackend:
    source = GraphSource(path, batch_sizes=(1, _BATCH), cache=path.parent / "cache")
    version = GraphBackend(source).version
    record = TrainingRecord(0, 0.0, {}, version, directions.shape[1], len(directions), "predictions", "", 0, 0)
    ids = np.arange(len(directions), dtype=np.int32)
    return GraphBackend(replace(source, ood=OodHead(directions, ids, np.zeros(1, np.float32), record)))


def _directions(net: nn.Module, image: FloatArray) -> FloatArray:
    """Weights of an OoD net's two classes that take the picture for an inlier, and the covered one for less of one."""
    import torch

    from bench.torch_maps import features_and_logits

    with torch.inference_mode():
        features, _ = features_and_logits(net, torch.from_numpy(np.stack([image, np.zeros_like(image)])))
    whole, covered = torch.nn.functional.normalize(features, dim=1)
    return np.asarray(torch.stack([whole, whole - covered]).numpy())


def _compared(
    title: str, net: nn.Module, image: FloatArray, backend: GraphBackend, directions: FloatArray
) -> list[Figure]:
    from bench.torch_maps import TorchMaps

    layer, module = _layer(net, image, backend)
    ours, refused = _maps(backend, image, layer)
    expected = TorchMaps(net, image, _TARGET, _SEED, module, directions).maps()
    if set(expected) != set(ours):
        raise RuntimeError(f"{title}: we make {sorted(ours)}, PyTorch {sorted(expected)}; refused: {refused}")
    found = []
    for explainer, (theirs, how) in expected.items():
        correlation = float(np.corrcoef(ours[explainer].ravel(), theirs.ravel())[0, 1])
        off = float(np.abs(ours[explainer] - theirs).max() / np.abs(theirs).max())
        note = f"{1 - correlation:.1e} off, the worst pixel {off:.1e} of the largest; {how}"
        if explainer == "gradcam":
            note += f", {layer}"
        found.append(Figure(f"r of {explainer}, {title}", correlation, "", None, note, 0.9999))
    if refused:
        print(f"  {title}: {', '.join(refused)} refused: {next(iter(refused.values()))}", file=sys.stderr)
    return found


def _maps(backend: GraphBackend, image: FloatArray, layer: str) -> tuple[dict[str, FloatArray], dict[str, str]]:
    """The maps by explainer, and why there are none of others."""
    from bench.torch_maps import MASKS, STRIDE, WINDOW

    values: dict[str, dict[str, Any]] = {
        "gradcam": {"layer": layer},
        "occlusion": {"window_size": WINDOW, "stride": STRIDE},
        "rise": {"masks": MASKS, "estimator": "plain"},
        "rise_plus": {"masks": MASKS, "estimator": "plain"},
    }
    facts = ModelFacts(*image.shape[1:], backend.layers, backend.default_layer, True)
    asked = {}
    for name, explainer in installed_explainers().items():
        parameters = explainer.parameters_type(**values.get(name, {}))
        asked[name] = explainer, explainer.resolve(parameters, facts)
    kinds = {name: one.kind(parameters) for name, (one, parameters) in asked.items()}
    failed = backend.warm_up(list(dict.fromkeys([Forward.kind, OodScore.kind, *kinds.values()])), lambda line: None)
    targets = np.array([_TARGET], np.int32)
    maps = {
        name: np.asarray(drive(one.explain(image, targets, parameters, Context(seed=_SEED)), _any(backend)).maps[0])
        for name, (one, parameters) in asked.items()
        if kinds[name] not in failed
    }
    return maps, {name: failed[kind] for name, kind in kinds.items() if kind in failed}


def _any(backend: GraphBackend) -> Run:
    """Its `run` for any number of rows."""
    return lambda kind, rows: in_batches(backend.run, max(backend.costs(kind)))(kind, rows)


def _layer(net: nn.Module, image: FloatArray, backend: GraphBackend) -> tuple[str, Any]:
    """The default layer, or the latest one before it that a module of the net gives out, and that module."""
    from bench.torch_maps import layer_like

    names = list(backend.layers)
    last = names.index(backend.default_layer or names[-1])
    rows = image[None], np.array([_TARGET], np.int32)
    for name in names[last::-1][:_LAYERS_TRIED]:
        module = layer_like(net, image, backend.run(Kind("layer_gradient", name), rows)[0])
        if module is not None:
            return name, module
    raise RuntimeError(f"no module gives out {names[last]} or one of the layers before it")


# ---------------------------------------------------------------------------------------- times


def _timed(name: str, net: nn.Module, image: FloatArray, loaded: dict[str, GraphBackend]) -> list[Figure]:
    from bench.torch_ways import gradients, passes

    inputs, targets = image[None], np.array([_TARGET], np.int32)
    found = []
    for title, kind, rows, bar, ways in (
        ("gradient", INPUT_GRADIENT, (inputs, targets), 0.8, gradients(net, inputs, _TARGET)),
        ("forward pass", Forward.kind, (inputs,), None, passes(net, inputs)),
    ):
        ours = [partial(backend.run, kind, rows) for backend in loaded.values()]
        taken = interleaved(_ROUNDS, *ours, *ways.values())
        theirs = dict(zip(ways, taken[len(ours) :], strict=True))
        best = min(theirs, key=lambda way: statistics.median(theirs[way]))
        listed = ", ".join(f"{way} {1000 * statistics.median(times):.0f}" for way, times in theirs.items())
        for exporter, times in zip(loaded, taken, strict=False):
            note = f"{1000 * statistics.median(times):.0f} ms; PyTorch: {listed} ms"
            figure = f"{title} of {name}, {exporter}, over PyTorch's best"
            found.append(Figure(figure, ratio(times, theirs[best]), "×", bar, note))
    return found
