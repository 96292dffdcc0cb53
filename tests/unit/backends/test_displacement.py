"""What seems to be displaced by chance is looked at again, and what is displaced is so then as well."""

from types import SimpleNamespace

import numpy as np
import pytest

from xai_sidecar.backends.spatial import displacement

ROWS, COLUMNS = 8, 12


def blurring(layers, rolled):
    """A net of layers that each mix a few cells around each cell by weights of their own; see `Watched`."""

    def run(inputs):
        cells = inputs[0].reshape(3, ROWS, 2, COLUMNS, 2).transpose(0, 2, 4, 1, 3).reshape(12, ROWS, COLUMNS)
        return {name: values(name, weights, cells)[np.newaxis] for name, weights in layers.items()}

    def values(name, weights, cells):
        mixed = sum(
            np.einsum("dc,crk->drk", weights[down, right], np.roll(cells, (down - 2, right - 2), (1, 2)))
            for down, right in np.ndindex(5, 5)
        )
        return np.roll(np.maximum(mixed, 0), rolled.get(name, (0, 0)), (1, 2))

    return lambda names: SimpleNamespace(run=run)


def weighted(count, seed, own=1.0):
    """Weights of layers, and how much more each cell's own count than those around it."""
    draws = np.random.default_rng(seed)
    share = np.ones((5, 5, 1, 1), np.float32)
    share[2, 2] = own
    return {
        f"layer {number}": share * draws.standard_normal((5, 5, 6, 12)).astype(np.float32) for number in range(count)
    }


def found(layers, rolled):
    laid = [SimpleNamespace(name=name, height=ROWS, width=COLUMNS, to_nchw=lambda output: output) for name in layers]
    example = np.random.default_rng(0).standard_normal((1, 3, 2 * ROWS, 2 * COLUMNS)).astype(np.float32)
    return displacement.displaced(blurring(layers, rolled), laid, example, "nchw")


@pytest.fixture
def suspected(monkeypatch):
    """The names of what seemed to be displaced at first, of all that is at all like a shift of the halves."""
    names, look = set(), displacement._like_elsewhere

    def looks(*arguments):
        result = look(*arguments)
        if arguments[-1] == displacement._SUSPECT:
            names.update(result)
        return result

    monkeypatch.setattr(displacement, "_SUSPECT", 0.5)
    monkeypatch.setattr(displacement, "_LOCAL", 0.0)
    monkeypatch.setattr(displacement, "_like_elsewhere", looks)
    return names


def test_what_is_like_a_shift_by_chance_is_not_refused(suspected):
    assert found(weighted(200, 1), {}) == frozenset()
    assert len(suspected) >= 5


def test_what_is_shifted_is_refused(suspected):
    layers = weighted(20, 2, own=4)
    rolled = dict.fromkeys(list(layers)[::2], (2, 5))
    assert found(layers, rolled) == rolled.keys() <= suspected
