"""The maps that Occlusion could hand out while it is under way, and the order in which it visits its windows."""

import numpy as np
import pytest

from xai_sidecar.engine.work import MaskedForward
from xai_sidecar.explainers.activations import sigmoid
from xai_sidecar.explainers.base import MapStatus, ModelFacts, PassCounts
from xai_sidecar.explainers.occlusion import Occlusion


def ids(*targets):
    return np.array(targets, np.int32)


def resolved(explainer, height, width, **values):
    return explainer.resolve(explainer.parameters_type(**values), ModelFacts(height, width, has_ood=True))


def likeness(one, other):
    return np.corrcoef(one.ravel(), other.ravel())[0, 1]


def linear(weights):
    """A model whose probability is 0.5 + Σ weights x, so that a window of zeros takes away Σ weights x inside."""

    def model(inputs):
        probabilities = 0.5 + (inputs[:, 0] * weights).sum(axis=(1, 2), dtype=np.float64)
        return (np.log(probabilities) - np.log1p(-probabilities))[:, None]

    return model


def blob(height, width):
    rows, columns = np.arange(height)[:, None] / height, np.arange(width) / width
    bumps = np.exp(-((rows - 0.3) ** 2 + (columns - 0.6) ** 2) / 0.02) - np.exp(
        -((rows - 0.7) ** 2 + (columns - 0.2) ** 2) / 0.01
    )
    return 0.4 * bumps / np.abs(bumps).sum()


def windows_of(works):
    """The windows of all masks, (n, H, W), True where covered; the first piece of work is the whole picture."""
    assert (works[0].masks == 1).all()
    return np.concatenate([work.masks for work in works[1:]]) == 0


@pytest.fixture
def order(watch):
    def order(height, width):
        """The places of a grid in the order in which windows of a pixel visit them, (n, 2)."""
        parameters = resolved(Occlusion(), height, width, window_size=1, stride=1)
        image = np.ones((1, height, width), np.float32)
        _, _, works = watch(Occlusion(), lambda x: np.zeros((len(x), 1)), image, ids(0), parameters, sigmoid)
        return np.argwhere(windows_of(works))[:, 1:]

    return order


def test_windows_visit_every_block_in_turn(order):
    """After 4^k of 4^m windows, just one in every square of 4^(m - k), and after twice as many, two."""
    places = order(16, 16)
    for level in range(5):
        blocks = places // (16 >> level)
        numbers = blocks[:, 0] * 2**level + blocks[:, 1]
        for times in (1, 2):
            count = min(times * 4**level, 256)
            np.testing.assert_array_equal(np.bincount(numbers[:count], minlength=4**level), count // 4**level)
    half = places[:128].sum(axis=1) % 2
    assert half.min() == half.max(), "a chequerboard"


def test_the_first_windows_lie_in_the_middle_not_in_a_corner(order):
    for height, width in ((11, 13), (33, 47), (17, 17)):
        off = order(height, width)[0] / (height - 1, width - 1) - 0.5
        assert (np.abs(off) <= 0.25).all()


@pytest.mark.parametrize(("height", "width"), [(11, 13), (33, 47), (5, 36), (1, 20), (32, 32), (17, 3)])
def test_windows_lie_evenly_at_every_moment(height, width, order):
    places = order(height, width)
    total = height * width
    assert len({(row, column) for row, column in places.tolist()}) == len(places) == total
    everywhere = np.argwhere(np.ones((height, width)))
    gaps = np.full(total, np.inf)
    for count, place in enumerate(places, 1):
        gaps = np.minimum(gaps, ((everywhere - place) ** 2).sum(axis=1))
        # As squares of side √(total / count) would lie; on thin grids fewer than a square reach from end to end.
        if count * min(height, width) >= max(height, width):
            assert np.sqrt(gaps.max()) <= 2 * np.sqrt(total / count), count


def test_partial_occlusion_of_a_model_whose_map_is_known(watch):
    weights = blob(64, 80)
    image = np.random.default_rng(1).uniform(0.9, 1.1, (1, 64, 80)).astype(np.float32)
    parameters = resolved(Occlusion(), 64, 80, window_size=2, stride=2)
    final, partials, works = watch(Occlusion(), linear(weights), image, ids(0), parameters, sigmoid)
    drops = (weights * image[0]).reshape(32, 2, 40, 2).sum(axis=(1, 3))
    np.testing.assert_allclose(final.maps[0], np.kron(drops, np.ones((2, 2))), atol=1e-6)

    windows = windows_of(works)
    assert len(windows) == 32 * 40
    told = Occlusion().pass_counts(1, parameters, ModelFacts(64, 80))
    assert (told.least, told.most) == (1281, 1281)
    assert min(partials) == told.first == 1 + len(works[1].masks)
    alike, reliable = [], []
    for rows, partial in partials.items():
        seen = windows[: rows - 1].any(axis=0)
        assert not seen.all()
        np.testing.assert_array_equal(partial.maps[0][seen], final.maps[0][seen])
        assert np.isfinite(partial.maps).all()
        assert partial.statuses == (MapStatus.OK if seen.mean() >= 0.25 else MapStatus.UNRELIABLE,)
        assert partial.standard_errors is None
        alike.append(likeness(partial.maps, final.maps))
        if partial.statuses[0] is MapStatus.OK:
            reliable.append(alike[-1])
    assert len(alike) > 10
    # Growing from one eighth of the windows to the next; a few at a time, it may step back a little.
    assert (np.diff(alike[:: len(alike) // 8]) > 0).all()
    assert (np.diff(alike) > -0.01).all()
    assert alike[0] > 0.3
    assert min(reliable) > 0.9
    assert alike[len(alike) // 2] > 0.97


def test_partial_occlusion_is_the_average_over_the_windows_so_far(watch):
    weights = np.stack([blob(56, 50), blob(50, 56).T])
    image = np.ones((1, 56, 50), np.float32)
    parameters = resolved(Occlusion(), 56, 50, window_size=5, stride=2)

    def model(inputs):
        return np.concatenate([linear(one)(inputs) for one in weights], axis=1)

    final, partials, works = watch(Occlusion(), model, image, ids(1, 0), parameters, sigmoid)
    windows = windows_of(works).astype(np.float64)
    assert partials
    for rows, saliency in [*partials.items(), (1 + len(windows), final)]:
        so_far = windows[: rows - 1]
        for saliency_of, weight in zip(saliency.maps, weights[::-1], strict=True):
            drops = (so_far * weight).sum(axis=(1, 2))
            coverage = so_far.sum(axis=0)
            expected = np.tensordot(drops, so_far, 1)[coverage > 0] / coverage[coverage > 0]
            np.testing.assert_allclose(saliency_of[coverage > 0], expected, atol=1e-7)


def test_asking_for_partial_occlusion_changes_nothing(watch):
    image = np.ones((1, 64, 80), np.float32)
    often, never = (
        watch(
            Occlusion(),
            linear(blob(64, 80)),
            image,
            ids(0),
            resolved(Occlusion(), 64, 80),
            sigmoid,
            asked=lambda _, wanted=wanted: wanted,
        )[0]
        for wanted in (True, False)
    )
    np.testing.assert_array_equal(often.maps, never.maps)


def test_partial_occlusion_is_normalised(watch):
    image = np.ones((1, 64, 80), np.float32)
    parameters = resolved(Occlusion(), 64, 80, normalization="max")
    _, partials, _ = watch(Occlusion(), linear(blob(64, 80)), image, ids(0), parameters, sigmoid)
    assert partials
    for partial in partials.values():
        assert np.abs(partial.maps).max() == pytest.approx(1)


def test_what_is_not_finite_is_told_of_partial_maps_too(watch):
    def model(inputs):
        return np.where(inputs[:, 0, 30, 30] == 0, np.nan, 0)[:, None]

    image = np.ones((1, 64, 80), np.float32)
    parameters = resolved(Occlusion(), 64, 80)
    final, partials, works = watch(Occlusion(), model, image, ids(0), parameters, sigmoid)
    assert final.statuses == (MapStatus.NOT_FINITE,)
    struck = np.flatnonzero(windows_of(works)[:, 30, 30])
    for rows, partial in partials.items():
        # A map of zeros says nothing as long as most of it is guessed.
        covered = windows_of(works)[: rows - 1].any(axis=0).mean()
        zero = MapStatus.ALL_ZERO if covered >= 0.25 else MapStatus.UNRELIABLE
        expected = MapStatus.NOT_FINITE if (struck < rows - 1).any() else zero
        assert partial.statuses == (expected,)


@pytest.mark.parametrize(("height", "width"), [(8, 12), (9, 9), (1, 1), (300, 300)])
def test_one_window_as_large_as_the_picture(height, width, watch):
    side = min(height, width)
    parameters = resolved(Occlusion(), height, width, window_size=side, stride=side)
    image = np.ones((1, height, width), np.float32)
    final, partials, works = watch(Occlusion(), linear(blob(height, width)), image, ids(0), parameters, sigmoid)
    count = 1 if height == width else 2
    told = Occlusion().pass_counts(1, parameters, ModelFacts(height, width))
    assert told == PassCounts(1 + count, 1 + count, 1 + count)
    assert sum(len(work.rows[0]) for work in works) == 1 + count
    assert partials == {}
    if count == 1:
        np.testing.assert_allclose(final.maps, blob(height, width).sum(), atol=1e-6)


def test_few_masks_of_a_large_picture_are_held_at_a_time(watch):
    parameters = resolved(Occlusion(), 224, 224, window_size=56, stride=56)
    image = np.ones((1, 224, 224), np.float32)
    final, partials, works = watch(Occlusion(), linear(blob(224, 224)), image, ids(0), parameters, sigmoid)
    assert all(isinstance(work, MaskedForward) and work.masks.nbytes <= 2**21 for work in works)
    assert Occlusion().pass_counts(1, parameters, ModelFacts(224, 224)) == PassCounts(9, 17, 17)
    assert list(partials) == [9]
    assert likeness(partials[9].maps, final.maps) > 0.5
