"""The model as the service sees it: labels, input, and every explainer with the server's defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from xai_sidecar.config import Config, load_labels
from xai_sidecar.engine.backend import Backend
from xai_sidecar.engine.work import Forward, Kind
from xai_sidecar.errors import ConfigError, PreconditionError, SidecarError
from xai_sidecar.explainers.base import Explainer, ModelFacts, Parameters
from xai_sidecar.explainers.registry import EXPLAINERS
from xai_sidecar.imaging import InputSpec

_CONFIG_ONLY = {"enabled", "layers", "compile_on_demand"}


@dataclass(frozen=True)
class OfferedExplainer:
    """An explainer and what becomes of it with this model and config.

    Attributes:
        explainer: The explainer.
        defaults: Its parameters as configured and resolved; the plain ones where it is not available.
        kinds: Kinds of work to be compiled for it at start.
        on_demand: Whether requests may ask for kinds of work besides these.
        unavailable: Why it cannot be used; empty if it can.
    """

    explainer: Explainer[Any]
    defaults: Parameters
    kinds: tuple[Kind, ...] = ()
    on_demand: bool = False
    unavailable: str = ""


@dataclass(frozen=True)
class ServedModel:
    """A loaded model with its explainers."""

    config: Config
    backend: Backend
    labels: tuple[str, ...]
    input: InputSpec
    facts: ModelFacts
    explainers: dict[str, OfferedExplainer]

    @property
    def kinds(self) -> list[Kind]:
        """All that has to be compiled before the first request."""
        explaining = (kind for offered in self.explainers.values() for kind in offered.kinds)
        return list(dict.fromkeys((Forward.kind, *explaining)))


def served_model(config: Config, backend: Backend) -> ServedModel:
    """Puts a loaded net and the config together.

    Raises:
        ConfigError: They do not fit each other.
    """
    facts = ModelFacts(backend.layers, backend.default_layer)
    return ServedModel(
        config=config,
        backend=backend,
        labels=load_labels(config.model.labels, backend.class_count),
        input=config.model.input.spec(),
        facts=facts,
        explainers={name: _offered(explainer, config, facts) for name, explainer in EXPLAINERS.items()},
    )


def _offered(explainer: Explainer[Any], config: Config, facts: ModelFacts) -> OfferedExplainer:
    section = getattr(config.explainers, explainer.name)
    plain = explainer.parameters_type(**section.model_dump(exclude=_CONFIG_ONLY))
    if not section.enabled:
        return OfferedExplainer(
            explainer, plain, unavailable=f"It is switched off. Set explainers.{explainer.name}.enabled = true."
        )
    try:
        defaults = explainer.resolve(plain, facts)
        layers = [plain.model_copy(update={"layer": layer}) for layer in getattr(section, "layers", [])]
        kinds = [explainer.kind(explainer.resolve(parameters, facts)) for parameters in (defaults, *layers)]
    except PreconditionError as error:
        return OfferedExplainer(explainer, plain, unavailable=error.message)
    except SidecarError as error:
        raise ConfigError(error.message, field=f"explainers.{explainer.name}.{error.field}") from error
    return OfferedExplainer(explainer, defaults, tuple(kinds), getattr(section, "compile_on_demand", False))
