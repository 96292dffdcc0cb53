"""Runs over workers in threads of this process, each with an engine of its own, against a run of one engine."""

import csv
import pickle
import threading
from queue import Empty, SimpleQueue

import numpy as np
import pytest
from chaos import misbehaving
from PIL import Image

from xai_sidecar.config import parse_config
from xai_sidecar.errors import ConfigError, SidecarError
from xai_sidecar.runner.comparing import compare, comparison_lines
from xai_sidecar.runner.data import DataItem
from xai_sidecar.runner.folder import RunFolder
from xai_sidecar.runner.session import run_data, run_spread
from xai_sidecar.runner.spread.cluster import Failed, Lost, Measured, Ready
from xai_sidecar.runner.spread.ray_cluster import worker_config
from xai_sidecar.runner.spread.spreading import Spreader
from xai_sidecar.runner.spread.worker import Worker, WorkerSetup
from xai_sidecar.runner.telling import written

SETTINGS = {
    "model": {"factory": "none:none", "input": {"size": 32}},
    "explainers": {
        name: {"enabled": False} for name in ("gradient", "guided_backprop", "deconvolution", "occlusion", "rise")
    },
    "evaluator": {"metrics": ["faithfulness/srg", "localization/iosr"]},
}


def arithmetic(config):
    return misbehaving.Arithmetic()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(misbehaving, "COSTS", dict.fromkeys(misbehaving.COSTS, 1e-5))


class Threads:
    """A cluster whose workers are threads here; what goes there and back is pickled, as over a network.

    Args:
        setup: As of the workers.
        killed: After how many measured pictures workers are killed, by worker.
    """

    def __init__(self, setup, killed=()):
        self.setup, self.killed = setup, dict(killed)
        self.workers, self.alive, self.done = {}, set(), dict.fromkeys(range(100), 0)
        self.heard = SimpleQueue()

    def start(self):
        number = len(self.workers) + 1
        worker = self.workers[number] = Worker(pickle.loads(pickle.dumps(self.setup)))
        self.alive.add(number)
        self._call(number, lambda: Ready(number, pickle.loads(pickle.dumps(worker.start()))))
        return number

    def submit(self, worker, item):
        sent = pickle.loads(pickle.dumps(item))

        def measure():
            outcome = self.workers[worker].measure(sent)
            return Measured(worker, item.name, pickle.loads(pickle.dumps(outcome)))

        self._call(worker, measure)

    def _call(self, worker, make):
        def call():
            try:
                self.heard.put(make())
            except Exception as error:
                self.heard.put(Failed(worker, error))

        threading.Thread(target=call, daemon=True).start()

    def stop(self, worker):
        self.workers[worker].stop()

    def remove(self, worker):
        self.workers[worker].stop()
        self.alive.discard(worker)

    def events(self, seconds):
        try:
            event = self.heard.get(timeout=seconds)
        except Empty:
            return []
        if event.worker not in self.alive:
            return []
        if self.done[event.worker] == self.killed.get(event.worker):
            self.alive.discard(event.worker)
            return [Lost(event.worker, "Somebody killed it.")]
        self.done[event.worker] += isinstance(event, Measured)
        return [event]

    def close(self):
        for worker in self.workers.values():
            worker.stop()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(3)
    lines = ["file,label,left,top,right,bottom"]
    for number in range(6):
        Image.fromarray(generator.integers(0, 255, (40, 36, 3), np.uint8)).save(folder / f"{number}.png")
        lines.append(f"{number}.png,{number % 3},4,4,20,20")
    lines += ["gone.png,1,1,1,2,2", "broken.png,1,1,1,2,2"]
    (folder / "broken.png").write_bytes(b"\x89PNG and nothing else")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def run(folder, tmp_path):
    """Runs the folder over so many workers, 0 for an engine of this process."""
    clusters = []

    def run(name, count, killed=(), most=100, **options):
        out, done, config = RunFolder(tmp_path / name), [], parse_config({**SETTINGS, "run": options})
        watched = {"on_progress": lambda counts, quality: done.append(counts.done), "stop": lambda: len(done) >= most}
        if not count:
            result = run_data(config, str(folder), out, arithmetic, lambda line: None, **watched)
        else:
            clusters.append(Threads(WorkerSetup(worker_config(config), arithmetic), killed))
            result = run_spread(config, str(folder), out, Spreader(clusters[-1], count), **watched)
        said = written(result)
        result.store.close()
        return result, said

    yield run
    for cluster in clusters:
        cluster.close()


def table(result, file="scores.csv"):
    """The scores of a run, without what they took, in the order of the file."""
    with result.folder.file(file).open() as lines:
        return [[row[key] for key in ("name", "target", "explainer", "metric", "value", "status")]
                for row in csv.DictReader(lines)]  # fmt: skip


def test_scores_are_those_of_one_engine_whatever_the_number_of_workers(run):
    alone, _ = run("alone", 0)
    assert alone.counts.done == 6
    assert [name for name, _ in alone.counts.skipped] == ["gone.png", "broken.png"]
    assert len(table(alone)) > 6 * 2 * 2
    for count, killed in ((1, {}), (3, {1: 1, 2: 1})):
        spread, _ = run(f"spread {count}", count, killed)
        assert table(spread) == table(alone)
        assert spread.counts == alone.counts
        compared = comparison_lines(compare(alone.folder.path, spread.folder.path))
        assert compared[0].startswith("no score differs beyond chance: ")
        one, other = (each.quality.summary() for each in (alone, spread))
        assert one.accuracy == other.accuracy
        for row, same in zip(one.table.rows, other.table.rows, strict=True):
            assert (row.explainer, row.metric, row.statistics.count) == (
                same.explainer,
                same.metric,
                same.statistics.count,
            )
            assert row.statistics.mean == pytest.approx(same.statistics.mean, abs=1e-12)


def test_what_workers_began_one_engine_goes_on_with(run):
    alone, _ = run("alone", 0)
    first, said = run("spread", 2, most=1)
    assert first.counts.interrupted
    assert said.startswith("interrupted; the same command goes on")
    goes_on, _ = run("spread", 0)
    assert goes_on.counts.known == first.counts.done
    assert goes_on.counts.done == 6
    assert table(goes_on) == table(alone)


def test_stopped_it_leaves_what_has_only_been_predicted(folder, tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(40):
        (pictures / f"{number:02}.png").write_bytes((folder / f"{number % 6}.png").read_bytes())
    done = []
    result = run_data(
        parse_config(SETTINGS), str(pictures), RunFolder(tmp_path / "run"), arithmetic, lambda line: None,
        lambda counts, quality: done.append(counts.done), lambda: bool(done),
    )  # fmt: skip
    result.store.close()
    assert result.counts.interrupted
    assert result.counts.done < 10


def test_fail_fast_names_the_picture(run):
    for count in (0, 2):
        with pytest.raises(SidecarError, match=r"(gone|broken)\.png: "):
            run(f"spread {count}", count, fail_fast=True)


def test_a_worker_says_where_something_is_not_there():
    settings = {**SETTINGS, "explainers": {"gradcam": {"layer": "no_such_layer"}}}
    worker = Worker(WorkerSetup(settings, arithmetic))
    with pytest.raises(ConfigError, match=r"no_such_layer.* So it is on .*, process \d+\.") as caught:
        worker.start()
    assert caught.value.field == "explainers.gradcam.layer"


def test_a_worker_that_cannot_go_on_says_so_of_every_picture():
    class Broken(Worker):
        def _run(self):
            self._runner.run = lambda *_: (_ for _ in ()).throw(MemoryError("no more"))
            super()._run()

    worker = Broken(WorkerSetup(SETTINGS, arithmetic))
    worker.start()
    for _ in range(2):
        with pytest.raises(MemoryError, match="no more"):
            worker.measure(DataItem("a", np.zeros((3, 32, 32), np.float32)))
