"""The evaluator's store: sampled traffic with its maps, scores and ground truth, in SQLite or PostgreSQL."""

from xai_sidecar.evaluator.store.rows import KeptPicture
from xai_sidecar.evaluator.store.store import Store
from xai_sidecar.evaluator.store.truths import Reported, TruthClasses

__all__ = ["KeptPicture", "Reported", "Store", "TruthClasses"]
