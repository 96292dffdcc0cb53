"""How fast the evaluator scores on an idle device, and what its store takes on disk.

All on EfficientNet-Lite0. How fast it scores is compared with bare launches on the engine's own device thread, in
pauses every third second that do not count, so that both meet the same noise.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench.evaluator_speed import Scored, scoring
from bench.figure import Figure
from xai_sidecar.command.memory import keep_freed_memory
from xai_sidecar.engine.work import MaskedForward
from xai_sidecar.evaluator.records import Sample, SampleKey, SampleState
from xai_sidecar.evaluator.store import KeptPicture, Store
from xai_sidecar.evaluator.store.arrays import pack
from xai_sidecar.telemetry.logs import set_up_logs

_COPIES = 30
"""Of each sample in the store whose size is measured, so that what it takes without any hardly counts."""


def figures() -> list[Figure]:
    """Speed and store."""
    keep_freed_memory()
    set_up_logs("warning", "json")
    with scoring() as (scored, samples):
        found = list(scored)
    return [*_speed(found), *_store(found, samples)]


# ---------------------------------------------------------------------------------------------------- speed


def _speed(scored: Sequence[Scored]) -> list[Figure]:
    found = []
    for one in scored:
        each, masked = one.seconds / one.count, MaskedForward.kind
        passes = sum(one.rows.values()) / one.count
        busy, work = sum(one.busy.values()), sum(n * one.bare[launched] for launched, n in one.launches.items())
        sizes = sorted(size for kind, size in one.launches if kind == masked)
        best = one.best(masked)
        note = f"{passes:.0f} passes, {each:.1f} s each; {one.count} samples, all metrics within evaluator.max_passes"
        found.append(
            Figure(f"{one.explainer}: samples scored per minute on an idle device", 60 / each, "/min", note=note)
        )
        least = 1e3 * one.bare[masked, best] / best
        note = (
            f"masked rows a launch: {best}, which take {least:.2f} ms each; launches of {', '.join(map(str, sizes))} "
            f"took {busy / one.seconds:.0%} of the time, and {busy / work:.2f} × as long as bare ones"
        )
        name = f"{one.explainer}: bare launches of the best size over scoring"
        found.append(Figure(name, one.over_best, "×", note=note, at_least=0.85))
    return found


# ---------------------------------------------------------------------------------------------------- the store


def _store(scored: Sequence[Scored], samples: Sequence[Sample]) -> list[Figure]:
    """Sizes of stores with copies of the samples, as scored by all explainers or waiting."""
    sizes = {one.explainer: statistics.mean(len(pack(record.saliency)) for _, record, _ in one.kept) for one in scored}
    maps = ", ".join(f"{name} {size / 1e3:.0f}" for name, size in sizes.items())
    raw, image = scored[0].kept[0][1].saliency.nbytes / 1e3, samples[0].image.nbytes / 1e3
    note = (
        f"maps: {maps} kB, in memory {raw:.0f} each; the same with keep_pictures, as pictures go when they are scored"
    )
    name = f"a sample in the store, scored by {len(scored)} explainers"
    return [
        Figure(name, _file_bytes(scored, samples, scored) / 1e3, "kB", note=note),
        Figure("a sample in the store that waits, without its picture", _file_bytes(scored, samples, ()) / 1e3, "kB"),
        Figure(
            "a sample in the store that waits, with keep_pictures",
            _file_bytes(scored, samples, (), keep=True) / 1e3,
            "kB",
            note=f"model inputs of {image:.0f} kB in memory",
        ),
    ]


def _file_bytes(
    scored: Sequence[Scored], samples: Sequence[Sample], stored: Sequence[Scored], *, keep: bool = False
) -> float:
    """Bytes on disk of each of many samples, with what some explainers came to."""
    with tempfile.TemporaryDirectory() as folder:
        store = Store.open(f"sqlite:///{Path(folder) / 'copies'}.sqlite", max_bytes=2**30, retention_seconds=1e9)
        for copy in range(_COPIES):
            for place, sample in enumerate(samples):
                key = SampleKey(f"{copy * len(samples) + place:032x}", 0)
                kept = KeptPicture(sample.image, sample.logits, sample.probabilities) if keep else None
                store.add_sample(replace(scored[0].kept[place][0], key=key, state=SampleState.PENDING), kept)
                for one in stored:
                    _, record, scores = one.kept[place]
                    store.add_map(key, record, scores)
        store.close()
        return sum(path.stat().st_size for path in Path(folder).iterdir()) / (_COPIES * len(samples))
