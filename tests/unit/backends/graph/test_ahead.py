"""At a first start graphs are made and run plainly beside what engines do, but not beside what is timed."""

import threading

import numpy as np
import pytest
from small_graphs import HEIGHT, WIDTH, convolution, convolution_by_hand, pictures

from xai_sidecar.backends.graph import backend as module
from xai_sidecar.backends.graph.backend import GraphBackend
from xai_sidecar.backends.graph.reference import Reference
from xai_sidecar.backends.graph.rules import RULES
from xai_sidecar.backends.graph.source import GraphSource
from xai_sidecar.backends.runtimes.trial import Trial
from xai_sidecar.engine.work import Forward, Kind
from xai_sidecar.errors import ConfigError

KINDS = [Forward.kind, *(Kind("input_gradient", relu_rule=rule) for rule in ("", "guided", "deconvolution"))]


@pytest.fixture
def source(tmp_path):
    model = tmp_path / "model.onnx"
    model.write_bytes(convolution())
    return GraphSource(model, output="logits", height=HEIGHT, width=WIDTH, batch_sizes=(1, 2))


def test_graphs_run_plainly_in_a_thread_of_their_own_and_never_while_programs_are_timed(source, monkeypatch):
    running, threads, timed = [], set(), []
    session, time = Reference.__init__, Trial._time

    def watched(self, turn=None):
        session(self, turn)
        make = self._session

        class Session:
            def __init__(self, graph):
                self.run_ = make(graph).run

            def run(self, *given):
                threads.add(threading.current_thread().name)
                running.append(1)
                try:
                    return self.run_(*given)
                finally:
                    running.pop()

        self._session = type("", (), {"__call__": lambda _, graph: Session(graph), "forget": lambda _: make.forget()})()

    monkeypatch.setattr(Reference, "__init__", watched)
    monkeypatch.setattr(Trial, "_time", lambda *given: timed.append(len(running)) or time(*given))
    backend = GraphBackend(source)
    threads.clear()
    assert backend.warm_up(KINDS, lambda line: None) == {}
    assert {name.partition("_")[0] for name in threads} == {"reference"}
    assert len(timed) >= 2  # of passes, and of the gradient by all rules
    assert not any(timed)
    assert not any(thread.name.startswith("reference") for thread in threading.enumerate())
    (logits,) = backend.run(Forward.kind, (pictures(2),))
    np.testing.assert_allclose(logits, convolution_by_hand(pictures(2))[1], atol=1e-5)


def test_what_cannot_be_derived_is_refused_and_the_rest_is_served(source, monkeypatch):
    monkeypatch.delitem(RULES, "GlobalAveragePool")
    refused = GraphBackend(source).warm_up(KINDS, lambda line: None)
    assert set(refused) == set(KINDS[1:])
    assert all("GlobalAveragePool" in why for why in refused.values())


def test_without_predictions_there_is_no_start_and_no_thread_left(source, monkeypatch):
    def fail(self, prepared, sizes):
        raise ConfigError("no engine runs it")

    monkeypatch.setattr(module.Maker, "load", fail)
    with pytest.raises(ConfigError, match="no engine runs it"):
        GraphBackend(source).warm_up(KINDS, lambda line: None)
    assert not any(thread.name.startswith("reference") for thread in threading.enumerate())
