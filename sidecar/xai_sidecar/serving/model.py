"""The model as it is served: labels, input, and every explainer with the server's defaults."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from xai_sidecar.config import Config, load_labels
from xai_sidecar.digest import digest
from xai_sidecar.engine.backend import Backend, Report
from xai_sidecar.engine.costs import least_seconds, row_seconds
from xai_sidecar.engine.engine import Engine
from xai_sidecar.engine.work import Forward, Kind, MaskedForward, MaskedOodScore, OodScore
from xai_sidecar.errors import ConfigError, NotFoundError, PreconditionError, SidecarError, quoted
from xai_sidecar.explainers.base import FLOAT32, Explainer, ExplainerParameters, ModelFacts
from xai_sidecar.explainers.discovery import built_in_explainers, installed_explainers
from xai_sidecar.imaging import InputSpec
from xai_sidecar.metrics.base import Metric
from xai_sidecar.metrics.discovery import installed_metrics
from xai_sidecar.serving.probing import doubts, label_doubts


@dataclass(frozen=True)
class ExplainerSetup:
    """An explainer with the config's settings, resolved for this model.

    Attributes:
        explainer: The explainer.
        configured: Its parameters as configured.
        defaults: `configured`, resolved for the model; unresolved where the explainer is unavailable.
        kinds: Kinds of work to be compiled for it at start.
        on_demand: Whether requests may ask for kinds of work besides these.
        unavailable: Why it cannot be used; empty if it can.
    """

    explainer: Explainer[Any]
    configured: ExplainerParameters
    defaults: ExplainerParameters
    kinds: tuple[Kind, ...] = ()
    on_demand: bool = False
    unavailable: str = ""


@dataclass(frozen=True)
class WeightDependence:
    """How an explainer's maps change when the model's weights are put in disorder; see `weight_dependence`.

    Attributes:
        entropy_rise: Relative rise of the entropy of the map's histogram, mean over pictures; near 0 where the weights
            hardly matter.
        correlation: Of the maps before and after, mean over pictures; 0 where they have nothing in common.
        picture_count: Pictures that were explained, at least 1.
    """

    entropy_rise: float
    correlation: float
    picture_count: int


@dataclass(frozen=True)
class ServedModel:
    """A loaded model with its explainers.

    Attributes:
        config: The config.
        backend: Runs it.
        labels: The label of each class, by class id.
        input: How pictures become its inputs.
        facts: What explainers need to know of it.
        explainers: All installed explainers by name, usable or not.
        warnings: Suspicions about it, such as labels that two classes share: a sentence and a cure each.
        weight_dependence: How far maps depend on the weights, by explainer, as far as that was tried.
    """

    config: Config
    backend: Backend
    labels: tuple[str, ...]
    input: InputSpec
    facts: ModelFacts
    explainers: dict[str, ExplainerSetup]
    warnings: tuple[str, ...] = ()
    weight_dependence: Mapping[str, WeightDependence] = field(default_factory=dict)

    @cached_property
    def version(self) -> str:
        """Digest of all that answers depend on: net, weights, input, activation and labels; see `Backend.version`."""
        # An input's text is kept as it is from release to release.
        return digest(self.backend.version, repr(self.input), self.config.model.activation, self.labels)

    @property
    def weights(self) -> str:
        """Where the weights came from, in a sentence; empty where the backend does not say."""
        return str(getattr(self.backend, "weights", ""))

    @cached_property
    def class_ids(self) -> dict[str, tuple[int, ...]]:
        """The class ids of each label."""
        found: dict[str, tuple[int, ...]] = {}
        for class_id, label in enumerate(self.labels):
            found[label] = (*found.get(label, ()), class_id)
        return found

    @property
    def least_positive(self) -> float | None:
        """The least probability at which a class counts as predicted; None where only the most probable one does."""
        config = self.config
        return config.evaluator.positive_probability if config.model.activation == "sigmoid" else None

    def check_name(self, name: str) -> None:
        """Checks that a request is for this model.

        Args:
            name: The request's `model`; empty is any.

        Raises:
            NotFoundError: It is for another model; `field` is ``model``.
        """
        served = self.config.model.name
        if name not in ("", served):
            raise NotFoundError(
                f"There is no model {quoted(name)} on this server, which serves {quoted(served)}. Name that, or none.",
                field="model",
            )

    def without(self, failed: Mapping[Kind, str]) -> ServedModel:
        """This model without the explainers whose kinds of work failed to compile, in float32 where only others did.

        Raises:
            ConfigError: The config names the layer at fault, or a metric that needs such a kind of work.
        """
        if OodScore.kind in failed:
            raise ConfigError(failed[OodScore.kind], field="ood.checkpoint")
        explainers = {}
        for name, setup in self.explainers.items():
            reasons = [failed[kind] for kind in setup.kinds if kind in failed]
            section: Any = getattr(self.config.explainers, name)
            named = getattr(section, "layer", "") or getattr(section, "layers", [])
            if reasons and named:
                raise ConfigError(f"{reasons[0]} Name another layer.", field=f"explainers.{name}.layer")
            explainers[name] = replace(setup, kinds=(), unavailable=reasons[0]) if reasons else setup
        reduced = {kind: other for kind, other in self.facts.reduced.items() if other not in failed}
        for metric in self._metrics:
            for kind in metric.kinds & set(failed):
                raise ConfigError(f"{metric.name} cannot be measured: {failed[kind]}", field="evaluator.metrics")
        return replace(self, explainers=explainers, facts=replace(self.facts, reduced=reduced))

    def seconds(self, kind: Kind, row_count: int) -> float:
        """Time that rows take on an idle device, as measured at start."""
        return least_seconds(row_count, self.backend.costs(kind))

    def expected_seconds(self, setup: ExplainerSetup) -> float:
        """Time that an explanation of one target takes with the defaults on an idle device."""
        passes = setup.explainer.pass_counts(1, setup.defaults, self.facts).most
        longest = self.config.server.slice_milliseconds / 1e3
        return passes * row_seconds(self.backend.costs(self.default_kind(setup)), longest)

    def default_kind(self, setup: ExplainerSetup) -> Kind:
        """The kind of work that most passes of an explanation with the defaults are of."""
        explainer, defaults = setup.explainer, setup.defaults
        return explainer.reduced(defaults, self.facts) or explainer.kind(defaults)

    @property
    def _metrics(self) -> list[Metric[Any]]:
        """The metrics that are measured."""
        evaluator = self.config.evaluator
        return [installed_metrics()[name] for name in evaluator.metrics] if evaluator.enabled else []

    @property
    def kinds(self) -> list[Kind]:
        """The kinds of work to compile before the first request."""
        explaining = (kind for setup in self.explainers.values() for kind in setup.kinds)
        scoring = (OodScore.kind,) if self.facts.has_ood else ()
        measuring = (kind for metric in self._metrics for kind in metric.kinds)
        return list(dict.fromkeys((Forward.kind, *scoring, *explaining, *measuring, *self.facts.reduced.values())))


def start_model(engine: Engine, config: Config, report: Report) -> Future[ServedModel]:
    """Makes an engine load and compile the configured model.

    Args:
        engine: An engine whose backend is the configured one, not started yet.
        config: The config.
        report: Called with each step of loading, on the device thread.

    Returns:
        The model, once it is ready to serve; or a ConfigError.
    """
    models: list[ServedModel] = []
    warnings: list[str] = []
    ready: Future[ServedModel] = Future()

    def kinds(backend: Backend) -> list[Kind]:
        models.append(served_model(config, backend))
        return models[0].kinds

    def check(backend: Backend) -> None:
        report("looking at what the net says of a few pictures")
        warnings.extend(filter(None, [getattr(backend, "weights_warning", "")]))
        warnings.extend(label_doubts(models[0].labels))
        source = f"model.{config.model.source}"
        warnings.extend(doubts(backend, models[0].input, config.model.activation, source))

    def finish(started: Future[Mapping[Kind, str]]) -> None:
        try:
            failed = started.result()
            ready.set_result(replace(models[0].without(failed), warnings=tuple(warnings)))
        except BaseException as error:
            ready.set_exception(error)

    engine.start(kinds, report, check).add_done_callback(finish)
    return ready


def served_model(config: Config, backend: Backend) -> ServedModel:
    """Combines a loaded net with the config.

    Raises:
        ConfigError: They do not match.
    """
    spec = config.model.input.spec()
    facts = ModelFacts(
        spec.height,
        spec.width,
        backend.layers,
        backend.default_layer,
        backend.ood is not None,
        spec.units,
        getattr(backend, "refused_layers", {}),  # a backend of another's need not know any
        _reduced(backend, config),
        getattr(backend, "no_gradients", ""),
    )
    return ServedModel(
        config=config,
        backend=backend,
        labels=load_labels(config.model.labels, backend.class_count),
        input=spec,
        facts=facts,
        explainers={name: _set_up(explainer, config, facts) for name, explainer in installed_explainers().items()},
    )


def _reduced(backend: Backend, config: Config) -> dict[Kind, Kind]:
    """The kinds of work that sampling explainers may ask for in a precision below float32, by those in float32."""
    precision = getattr(backend, "reduced_precision", "")
    if not precision or config.explainers.precision == FLOAT32:
        return {}
    scored = (MaskedOodScore.kind,) if backend.ood is not None else ()
    return {kind: replace(kind, precision=precision) for kind in (MaskedForward.kind, *scored)}


def _set_up(explainer: Explainer[Any], config: Config, facts: ModelFacts) -> ExplainerSetup:
    try:
        return _setup_of(explainer, config, facts)
    except Exception as error:
        if isinstance(error, SidecarError) or explainer.name in built_in_explainers():
            raise
        raise ConfigError(  # it is not the server that has to be repaired
            f"this explainer of {type(explainer).__module__} fails with this model: {type(error).__name__}: {error}. "
            "Repair its package or uninstall it, or set enabled = false.",
            field=f"explainers.{explainer.name}",
        ) from error


def _setup_of(explainer: Explainer[Any], config: Config, facts: ModelFacts) -> ExplainerSetup:
    section = getattr(config.explainers, explainer.name)
    plain = explainer.parameters_type(**section.model_dump(include=set(explainer.parameters_type.model_fields)))
    if not section.enabled:
        return ExplainerSetup(
            explainer, plain, plain, unavailable=f"It is switched off. Set explainers.{explainer.name}.enabled = true."
        )
    try:
        defaults = explainer.resolve(plain, facts)
    except SidecarError as error:
        if isinstance(error, PreconditionError) and not error.field:
            return ExplainerSetup(explainer, plain, plain, unavailable=error.message)
        raise ConfigError(error.message, field=f"explainers.{explainer.name}.{error.field}") from error
    explainer.pass_counts(1, defaults, facts)  # now rather than at the first request
    kinds = [explainer.kind(defaults)]
    for layer in getattr(section, "layers", []):
        try:
            kinds.append(explainer.kind(explainer.resolve(plain.model_copy(update={"layer": layer}), facts)))
        except SidecarError as error:
            raise ConfigError(error.message, field=f"explainers.{explainer.name}.layers") from error
    return ExplainerSetup(explainer, plain, defaults, tuple(kinds), getattr(section, "compile_on_demand", False))
