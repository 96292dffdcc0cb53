"""The course of the demo: where to look is said first, and then what there is to see, as it comes."""

import argparse
import contextlib
import time
from types import SimpleNamespace

import pytest

from xai_sidecar.command import demo_run
from xai_sidecar.command.demo import served_at
from xai_sidecar.command.demo_console import tell_progress
from xai_sidecar.errors import ConfigError

ADDRESSES = {"grpc": "127.0.0.1:1", "http": "127.0.0.1:2"}


def test_where_to_look_is_said_before_anything_is_made(monkeypatch, capsys):
    shown, said = [], []

    @contextlib.contextmanager
    def console(server, listen):
        shown.append(server)
        yield f"http://{listen}"

    def make(*arguments):
        said.append(capsys.readouterr().out)
        raise ConfigError("The weights are not there.")

    monkeypatch.setattr(demo_run, "console", console)
    monkeypatch.setattr(demo_run, "demo_config", make)
    arguments = argparse.Namespace(once=False, set=["server.grpc=127.0.0.1:61234", "evaluator.sample_rate=0.5"])
    with pytest.raises(ConfigError):
        demo_run.run_demo(arguments, report=print, serve=None)
    assert shown == ["127.0.0.1:61234"]
    assert "The web console: http://127.0.0.1:" in said[0]


def test_the_console_is_told_what_the_config_will_say(monkeypatch):
    assert served_at(ADDRESSES, ["model.onnx=/nowhere.onnx"]) == ADDRESSES["grpc"]
    monkeypatch.setenv("XAI_SERVER__GRPC", "127.0.0.1:3")
    assert served_at(ADDRESSES, []) == "127.0.0.1:3"
    assert served_at(ADDRESSES, ["server.grpc=127.0.0.1:4"]) == "127.0.0.1:4"
    with pytest.raises(ConfigError, match=r"server\.http"):
        served_at(ADDRESSES, ["server.http=7"])


def test_it_is_told_what_becomes_of_samples_until_none_waits(monkeypatch):
    class Client:
        """Eight samples, two of which come late; each time somebody asks, one more is explained, then one more scored.

        One of them fails.
        """

        def __init__(self, *_, **__):
            self.asked = -1

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def list_samples(self, where, **_):
            assert where.end <= time.time()
            self.asked += 1
            stored = (0, 6, 6)[self.asked] if self.asked < 3 else 8
            done = ["failed", *["scored"] * (self.asked - 10)] if self.asked > 9 else []
            samples = [
                SimpleNamespace(explainers={"gradcam": 1} if index < self.asked else {}, state=state)
                for index, state in zip(range(stored), [*done, *["pending"] * 8], strict=False)
            ]
            return SimpleNamespace(samples=samples)

    monkeypatch.setattr("xai_client.Client", Client)
    told = []
    tell_progress("127.0.0.1:1", 8, told.append, pause_seconds=0)
    assert told == [
        "Explained 2 of 6 samples",
        "Explained 4 of 8 samples",
        "Explained 6 of 8 samples",
        "Explained 8 of 8 samples",
        "Scored 7 of 8 samples by all metrics",
    ]
