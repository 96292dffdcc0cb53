"""Computations that are driven and mapped, without an engine."""

import numpy as np
import pytest

from xai_sidecar.engine.work import Forward, Partial, drive, forward, mapped


def inputs(*values):
    return np.array(values, np.float32).reshape(-1, 1, 1, 1)


def never():
    raise AssertionError("nobody asked for it")


def doubled(kind, rows):
    return (2 * rows[0].reshape(-1, 1),)


def summing(log, make=None):
    """Adds up three passes of 1, 2 and 3, with a partial sum after the first two; tells the log how it ends."""
    total = 0.0

    def so_far():
        return total

    try:
        for value in (1, 2, 3):
            total += float((yield Forward(inputs(value))).sum())
            if value < 3:
                log.append(("sent", (yield Partial(make or so_far))))
    except BaseException as error:
        log.append(type(error))
        raise
    finally:
        log.append("over")
    return total


def test_drive_passes_over_partials():
    log = []
    assert drive(summing(log, never), doubled) == 12
    assert log == [("sent", None), ("sent", None), "over"]


def test_drive_and_mapped_without_partials():
    np.testing.assert_array_equal(drive(forward(inputs(1, 5)), doubled), [[2], [10]])
    assert drive(mapped(forward(inputs(1, 5)), np.sum), doubled) == 12


def test_mapped_changes_the_results_and_the_partial_ones():
    steps = mapped(summing([]), lambda total: f"<{total:g}>")
    seen, sent = [], None
    try:
        while True:
            work = steps.send(sent)
            if isinstance(work, Partial):
                seen.append(work.make())
                sent = None
            else:
                sent = work.result(doubled(work.kind, work.rows))
    except StopIteration as stop:
        seen.append(stop.value)
    assert seen == ["<2>", "<6>", "<12>"]


def test_a_partial_is_made_only_when_asked_for_and_each_time_anew():
    changed = []
    steps = mapped(summing([]), lambda total: changed.append(total))
    steps.send(None)
    partial = steps.send(np.ones((1, 1)))
    assert changed == []
    partial.make()
    steps.send(None)
    partial.make()  # while the next pass is under way
    assert changed == [1, 1]


def test_closing_closes_the_inner_computation():
    log = []
    inner = summing(log)  # known here, too, so that it does not end for want of an owner
    steps = mapped(inner, str)
    next(steps)
    steps.close()
    assert log == [GeneratorExit, "over"]


def test_closing_what_has_not_begun():
    log = []
    mapped(summing(log), str).close()
    assert log == []


def test_closing_at_a_partial():
    log = []
    steps = mapped(summing(log), str)
    next(steps)
    assert isinstance(steps.send(np.ones((1, 1))), Partial)
    steps.close()
    assert log == [GeneratorExit, "over"]


def test_an_error_thrown_in_ends_the_inner_computation_and_comes_out():
    log = []
    inner = summing(log)
    steps = mapped(inner, str)
    next(steps)
    with pytest.raises(KeyError):
        steps.throw(KeyError("x"))
    assert log[-1] == "over"


def test_errors_of_the_computation_of_the_change_and_of_making_come_out():
    def failing():
        yield Forward(inputs(1))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        drive(mapped(failing(), str), doubled)

    def unwilling(total):
        raise LookupError

    log = []
    with pytest.raises(LookupError):
        drive(mapped(summing(log), unwilling), doubled)
    assert log[-1] == "over"

    steps = mapped(summing([], never), str)
    next(steps)
    partial = steps.send(np.ones((1, 1)))
    with pytest.raises(AssertionError, match="nobody"):
        partial.make()
    assert isinstance(steps.send(None), Forward), "it goes on"
