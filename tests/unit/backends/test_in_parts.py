"""Batches in parts: the rows are divided, run at once, and come back in their order."""

import threading

import numpy as np
import pytest

from xai_sidecar.backends.runtimes.in_parts import ProgramInParts


class Summing:
    """A program that adds its inputs, and waits until as many calls are in it at once as it is told.

    Attributes:
        calls: The thread and the number of rows of each.
    """

    inputs, outputs = ("a", "b"), ("sum", "first")

    def __init__(self, at_once=1, poison=None):
        self.calls = []
        self._poison = poison
        self._all_here = threading.Barrier(at_once, timeout=30)

    def __call__(self, rows):
        self._all_here.wait()
        self.calls.append((threading.current_thread(), len(rows[0])))
        if self._poison in rows[0]:
            raise ValueError(f"poisoned by {self._poison}")
        return rows[0] + rows[1], rows[0].copy()


def rows(count):
    return np.arange(count, dtype=np.float32), np.broadcast_to(np.float32(10), (count,))


def sums(program, count):
    total, first = program(rows(count))
    np.testing.assert_array_equal(total, np.arange(count) + 10)
    np.testing.assert_array_equal(first, np.arange(count))


@pytest.mark.parametrize(
    ("count", "parts", "expected"), [(2, 2, [1, 1]), (5, 2, [2, 3]), (4, 3, [1, 1, 2]), (2, 8, [1, 1])]
)
def test_rows_are_divided_and_run_at_once(count, parts, expected):
    program = Summing(at_once=len(expected))
    for _ in range(3):
        program.calls.clear()
        sums(ProgramInParts(program, parts), count)
        assert sorted(size for _, size in program.calls) == expected
        assert len({thread for thread, _ in program.calls}) == len(expected)


def test_one_row_is_run_by_the_caller_itself():
    program = Summing()
    sums(ProgramInParts(program, 2), 1)
    assert program.calls == [(threading.current_thread(), 1)]


def test_threads_are_used_again():
    sums(ProgramInParts(Summing(), 2), 2)
    before = threading.active_count()
    for _ in range(5):
        sums(ProgramInParts(Summing(), 2), 2)
    assert threading.active_count() == before


@pytest.mark.parametrize("poison", [0, 3])
def test_where_a_part_fails_the_batch_does_and_the_next_one_is_right(poison):
    program = ProgramInParts(Summing(poison=poison), 2)
    with pytest.raises(ValueError, match=f"poisoned by {poison}"):
        program(rows(4))
    np.testing.assert_array_equal(program((rows(4)[0] + 4, rows(4)[1]))[0], np.arange(4) + 14)


def test_several_batches_at_once_do_not_mix():
    program, answers = ProgramInParts(Summing(), 3), {}

    def run(number):
        answers[number] = program((np.full(6, number, np.float32), rows(6)[1]))[0]

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert {number: set(answer) for number, answer in answers.items()} == {n: {n + 10} for n in range(8)}
