"""From a folder of training pictures to an OoD net's head.

    pictures ─ classifier ─► features, kept on disk ─┬─ four fifths ─ fit ─► weights ─┐
                                                     └─ one fifth, held out ──────────┴─► reference scores, AUROC

The classifier is not trained, so that each picture passes through it once.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from xai_sidecar.engine.work import FloatArray, IntArray
from xai_sidecar.errors import ConfigError
from xai_sidecar.ood.extraction import Classifier, FeatureExtraction, Samples
from xai_sidecar.ood.head import OodHead, TrainingRecord, save_head
from xai_sidecar.ood.outliers import auroc
from xai_sidecar.ood.pictures import Pictures, find_pictures
from xai_sidecar.ood.progress import Progress, Step


class Fitted(Protocol):
    """The result of `Fit`."""

    @property
    def weights(self) -> FloatArray:
        """(k, features) float32."""


class Fit(Protocol):
    """Trains a head; see `xai_sidecar.ood.fitting.fit`."""

    def __call__(
        self,
        features: FloatArray,
        labels: IntArray,
        *,
        epochs: int,
        batch_size: int,
        seed: int,
        state: Path | None,
        report: Callable[[int, float, float], None],
        stop: Callable[[], bool],
    ) -> Fitted:
        """Trains."""


@dataclass(frozen=True)
class TrainingOptions:
    """How to train.

    Attributes:
        epochs: Passes over the pictures, at least 1.
        batch_size: Pictures a step, at least 4.
        seed: Seed of everything random, at least 0; equal seeds give equal nets.
        holdout: Share of the pictures that are held out to measure the net, above 0 and below 1.
        outlier_pictures: Of how many held-out pictures outliers are made, at least 1; each is three more passes.

    Raises:
        ConfigError: A value is out of range.
    """

    epochs: int = 90
    batch_size: int = 128
    seed: int = 0
    holdout: float = 0.2
    outlier_pictures: int = 256

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch_size", 4), ("seed", 0), ("outlier_pictures", 1)):
            if getattr(self, name) < least:
                raise ConfigError(f"{getattr(self, name)} is too little. Give at least {least}.", field=name)
        if not 0 < self.holdout < 1:
            raise ConfigError(f"{self.holdout} is no share. Give one above 0 and below 1.", field="holdout")


def train_ood(
    folder: Path,
    out: Path,
    classifier: Classifier,
    cache: Path,
    fit: Fit,
    options: TrainingOptions | None = None,
    *,
    report: Callable[[str], None] = lambda line: None,
    progress: Progress = lambda step: None,
    stop: Callable[[], bool] = lambda: False,
    clock: Callable[[], float] = time.time,
) -> OodHead:
    """Trains an OoD net for a classifier and saves its head.

    May be interrupted at any moment: called again with equal arguments it goes on where it was.

    Args:
        folder: The pictures that the classifier was trained on, or some of their kind; see `find_pictures`.
        out: Where the head goes, .safetensors; an older one is replaced at the very end.
        classifier: The classifier.
        cache: Folder for the features computed so far.
        fit: Trains the weights.
        options: How to train; None for the defaults.
        report: Called with lines for the user.
        progress: Called with every step.
        stop: Called now and then; returns whether to stop.
        clock: Unix seconds.

    Raises:
        ConfigError: The pictures, the options or a place to write to are not as they must be.
        KeyboardInterrupt: On Ctrl-C, or because `stop` said so.
    """
    _check_place(out)
    options = options or TrainingOptions()
    pictures = find_pictures(folder, classifier.labels, classifier.class_count)
    extraction = FeatureExtraction(pictures, classifier, cache, report, progress, stop)
    state = extraction.folder / "training.safetensors"

    try:
        samples = extraction.samples()
        held = hold_out(samples.class_ids, options.holdout, options.seed)
        class_ids, labels = _classes(samples.class_ids, held, report)
        fitted = fit(
            samples.features[~held],
            labels,
            epochs=options.epochs,
            batch_size=options.batch_size,
            seed=options.seed,
            state=state,
            report=lambda *epoch: progress(_epoch(options.epochs, *epoch)),
            stop=stop,
        )
        record = _record(samples, pictures, classifier, options, clock())
        head = OodHead(fitted.weights, class_ids, np.zeros(1, np.float32), record)
        head = _evaluated(head, samples, held, extraction, options)
        save_head(out, head)
    except KeyboardInterrupt:
        report(f"Interrupted. What is done is kept in {extraction.folder}: start the same again to go on from there.")
        raise
    state.unlink(missing_ok=True)
    return head


def _epoch(epochs: int, epoch: int, loss: float, accuracy: float) -> Step:
    return Step("training", epoch, epochs, "epochs", f"loss {loss:.3g}, accuracy {100 * accuracy:.1f} %")


def _record(
    samples: Samples, pictures: Pictures, classifier: Classifier, options: TrainingOptions, now: float
) -> TrainingRecord:
    return TrainingRecord(
        sample_count=len(samples.paths),
        time=now,
        auroc={},
        classifier_version=classifier.version,
        feature_count=samples.features.shape[1],
        class_count=classifier.class_count,
        labels="predictions" if pictures.class_ids is None else "folders",
        folder=pictures.folder.resolve().name,
        epochs=options.epochs,
        seed=options.seed,
    )


def _evaluated(
    head: OodHead, samples: Samples, held: NDArray[np.bool_], extraction: FeatureExtraction, options: TrainingOptions
) -> OodHead:
    """The head with its reference scores and its AUROC on the held-out pictures."""
    inliers = np.sort(head.scores(samples.features[held]))
    paths = [path for path, chosen in zip(samples.paths, held, strict=True) if chosen]
    outliers = extraction.outliers(paths, options.outlier_pictures, options.seed)
    areas = {name: auroc(inliers, head.scores(features)) for name, features in outliers.items()}
    return replace(head, reference_scores=inliers, training=replace(head.training, auroc=areas))


def hold_out(labels: IntArray, share: float, seed: int) -> NDArray[np.bool_]:
    """Which samples to hold out: about the same share of each class, but never the only one of its class.

    Where classes of several samples are too few for two to be held out, any two are.

    Args:
        labels: (n,), n at least 4.
        share: Of the samples.
        seed: Equal seeds give equal choices.

    Returns:
        (n,), true for the held-out samples, at least two.
    """
    generator = np.random.default_rng([seed, 2])
    order = generator.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    first = np.r_[True, np.diff(labels[order]) != 0]
    spare = order[~first]
    if len(spare) < 2:
        spare = np.concatenate([spare, generator.permutation(order[first])[: 2 - len(spare)]])
    count = min(len(spare), max(2, round(share * len(labels))))
    # Evenly from the spare ones in the order of their classes, so that every class gives its share.
    chosen = spare[((np.arange(count) + generator.random()) * len(spare) / count).astype(int)]
    held = np.zeros(len(labels), bool)
    held[chosen] = True
    return held


def _check_place(out: Path) -> None:
    """Now, and not after hours of training."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"{out.parent} cannot be made: {error}. Name another file.", field="ood.checkpoint"
        ) from error
    if out.is_dir() or not os.access(out.parent, os.W_OK):
        raise ConfigError(f"{out} cannot be written. Name another file.", field="ood.checkpoint")


def _classes(class_ids: IntArray, held: NDArray[np.bool_], report: Callable[[str], None]) -> tuple[IntArray, IntArray]:
    """The classes to learn, ascending, and for each picture to learn from the place of its own among them.

    Raises:
        ConfigError: There are fewer than two.
    """
    learned, labels = np.unique(class_ids[~held], return_inverse=True)
    if len(learned) < 2:
        raise ConfigError(
            f"the {len(labels)} pictures to learn from are all of one class, {learned[0]}. "
            "Give pictures of at least two classes.",
            field="data",
        )
    strangers = int((~np.isin(class_ids[held], learned)).sum())
    if strangers:
        report(f"{strangers} of the held-out pictures are the only ones of their class: give more pictures of each.")
    return learned.astype(np.int32), labels.astype(np.int32)
