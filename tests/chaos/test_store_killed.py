"""A process that writes to the store is killed over and over: what it was told is kept is there, nothing is half.

Ten times by default; XAI_KILLS=50 for that many.
"""

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest

from xai_sidecar.evaluator.records import (
    BoxAnnotation,
    Frame,
    GroundTruth,
    MapRecord,
    MaskAnnotation,
    SampleKey,
    SampleRecord,
    ScoreRecord,
    TruthObject,
)
from xai_sidecar.evaluator.store import Reported, Store
from xai_sidecar.explainers.base import MapStatus
from xai_sidecar.metrics.base import ScoreStatus

ROUNDS = int(os.environ.get("XAI_KILLS", "10"))
KEPT = 30
"""Older samples are removed, so that killing meets that, too."""

EXPLAINERS = ("gradcam", "rise")
METRICS = ("faithfulness/naive", "localization/iosr", "robustness")


def open_store(path):
    return Store.open(f"sqlite:///{path}", max_bytes=1 << 30, retention_seconds=KEPT)


def sample_of(number):
    return SampleRecord(SampleKey(f"request-{number}", 0), float(number), "m", Frame(56, 56), 1, 0.5, (1, number))


def map_of(number, explainer):
    saliency = np.random.default_rng([number, len(explainer)]).standard_normal((56, 56)).astype(np.float32)
    return MapRecord(explainer, 1, {"number": number}, number, MapStatus.OK, saliency, 1)


def scores_of(number, explainer):
    return [ScoreRecord(explainer, metric, 1, number / 7, ScoreStatus.OK, 1.0, 1.0, 1) for metric in METRICS]


def truth_of(number, version):
    objects = (
        TruthObject(BoxAnnotation(0, 0, number, version), version),
        TruthObject(MaskAnnotation(np.random.default_rng(number).bytes(3000 + version))),
    )
    return GroundTruth((number, number + 1 + version), objects, float(version))


def write(path, number):
    """Writes samples from a number on, and tells of each call after it has returned. It runs until it is killed."""
    store = open_store(path)
    while True:
        key = sample_of(number).key
        assert store.add_sample(sample_of(number))
        tell("sample", number)
        for explainer in EXPLAINERS:
            store.add_map(key, map_of(number, explainer), scores_of(number, explainer))
            tell(explainer, number)
        for version, reported in enumerate((Reported.NEW, Reported.REPLACED)):
            assert store.put_truth(key, truth_of(number, version)) is reported
            tell("truth", number, version)
        if number % 10 == 0:
            store.prune(float(number))
        number += 1


def tell(*what):
    print(json.dumps(what), flush=True)


def killed(path, number, lines, seconds):
    """What a process told before it was killed, that long after it had told so many things."""
    import launcher  # which is not there for the writer, who runs this file, too

    command = [launcher.PYTHON, __file__, str(path), str(number)]
    writer = launcher.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        first = "".join(writer.stdout.readline() for _ in range(lines))
        time.sleep(seconds)
    finally:
        writer.send_signal(signal.SIGKILL)
        rest, _ = writer.communicate(timeout=20)
    assert writer.returncode == -signal.SIGKILL
    # The last line may be cut off; then it was told all the same.
    return [json.loads(line) for line in (first + rest).splitlines(keepends=True) if line.endswith("\n")]


def check_file(path):
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    connection.close()


def check_whole(store, number):
    """That whatever there is of a sample is whole; returns what there is."""
    key = sample_of(number).key
    found = store.sample(key)
    if found is None:
        return set()
    there = {("sample", number)}
    assert (found.key, found.time, found.positives) == (key, float(number), (1, number))
    maps, scores = store.maps(key), store.scores(key)
    for each in maps:
        expected = map_of(number, each.explainer)
        assert each.saliency.tobytes() == expected.saliency.tobytes()
        assert (each.parameters, each.seed) == (expected.parameters, expected.seed)
        there.add((each.explainer, number))
    assert Counter(score.explainer for score in scores) == {each.explainer: len(METRICS) for each in maps}
    for each in maps:
        assert [score for score in scores if score.explainer == each.explainer] == scores_of(number, each.explainer)
    truth = store.truth(key)
    if truth is not None:
        version = int(truth.time)
        assert truth == truth_of(number, version)
        there |= {("truth", number, earlier) for earlier in range(version + 1)}
    return there


@pytest.mark.parametrize("seed", [0])
def test_a_killed_writer_loses_nothing(tmp_path, seed):
    path, draw = tmp_path / "store.db", random.Random(seed)
    told, number, newest = set(), 100, 0
    for round_number in range(ROUNDS):
        # However busy the machine is: every other writer gets things done.
        lines = 12 if round_number % 2 else 1
        new = {tuple(each) for each in killed(path, number, lines, draw.uniform(0.0, 0.3))}
        assert ("sample", number) in new
        told |= new
        store = open_store(path)
        newest = max(number for _, number, *_ in new)
        # What is older may have been removed when the newest multiple of ten was written.
        oldest = newest - newest % 10 - KEPT
        for each in range(max(100, oldest - 12), newest + 2):
            there, expected = check_whole(store, each), {what for what in told if what[1] == each}
            if each >= oldest:
                assert expected <= there, f"sample {each} lacks {expected - there}"
            else:
                assert not there or expected <= there, "a part of an old sample was removed"
        store.close()
        check_file(path)
        number = newest + 2
    assert len(told) > 5 * ROUNDS


if __name__ == "__main__":
    write(sys.argv[1], int(sys.argv[2]))
