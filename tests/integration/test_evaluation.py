"""Quality measured on live traffic: a real server and real predictions, against scores computed apart from it."""

import contextlib
import importlib.util
import math
import re
import sqlite3
import time
from pathlib import Path

import numpy as np
import pytest
from measuring import drive_all, measure_all
from scipy.stats import t

from xai_client import Client, GroundTruthObject
from xai_client.errors import InvalidRequestError, NotFoundError
from xai_sidecar.backends.loading import load_backend
from xai_sidecar.config import load_config
from xai_sidecar.engine.work import Forward
from xai_sidecar.evaluator.controls import CONTROLS
from xai_sidecar.evaluator.records import SampleKey
from xai_sidecar.evaluator.sampling import chosen
from xai_sidecar.evaluator.store import Store
from xai_sidecar.explainers.activations import softmax
from xai_sidecar.explainers.base import Context
from xai_sidecar.explainers.discovery import installed_explainers
from xai_sidecar.imaging import decode, prepare
from xai_sidecar.metrics.discovery import installed_metrics
from xai_sidecar.metrics.instance import ExplainerCall, Instance
from xai_sidecar.picture_units import PictureUnits
from xai_sidecar.serving.model import served_model

TESTS = Path(__file__).parents[1]
PREDICTIONS = 300
RATE = 0.02
COMPARED = ("gradcam", "gradient")
POINTING = "localization/pointing_game"
MEASURED = (
    "faithfulness/deletion_auc",
    POINTING,
    "localization/iosr",
    "class_sensitivity",
    "robustness",
)
BOX = (60, 40, 200, 180)
SIDE, CLASSES = 48, 1000
UNITS = PictureUnits((127 / 255,), (128 / 255,), (127 / 255,))
SECONDS = 240

NET = f"""
import numpy as np
from mindspore import Tensor, nn

class Net(nn.Cell):
    \"\"\"Two convolutions; what it says of photographs is sure enough for a map to matter.\"\"\"
    def __init__(self):
        super().__init__()
        draw = np.random.default_rng(1)
        def weight(*shape, scale):
            return Tensor((draw.standard_normal(shape) * scale).astype(np.float32))
        self.first = nn.Conv2d(3, 8, 5, stride=2, weight_init=weight(8, 3, 5, 5, scale=0.2))
        self.second = nn.Conv2d(8, 16, 3, stride=2, weight_init=weight(16, 8, 3, 3, scale=0.2))
        self.relu = nn.ReLU()
        self.dense = nn.Dense(
            16, {CLASSES}, weight_init=weight({CLASSES}, 16, scale=3), bias_init=weight({CLASSES}, scale=0.1)
        )

    def construct(self, x):
        return self.dense(self.relu(self.second(self.relu(self.first(x)))).mean((2, 3)))
"""

CONFIG = f"""
[model]
name = "small"
factory = "evaluated_net:Net"
batch_sizes = [1, 16]
gradient_batch_sizes = [1]
compile_cache = false
[model.input]
size = {SIDE}
mean = {127 / 255}
mean_colour = {127 / 255}
std = {128 / 255}
"""


def load(path):
    spec = importlib.util.spec_from_file_location(f"evaluation_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Traffic:
    """What was sent, and what of it was sampled.

    Attributes:
        server: The server.
        store: Its store's file.
        began: When the first was sent, in seconds since the epoch.
        paths: By request id of a sample, its picture.
        predictions: By request id of a sample, the answer.
        located: Request ids of samples with a box for the class that was predicted.
        labels: By request id, the label reported.
    """

    def __init__(self, server, store):
        self.server, self.store, self.began = server, store, time.time()
        self.paths, self.predictions, self.located, self.labels = {}, {}, [], {}


def finished(client, count):
    """Whether so many samples are done, and all metrics say so."""
    info = client.model_info()
    measured = [measure.sample_count for name in COMPARED for measure in info.explainers[name].quality]
    whole = len(measured) == len(COMPARED) * len(MEASURED)
    return info.evaluator.state == "up_to_date" and whole and max(measured) == count


def without_salt(store):
    """Makes a store that chooses by the request's id alone, so that it is known beforehand what is sampled."""
    Store.open(f"sqlite:///{store}", max_bytes=1 << 30, retention_seconds=1e12).close()
    with contextlib.closing(sqlite3.connect(store)) as connection, connection:
        connection.execute("UPDATE store_secrets SET value = x''")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """The config file of a small net, which stands beside it."""
    folder = tmp_path_factory.mktemp("evaluated")
    (folder / "evaluated_net.py").write_text(NET)
    (folder / "sidecar.toml").write_text(CONFIG)
    return folder / "sidecar.toml"


@pytest.fixture(scope="module")
def traffic(config, crops_folder, start_server, only, tmp_path_factory):
    """Three hundred predictions as fast as they go, ground truth for some, and all of it measured."""
    store = tmp_path_factory.mktemp("store") / "store.sqlite"
    without_salt(store)
    quoted = ", ".join(f'"{metric}"' for metric in MEASURED)
    overrides = [
        f"evaluator.sample_rate={RATE}",
        'evaluator.sampling="uniform"',
        "evaluator.interval_seconds=0.2",
        "evaluator.device_share=1",
        "evaluator.slice_milliseconds=50",
        f"evaluator.store=sqlite:///{store}",
        f'evaluator.explainers=["{COMPARED[0]}", "{COMPARED[1]}"]',
        f"evaluator.metrics=[{quoted}]",
    ]
    pictures = sorted(crops_folder.glob("*.png"))
    start = start_server(config, *only(*COMPARED), *overrides, cwd=config.parent)
    with start as server, Client(server.grpc, timeout=60) as client:
        sent = Traffic(server, store)
        for number in range(PREDICTIONS):
            request_id, path = f"traffic-{number}", pictures[number % len(pictures)]
            # Every other caller gets a map himself, which is not made again.
            prediction = client.predict(path, explain=["gradcam"] if number % 2 else [], request_id=request_id)
            assert prediction.sampled == chosen(request_id, RATE)
            if prediction.sampled:
                sent.paths[request_id], sent.predictions[request_id] = path, prediction
                if len(sent.paths) % 2:  # before it was scored
                    report(client, sent, request_id, len(sent.paths) % 3)
        assert 8 <= len(sent.paths) <= 20
        end = time.monotonic() + SECONDS
        while not finished(client, len(sent.paths)):
            assert time.monotonic() < end, client.model_info()
            time.sleep(0.2)
        for number, request_id in enumerate(sent.paths):  # after it was scored
            if request_id not in sent.labels:
                report(client, sent, request_id, number % 3)
        while located(client) != len(sent.located):
            assert time.monotonic() < end, client.model_info()
            time.sleep(0.1)
        sent.info = client.model_info()
        yield sent


def report(client, sent, request_id, kind):
    """Reports the predicted class with its box, or without, or another class."""
    right = sent.predictions[request_id].classes[0].class_id
    if kind == 0:
        sent.labels[request_id] = (right + 1) % CLASSES
        assert client.report_ground_truth(request_id, class_ids=[sent.labels[request_id]], boxes=[BOX])
        return
    sent.labels[request_id] = right
    shapes = [GroundTruthObject(box=BOX, class_id=right)] if kind == 1 else []
    assert client.report_ground_truth(request_id, class_ids=[right], objects=shapes)
    assert not client.report_ground_truth(request_id, class_ids=[right], objects=shapes)
    if kind == 1:
        sent.located.append(request_id)


def located(client):
    measures = client.model_info().explainers["gradient"].quality
    return sum(each.sample_count for each in measures if each.metric == "localization/iosr")


@pytest.fixture(scope="module")
def expected(traffic, config, only):
    """The scores of all samples, computed in this process: {(explainer, metric): {request id: score}}."""
    loaded = load_config(config, only(*COMPARED))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(config.parent)
        backend = load_backend(loaded)
    try:
        model = served_model(loaded, backend)
        backend.warm_up(model.kinds, lambda line: None)
        return {name: scores_of(name, traffic, model, backend) for name in COMPARED}
    finally:
        backend.close()


def scores_of(name, traffic, model, backend):
    explainer, parameters = installed_explainers()[name], model.explainers[name].defaults

    def size(kind):
        return max(backend.costs(kind))

    images = [prepare(decode(path.read_bytes(), 10**9), model.input).array for path in traffic.paths.values()]
    logits = [backend.run(Forward.kind, (image[np.newaxis],))[0][0] for image in images]
    seeds = [SampleKey(request_id, 0).seed for request_id in traffic.paths]
    targets = [np.array([values.argmax()], np.int32) for values in logits]
    jobs = (
        explainer.explain(image, target, parameters, Context(softmax, seed, UNITS))
        for image, target, seed in zip(images, targets, seeds, strict=True)
    )
    maps = drive_all(jobs, backend.run, size)
    found = {metric: {} for metric in MEASURED}
    for request_id, image, target, seed, saliency in zip(traffic.paths, images, targets, seeds, maps, strict=True):
        objects = [in_frame(BOX, traffic.predictions[request_id].region)] if request_id in traffic.located else []
        instance = Instance(
            image, int(target[0]), saliency.maps[0], ExplainerCall(explainer, parameters, seed), objects
        )
        table = measure_all(
            [installed_metrics()[metric] for metric in MEASURED],
            [instance],
            backend.run,
            size,
            parameters={POINTING: installed_metrics()[POINTING].parameters_type(tolerance=3)},  # as 15 of 224 pixels
            context=Context(softmax, seed, UNITS),
        )
        for metric in MEASURED:
            if (value := table.scores[metric][0].value) is not None:
                found[metric][request_id] = value
    return found


def in_frame(box, region):
    """A box of the picture in the model's frame."""
    left, top, right, bottom = box
    across, down = SIDE / (region.right - region.left), SIDE / (region.bottom - region.top)
    return (
        (left - region.left) * across,
        (top - region.top) * down,
        (right - region.left) * across,
        (bottom - region.top) * down,
    )


def test_every_score_in_the_store_is_what_it_should_be(traffic, expected):
    with contextlib.closing(sqlite3.connect(traffic.store)) as connection:
        rows = connection.execute(
            "SELECT explainer, metric, request_id, value FROM scores JOIN samples ON samples.id = scores.sample_id"
            " WHERE value IS NOT NULL"
        ).fetchall()
        states = connection.execute("SELECT state, count(*) FROM samples GROUP BY state").fetchall()
    assert states == [("scored", len(traffic.paths))]
    stored = {name: {metric: {} for metric in MEASURED} for name in (*COMPARED, *CONTROLS)}
    for explainer, metric, request_id, value in rows:
        stored[explainer][metric][request_id] = value
    for name in COMPARED:
        for metric in MEASURED:
            wanted = expected[name][metric]
            assert stored[name][metric] == pytest.approx(wanted, rel=1e-5, abs=1e-6), (name, metric)
    assert len(traffic.located) == len(expected["gradcam"]["localization/iosr"]) >= 3


def mean_and_error(values):
    values = list(values)
    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return mean, math.sqrt(variance / len(values))


@pytest.mark.parametrize("name", COMPARED)
@pytest.mark.parametrize("metric", MEASURED)
def test_gauges_and_table_agree_with_the_scores(traffic, expected, read_metrics, name, metric):
    values = expected[name][metric].values()
    mean, error = mean_and_error(values)
    metrics = read_metrics(traffic.server.http)
    assert metrics["xai_quality_samples", name, metric] == len(values)
    assert metrics["xai_quality_score", name, metric] == pytest.approx(mean, rel=1e-5, abs=1e-6)
    assert metrics["xai_quality_score_standard_error", name, metric] == pytest.approx(error, rel=1e-4, abs=1e-6)
    low, high = installed_metrics()[metric].value_range
    good = (mean - low) / (high - low)
    good = good if installed_metrics()[metric].higher_is_better else 1 - good
    assert metrics["xai_quality_goodness", name, metric] == pytest.approx(good, rel=1e-5, abs=1e-6)
    (row,) = (each for each in traffic.info.explainers[name].quality if each.metric == metric)
    assert (row.sample_count, row.higher_is_better) == (len(values), installed_metrics()[metric].higher_is_better)
    assert row.mean == pytest.approx(mean, rel=1e-5, abs=1e-6)
    half_width = t.ppf(0.975, len(values) - 1) * error if error else math.nan  # of so few equal ones nothing is known
    assert row.confidence_half_width == pytest.approx(half_width, rel=1e-3, abs=1e-6, nan_ok=True)
    assert traffic.began <= row.update_time.timestamp() <= time.time()


def test_what_happened_is_counted(traffic, read_metrics):
    metrics = read_metrics(traffic.server.http)
    samples, labelled = len(traffic.paths), len(traffic.labels)
    assert metrics["xai_samples_total", "sampled"] == metrics["xai_samples_total", "scored"] == samples
    assert metrics["xai_evaluations_total", "gradient", "robustness", "done"] == samples
    assert metrics["xai_evaluation_passes_total", "gradient", "robustness"] == 10 * samples
    assert metrics["xai_evaluation_passes_total", "gradient", "explain"] == samples
    served = sum(int(request_id.rpartition("-")[2]) % 2 for request_id in traffic.paths)
    assert metrics["xai_evaluation_passes_total", "gradcam", "explain"] == samples - served
    assert metrics["xai_ground_truth_reports_total", "new"] == labelled
    wrong = sum(
        label != traffic.predictions[request_id].classes[0].class_id for request_id, label in traffic.labels.items()
    )
    assert metrics["xai_ground_truth_reports_total", "repeated"] == labelled - wrong
    # A thousand classes, and so all of them together: a wrong prediction misses one class and names another.
    assert [metrics["xai_outcomes", "other", outcome] for outcome in ("tp", "fp", "fn", "tn")] == [
        labelled - wrong,
        wrong,
        wrong,
        CLASSES * labelled - labelled - wrong,
    ]
    assert metrics["xai_evaluator_state", "up_to_date"] == 1
    assert metrics["xai_store_failures_total",] == 0


def unsampled(count):
    """Request ids that are not sampled, at least so many."""
    return (name for name in (f"traffic-{number}" for number in range(10 * count)) if not chosen(name, RATE))


def test_what_was_not_sampled_takes_no_truth(traffic):
    request_id = next(unsampled(PREDICTIONS))
    with Client(traffic.server.grpc) as client:
        with pytest.raises(NotFoundError, match=r"PredictResponse\.sampled"):
            client.report_ground_truth(request_id, class_ids=[1])
        with pytest.raises(InvalidRequestError, match=re.escape("boxes[0]")):
            client.report_ground_truth(next(iter(traffic.paths)), class_ids=[1], boxes=[(5000, 5000, 6000, 6000)])


def test_a_real_prometheus_answers_the_dashboard(traffic, tmp_path):
    """Every query of the dashboard, on what this server shows."""
    prometheus, queries = load(TESTS / "prometheus.py"), load(TESTS / "deploy" / "queries.py")
    with prometheus.prometheus(tmp_path, targets=[traffic.server.http], scrape_interval="1s") as running:
        with Client(traffic.server.grpc) as client:
            picture = next(iter(traffic.paths.values()))

            def scraped():
                client.predict(picture, request_id=next(unsampled(1)))
                return running.value("count_over_time(up[1m])") >= 4

            running.wait(scraped)
        (score,) = running.query('xai_quality_score{explainer="gradcam",metric="robustness"}')
        (row,) = (each for each in traffic.info.explainers["gradcam"].quality if each.metric == "robustness")
        assert score[1] == pytest.approx(row.mean, rel=1e-9)
        silent = {
            str(query): query.expression
            for query in queries.dashboard_queries()
            if running.query(query.expression) == []
        }
    # There are no failures, no OoD net, fewer samples than a composite score takes, and fewer maps than drift does.
    unknown = {"Failures/s by reason/A", "Out of distribution/A", "Composite quality/A", "Beats the controls/A"}
    unknown |= {"Drift of maps/A", "Statistics of maps/A", "Statistics of maps/B"}
    assert set(silent) <= unknown, silent
