"""Tries what maps of a served model become when its weights are put in disorder: `xai-sidecar check --weights`."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from xai_sidecar.backends.graph.shuffled import write_shuffled
from xai_sidecar.backends.loading import load_backend
from xai_sidecar.config import Config
from xai_sidecar.engine.backend import Report
from xai_sidecar.engine.batch import Lane
from xai_sidecar.engine.batching import in_batches
from xai_sidecar.engine.engine import Engine
from xai_sidecar.engine.work import drive
from xai_sidecar.errors import ConfigError
from xai_sidecar.serving.model import ServedModel
from xai_sidecar.serving.weight_dependence import compared, keep, weight_dependence, with_kept

_FIELD = "model.onnx"


def try_weights(model: ServedModel, engine: Engine, report: Report) -> ServedModel:
    """The model with how far maps depend on its weights; from the compile cache where that was tried before.

    Args:
        model: The model.
        engine: Ready and idle.
        report: Called with each step.

    Raises:
        ConfigError: The model is no ONNX file, or without weights that could be put in disorder.
    """
    known = with_kept(model)
    if known.weight_dependence:
        return known
    path = model.config.model.onnx
    if path is None:
        raise ConfigError("the weights of ONNX files alone can be put in disorder. Export the model.", field=_FIELD)
    report("loading the net with its weights in disorder")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        if not write_shuffled(path, copy):
            raise ConfigError(f"no weights were found in {path.name} that could be put in disorder.", field=_FIELD)
        backend = load_backend(_config(model.config, copy))
        try:
            kinds = [kind for setup in model.explainers.values() if compared(setup, model) for kind in setup.kinds]
            refused = backend.warm_up(list(dict.fromkeys(kinds)), report)
            if refused:
                why = min(refused.values())
                raise ConfigError(f"with its weights in disorder the net cannot be explained: {why}", field=_FIELD)
            report("explaining with the weights as they are, and in disorder")
            run = in_batches(backend.run, 1)
            found = weight_dependence(
                model,
                lambda steps: engine.submit(steps, Lane.PREDICT).result().value,
                lambda steps: engine.submit(steps, Lane.EXPLAIN).result().value,
                lambda steps: drive(steps, run),
            )
        finally:
            backend.close()
    keep(model, found)
    return replace(model, weight_dependence=found)


def _config(config: Config, onnx: Path) -> Config:
    """The config of the other net, of which nothing is kept."""
    changed = {"onnx": onnx, "compile_cache": False, "batch_sizes": [1], "gradient_batch_sizes": [1]}
    return config.model_copy(update={"model": config.model.model_copy(update=changed), "ood": type(config.ood)()})
