"""The evaluator's store: sampled traffic with its maps, scores and ground truth, in SQLite or PostgreSQL."""

from xai_sidecar.evaluator.store.changes import Change, Watcher
from xai_sidecar.evaluator.store.detail_store import DetailBounds
from xai_sidecar.evaluator.store.outcomes import Outcome
from xai_sidecar.evaluator.store.rows import KeptPicture
from xai_sidecar.evaluator.store.small import SmallMap, TopClass
from xai_sidecar.evaluator.store.store import Store
from xai_sidecar.evaluator.store.truths import Reported, TruthClasses

__all__ = [
    "Change",
    "DetailBounds",
    "KeptPicture",
    "Outcome",
    "Reported",
    "SmallMap",
    "Store",
    "TopClass",
    "TruthClasses",
    "Watcher",
]
