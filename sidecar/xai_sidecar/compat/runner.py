"""MindSpore XAI's runner: explains and measures a data set, over this package's own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from xai_sidecar.backends.mindspore.runtime import nn
from xai_sidecar.compat.arguments import check_cell, check_type
from xai_sidecar.compat.benchmarks import CellMetric
from xai_sidecar.compat.explainers import CellExplainer, RISEPlus
from xai_sidecar.compat.model import activation_of, model_of, pynative
from xai_sidecar.compat.ood_net import OoDNet
from xai_sidecar.compat.scored import ScoredBackend
from xai_sidecar.compat.visual import shown_units
from xai_sidecar.config import parse_config
from xai_sidecar.engine.engine import Engine
from xai_sidecar.engine.scheduler import Policy
from xai_sidecar.errors import SidecarError
from xai_sidecar.explainers.activations import sigmoid
from xai_sidecar.explainers.base import ModelFacts, renamed
from xai_sidecar.metrics.instance import ExplainerCall
from xai_sidecar.runner.data import Labels
from xai_sidecar.runner.data.callables import IterableData
from xai_sidecar.runner.folder import RunFolder
from xai_sidecar.runner.model_record import model_record
from xai_sidecar.runner.options import run_config
from xai_sidecar.runner.running import Runner
from xai_sidecar.runner.session import run_by, run_record
from xai_sidecar.runner.telling import written
from xai_sidecar.serving.evaluation import evaluated_model
from xai_sidecar.serving.model import ExplainerSetup, ServedModel

_MOST_PASSES = 10**7
"""All that is registered is measured, whatever it takes."""

_PROBABLE = 0.5
"""Classes of at least this probability are explained, besides those that a picture shows."""


class ImageClassificationRunner:
    """Explains the pictures of a data set by registered explainers, and measures the maps by registered metrics.

    Explainers and metrics may be registered with any number of runners. Scores are in the folder, and not in the
    metrics; they are those of the metrics that `xai-sidecar run` measures by: of NaiveFaithfulness the correlation, of
    DeletionAUC and InsertionAUC the area, of which `Faithfulness.evaluate` makes a faithfulness from 0 to 1. Each
    picture has a seed of its own, whatever the explainers'.

    Args:
        summary_dir: The folder that the results go to, as of `xai-sidecar run`.
        data: A data set, and the labels of the classes. Its rows are (image), (image, labels) or (image, labels,
            boxes), or batches of such: images as the net takes them, (C, H, W); class ids; boxes of left, top, width
            and height, the n-th of the n-th label.
        network: The net, pictures (N, C, H, W) → logits (N, classes).
        activation_fn: What turns its logits into probabilities.

    Raises:
        TypeError: An argument is of a wrong type.
        ValueError: An argument has a wrong value.
    """

    def __init__(
        self, summary_dir: str, data: tuple[Any, Sequence[str]], network: nn.Cell, activation_fn: nn.Cell
    ) -> None:
        check_type("summary_dir", summary_dir, str, Path)
        check_type("data", data, tuple, list)
        check_cell("network", network)
        check_cell("activation_fn", activation_fn)
        if len(data) != 2:
            raise ValueError("data must be a data set and the labels of the classes")
        self._folder = RunFolder(Path(summary_dir))
        self._dataset, self._labels = data[0], tuple(map(str, data[1]))
        self._network = network
        self._activation_fn = activation_fn
        self._explainers: dict[str, CellExplainer] = {}
        self._metrics: dict[str, CellMetric] = {}

    def register_saliency(
        self, explainers: Sequence[CellExplainer], benchmarkers: Sequence[CellMetric] | None = None
    ) -> None:
        """Registers explainers, and metrics to measure their maps by.

        Raises:
            TypeError: One is of a wrong type.
            ValueError: There are no explainers, one explains another net, or by another activation than the runner's,
                or goes by another OoD net than the one before; or two metrics are the same.
        """
        check_type("explainers", explainers, list, tuple)
        if not explainers:
            raise ValueError("explainers must not be empty")
        for explainer in explainers:
            check_type("explainers", explainer, CellExplainer)
            if explainer.network is not self._network:
                raise ValueError(f"the {type(explainer).__name__} is of another net than the runner")
            activation = explainer.activation_fn
            if activation is not None and type(activation) is not type(self._activation_fn):
                own, other = (type(each).__name__ for each in (activation, self._activation_fn))
                raise ValueError(
                    f"the activation_fn of the {type(explainer).__name__} is {own}, and that of the runner {other}"
                )
            if isinstance(explainer, RISEPlus) and explainer.ood_net is not self._ood_net(explainer):
                raise ValueError("there is a RISEPlus of another OoD net: give it a runner of its own")
            self._explainers[_new_name(type(explainer).__name__, self._explainers)] = explainer
        for metric in benchmarkers or ():
            check_type("benchmarkers", metric, CellMetric)
            if metric.metric_name in self._metrics:
                raise ValueError(f"{metric.metric_name} is registered twice")
            self._metrics[metric.metric_name] = metric

    def run(self) -> Path:
        """Runs what is registered; called again, on the same folder, it goes on.

        Returns:
            The folder with the results.

        Raises:
            RuntimeError: Nothing is registered.
            ValueError: The data do not fit the net, or the folder has another run.
        """
        if not self._explainers:
            raise RuntimeError("no explainer is registered: call register_saliency first")
        try:
            with pynative():
                result = self._run()
        except SidecarError as error:
            raise ValueError(error.message) from error
        try:
            print(written(result))  # noqa: T201, a script's output
        finally:
            result.store.close()
        return self._folder.path

    def _run(self) -> Any:
        labels, rows = Labels(self._labels, len(self._labels)), self._dataset
        begun = rows
        if isinstance(rows, Iterator):  # which gives each row once
            begun = list(itertools.islice(rows, 1))
            rows = itertools.chain(begun, rows)
        first = next(iter(IterableData(begun, labels, "data")), None)
        data = IterableData(rows, labels, "data")
        if first is None or not isinstance(first.content, np.ndarray) or first.content.dtype != np.float32:
            raise ValueError("data must give pictures as the net takes them, (C, H, W) floats")
        shape = first.content.shape
        batch_size = max(each.batch_size for each in self._explainers.values())  # which are compiled already, as a rule
        own = model_of(self._network).compiled(shape, batch_size)
        if own.class_count != len(self._labels):
            raise ValueError(f"the net has {own.class_count} classes, and there are {len(self._labels)} labels")
        ood_net = self._ood_net()
        backend: Any = ScoredBackend(own.backend, None if ood_net is None else own.scores(ood_net))
        calls = {name: each.call(own) for name, each in self._explainers.items()}
        served = self._served(backend, calls, shape)
        evaluated = replace(evaluated_model(served), activation=activation_of(self._activation_fn))
        engine = Engine(lambda: backend, policy=Policy(evaluate_slice_seconds=1.0, evaluate_share=1.0))
        engine.start(lambda _: list(served.kinds)).result()
        try:
            record = {"data": "data", **run_record(served.config, evaluated)}
            measure = Runner(engine, served, evaluated, shown_units(first.content)).run
            described = model_record(served, {name: call.explainer.name for name, call in calls.items()})
            return run_by(measure, served.config, evaluated, data, self._folder, record, described=described)
        finally:
            engine.close(5.0)

    def _ood_net(self, *more: CellExplainer) -> OoDNet | None:
        """The OoD net of the first RISEPlus of those that are registered, and of more; None if there is none."""
        known = (*self._explainers.values(), *more)
        return next((each.ood_net for each in known if isinstance(each, RISEPlus)), None)

    def _served(self, backend: Any, calls: Mapping[str, ExplainerCall], shape: tuple[int, ...]) -> ServedModel:
        """The net as a served model, with what is registered under the names that it has here."""
        activation = activation_of(self._activation_fn)
        channels, height, width = shape
        parameters = {name: dict(metric.metric_parameters) for name, metric in self._metrics.items()}
        config = run_config(
            parse_config(
                {
                    "model": {
                        "name": type(self._network).__name__,
                        "factory": "script:network",
                        "activation": "sigmoid" if activation is sigmoid else "softmax",
                        "input": {"size": [height, width], "channels": channels},
                    },
                    "evaluator": {
                        "tolerance": 0,
                        "max_passes": _MOST_PASSES,
                        "metrics": list(self._metrics) or ["localization/iosr"],
                        "metric_parameters": {name: each for name, each in parameters.items() if each},
                    },
                    "run": {"targets": "both", "probable": _PROBABLE},
                }
            )
        )
        facts = ModelFacts(height, width, backend.layers, backend.default_layer, backend.is_scored)
        setups = {
            name: ExplainerSetup(
                renamed(call.explainer, name), call.parameters, call.parameters, (call.explainer.kind(call.parameters),)
            )
            for name, call in calls.items()
        }
        return ServedModel(config, backend, self._labels, config.model.input.spec(), facts, setups)


def _new_name(name: str, taken: Mapping[str, Any]) -> str:
    """A name that is not taken: with a number where that is needed."""
    return next(
        each for each in (name, *(f"{name}_{number}" for number in range(2, len(taken) + 3))) if each not in taken
    )
