"""What came of a run, as plain values: scores with their intervals, by class, and what the model got right."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from xai_sidecar.evaluator.intervals import interval
from xai_sidecar.evaluator.live_quality import LiveQuality
from xai_sidecar.evaluator.measurement import EvaluatedModel
from xai_sidecar.evaluator.quality_table import QualityTable
from xai_sidecar.evaluator.records import SampleKey, SampleRecord
from xai_sidecar.evaluator.store import Store
from xai_sidecar.metrics.discovery import installed_metrics
from xai_sidecar.runner.session import RunResult

Json = Mapping[str, Any]


def summary(result: RunResult) -> Json:
    """The results of a run, as JSON has them.

    Scores that are not known are null, never 0.
    """
    figures, counts = result.quality.summary(), result.counts
    model, settings = result.evaluated, result.config.evaluator
    return {
        "pictures": counts.done,
        "skipped": [{"name": name, "why": why} for name, why in counts.skipped],
        "notes": list(counts.notes),
        "interrupted": counts.interrupted,
        "seconds": round(result.seconds, 3),
        "scores": list(_scores(figures.table, model)),
        "composites": {name: _number(value) for name, value in figures.composites.items()},
        "beats_controls": {name: verdict.eligible for name, verdict in figures.verdicts.items()},
        "by_class": list(_by_class(result.quality, model, settings.metrics)),
        "accuracy": _accuracy(figures.accuracy, model),
        "ood": _ood(result.store, settings.ood_percentile) if model.facts.has_ood else None,
    }


def ranked(found: Json) -> list[str]:
    """The explainers and controls of a `summary`, the best first, and last those whose composite is not known."""
    names = list(dict.fromkeys(row["explainer"] for row in found["scores"]))
    composites = found["composites"]
    return sorted(names, key=lambda name: math.inf if composites.get(name) is None else -composites[name])


def _scores(table: QualityTable, model: EvaluatedModel) -> Iterator[Json]:
    for row in table.rows:
        found = row.statistics
        bounds = interval(installed_metrics()[row.metric], found)
        yield {
            "explainer": row.explainer,
            "metric": row.metric,
            "control": row.explainer in model.controls,
            "higher_is_better": row.higher_is_better,
            "mean": found.mean,
            "low": bounds.low if bounds else None,
            "high": bounds.high if bounds else None,
            "count": found.count,
            "skill": row.skill.value if row.skill else None,
            "skill_half_width": _number(row.skill.half_width) if row.skill else None,
        }


def _by_class(quality: LiveQuality, model: EvaluatedModel, metrics: list[str]) -> Iterator[Json]:
    for class_id, label in enumerate(model.labels):
        for name in model.measured:
            for metric in metrics:
                found = quality.statistics(name, metric, class_id)
                if found is not None:
                    yield {
                        "class_id": class_id,
                        "label": label,
                        "explainer": name,
                        "metric": metric,
                        "mean": found.mean,
                        "count": found.count,
                    }


def _accuracy(accuracy: Any, model: EvaluatedModel) -> Json | None:
    if accuracy is None:
        return None
    return {
        "pictures": accuracy.picture_count,
        "share": accuracy.share,
        "classes": [
            {
                "class_id": class_id,
                "label": model.labels[class_id] if model.labels else str(class_id),
                "true_positives": counts.tp,
                "false_positives": counts.fp,
                "false_negatives": counts.fn,
                "precision": counts.precision,
                "recall": counts.recall,
            }
            for class_id, counts in accuracy.classes
        ],
    }


def _ood(store: Store, below: float) -> Json:
    found = [sample.ood for sample in samples(store) if sample.ood is not None and sample.key.image_index == 0]
    known = [percentile for _, percentile in found if not math.isnan(percentile)]  # a script's net tells none
    outliers = sum(percentile < below for percentile in known)
    return {
        "pictures": len(known),
        "below_percentile": below,
        "outliers": outliers,
        "share": outliers / len(known) if known else None,
        "mean_score": sum(score for score, _ in found) / len(found) if found else None,
    }


@dataclass(frozen=True)
class ScoreRow:
    """A score of a map, as the tables of scores have it.

    Attributes:
        name: The picture.
        target: The class that is explained.
        explainer: Name of the explainer or control.
        metric: Name of the metric.
        value: The score; None where there is none.
        status: "ok", or why there is none; "error" where measuring failed.
        pass_count: Rows that went through the model for it.
        seconds: Time that it took, waiting included.
    """

    name: str
    target: int
    explainer: str
    metric: str
    value: float | None
    status: str
    pass_count: int
    seconds: float


def samples(store: Store) -> Iterator[SampleRecord]:
    """All samples of a run, by picture."""
    for key in _keys(store):
        record = store.sample(key)
        if record is not None:
            yield record


def score_rows(store: Store) -> Iterator[ScoreRow]:
    """All scores of a run, by picture."""
    for key in _keys(store):
        for score in store.scores(key):
            status = score.status.name.lower() if score.status is not None else "error"
            yield ScoreRow(
                name_of(key),
                score.target,
                score.explainer,
                score.metric,
                score.value,
                status,
                score.pass_count,
                score.seconds,
            )


def _keys(store: Store) -> list[SampleKey]:
    """The samples of a run, in an order that does not depend on which pictures were done first."""
    return sorted(key for key, _ in store.states())


def name_of(key: SampleKey) -> str:
    """The name of a sample's picture, without the seed that a run of another seed puts behind it."""
    name, _, seed = key.request_id.rpartition("#")
    return name if name and seed.isdecimal() else key.request_id


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value
