"""Measuring in a process of its own: the same scores, and nothing lost when that process is."""

import os
import signal
import time
from pathlib import Path

import pytest

from xai_client import Client

SECONDS = 300
METRICS = ("faithfulness/srg", "robustness")
PATIENT = """
# The lowest priority gets no time at all while a machine has other work: here the process has its turn.
import os, runpy
os.SCHED_IDLE = os.SCHED_BATCH
runpy.run_module("xai_sidecar", run_name="__main__", alter_sys=True)
"""


def until(true):
    end = time.monotonic() + SECONDS
    while not (found := true()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


def events(server, name):
    return [entry for entry in server.log if entry["event"] == name]


def has_ended(pid):
    return not Path(f"/proc/{pid}").exists() or " Z " in Path(f"/proc/{pid}/stat").read_text()


def cpu_ticks(pid):
    return sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]))


@pytest.fixture
def start(sample_config, start_server, only, tmp_path):
    """Starts a server that measures all it is sent."""
    script = tmp_path / "patient.py"
    script.write_text(PATIENT)

    def start(name, *overrides):
        quoted = ", ".join(f'"{metric}"' for metric in METRICS)
        return start_server(
            sample_config,
            *only("gradient"),
            # Not "auto", which takes the faster, now this and now that one: the last digits of a gradient decide which
            # of the pixels that hardly differ come first.
            "model.forward_engine=onnxruntime",
            "evaluator.sample_rate=1",
            "evaluator.interval_seconds=0.2",
            "evaluator.device_share=1",
            f"evaluator.metrics=[{quoted}]",
            "evaluator.metric_parameters.faithfulness/srg.steps=4",
            "evaluator.metric_parameters.robustness.draw_count=3",
            f"evaluator.store=sqlite:///{tmp_path / name}.sqlite",
            "evaluator.own_process=true",
            *overrides,
            program=(str(script),),
        )

    return start


def send(client, crops_folder, numbers):
    pictures = sorted(crops_folder.glob("*.png"))
    for number in numbers:
        assert client.predict(pictures[number], request_id=f"sent-{number}").sampled


def scores(client, count):
    """The mean and the count of each metric, of the explainer and the controls, once all samples are measured."""

    def measured():
        info, explainers = client.model_info(), client.quality().explainers
        found = {
            (name, metric): (measure.mean, measure.sample_count)
            for name, explainer in explainers.items()
            for metric, measure in explainer.quality.items()
        }
        done = [number for (_, metric), (_, number) in found.items() if metric == METRICS[0]]
        return found if info.evaluator.state == "up_to_date" and done and min(done) == count else None

    return until(measured)


def test_the_scores_are_those_of_taking_turns_and_a_kill_loses_none(start, crops_folder):
    # As it is where the server is to leave CPUs to others.
    with start("turns", "model.threads=1") as server, Client(server.grpc, timeout=60) as client:
        send(client, crops_folder, range(3))
        expected = scores(client, 3)
        reasons = [each["reason"] for each in events(server, "evaluation_takes_turns")]
    assert len(reasons) == (os.cpu_count() > 1)
    assert all("model.threads" in reason for reason in reasons)
    with start("own") as server, Client(server.grpc, timeout=60) as client:
        send(client, crops_folder, range(1))
        pid = until(lambda: events(server, "background_ready"))[0]["pid"]
        used = cpu_ticks(pid)
        send(client, crops_folder, range(1, 2))
        until(lambda: cpu_ticks(pid) > used + 10)
        os.kill(pid, signal.SIGKILL)
        send(client, crops_folder, range(2, 3))
        found = scores(client, 3)
        assert server.terminate() == 0
    assert [each["status"] for each in events(server, "background_ended")] == [-signal.SIGKILL]
    assert found.keys() == expected.keys()
    for key, (mean, count) in expected.items():
        assert found[key] == (pytest.approx(mean, abs=1e-5), count), key


def test_it_ends_with_the_server(start, crops_folder):
    with start("ends") as server, Client(server.grpc, timeout=60) as client:
        send(client, crops_folder, range(2))
        pid = until(lambda: events(server, "background_ready"))[0]["pid"]
        assert server.terminate() == 0
        until(lambda: has_ended(pid))
