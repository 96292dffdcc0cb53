"""What the evaluator costs predictions, how fast it scores on an idle device, and what its store takes on disk.

All on EfficientNet-Lite0. How fast it scores is compared with bare launches on the engine's own device thread, in
pauses every third second that do not count, so that both meet the same noise.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench import evaluator_latency
from bench.evaluator_speed import Scored, scoring
from bench.figure import Figure
from xai_sidecar.command.memory import keep_freed_memory
from xai_sidecar.config import EvaluatorConfig
from xai_sidecar.engine.work import MaskedForward
from xai_sidecar.evaluator.records import Sample, SampleKey, SampleState
from xai_sidecar.evaluator.store import KeptPicture, Store
from xai_sidecar.evaluator.store.arrays import pack
from xai_sidecar.telemetry.logs import set_up_logs

_COPIES = 30
"""Of each sample in the store whose size is measured, so that what it takes without any hardly counts."""


def figures() -> list[Figure]:
    """Predictions beside it first, while this process has nothing in memory that stands in the way."""
    keep_freed_memory()
    set_up_logs("warning", "json")
    beside = evaluator_latency.measure()
    with scoring() as (scored, samples):
        found = list(scored)
    return [*_latency(beside), *_speed(found), *_store(found, samples)]


# ---------------------------------------------------------------------------------------------------- predictions


def _latency(beside: evaluator_latency.Beside) -> list[Figure]:
    slice_ = EvaluatorConfig().slice_milliseconds
    device_share = EvaluatorConfig().device_share
    off, on = (np.array([ms for taken in each for ms in taken]) * 1e3 for each in (beside.off, beside.on))
    uncut = 1e3 * np.array(beside.uncut)
    found = []
    for percentile, bar in ((50, None), (99, 1.10)):
        each = [[1e3 * float(np.percentile(taken, percentile)) for taken in side] for side in (beside.off, beside.on)]
        told = ", ".join(f"{b:.1f} / {a:.1f}" for a, b in zip(*each, strict=True))
        note = (
            f"{told} ms by round, beside it and alone; {len(on)} and {len(off)} JPEGs at {evaluator_latency.RATE:g}/s"
        )
        value = statistics.median(each[1]) / statistics.median(each[0])
        found.append(Figure(f"prediction p{percentile} beside the evaluator over alone", value, "×", bar, note))
    pooled, alone = float(np.percentile(on, 99)), float(np.percentile(off, 99))
    late = 1e3 * float(np.percentile(beside.late, 99))
    note = f"{pooled:.1f} of {alone:.1f} ms; the client sent late by {late:.1f} ms, p99"
    found.append(Figure("prediction p99, rounds taken together", pooled / alone, "×", 1.10, note))
    worst = float(np.percentile(uncut, 99))
    note = f"{worst:.1f} ms, {len(uncut)} JPEGs; its launches cannot be cut to {slice_:g} ms, and are rare"
    found.append(Figure("prediction p99 while it measures gradient's robustness", worst / alone, "×", 1.10, note))
    *shares, last = beside.shares
    note = f"by round {', '.join(f'{share:.3f}' for share in shares)}, and {last:.3f} with gradients"
    name = "part of the device's time that the evaluator took"
    # Above the lower bound it had something to do all the time; a launch may be counted that began before.
    share = statistics.mean(shares)
    found.append(Figure(name, share, "", 1.02 * device_share, note, at_least=0.8 * device_share))
    return found


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
