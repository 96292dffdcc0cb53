"""What is set aside for answers."""

import time

import pytest

from xai_sidecar.serving.answering import AnsweringTime


def aside(answering, seconds):
    deadline = time.monotonic() + seconds
    return deadline - answering.before(deadline)


def test_a_tenth_of_a_second_at_first_and_no_more_than_a_quarter_of_the_time():
    answering = AnsweringTime()
    assert aside(answering, 30) == pytest.approx(0.1)
    assert aside(answering, 0.2) == pytest.approx(0.05, abs=0.01)
    assert aside(answering, -5) == 0


def test_the_worst_of_late_counts_twice_and_fades():
    answering = AnsweringTime()
    answering.took(0.3)
    answering.took(0.001)
    assert aside(answering, 30) == pytest.approx(0.1 + 2 * 0.27)
    for _ in range(100):
        answering.took(0.001)
    assert aside(answering, 30) == pytest.approx(0.102)
    answering.took(60)
    assert aside(answering, 30) == pytest.approx(2)


def test_encoding_is_measured():
    answering = AnsweringTime()
    with answering.measured():
        time.sleep(0.05)
    assert aside(answering, 30) >= 0.2
