"""What callers send to the server of the flawed classifier, and what it then says of its explainers."""

import contextlib
import functools
import itertools
import json
import sqlite3
import time
from dataclasses import dataclass

from xai_sidecar.evaluator.sampling import chosen
from xai_sidecar.evaluator.store import Store

COMPARED = ("gradcam", "occlusion", "gradient")
FAITHFULNESS = ("faithfulness/srg",)
LOCALIZATION = "localization/pointing_game"
METRICS = (*FAITHFULNESS, LOCALIZATION)
WEIGHTS = {"faithfulness/srg": 1.0, LOCALIZATION: 0.5}
"""Those by default."""

COUNT = 15
"""Pictures of each round of traffic, and samples in a window: as many as the alert wants, and as it may take to tell a
good explainer from a broken one."""

DRIFT_WINDOW = 20
RATE = 0.5
MIN_SAMPLES = 10
SCORED_SECONDS = 300


def without_salt(store):
    """Makes a store that chooses by the request's id alone, so that it is known beforehand what is sampled."""
    Store.open(f"sqlite:///{store}", max_bytes=1 << 30, retention_seconds=1e12).close()
    with contextlib.closing(sqlite3.connect(store)) as connection, connection:
        connection.execute("UPDATE store_secrets SET value = x''")


def config(checkpoint, store, labels):
    """The server's config, with the paths of the weights and of the store."""
    return f"""[model]
name = "flawed"
factory = "flawed:flawed"
checkpoint = "{checkpoint}"
labels = {json.dumps(labels)}
batch_sizes = [1, 32]
compile_cache = false
[model.input]
size = 64
channels = 1
mean = 0.5
std = 0.25
[explainers.occlusion]
window_size = 8
stride = 4
[evaluator]
sample_rate = {RATE}
sampling = "uniform"
interval_seconds = 0.2
explainers = {json.dumps(COMPARED)}
metrics = {json.dumps(METRICS)}
device_share = 1
slice_milliseconds = 50
window_samples = {COUNT}
store = "sqlite:///{store}"
[drift]
window = {DRIFT_WINDOW}
spacing_seconds = 0
[evaluator.auto]
min_samples = {MIN_SAMPLES}
weights = {{ {", ".join(f'"{metric}" = {weight}' for metric, weight in WEIGHTS.items())} }}
"""


class Caller:
    """Sends pictures, and reports what they show.

    Args:
        server: The server.
        client: Calls it.
        labels: Of the classes.
        read_metrics: Reads its /metrics.
        eventually: Waits for a condition.
    """

    def __init__(self, server, client, labels, read_metrics, eventually):
        self._server, self._client, self._labels = server, client, labels
        self._read_metrics, self.eventually = read_metrics, eventually
        self._numbers = itertools.count()
        self._sent = 0
        self._reported = 0.0

    def classes(self, pictures):
        """The most probable class of each of some pictures, which are no samples."""
        return [self._predict(picture, sampled=False).classes[0].class_id for picture in pictures]

    def auto(self, picture):
        """The explanation by `auto` of a picture that is no sample."""
        return self._predict(picture, ["auto"], sampled=False).explanations["auto"]

    def explain(self, pictures, explainer):
        """Has some pictures explained, which are no samples."""
        for picture in pictures:
            self._predict(picture, [explainer], sampled=False)

    def drift(self, explainer):
        """What /metrics shows of the drift of maps that callers asked for, by statistic."""
        shown = self._read_metrics(self._server.http)
        wanted = ("xai_map_drift", "", explainer, "requests")
        return {key[-1]: value for key, value in shown.items() if key[:-1] == wanted}

    def send(self, picture, box):
        """Has a picture sampled, and reports its class and a box; its request id."""
        request_id = self._predict(picture).request_id
        self.report(request_id, picture, box)
        return request_id

    def report(self, request_id, picture, box):
        """Reports a picture's class, with a box, which it did not have before."""
        assert self._client.report_ground_truth(request_id, self._labels[picture.label], [box])
        self._reported = time.time()

    def settled(self):
        """The quality once all that was sent is scored, and all that was reported is taken into account."""

        def round_after(start):
            found = self._read_metrics(self._server.http)
            last = found[("xai_evaluator_last_round_timestamp_seconds",)]
            return found["xai_samples_total", "scored"] == self._sent and last > start and last

        # The second one begins after the last score, and is over when the third one begins.
        last = self._reported
        for _ in range(3):
            last = self.eventually(functools.partial(round_after, last), SCORED_SECONDS)
        quality = Quality(self._read_metrics(self._server.http), self._client.model_info())
        counts = {pair: quality.value("samples", *pair) for pair in itertools.product(COMPARED, METRICS)}
        assert set(counts.values()) == {COUNT}, f"samples that were measured: {counts}"
        return quality

    def _predict(self, picture, explain=(), *, sampled=True):
        ids = (f"picture-{number}" for number in self._numbers)
        request_id = next(each for each in ids if chosen(each, RATE) == sampled)
        prediction = self._client.predict(picture.pixels, explain=explain, request_id=request_id)
        assert prediction.sampled == sampled
        self._sent += sampled
        return prediction


@dataclass(frozen=True)
class Quality:
    """What a server shows of the quality of its explanations.

    Attributes:
        metrics: /metrics.
        info: The answer to GetModelInfo.
    """

    metrics: dict
    info: object

    def value(self, what, explainer, metric):
        return self.metrics[f"xai_quality_{what}", explainer, metric]

    def goodness(self, explainer, metric):
        return self.value("goodness", explainer, metric)

    def composite(self, explainer):
        """By hand."""
        weighted = sum(weight * self.goodness(explainer, metric) for metric, weight in WEIGHTS.items())
        return weighted / sum(WEIGHTS.values())
