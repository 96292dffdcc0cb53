"""Live quality from what has been measured already: what a store has, after a restart, or a sample as a whole."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from xai_sidecar.evaluator.live_quality import LiveQuality
from xai_sidecar.evaluator.records import GroundTruth, SampleRecord, ScoreRecord
from xai_sidecar.evaluator.store import Store
from xai_sidecar.telemetry import EXPLAIN


def restore_quality(
    quality: LiveQuality,
    store: Store,
    version: str,
    since: float,
    most: int,
    explainers: Collection[str],
    metrics: Sequence[str],
    definitions: Collection[str],
) -> None:
    """Puts the scores, OoD scores and ground truths of a store into rolling windows.

    Args:
        quality: The windows.
        store: The store.
        version: Of the model that predicted.
        since: Unix time of the oldest samples.
        most: Most samples of each explainer and metric.
        explainers: Explainers and controls that count.
        metrics: Metrics that count.
        definitions: Definitions of scores that count.

    Raises:
        StoreError: The store cannot be read.
    """
    for key, sample_time, weight, score in store.recent_scores(version, since, most, definitions):
        quality.add_sample(key, sample_time, weight)
        if score.explainer in explainers and score.metric in (*metrics, EXPLAIN):
            quality.put_score(key, sample_time, score, weight)
    for key, sample_time, weight, ood in store.recent_ood(version, since, most):
        quality.put_ood(key, sample_time, ood, weight, new=False)
    for truth in store.truths(version):
        quality.put_truth(*truth)


def count_measured(
    quality: LiveQuality,
    record: SampleRecord,
    truth: GroundTruth | None,
    scores: Iterable[ScoreRecord],
    *,
    new: bool = True,
) -> None:
    """Puts a sample that has been measured into rolling windows.

    Args:
        quality: The windows.
        record: The sample.
        truth: What it really shows; None where nobody has said.
        scores: Its scores, those that count.
        new: Whether /metrics is to count its OoD score.
    """
    key, weight = record.key, record.weight
    quality.add_sample(key, record.time, weight)
    if record.ood is not None:
        quality.put_ood(key, record.time, record.ood, weight, new=new)
    if truth is not None:
        quality.put_truth(key, record.positives, truth.class_ids, weight)
    for score in scores:
        quality.put_score(key, record.time, score, weight)
