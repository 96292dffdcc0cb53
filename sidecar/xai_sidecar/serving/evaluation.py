"""Connects serving with the evaluator: starts it, and gives it the pictures of sampled requests."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from xai_sidecar.config import Config, EvaluatorConfig
from xai_sidecar.digest import digest
from xai_sidecar.engine.engine import Engine
from xai_sidecar.errors import ConfigError, StoreError
from xai_sidecar.evaluator.controls import CONTROLS
from xai_sidecar.evaluator.drift.monitor import DriftMonitor
from xai_sidecar.evaluator.drift.tracker import REQUESTS, SAMPLES
from xai_sidecar.evaluator.evaluator import Evaluator
from xai_sidecar.evaluator.live_quality import LiveQuality, shown_classes
from xai_sidecar.evaluator.measurement import EvaluatedModel
from xai_sidecar.evaluator.preference import seen
from xai_sidecar.evaluator.records import Frame, PictureSource, Sample, SampleKey, Served
from xai_sidecar.evaluator.runs import FAILURES, NOT_APPLICABLE
from xai_sidecar.evaluator.store import DetailBounds, Store
from xai_sidecar.explainers.activations import ACTIVATIONS
from xai_sidecar.metrics.discovery import built_in_metrics, installed_metrics
from xai_sidecar.metrics.instance import ExplainerCall
from xai_sidecar.paths import data_folder
from xai_sidecar.serving.model import ServedModel
from xai_sidecar.serving.plan import ExplanationResult, ModelOutput, Stage, positives
from xai_sidecar.serving.requests import EncodedPicture, Picture, Pixels
from xai_sidecar.telemetry import DriftCollector, EvaluatorTelemetry, QualityCollector, Registry

_DAY = 86_400


@dataclass(frozen=True)
class Evaluation:
    """The measuring of explanations on live traffic.

    Attributes:
        quality: The measurements of recent samples.
        version: As of `EvaluatedModel`.
        evaluator: What measures it; None where nothing is sampled.
        drift: Compares maps with those of a while ago; None for not at all.
    """

    quality: LiveQuality
    version: str
    evaluator: Evaluator | None = None
    drift: DriftMonitor | None = None

    def watch(
        self, model: ServedModel, predicted: Sequence[ModelOutput], explained: Sequence[Sequence[ExplanationResult]]
    ) -> None:
        """Has the maps that a caller gets compared with former ones.

        Args:
            model: The model that predicted.
            predicted: Its predictions.
            explained: For each prediction the explanations that the caller gets.
        """
        if self.drift is None:
            return
        for one, results in zip(predicted, explained, strict=False):  # there are none where none were asked for
            maps = {
                name: result.saliency.maps[place]
                for name, result, place in _by_default(model, one, results)
                if result.saliency.statuses[place].believed
            }
            if maps:
                self.drift.offer(REQUESTS, int(one.logits.argmax()), maps)

    def sample(
        self,
        request_id: str,
        model: ServedModel,
        predicted: Sequence[ModelOutput],
        explained: Sequence[Sequence[ExplanationResult]] = (),
        images: Collection[Picture] = (),
    ) -> bool:
        """Queues the pictures of a request for measuring, if it is sampled.

        Args:
            request_id: Its id.
            model: The model that predicted.
            predicted: Its predictions.
            explained: For each prediction the explanations that the caller gets, if any.
            images: The pictures as they were sent; looked at only where pictures are kept.

        Returns:
            Whether it is sampled.
        """
        if self.evaluator is None:
            return False
        drawn = self.evaluator.ingest.draw(
            request_id, lambda: [seen(each.logits, each.probabilities, model.least_positive) for each in predicted]
        )
        if drawn is None:
            return False
        now = time.time()
        got = explained or [()] * len(predicted)
        samples = [
            replace(sample_of(SampleKey(request_id, index), now, self.version, model, *each), **drawn._asdict())
            for index, each in enumerate(zip(predicted, got, strict=True))
        ]
        if model.config.evaluator.keep_pictures:
            samples = [replace(each, source=_source(image)) for each, image in zip(samples, images, strict=True)]
        self.evaluator.ingest.offer(samples)
        return True

    def close(self) -> None:
        """Ends it, once all sampled pictures are stored."""
        if self.evaluator is not None:
            self.evaluator.close()
        if self.drift is not None:
            self.drift.close()


def start_evaluation(model: ServedModel, engine: Engine, registry: Registry, store: Store | None = None) -> Evaluation:
    """Starts the evaluator as configured.

    Args:
        model: The model.
        engine: Runs it.
        registry: Gets the Prometheus series.
        store: The configured store, if it is open already; closed at the end.

    Raises:
        ConfigError: The store cannot be used, or something named is not there.
    """
    settings = model.config.evaluator
    evaluated = evaluated_model(model)
    check_measured(model, evaluated)
    telemetry = make_telemetry(registry, evaluated, settings)
    quality = LiveQuality(evaluated, settings, telemetry)
    registry.register(QualityCollector(quality.figures))
    classes = shown_classes(evaluated.labels, settings.classes)
    drift = DriftMonitor(list(evaluated.explainers), classes, model.config.drift)
    registry.register(DriftCollector(drift.figures))
    if not settings.enabled:
        return Evaluation(quality, evaluated.version, None, drift)
    store = store or open_store(model.config, claim=True)
    try:
        evaluator = Evaluator(
            engine,
            store,
            evaluated,
            settings,
            quality,
            telemetry,
            model.config.server.max_pixels,
            # Others are there the more often the rarer their class is, which is not how maps change.
            on_maps=lambda sample, maps: drift.offer(SAMPLES, sample.target, maps) if sample.typical else None,
        )
        evaluator.start()
    except (ConfigError, StoreError) as error:
        store.close()
        raise ConfigError(error.message, field="evaluator.store") from error
    return Evaluation(quality, evaluated.version, evaluator, drift)


def check_measured(model: ServedModel, evaluated: EvaluatedModel) -> None:
    """Makes sure that what the config has measured can be.

    Raises:
        ConfigError: An explainer cannot be used, or a metric fails.
    """
    settings = model.config.evaluator
    for name in settings.explainers:
        if name not in evaluated.explainers:
            why = model.explainers[name].unavailable
            raise ConfigError(f"{name} cannot be used: {why} Leave it out.", field="evaluator.explainers")
    if settings.enabled:
        _check_metrics(settings, evaluated)


def make_telemetry(registry: Registry, model: EvaluatedModel, settings: EvaluatorConfig) -> EvaluatorTelemetry:
    """What counts the measurements of a model."""
    return EvaluatorTelemetry(
        registry, list(model.explainers), settings.metrics, FAILURES, NOT_APPLICABLE, model.controls
    )


def _check_metrics(settings: EvaluatorConfig, model: EvaluatedModel) -> None:
    """Asks the metrics of other packages for their costs, at start rather than with the first sample.

    Raises:
        ConfigError: One of them fails.
    """
    calls = [ExplainerCall(*each) for each in model.explainers.values()]
    for metric in (installed_metrics()[name] for name in settings.metrics if name not in built_in_metrics()):
        try:
            for call in calls:
                metric.pass_count(settings.parameters_of(metric), model.facts, call)
        except Exception as error:
            raise ConfigError(
                f"the metric {metric.name} of {type(metric).__module__} fails with this model: {type(error).__name__}: "
                f"{error}. Repair its package or uninstall it, or leave the metric out.",
                field="evaluator.metrics",
            ) from error


def open_store(config: Config, *, claim: bool = False) -> Store:
    """Opens the configured store, or creates it.

    Args:
        config: The config.
        claim: Whether to take it for this process alone.

    Raises:
        ConfigError: It cannot be used, or another process has taken it.
    """
    settings = config.evaluator
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", config.model.name).strip(".-") or "model"
    url = settings.store or f"sqlite:///{data_folder() / name}.sqlite"
    retention = settings.retention_days * _DAY
    bounds = DetailBounds(settings.map_bytes, settings.picture_bytes, settings.picture_days * _DAY)
    return Store.open(url, max_bytes=settings.store_bytes, retention_seconds=retention, bounds=bounds, claim=claim)


def evaluated_model(model: ServedModel) -> EvaluatedModel:
    """The model as the evaluator sees it."""
    return EvaluatedModel(
        version=_version(model),
        labels=model.labels,
        facts=replace(model.facts, reduced={}),  # its own maps are made in float32
        activation=ACTIVATIONS[model.config.model.activation],
        explainers={
            name: (setup.explainer, setup.defaults) for name, setup in model.explainers.items() if not setup.unavailable
        },
        controls=CONTROLS,
    )


def _version(model: ServedModel) -> str:
    """The version of the model with its OoD net. Maps and scores carry their own definitions besides."""
    ood = model.backend.ood
    return model.version if ood is None else f"{model.version}-{digest(ood.time, ood.sample_count)[:8]}"


def sample_of(
    key: SampleKey,
    now: float,
    version: str,
    model: ServedModel,
    predicted: ModelOutput,
    explained: Sequence[ExplanationResult],
) -> Sample:
    """A prediction as a sample, with those of the caller's maps that were made with the server's defaults.

    Args:
        key: Which picture.
        now: Unix time in seconds.
        version: As of `EvaluatedModel`.
        model: The model.
        predicted: The prediction.
        explained: The explanations that the caller got.
    """
    prepared = predicted.prepared
    _, height, width = prepared.array.shape
    predicted_ids = positives(predicted.logits, predicted.probabilities, model.least_positive)
    served: dict[str, Served] = {}
    for name, one, place in _by_default(model, predicted, explained):
        # A copy: the maps of other classes need not be kept.
        saliency = one.saliency.maps[place].copy()
        served[name] = Served(saliency, one.saliency.statuses[place], one.plan.seed, one.pass_count)
    return Sample(
        key=key,
        time=now,
        model_version=version,
        frame=Frame(height, width, prepared.picture_size, prepared.region),
        image=prepared.array,
        logits=predicted.logits,
        probabilities=predicted.probabilities,
        positives=tuple(predicted_ids.tolist()),
        ood=predicted.ood,
        served=served,
    )


def _source(picture: Picture) -> PictureSource | None:
    if isinstance(picture, EncodedPicture):
        return picture.data
    return picture.array if isinstance(picture, Pixels) else None


def _by_default(
    model: ServedModel, predicted: ModelOutput, explained: Sequence[ExplanationResult]
) -> Iterator[tuple[str, ExplanationResult, int]]:
    """The maps of the most probable class that were made with the server's defaults, the first of each explainer.

    Yields:
        Name of the explainer, its explanation, and the map's place there.
    """
    top, found = predicted.logits.argmax(), set()
    for one in explained:
        name = one.plan.explainer.name
        places = np.flatnonzero(one.targets == top)
        by_default = one.plan.parameters == model.explainers[name].defaults
        if one.stage is Stage.COMPLETE and by_default and len(places) and name not in found:
            found.add(name)
            yield name, one, int(places[0])
