"""Out-of-distribution (OoD) detection: how far a picture is from those that the classifier was trained on.

    features ─ OodHead ─► inlier score, the higher the more of an inlier ─► its percentile among training pictures

`train_ood` makes the head from a folder of pictures. The features are the classifier's own, and the score comes with
its prediction out of one pass. `fitting` trains the head's weights, by the steps of `descent`.
"""

from xai_sidecar.ood.extraction import Classifier
from xai_sidecar.ood.head import OodHead, TrainingRecord, check_head, load_head, save_head
from xai_sidecar.ood.training import TrainingOptions, train_ood

__all__ = [
    "Classifier",
    "OodHead",
    "TrainingOptions",
    "TrainingRecord",
    "check_head",
    "load_head",
    "save_head",
    "train_ood",
]
