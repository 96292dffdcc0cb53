"""A program in a reduced precision has to gain speed, which is measured no longer than it takes to be clear."""

from types import SimpleNamespace

import numpy as np
import pytest

from xai_sidecar.backends.graph import programs
from xai_sidecar.backends.graph.programs import check_gain
from xai_sidecar.engine.work import Kind
from xai_sidecar.errors import PreconditionError

KIND = Kind("forward", precision="bfloat16")


@pytest.fixture
def rounds(monkeypatch):
    """Checks a gain by the seconds of each round, (reduced, full) each; returns how many rounds it took."""

    def check(*taken):
        ran = {"reduced": 0, "full": 0}

        def seconds(program, rows):
            assert len(rows[0]) == 4, "a program takes no more rows than its largest batch has"
            ran[program.name] += 1
            return taken[ran[program.name] - 1][program.name == "full"]

        monkeypatch.setattr(programs, "seconds", seconds)
        reduced, full = (SimpleNamespace(name=name, choice=SimpleNamespace(by_size={1: 0, 4: 0})) for name in ran)
        check_gain(KIND, reduced, full, (np.zeros(6),))
        assert ran["reduced"] == ran["full"]
        return ran["full"]

    return check


def test_what_is_clear_is_measured_once(rounds):
    assert rounds((0.5, 1.0)) == 1
    with pytest.raises(PreconditionError, match="takes 150 % of float32's time"):
        rounds((1.5, 1.0))


def test_what_is_not_clear_is_measured_again(rounds):
    assert rounds((0.8, 1.0), (0.8, 1.0), (0.8, 1.0)) == 3
    assert rounds((0.9, 1.0), (0.5, 1.0)) == 2  # other load in the first round
    with pytest.raises(PreconditionError, match="takes 90 %"):
        rounds((0.8, 1.0), (0.9, 0.9), (0.72, 0.8))


def test_without_a_program_in_float32_there_is_nothing_to_gain():
    with pytest.raises(PreconditionError, match="no such program"):
        check_gain(KIND, "reduced", None, (np.zeros(1),))
