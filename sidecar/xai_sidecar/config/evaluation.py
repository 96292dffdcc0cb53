"""The keys of the config file that say how the quality of explanations is measured, and what is made of it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from xai_sidecar.config.metrics import MetricParametersConfig, metric_parameters_section
from xai_sidecar.config.names import Explainers, Metrics, known_explainers, known_metrics
from xai_sidecar.config.section import MadeSection, Section
from xai_sidecar.metrics.base import Metric, MetricParameters
from xai_sidecar.metrics.discovery import installed_metrics
from xai_sidecar.metrics.perturbation import Protocol


class AutoConfig(Section):
    """How `explainer: auto` chooses."""

    weights: dict[str, Annotated[float, Field(ge=0, le=1000)]] = Field(
        default={"faithfulness/srg": 1.0, "localization/pointing_game": 0.5},
        description="What each metric counts for in the composite score; those left out count for nothing.",
    )
    vetoes: Metrics = Field(
        default=["class_sensitivity", "robustness"],
        description="Metrics that earn nothing, since noise or a map that never changes wins them: an explainer "
        "that is worse than noise by one of them beyond chance is not chosen.",
    )
    fallback: str = Field(
        default="gradcam",
        description="The explainer chosen while too little is measured; where it cannot be used, the cheapest one.",
    )
    min_samples: int = Field(
        default=10,
        ge=2,
        le=100_000,
        description="Samples from which on a metric counts, of an explainer or of a class of its own. An explainer "
        "that does not beat the controls beyond chance by then waits for more.",
    )

    @field_validator("weights")
    @classmethod
    def _known_metrics(cls, weights: dict[str, float]) -> dict[str, float]:
        known_metrics(weights)
        if not any(weights.values()):
            raise ValueError("at least one weight has to be above 0")
        return weights

    @field_validator("fallback")
    @classmethod
    def _known_explainer(cls, name: str) -> str:
        return known_explainers([name])[0]


class EvaluatorConfig(Section):
    """Measuring the quality of explanations on sampled traffic."""

    sample_rate: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="The part of the requests whose pictures are sampled; 0 measures nothing, and needs no store.",
    )
    sampling: Literal["weighted", "uniform"] = Field(
        default="weighted",
        description="Which requests are sampled: weighted prefers classes that are rarely predicted and doubtful "
        "predictions, up to eight times as much as others, and has each picture count in means for the less; uniform "
        "samples all alike.",
    )
    interval_seconds: float = Field(
        default=5.0, gt=0, le=86_400, description="Time between two rounds of scoring what has been sampled."
    )
    explainers: Explainers = Field(
        default=[],
        description="The explainers that are compared. Default: all that can be used. Maps that callers asked for, by "
        "Predict and with the server's parameters, are measured in any case.",
    )
    metrics: Metrics = Field(
        default_factory=lambda: [name for name, metric in installed_metrics().items() if metric.by_default],
        min_length=1,
        description="The metrics that are measured of each. Default: all but faithfulness/road, which takes long.",
    )
    protocol: Protocol = Field(
        default="srg",
        description="How faithfulness is measured besides SRG: srg from the same passes as that, on all pixels in 28 "
        "steps; mindspore_xai on the most salient half of the pixels, in eight times as many steps; rise as "
        "RISE's authors do, insertion from a blurred picture. A metric's own `protocol` goes before.",
    )
    metric_parameters: Annotated[MetricParametersConfig, MadeSection(metric_parameters_section)] = Field(
        default_factory=lambda: metric_parameters_section()(), description="Parameters of the metrics."
    )
    max_passes: int = Field(
        default=5000,
        ge=1,
        le=10**7,
        description="Most passes through the model for one metric of one map; what would take more is not measured.",
    )
    tolerance: float = Field(
        default=0.3,
        ge=0,
        le=0.5,
        description="Relative standard error at which the maps of explainers with random masks are good enough to be "
        "measured, of the masks that they would spend for a caller; 0 spends all of these. With 0.3, a map correlates "
        "by 0.95 with that of infinitely many masks.",
    )
    device_share: float = Field(
        default=0.5,
        gt=0,
        le=1,
        description="The part of the device's time that measuring takes at the most, of what nobody else wants.",
    )
    slice_milliseconds: float = Field(
        default=5.0,
        gt=0,
        le=10_000,
        description="What a batch for measuring may take while others use the device: how long a prediction waits for "
        "one. Rows that take more than twice as long by themselves, and than a prediction does, are run in half a "
        "percent of the time.",
    )
    own_process: bool = Field(
        default=False,
        description="Whether passes for measuring run in a process of their own, which gets CPU time only where nobody "
        "else wants any (SCHED_IDLE): more of them in the same share of the device, and predictions wait for none of "
        "them, but take a little longer beside them. It has the model once more in memory. It is for ONNX files on a "
        "CPU; where a quota limits CPU time, or `model.threads` does, they take turns with predictions all the same.",
    )
    pending_bytes: int = Field(
        default=64 * 2**20,
        ge=2**16,
        le=2**40,
        description="Most bytes of sampled pictures that wait in memory; what is sampled beyond that is not scored.",
    )
    max_age_seconds: float = Field(
        default=900.0, gt=0, le=30 * 86_400, description="A sample that has waited for longer is not scored any more."
    )
    quiet_seconds: float = Field(
        default=600.0,
        gt=0,
        le=30 * 86_400,
        description="After so long without a sample the evaluator says that there is no traffic.",
    )
    window_samples: int = Field(
        default=500, ge=2, le=100_000, description="Most samples that the scores shown are the means of, the newest."
    )
    window_seconds: float = Field(default=86_400.0, gt=0, le=366 * 86_400, description="The oldest of these.")
    classes: list[str] = Field(
        default=[],
        max_length=100,
        description="Labels of the classes with figures of their own on /metrics. Default: all, of a model with at "
        "most 20, else none; the others are shown together.",
    )
    positive_probability: float = Field(
        default=0.5,
        gt=0,
        lt=1,
        description="With sigmoid, the probability from which on a class counts as predicted. A picture without any is "
        "not explained unless the caller names classes or a number of them, and its maps are not scored.",
    )
    ood_percentile: float = Field(
        default=5.0,
        gt=0,
        lt=100,
        description="A picture whose OoD percentile is below this counts as unlike the training pictures.",
    )
    store: str = Field(
        default="",
        description="Where samples, maps, scores and ground truth are kept: sqlite:///FILE or postgresql://… with the "
        "extra `postgres`; one for each server. Default: an SQLite file named after the model in "
        "~/.local/share/xai-sidecar.",
    )
    store_bytes: int = Field(
        default=2**30,
        ge=2**20,
        le=2**50,
        description="Most bytes of the store; beyond that the oldest samples go. Ground truth takes no more than half "
        "of it. SQLite's journal beside it takes up to 64 MiB more.",
    )
    retention_days: float = Field(default=30.0, gt=0, le=36_600, description="Samples older than this go, too.")
    keep_pictures: bool = Field(
        default=False,
        description="Whether the store keeps pictures: as the model saw them while they wait to be scored, so that "
        "these outlive a restart; and, for those who look at samples, a thumbnail and what the model saw for "
        "`picture_days`. They are people's data; without it they are in memory only, until they are scored.",
    )
    picture_days: float = Field(
        default=7.0, gt=0, le=36_600, description="How long pictures are kept to be looked at, with `keep_pictures`."
    )
    picture_bytes: int = Field(
        default=128 * 2**20,
        ge=0,
        le=2**50,
        description="Most bytes of these pictures, of `store_bytes`; the oldest go.",
    )
    map_bytes: int = Field(
        default=512 * 2**20,
        ge=0,
        le=2**50,
        description="Most bytes of maps, of `store_bytes`; beyond that the oldest go, and samples, scores and small "
        "copies of maps stay. Ground truth that comes later than that says nothing of where the maps lay.",
    )
    auto: AutoConfig = Field(default_factory=AutoConfig, description="How explainer auto chooses.")

    def parameters_of(self, metric: Metric[Any]) -> MetricParameters:
        """A metric's parameters: those of its section, and where that says no `protocol`, this section's."""
        parameters: MetricParameters = getattr(self.metric_parameters, metric.name)
        if "protocol" in type(parameters).model_fields and "protocol" not in parameters.model_fields_set:
            return type(parameters)(**{**parameters.model_dump(), "protocol": self.protocol})
        return parameters

    @property
    def enabled(self) -> bool:
        """Whether anything is sampled."""
        return self.sample_rate > 0
