"""Computations side by side give what each gives alone, from fewer works."""

import numpy as np
import pytest

from xai_sidecar.engine.jointly import alongside, together
from xai_sidecar.engine.work import Forward, InputGradient, MaskedForward, MaskedOodScore, Partial, drive


class Device:
    """Sums of the inputs as logits; remembers kind and rows of each work."""

    def __init__(self):
        self.asked = []

    def __call__(self, kind, rows):
        self.asked.append((kind.name, len(rows[0])))
        if kind.name == "input_gradient":
            return (rows[0] * rows[1][:, None, None, None],)
        sums = rows[0].reshape(len(rows[0]), -1).sum(axis=1, keepdims=True)
        return (sums, sums, sums) if "ood" in kind.name else (sums,)


def image(value):
    return np.full((1, 1, 2, 2), value, np.float32)


def chain(*values):
    """The sums of some images, asked for one after the other."""
    found = []
    for value in values:
        rows = yield Forward(image(value))
        found.append(float(rows[0, 0]))
        yield Partial(lambda: None)
    return found


def test_works_of_one_kind_are_one():
    device = Device()
    assert drive(together([chain(1, 2), chain(3), chain(4, 5, 6)]), device) == [[4, 8], [12], [16, 20, 24]]
    assert device.asked == [("forward", 3), ("forward", 2), ("forward", 1)]
    assert drive(together([]), device) == []


def test_kinds_stay_apart():
    def gradient(value):
        found = yield InputGradient(image(value), np.array([2], np.int32))
        return float(found[0, 0, 0, 0])

    device = Device()
    assert drive(together([chain(1), gradient(3), chain(2), gradient(5)]), device) == [[4], 6, [8], 10]
    assert device.asked == [("forward", 2), ("input_gradient", 2)]


def test_large_works_stay_as_they_are():
    def many(count, value):
        masks = np.full((count, 2, 2), value, np.float32)
        logits = yield MaskedForward(image(1)[0], masks)
        return logits[:, 0].tolist()

    device = Device()
    assert drive(together([many(40, 1), many(20, 2), many(12, 3)]), device) == [[4] * 40, [8] * 20, [12] * 12]
    assert device.asked == [("masked_forward", 40), ("masked_forward", 32)]


def test_one_that_fails_ends_all():
    closed = []

    def failing():
        yield Forward(image(1))
        raise ValueError("no")

    def waiting():
        try:
            yield Forward(image(1))
            yield Forward(image(1))
        finally:
            closed.append(True)

    with pytest.raises(ValueError, match="no"):
        drive(together([waiting(), failing()]), Device())
    assert closed == [True]


MASKS = [np.full((count, 2, 2), value, np.float32) for count, value in ((2, 1), (3, 2), (4, 3))]
PICTURE = image(1)[0]


def scored(masks):
    found = []
    for each in masks:
        ood = yield MaskedOodScore(PICTURE, each)
        found += ood.logits[:, 0].tolist()
    return found


def plain(masks, picture=PICTURE, fill=0.0):
    found = []
    for each in masks:
        logits = yield MaskedForward(picture, each.copy(), fill)
        found += logits[:, 0].tolist()
    return found


def both(one, other):
    device, saved = Device(), []
    found = drive(alongside(one, other, lambda work: saved.append(len(work.rows[0]))), device)
    return found, device.asked, saved


def test_the_same_masks_are_asked_for_once():
    found, asked, saved = both(scored(MASKS), plain(MASKS[1:]))
    assert found == ([4] * 2 + [8] * 3 + [12] * 4, [8] * 3 + [12] * 4)
    assert asked == [("masked_ood_score", 2), ("masked_ood_score", 3), ("masked_ood_score", 4)]
    assert saved == [3, 4]


def test_either_may_end_first():
    assert both(scored(MASKS[:1]), plain(MASKS))[1] == [
        ("masked_ood_score", 2), ("masked_forward", 3), ("masked_forward", 4)
    ]  # fmt: skip
    found, asked, _ = both(scored(MASKS), plain(MASKS[:1]))
    assert found[1] == [4] * 2
    assert len(asked) == 3


@pytest.mark.parametrize(
    "other",
    [
        plain([MASKS[0] + 1e-7]),
        plain(MASKS[:1], PICTURE.copy()),
        plain(MASKS[:1], fill=0.5),
        plain([MASKS[0][:1]]),
    ],
)
def test_other_passes_are_made(other):
    _, asked, saved = both(scored(MASKS[:1]), other)
    assert [name for name, _ in asked] == ["masked_ood_score", "masked_forward"]
    assert saved == []
