"""What came of a picture of a data set, as one value between whoever measures it and whoever keeps it."""

from __future__ import annotations

from dataclasses import dataclass

from xai_sidecar.evaluator.store.whole import PackedSample


@dataclass(frozen=True, eq=False)
class PictureOutcome:
    """What came of a picture.

    Attributes:
        name: The picture's.
        samples: Its samples, one for each class that is explained, measured; none where it could not be read.
        problem: Why it could not be read, in a sentence; empty otherwise.
        notes: What is doubtful about it, in sentences.
    """

    name: str
    samples: tuple[PackedSample, ...] = ()
    problem: str = ""
    notes: tuple[str, ...] = ()


def request_id_of(name: str, seed: int) -> str:
    """What a picture's samples are kept by; all that is random in measuring them comes from it."""
    return f"{name}#{seed}" if seed else name
