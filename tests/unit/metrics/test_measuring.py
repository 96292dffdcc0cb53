"""Many computations at once, outside the engine."""

import weakref

import numpy as np
import pytest
from measuring import drive_all, from_function, measure_all

from xai_sidecar.engine.work import INPUT_GRADIENT, Forward, InputGradient, Kind, MaskedForward, Partial, drive
from xai_sidecar.errors import PreconditionError
from xai_sidecar.explainers.activations import sigmoid
from xai_sidecar.explainers.base import Context
from xai_sidecar.metrics.faithfulness import DeletionAuc, NaiveFaithfulness
from xai_sidecar.metrics.instance import Instance
from xai_sidecar.metrics.localization import Iosr
from xai_sidecar.metrics.perturbation import PerturbationParameters


def inputs(*values):
    return np.array(values, np.float32).reshape(-1, 1, 1, 1)


class Doubling:
    """Doubles its inputs; remembers the rows of its launches."""

    def __init__(self):
        self.launches = []

    def __call__(self, kind, rows):
        self.launches.append((kind.name, rows[0].ravel().tolist()))
        return (2 * rows[0].reshape(len(rows[0]), -1),)


def asking(*pieces, work=Forward):
    """Asks for the pieces one after the other; returns what it was sent."""
    sent = []
    for piece in pieces:
        sent.append((yield work(inputs(*piece))).ravel().tolist())
    return sent


def never():
    raise AssertionError("nobody asked for it")


def partial_first():
    yield Partial(never)
    sent = yield Forward(inputs(1))
    yield Partial(never)
    yield Partial(never)
    return sent.ravel().tolist()


@pytest.mark.parametrize("size", range(1, 8))
@pytest.mark.parametrize("alive", [1, 2, 3, 32])
def test_everybody_gets_their_own_rows_in_order(size, alive):
    run = Doubling()
    steps = [asking(range(i, i + i % 4 + 1), [-i], range(i % 3 + 1)) for i in range(9)]
    results = drive_all(iter(steps), run, size, alive)
    for i, result in enumerate(results):
        assert result == [[2 * v for v in range(i, i + i % 4 + 1)], [-2 * i], [2 * v for v in range(i % 3 + 1)]]
    assert {len(rows) for _, rows in run.launches} == {size}


def test_rows_share_launches_and_the_last_is_filled_up():
    run = Doubling()
    drive_all([asking([1, 2, 3]), asking([4]), asking([5, 6])], run, 4)
    assert run.launches == [("forward", [1, 2, 3, 4]), ("forward", [5, 6, 6, 6])]


def test_kinds_and_shapes_do_not_mix():
    class Features(Forward):
        kind = Kind("features")

    def wide():
        return (yield Forward(np.ones((1, 1, 1, 2), np.float32))).tolist()

    run = Doubling()
    results = drive_all([asking([1], work=Features), asking([2]), wide(), asking([3])], run, 4)
    assert results == [[[2]], [[4]], [[2, 2]], [[6]]]
    assert sorted(run.launches) == [
        ("features", [1, 1, 1, 1]),
        ("forward", [1, 1, 1, 1, 1, 1, 1, 1]),
        ("forward", [2, 3, 3, 3]),
    ]


def test_a_size_for_each_kind():
    run = Doubling()

    def gradient():
        return (yield InputGradient(inputs(1, 2, 3), np.zeros(3, np.int32))).shape

    drive_all([gradient(), asking([1, 2, 3])], run, lambda kind: 1 if kind == INPUT_GRADIENT else 4)
    assert [(name, len(rows)) for name, rows in run.launches] == [
        ("input_gradient", 1),
        ("forward", 4),  # of which more rows wait by now
        ("input_gradient", 1),
        ("input_gradient", 1),
    ]


def test_partial_results_are_passed_over():
    assert drive_all([partial_first(), partial_first()], Doubling(), 2) == [[2], [2]]


def test_computations_without_work_and_none_at_all():
    def at_once():
        return 5
        yield

    assert drive_all([], never, 3) == []
    assert drive_all([at_once() for _ in range(100)], never, 3, alive=2) == [5] * 100
    assert drive_all([at_once(), asking([1]), at_once()], Doubling(), 3, alive=1) == [5, [[2]], 5]


def test_no_more_are_alive_than_allowed():
    alive, most = set(), []

    def computation(i, length):
        alive.add(i)
        most.append(len(alive))
        for _ in range(length):
            yield Forward(inputs(i, i))
        alive.discard(i)
        return i

    steps = (computation(i, 1 + i % 3) for i in range(20))
    assert drive_all(steps, Doubling(), 3, alive=4) == list(range(20))
    assert max(most) == 4
    assert most.count(4) > 10, "as many as allowed"


def test_what_is_done_is_let_go():
    pictures = []

    def computation():
        picture = np.zeros(1000)
        pictures.append(weakref.ref(picture))
        yield Forward(inputs(1))
        return picture.size

    def coming():
        for _ in range(30):
            assert sum(picture() is not None for picture in pictures) <= 4
            yield computation()

    drive_all(coming(), Doubling(), 1, alive=3)


@pytest.mark.parametrize("where", ["computation", "run", "coming"])
def test_an_error_comes_out_and_the_others_are_closed(where):
    closed = []

    def computation(i):
        try:
            yield Forward(inputs(i))
            yield Forward(inputs(i))
        finally:
            closed.append(i)

    def failing():
        yield Forward(inputs(9))
        raise KeyError(where)

    def coming():
        yield computation(0)
        yield failing() if where == "computation" else computation(1)
        yield computation(2)
        if where == "coming":
            raise KeyError(where)

    def run(kind, rows):
        if where == "run":
            raise KeyError(where)
        return rows

    kept = list(coming()) if where != "coming" else coming()  # known here, so that they do not end for want of an owner
    with pytest.raises(KeyError, match=where):
        drive_all(kept, run, 2)
    assert sorted(closed) == ([0, 2] if where == "computation" else [0, 1, 2])


def test_a_run_that_loses_rows_is_found_out():
    with pytest.raises(ValueError, match="2 that it was given"):
        drive_all([asking([1, 2])], lambda kind, rows: (rows[0][:1],), 2)


def test_a_model_that_is_a_function():
    def model(images):
        assert images.dtype == np.float32
        return images.sum(axis=(1, 2, 3))[:, None].tolist()

    run = from_function(model)
    image = np.array([[[1, 2], [3, 4]]], np.float32)
    assert drive(asking([5], [6, 7]), run) == [[5], [6, 7]]
    (logits,) = run(MaskedForward.kind, MaskedForward(image, np.eye(2, dtype=np.float32)[None], 10.0).rows)
    np.testing.assert_array_equal(logits, [[1 + 10 + 10 + 4]])
    with pytest.raises(PreconditionError, match="input_gradient"):
        run(INPUT_GRADIENT, (image[None], np.zeros(1, np.int32)))


# ------------------------------------------------------------------------------------------------------ tables


def pictures(count):
    generator = np.random.default_rng(0)
    for _ in range(count):
        image = generator.random((1, 4, 6)).astype(np.float32)
        yield Instance(image, 0, image[0], objects=[(0, 0, 3, 4)])


def total(images):
    return images.sum(axis=(1, 2, 3))[:, None] / 24


def test_a_table_of_arrays_and_maps():
    metrics = [DeletionAuc(), Iosr(), NaiveFaithfulness()]
    rise = PerturbationParameters(protocol="rise")
    context = Context(sigmoid)
    table = measure_all(
        metrics,
        pictures(5),
        from_function(total),
        4,
        parameters={"faithfulness/naive": rise},
        context=context,
    )
    assert list(table.scores) == ["faithfulness/deletion_auc", "localization/iosr", "faithfulness/naive"]
    for place, instance in enumerate(pictures(5)):
        for metric in metrics:
            parameters = rise if metric.name == "faithfulness/naive" else metric.parameters_type()
            alone = drive(metric.measure(instance, parameters, context), from_function(total))
            assert table.scores[metric.name][place] == alone
    summaries = table.summaries()
    values = [score.value for score in table.scores["localization/iosr"]]
    assert summaries["localization/iosr"].mean == pytest.approx(sum(values) / 5)
    assert summaries["localization/iosr"].count == 5


def test_a_table_of_nothing():
    assert measure_all([DeletionAuc()], [], never, 3).scores == {"faithfulness/deletion_auc": ()}
    assert measure_all([], pictures(2), never, 3).scores == {}


def test_pictures_are_taken_as_they_are_needed():
    taken = []

    def coming():
        for place, instance in enumerate(pictures(50)):
            taken.append(place)
            yield instance

    def run(kind, rows):
        sizes.append(len(taken))
        return from_function(total)(kind, rows)

    sizes = []
    measure_all([NaiveFaithfulness(), DeletionAuc()], coming(), run, 8)
    assert sizes[0] == 16
    assert sizes[-1] == 50
