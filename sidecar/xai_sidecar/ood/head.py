"""The OoD net's head: from a picture's features to its inlier score, in numpy, and the file that holds it.

Generalized ODIN, DeConf-C: Hsu et al. 2020, arXiv:2002.11297, section 3.1. The score of class c is the cosine of the
angle between the features and the class's weights, h_c = cos(f, W_c); a picture's inlier score is max_c h_c. The
divisor g that the net is trained with plays no part in it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from xai_sidecar.engine.work import FloatArray, IntArray
from xai_sidecar.errors import ConfigError
from xai_sidecar.ood.files import write_whole

_FIELD = "ood.checkpoint"
_FORMAT = "xai-sidecar OoD head 1"
_TRAIN_AGAIN = "Train the OoD net again with xai-sidecar train-ood."


@dataclass(frozen=True)
class TrainingRecord:
    """The pictures that a head was trained on, and its measured quality.

    Attributes:
        sample_count: Pictures used, held-out ones included.
        time: When it was trained, Unix seconds.
        auroc: Area under the ROC curve of held-out pictures against each kind of outlier, in [0, 1].
        classifier_version: Version of the classifier whose features it judges.
        feature_count: Features of the classifier.
        class_count: Classes of the classifier.
        labels: Whether classes came from the names of folders or are the classifier's own predictions.
        folder: Name of the folder of the pictures, without its path.
        epochs: Passes over the pictures.
        seed: Seed of the training.
    """

    sample_count: int
    time: float
    auroc: dict[str, float]
    classifier_version: str
    feature_count: int
    class_count: int
    labels: Literal["folders", "predictions"]
    folder: str
    epochs: int
    seed: int


@dataclass(frozen=True, eq=False)
class OodHead:
    """A trained head.

    Attributes:
        weights: (k, features) float32, a row for each class that occurred in training; their lengths do not matter.
        class_ids: (k,) int32, the classes of the rows.
        reference_scores: (m,) float32, ascending: the inlier scores of training pictures that were held out.
        training: The record of its training.
    """

    weights: FloatArray
    class_ids: IntArray
    reference_scores: FloatArray
    training: TrainingRecord

    def class_scores(self, features: FloatArray) -> FloatArray:
        """The cosine between features and each class's weights.

        Args:
            features: (n, features) float32.

        Returns:
            (n, k) float32 in [-1, 1]; 0 for features that are all zero, NaN for those that are not finite.
        """
        return cosines(unit_rows(features), self._directions)

    def scores(self, features: FloatArray) -> FloatArray:
        """Inlier scores, (n,) float32 in [-1, 1], of features, (n, features) float32; see `class_scores`."""
        return np.asarray(self.class_scores(features).max(axis=1), np.float32)

    def percentiles(self, scores: FloatArray) -> FloatArray:
        """Where scores lie among those of the held-out training pictures.

        Args:
            scores: (n,) float32, as from `scores`.

        Returns:
            (n,) float32 in [0, 100]: the share of reference scores that are lower. NaN for NaN.
        """
        lower = np.searchsorted(self.reference_scores, scores, side="left")
        shares = 100 * lower / len(self.reference_scores)
        return np.where(np.isnan(scores), np.nan, shares).astype(np.float32)

    @cached_property
    def _directions(self) -> NDArray[np.float64]:
        return unit_rows(self.weights)


def unit_rows(rows: FloatArray) -> NDArray[np.float64]:
    """Rows (n, k) scaled to length 1; zeros stay zeros."""
    wide = np.asarray(rows, np.float64)  # in float32 the squares of large features would overflow
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):  # an infinity over itself: the NaN that is promised
        return np.divide(wide, lengths, out=np.zeros_like(wide), where=lengths != 0)


def cosines(rows: NDArray[np.float64], directions: NDArray[np.float64]) -> FloatArray:
    """The cosines between rows (n, features) and directions (k, features), all of length 1 or 0: (n, k) float32.

    The last digits of a float32 product depend on how many rows are multiplied at a time, which is chance: those of a
    float64 product do, too, but float32 has not so many.
    """
    return np.asarray(np.clip(rows @ directions.T, -1, 1), np.float32)


def save_head(path: Path, head: OodHead) -> None:
    """Writes a head to a .safetensors file, whole or not at all.

    Raises:
        ConfigError: The file cannot be written.
    """
    arrays = {
        "weights": np.ascontiguousarray(head.weights, np.float32),
        "class_ids": np.ascontiguousarray(head.class_ids, np.int32),
        "reference_scores": np.ascontiguousarray(head.reference_scores, np.float32),
    }
    metadata = {"format": _FORMAT, "digest": _digest(arrays), "training": json.dumps(asdict(head.training))}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, safetensors.numpy.save(arrays, metadata))
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written: {error}. Free or allow its folder, or name another file.", field=_FIELD
        ) from error


def load_head(path: Path) -> OodHead:
    """Reads a head that `save_head` wrote.

    Raises:
        ConfigError: The file is not there, of another kind, damaged, or of values that no head has.
    """
    try:
        path.open("rb").close()  # safetensors reports a missing permission as if the file were not there
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, it is no mapping
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be read: {error.strerror or error}. Train an OoD net with xai-sidecar train-ood, or name "
            "its file.",
            field=_FIELD,
        ) from error
    except Exception as error:  # SafetensorError, or TypeError for a type of number that numpy does not have
        raise _unusable(path, f"is no .safetensors file that can be read ({error})") from error
    if metadata.get("format") != _FORMAT:
        what = repr(metadata["format"]) if "format" in metadata else "nothing"
        raise _unusable(path, f"is no OoD net's file: it calls itself {what}, not {_FORMAT!r}")
    if set(arrays) != {"weights", "class_ids", "reference_scores"} or metadata.get("digest") != _digest(arrays):
        raise _unusable(path, "is damaged: its content does not match its own digest")
    try:
        training = TypeAdapter(TrainingRecord).validate_json(metadata.get("training", ""))
    except ValidationError as error:
        raise _unusable(path, f"is damaged: its record of the training has {error.error_count()} faults") from error
    head = OodHead(arrays["weights"], arrays["class_ids"], arrays["reference_scores"], training)
    fault = _fault(head)
    if fault:
        raise _unusable(path, f"holds no usable head: {fault}")
    return head


def check_head(head: OodHead, classifier_version: str, earlier_version: Callable[[], str] = str) -> None:
    """Makes sure that a head was trained on the features of this very classifier.

    Args:
        head: The head.
        classifier_version: The classifier's version.
        earlier_version: Computes what earlier releases would have recorded as its version.

    Raises:
        ConfigError: It was not; its scores would mean nothing.
    """
    trained_for = head.training.classifier_version
    if trained_for != classifier_version and trained_for != earlier_version():
        raise ConfigError(
            f"the OoD net was trained for the classifier of version {trained_for}, and this one is "
            f"{classifier_version}: its net, weights or input are others. {_TRAIN_AGAIN}",
            field=_FIELD,
        )


def _digest(arrays: dict[str, Any]) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.shape} {array.dtype}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _fault(head: OodHead) -> str:
    """What is wrong with a head; empty if nothing is."""
    weights, ids, references = head.weights, head.class_ids, head.reference_scores
    if weights.ndim != 2 or weights.shape[1] != head.training.feature_count or not weights.size:
        return f"its weights have shape {weights.shape}, for {head.training.feature_count} features"
    if ids.shape != weights.shape[:1] or references.ndim != 1 or not references.size:
        return (
            f"it has {weights.shape[0]} rows of weights, class ids of shape {ids.shape} and reference scores of shape "
            f"{references.shape}"
        )
    if {weights.dtype, references.dtype} != {np.dtype(np.float32)} or ids.dtype != np.int32:
        return f"its numbers are of types {weights.dtype}, {ids.dtype} and {references.dtype}"
    if not np.isfinite(weights).all() or not np.isfinite(references).all():
        return "some of its numbers are NaN or infinite"
    if len(np.unique(ids)) != len(ids) or ids.min() < 0 or ids.max() >= head.training.class_count:
        return f"its class ids are not different ones of {head.training.class_count}"
    return "" if (np.diff(references) >= 0).all() else "its reference scores are not in order"


def _unusable(path: Path, what: str) -> ConfigError:
    return ConfigError(f"{path} {what}. {_TRAIN_AGAIN}", field=_FIELD)
