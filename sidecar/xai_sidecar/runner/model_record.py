"""The model of a run as its folder keeps it, for those who look at the run where there is no such model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from pydantic import ValidationError

from xai_sidecar.config import Config
from xai_sidecar.config.names import known_explainers
from xai_sidecar.engine.backend import Layer, OodTraining
from xai_sidecar.engine.work import Array, Kind
from xai_sidecar.errors import ConfigError
from xai_sidecar.explainers.base import renamed
from xai_sidecar.explainers.discovery import installed_explainers
from xai_sidecar.runner.options import run_config
from xai_sidecar.serving.model import ExplainerSetup, ServedModel, served_model

_TEXTS = ("device", "engine", "engine_note", "version", "weights", "reduced_precision", "no_gradients")
_KEPT: dict[str, Any] = {"model": {"name", "activation", "input"}, "explainers": True, "evaluator": True}
"""The parts of a config that say what was made and measured. The others may name what is nobody else's business."""

_BEYOND = ("store", "window_samples", "window_seconds")
"""Keys that `run_config` sets beyond what a server's config may say, and one that may have a password."""


@dataclass
class RecordedBackend:
    """A `Backend` of which only the description is left: it runs nothing."""

    device: str
    engine: str
    engine_note: str
    version: str
    weights: str
    reduced_precision: str
    no_gradients: str
    class_count: int
    layers: Mapping[str, Layer]
    refused_layers: Mapping[str, str]
    default_layer: str | None
    ood: OodTraining | None
    known_costs: Mapping[Kind, Mapping[int, float]] = field(default_factory=dict)
    weights_warning: str = ""
    hang_is_fatal: bool = False
    compiling: bool = False
    concurrency: int = 1
    unready: str = ""

    def warm_up(self, kinds: list[Kind], report: Callable[[str], None]) -> Mapping[Kind, str]:
        """See `Backend`: it supports nothing."""
        return dict.fromkeys(kinds, "There is no model any more.")

    def costs(self, kind: Kind) -> Mapping[int, float]:
        """See `Backend`: as they were."""
        return self.known_costs.get(kind, {1: 0.0})

    def run(self, kind: Kind, rows: tuple[Array, ...]) -> tuple[Array, ...]:
        """Raises a RuntimeError."""
        raise RuntimeError("there is no model any more")

    def close(self) -> None:
        """Does nothing."""


def model_record(model: ServedModel, kinds: Mapping[str, str] | None = None) -> Mapping[str, Any]:
    """What is to be known of a model and of what it is measured by, as JSON has it.

    Args:
        model: The model.
        kinds: Where its explainers have names of their own, what each of them is among those that are installed.
    """
    backend = model.backend
    config = model.config.model_dump(mode="json", include=_KEPT)
    for key in _BEYOND:
        del config["evaluator"][key]
    config["model"]["labels"] = list(model.labels)
    return {
        "config": config,
        "backend": {
            **{name: getattr(backend, name, "") for name in _TEXTS},
            "class_count": backend.class_count,
            "layers": [
                {each.name: getattr(layer, each.name) for each in fields(Layer)}  # a backend's may have more
                for layer in backend.layers.values()
            ],
            "refused_layers": dict(getattr(backend, "refused_layers", {})),
            "default_layer": backend.default_layer,
            "ood": None if backend.ood is None else {**vars(backend.ood), "auroc": dict(backend.ood.auroc)},
            "costs": [{"kind": vars(kind), "seconds": dict(backend.costs(kind))} for kind in _kinds(model)],
        },
        "unavailable": {name: setup.unavailable for name, setup in model.explainers.items() if setup.unavailable},
        "named": {
            name: {"explainer": kind, "parameters": model.explainers[name].defaults.model_dump(mode="json")}
            for name, kind in (kinds or {}).items()
        },
    }


def recorded_model(record: Mapping[str, Any]) -> ServedModel:
    """The model of a `model_record`.

    Raises:
        ConfigError: It was made with explainers or metrics that are not installed here, or by a version that records
            other things.
    """
    try:
        # A source is asked for, and never looked at.
        content = {**record["config"], "model": {**record["config"]["model"], "factory": "recorded:model"}}
        config = run_config(Config.model_validate(content))
        model = served_model(config, _backend(record["backend"]))
        unavailable, named = record["unavailable"], _named(record.get("named", {}))
    except ValidationError as error:
        keys = ", ".join(".".join(map(str, each["loc"])) for each in error.errors())
        raise ConfigError(
            f"the run was made with what is not known here: {keys}. Install the packages that explainers and metrics "
            "are of, and the version of xai-sidecar that it was made with.",
            field="run",
        ) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"the run's description of its model cannot be read: {error!r}. Run the same command again, which measures "
            "nothing anew.",
            field="run",
        ) from error
    explainers = {
        name: replace(setup, unavailable=unavailable[name]) if name in unavailable else setup
        for name, setup in (named or model.explainers).items()
    }
    return replace(model, explainers=explainers)


def _named(record: Mapping[str, Any]) -> dict[str, ExplainerSetup]:
    """The explainers of a model whose explainers have names of their own.

    Raises:
        ValueError: One is of a kind that is not installed.
    """
    found = {}
    for name, each in record.items():
        (kind,) = known_explainers([each["explainer"]])
        explainer = renamed(installed_explainers()[kind], name)
        parameters = explainer.parameters_type.model_validate(each["parameters"])
        found[name] = ExplainerSetup(explainer, parameters, parameters, (explainer.kind(parameters),))
    return found


def _kinds(model: ServedModel) -> list[Kind]:
    """The kinds of work that are run."""
    usable = (setup for setup in model.explainers.values() if not setup.unavailable)
    refused = {kind for setup in model.explainers.values() if setup.unavailable for kind in setup.kinds}
    return list(dict.fromkeys((*(kind for setup in usable for kind in setup.kinds), *(set(model.kinds) - refused))))


def _backend(record: Mapping[str, Any]) -> RecordedBackend:
    layers = [Layer(**each) for each in record["layers"]]
    ood = record["ood"]
    texts: dict[str, Any] = {name: str(record.get(name, "")) for name in _TEXTS}
    return RecordedBackend(
        **texts,
        class_count=record["class_count"],
        layers={layer.name: layer for layer in layers},
        refused_layers=record["refused_layers"],
        default_layer=record["default_layer"],
        ood=None if ood is None else OodTraining(**ood),
        known_costs={
            Kind(**each["kind"]): {int(size): seconds for size, seconds in each["seconds"].items()}
            for each in record["costs"]
        },
    )
