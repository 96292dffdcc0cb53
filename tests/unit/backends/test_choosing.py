"""The fastest engine that agrees runs a graph."""

import os
from pathlib import Path

import numpy as np
import pytest
from small_graphs import convolution, convolution_by_hand, pictures

from xai_sidecar.backends import timing
from xai_sidecar.backends.runtimes import choosing
from xai_sidecar.backends.runtimes.choosing import choose
from xai_sidecar.backends.runtimes.guarding import Guarded
from xai_sidecar.backends.runtimes.in_parts import InParts, ProgramInParts
from xai_sidecar.backends.runtimes.keeping import EngineCache
from xai_sidecar.backends.runtimes.memory import trim_heap
from xai_sidecar.backends.runtimes.onnxruntime import OnnxRuntime
from xai_sidecar.backends.runtimes.openvino import OpenVino
from xai_sidecar.backends.runtimes.program import EngineError
from xai_sidecar.backends.runtimes.trial import Examples

SIZES = (1, 2, 4)


class Doubling:
    """A program that doubles, and takes the seconds that it says."""

    inputs, outputs = ("x",), ("y",)

    def __init__(self, costs, wrong_at=None):
        self.costs = costs
        self.wrong_at = wrong_at

    def __call__(self, rows):
        output = rows[0] * np.float32(2)
        if len(output) == self.wrong_at:
            output[-1] *= 1.01
        return (output,)


class Fake:
    """An engine with a cost a batch, by size, of free programs, and of fixed ones if it has any."""

    version = "1.0"
    precisions = ("float32", "bfloat16")

    def __init__(self, name, free, fixed=None, missing=None, **more):
        self.name, self._free, self._fixed, self._missing, self._more = name, free, fixed, missing, more
        self.fixed_up_to = max(fixed or {0: 0})
        self.loaded = []

    def missing(self):
        return self._missing

    def settle(self, program):
        return program

    def load(self, model, *, batch_size=None, precision="float32", threads=None):
        self.loaded.append((model, batch_size, precision, threads))
        if self._free is None and batch_size is None:
            raise EngineError("it wants to know the batch size")
        return Doubling(self._free if batch_size is None else self._fixed, **self._more)


@pytest.fixture(autouse=True)
def told_seconds(monkeypatch):
    measured = timing.timed

    def timed(program, rows):
        outputs, seconds = measured(program, rows)
        inner = program._program if isinstance(program, ProgramInParts) else program
        return outputs, inner.costs[len(rows[0])] if isinstance(inner, Doubling) else seconds

    monkeypatch.setattr(timing, "timed", timed)


def examples(count=4, tolerance=1e-3):
    rows = np.random.default_rng(0).standard_normal((count, 3)).astype(np.float32)
    return Examples((rows,), (rows * 2,), [tolerance], ["doubles"])


def by_size(engines, sizes=SIZES, **more):
    choice = choose(b"", engines, sizes, examples(), **more)
    return {size: (chosen.engine.split()[0], chosen.seconds) for size, chosen in choice.by_size.items()}


def costs(*seconds):
    return dict(zip(SIZES, seconds, strict=True))


def test_the_faster_engine_runs_all_sizes():
    slow, fast = Fake("slow", costs(2, 4, 8)), Fake("fast", costs(1, 2, 4))
    assert by_size([slow, fast]) == {1: ("fast", 1), 2: ("fast", 2), 4: ("fast", 4)}
    assert choose(b"", [slow, fast], SIZES, examples()).engine == "fast 1.0"


def test_a_small_gain_is_not_worth_a_second_program():
    one, other = Fake("one", costs(1.0, 2, 4)), Fake("other", costs(0.95, 3, 6))
    assert by_size([one, other]) == {1: ("one", 1.0), 2: ("one", 2), 4: ("one", 4)}


def test_a_large_gain_is():
    one, other = Fake("one", costs(1.0, 2, 4)), Fake("other", costs(0.5, 3, 6))
    assert by_size([one, other]) == {1: ("other", 0.5), 2: ("one", 2), 4: ("one", 4)}
    assert choose(b"", [one, other], SIZES, examples()).engine == "other 1.0, one 1.0"


def in_parts(name, *seconds, **more):
    """Two parts; one row cannot be divided, and is never tried."""
    return InParts(Fake(name, dict(zip(SIZES[1:], seconds, strict=True)), **more), 2)


@pytest.fixture(autouse=True)
def two_cpus(monkeypatch):
    monkeypatch.setattr(choosing, "usable_cpus", lambda: 2)


def test_rows_are_run_in_parts_where_that_gains():
    one = Fake("one", costs(1.0, 2, 4))
    assert by_size([one, in_parts("one", 1.2, 3.9)]) == {1: ("one", 1.0), 2: ("one-in-parts", 1.2), 4: ("one", 4)}
    assert by_size([one, in_parts("one", 1.2, 2.4, wrong_at=1)]) == {1: ("one", 1.0), 2: ("one", 2), 4: ("one", 4)}


def test_only_the_engine_that_is_taken_is_tried_in_parts(monkeypatch):
    slow, fast = Fake("slow", costs(2, 4, 8)), Fake("fast", costs(1, 2, 4))
    others = [in_parts("slow", 0.1, 0.1), in_parts("fast", 1, 2)]
    assert by_size([slow, fast, *others]) == {1: ("fast", 1), 2: ("fast-in-parts", 1), 4: ("fast-in-parts", 2)}
    assert others[0]._engine.loaded == []
    others[1]._engine.loaded.clear()
    assert by_size([fast, others[1]], (1,)) == {1: ("fast", 1)}
    assert by_size([fast, others[1]], threads=1) == {1: ("fast", 1), 2: ("fast", 2), 4: ("fast", 4)}
    monkeypatch.setattr(choosing, "_LARGE_BYTES", 0)  # where a further program takes too much memory
    assert by_size([fast, others[1]]) == {1: ("fast", 1), 2: ("fast", 2), 4: ("fast", 4)}
    assert others[1]._engine.loaded == []


def test_what_runs_in_parts_does_so_at_the_next_start(tmp_path):
    kept = EngineCache(tmp_path)
    expected = {1: ("one", 1.0), 2: ("one-in-parts", 1), 4: ("one-in-parts", 2)}
    for _ in range(2):
        engines = [Fake("one", costs(1.0, 2, 4)), in_parts("one", 1, 2)]
        assert by_size(engines, cache=kept) == expected
        assert [len(each.loaded) for each in (engines[0], engines[1]._engine)] == [1, 1]


def test_a_program_for_one_size_replaces_the_free_one_where_it_gains():
    engine = Fake("only", costs(1.0, 2, 4), fixed={1: 0.7, 2: 1.9})
    assert by_size([engine]) == {1: ("only", 0.7), 2: ("only", 2), 4: ("only", 4)}
    assert [size for _, size, _, _ in engine.loaded] == [None, 1, 2]  # not for sizes that it does not help


@pytest.mark.parametrize("path", [False, True])
def test_a_large_graph_has_no_further_program_for_one_size(path, monkeypatch, tmp_path):
    monkeypatch.setattr(choosing, "_LARGE_BYTES", 6)
    for content, at_one in ((b"small", 0.7), (b"larger", 1.0)):
        engine = Fake("only", costs(1.0, 2, 4), fixed={1: 0.7})
        (tmp_path / "graph").write_bytes(content)
        choice = choose(tmp_path / "graph" if path else content, [engine], SIZES, examples())
        assert [choice.by_size[size].seconds for size in SIZES] == [at_one, 2, 4]
    alone = Fake("fixed", None, fixed=costs(1, 2, 4))  # which makes no other
    assert list(choose(b"larger", [alone], SIZES, examples()).by_size) == list(SIZES)


def test_an_engine_whose_program_for_any_size_is_far_behind_makes_none_for_one():
    slow, fast = Fake("slow", costs(2.0, 2, 4), fixed={1: 0.1}), Fake("fast", costs(1.0, 2, 4))
    assert by_size([slow, fast])[1] == ("fast", 1.0)
    assert [size for _, size, _, _ in slow.loaded] == [None]
    near = Fake("near", costs(1.3, 3, 5), fixed={1: 0.8})
    assert by_size([near, fast])[1] == ("near", 0.8)


def test_an_engine_that_wants_to_know_the_batch_size():
    engine = Fake("fixed", None, fixed=costs(1, 2, 4))
    assert by_size([engine]) == {1: ("fixed", 1), 2: ("fixed", 2), 4: ("fixed", 4)}


def test_precision_and_threads_are_passed_on():
    engine = Fake("only", costs(1, 2, 4))
    choose(b"graph", [engine], SIZES, examples(), precision="bfloat16", threads=3)
    assert engine.loaded == [(b"graph", None, "bfloat16", 3)]


def test_who_is_refused_and_why():
    engines = [
        Fake("absent", costs(0.1, 0.1, 0.1), missing="the package absent is not installed"),
        Fake("wrong", costs(0.1, 0.1, 0.1), wrong_at=4),
        Fake("picky", None),
        Fake("right", costs(1, 2, 4)),
    ]
    choice = choose(b"", engines, SIZES, examples())
    assert {chosen.engine for chosen in choice.by_size.values()} == {"right 1.0"}
    assert choice.refused["absent"] == "absent does not run it: the package absent is not installed."
    assert choice.refused["picky"] == "picky does not run it: it wants to know the batch size."
    wrong = choice.refused["wrong"]
    assert wrong.startswith("wrong does not run it: at batch size 4 it differs from the reference by ")
    assert wrong.endswith("in row 3 of doubles.")
    assert set(choice.refused) == {"absent", "wrong", "picky"}


def test_where_nobody_is_right_the_reasons_are_told():
    with pytest.raises(EngineError, match=r"No engine runs the graph at batch size 1\. one does.*other does"):
        choose(b"", [Fake("one", costs(1, 2, 4), wrong_at=1), Fake("other", None)], SIZES, examples())


def test_a_program_that_repeats_its_first_result_is_found_out(monkeypatch):
    class Stuck(Doubling):
        def __call__(self, rows):
            self.first = getattr(self, "first", None) or super().__call__(rows)
            return self.first

    engine = Fake("stuck", costs(1, 2, 4))
    monkeypatch.setattr(engine, "load", lambda model, **more: Stuck({1: 1}))
    with pytest.raises(EngineError, match="in row 0"):
        choose(b"", [engine], (1,), examples())


def test_timing_ends():
    calls = []

    class Slow(Doubling):
        def __call__(self, rows):
            calls.append(len(rows[0]))
            return super().__call__(rows)

    engine = Fake("slow", costs(1, 2, 4))
    engine.load = lambda model, **more: Slow(costs(1, 2, 4))
    choose(b"", [engine], SIZES, examples(), seconds=0)
    assert calls == [1, 1, 2, 4, 1, 1, 2, 4]  # checks, two of them of one row; NaN; and each size once


def test_for_one_size_alone_no_program_for_any_is_loaded():
    one, other = Fake("one", costs(1.0, 2, 4), fixed={1: 0.9}), Fake("other", costs(0.5, 1, 2))
    assert by_size([one, other], (1,)) == {1: ("other", 0.5)}
    assert [size for _, size, _, _ in one.loaded] == [1]
    one, other = Fake("one", costs(1.0, 2, 4), fixed={1: 0.9}), Fake("other", costs(0.95, 1, 2))
    assert by_size([one, other], (1,)) == {1: ("one", 0.9)}


def test_an_engine_that_cannot_make_a_program_for_one_size_makes_one_for_any(monkeypatch):
    engine = Fake("one", costs(1.0, 2, 4), fixed={1: 0.9})
    load = engine.load

    def picky(model, *, batch_size=None, **more):
        if batch_size:
            raise EngineError("it cannot be reshaped")
        return load(model, batch_size=batch_size, **more)

    monkeypatch.setattr(engine, "load", picky)
    assert by_size([engine], (1,)) == {1: ("one", 1.0)}


# ---------------------------------------------------------------------------------------- for a graph like another


def test_a_graph_like_another_has_its_engines_and_no_other_is_loaded():
    slow, fast = mixed()
    like = choose(b"graph", (slow, fast), SIZES, examples())
    slow.loaded, fast.loaded = [], []
    assert by_size([slow, fast], like=like) == {1: ("fast", 0.5), 2: ("fast", 2), 4: ("fast", 4)}
    assert slow.loaded == []
    assert [size for _, size, _, _ in fast.loaded] == [1, None]


def test_at_other_sizes_it_has_the_engine_of_the_nearest():
    one, other = Fake("one", costs(1.0, 2, 4)), Fake("other", costs(0.5, 3, 6))
    like = choose(b"graph", [one, other], (1, 4), examples())
    assert by_size([one, other], (2,), like=like) == {2: ("other", 3)}
    assert by_size([one, other], (1, 4), like=like) == {1: ("other", 0.5), 4: ("one", 4)}


def test_where_such_an_engine_is_wrong_or_missing_all_are_tried():
    like = choose(b"graph", mixed(), SIZES, examples())
    slow, fast = mixed()
    fast._more = {"wrong_at": 2}
    choice = choose(b"other", (slow, fast), SIZES, examples(), like=like)
    assert {size: chosen.name for size, chosen in choice.by_size.items()} == {1: "fast", 2: "slow", 4: "slow"}
    assert by_size(mixed()[:1], like=like) == {1: ("slow", 2), 2: ("slow", 4), 4: ("slow", 8)}


# ---------------------------------------------------------------------------------------- at the next start


@pytest.fixture
def kept(tmp_path):
    return EngineCache(tmp_path)


def mixed():
    return Fake("slow", costs(2, 4, 8)), Fake("fast", costs(1.0, 2, 4), fixed={1: 0.5})


def test_the_next_start_loads_only_what_was_chosen(kept):
    first = choose(b"graph", mixed(), SIZES, examples(), cache=kept)
    slow, fast = mixed()
    again = choose(b"graph", (slow, fast), SIZES, examples(), cache=kept)
    assert slow.loaded == []
    assert [size for _, size, _, _ in fast.loaded] == [1, None]
    assert list(again.by_size) == list(SIZES)
    assert again.refused == first.refused
    for size in SIZES:
        assert (again.by_size[size].engine, again.by_size[size].seconds) == (
            first.by_size[size].engine,
            first.by_size[size].seconds,
        )
    assert again.by_size[2].program is again.by_size[4].program is not again.by_size[1].program


def test_costs_are_the_least_of_this_start_and_the_first_one(kept):
    choose(b"graph", mixed(), SIZES, examples(), cache=kept)
    for costs_now, expected in ((costs(3, 6, 12), [0.5, 2, 4]), (costs(0.8, 1.6, 3.2), [0.5, 1.6, 3.2])):
        now = mixed()[0], Fake("fast", costs_now, fixed={1: 0.7})
        choice = choose(b"graph", now, SIZES, examples(), cache=kept)
        assert [chosen.seconds for chosen in choice.by_size.values()] == expected


def test_what_was_chosen_for_other_threads_is_chosen_anew(kept, monkeypatch):
    for count in (2, 4, 2):
        monkeypatch.setattr(choosing, "usable_cpus", lambda count=count: count)
        slow, fast = mixed()
        choose(b"graph", (slow, fast), SIZES, examples(), cache=kept)
        tried = bool(slow.loaded)
    assert not tried
    slow, fast = mixed()
    choose(b"graph", (slow, fast), SIZES, examples(), cache=kept, threads=3)
    assert slow.loaded


def test_why_others_were_refused_is_kept(kept):
    engines = [Fake("absent", costs(1, 1, 1), missing="it is not installed"), Fake("right", costs(1, 2, 4))]
    for _ in range(2):
        choice = choose(b"graph", engines, SIZES, examples(), cache=kept)
        assert choice.refused == {"absent": "absent does not run it: it is not installed."}


def test_what_was_chosen_is_checked_again(kept):
    choose(b"graph", mixed(), SIZES, examples(), cache=kept)
    slow, fast = mixed()
    fast._more = {"wrong_at": 4}
    choice = choose(b"graph", (slow, fast), SIZES, examples(), cache=kept)
    assert choice.by_size[4].engine == "slow 1.0"
    assert "in row 3" in choice.refused["fast"]
    slow, fast = mixed()
    choose(b"graph", (slow, fast), SIZES, examples(), cache=kept)
    assert len(slow.loaded) == 1  # the new choice is the one that is kept


def test_another_graph_version_or_engine_is_chosen_for_anew(kept):
    choose(b"graph", mixed(), SIZES, examples(), cache=kept)
    newer = mixed()
    newer[0].version = "2.0"
    installed = (*mixed(), Fake("third", costs(3, 3, 3)))
    for model, engines, sizes in (
        (b"another", mixed(), SIZES),
        (b"graph", newer, SIZES),
        (b"graph", installed, SIZES),
        (b"graph", mixed(), (1, 2)),
    ):
        choose(model, engines, sizes, examples(), cache=kept)
        assert all(engine.loaded for engine in engines)


# ---------------------------------------------------------------------------------------- real engines


def real_examples(count):
    rows = pictures(count)
    return Examples((rows,), convolution_by_hand(rows), [1e-3, 1e-3], ["channels", "logits"])


def test_real_engines_run_a_real_graph():
    choice = choose(convolution(), [OpenVino(), OnnxRuntime()], (1, 3), real_examples(3), seconds=0.1)
    assert choice.refused == {}
    for size in (1, 3):
        rows = pictures(size, seed=5)
        np.testing.assert_allclose(choice((rows,))[1], convolution_by_hand(rows)[1], atol=1e-5)
        assert choice.by_size[size].seconds > 0


@pytest.mark.parametrize("engine", [OpenVino(), OnnxRuntime()], ids=lambda engine: engine.name)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_bad_number_spoils_its_row_alone_whoever_runs_it(engine, bad):
    choice = choose(convolution(), [engine], (3,), real_examples(3), seconds=0)
    rows = pictures(3)
    rows[1, 2, 4, 4] = bad
    channels, logits = choice((rows,))
    assert not np.isfinite(logits[1]).any()
    for output, expected in zip((channels, logits), convolution_by_hand(pictures(3)), strict=True):
        np.testing.assert_allclose(output[[0, 2]], expected[[0, 2]], atol=1e-5)


def test_an_engine_that_swallows_what_the_reference_has_is_refused():
    good = real_examples(2)
    rows = (good.rows[0].copy(),)
    rows[0][1] = np.nan
    expected = tuple(output.copy() for output in good.expected)
    for output in expected:
        output[1] = np.nan
    choice = choose(convolution(), [OpenVino(), OnnxRuntime()], (2,), Examples(rows, expected, [1e-3, 1e-3]), seconds=0)
    assert choice.engine.startswith("onnxruntime ")
    assert "NaN or infinity, in row 1" in choice.refused["openvino"]


def test_the_guard_leaves_good_rows_and_integers_alone():
    class Zeros:
        inputs, outputs = ("x", "t"), ("y", "i")

        def __call__(self, rows):
            return np.zeros((len(rows[0]), 2), np.float32), rows[1].copy()

    x = np.array([[1.0], [np.nan], [3e38]], np.float32)
    y, i = Guarded(Zeros())((x, np.array([1, 2, 3])))
    np.testing.assert_array_equal(y, [[0, 0], [np.nan, np.nan], [0, 0]])
    assert i.tolist() == [1, 2, 3]


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def test_what_is_free_is_given_back_to_the_system():
    # Blocks too small to have pages of their own, with one in use behind them.
    blocks = [bytearray(50_000) for _ in range(2000)]
    before = resident()
    del blocks[:-1]
    trim_heap()
    assert resident() < before - 50_000_000
