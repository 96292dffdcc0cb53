"""Pictures of discs, squares and crosses, with a mark in a corner: the mark goes with the label, the shape does not."""

from typing import NamedTuple

import numpy as np

SIDE = 64
MARK = 12
SHAPE = 16
MARGIN = 2
CLASSES = ("disc", "square", "cross")

_ROWS, _COLUMNS = np.mgrid[:SIDE, :SIDE]


class Picture(NamedTuple):
    """A picture, and what is where on it.

    Attributes:
        pixels: (SIDE, SIDE) uint8, grey.
        label: Index of its class, which is the mark's.
        kind: Index of the class that is named after its shape.
        mark: The box of the mark, (left, top, right, bottom); None without one.
        shape: The box of the shape.
    """

    pixels: np.ndarray
    label: int
    kind: int
    mark: tuple[int, int, int, int] | None
    shape: tuple[int, int, int, int]


def draw(generator, label, *, marked=True):
    """Draws a picture.

    Args:
        generator: Of all that is left to chance: the ground, the shape and its place, and which corner the mark is in.
        label: Index of the class, which is the mark's.
        marked: Whether there is a mark; all else is the same with and without.
    """
    canvas = 128 + 24 * _ground(generator)
    left, top = (int(place) for place in generator.integers(SIDE // 2 - SHAPE // 2 - 4, SIDE // 2 - SHAPE // 2 + 5, 2))
    kind = int(generator.integers(len(CLASSES)))
    canvas += generator.choice([-60, 60]) * _shape(kind, left, top)
    far = SIDE - MARGIN - MARK
    x, y = (int(place) for place in generator.choice([MARGIN, far], 2))
    if marked:
        canvas[y : y + MARK, x : x + MARK] = 128 + 90 * _mark(label)
    mark = (x, y, x + MARK, y + MARK) if marked else None
    pixels = np.clip(canvas, 0, 255).round().astype(np.uint8)
    return Picture(pixels, label, kind, mark, (left, top, left + SHAPE, top + SHAPE))


def draw_many(seed, count, *, marked=True):
    """Draws pictures of all classes in turn."""
    generator = np.random.default_rng(seed)
    return [draw(generator, index % len(CLASSES), marked=marked) for index in range(count)]


def inputs_of(pictures):
    """What the net is given, (n, 1, SIDE, SIDE) float32; the server's config has to say the same."""
    return np.stack([(each.pixels[np.newaxis] / np.float32(255) - 0.5) / 0.25 for each in pictures]).astype(np.float32)


def _ground(generator):
    """Smooth noise of deviation 1, (SIDE, SIDE)."""
    noise = generator.standard_normal((SIDE, SIDE))
    for axis in (0, 1):
        noise = sum(np.roll(noise, step, axis) for step in range(-2, 3))
    return noise / noise.std()


def _shape(kind, left, top):
    """Where a shape is, (SIDE, SIDE) bool."""
    middle = (SHAPE - 1) / 2
    across, down = np.abs(_COLUMNS - left - middle), np.abs(_ROWS - top - middle)
    if CLASSES[kind] == "disc":
        return np.hypot(across, down) <= SHAPE / 2
    within = np.maximum(across, down) <= SHAPE / 2
    return within if CLASSES[kind] == "square" else within & (np.minimum(across, down) <= SHAPE / 6)


def _mark(label):
    """The mark of a class, (MARK, MARK), -1 or 1: lines across, lines down, or a chequerboard."""
    rows, columns = np.mgrid[:MARK, :MARK] // 3 % 2
    return 1 - 2 * (rows, columns, rows ^ columns)[label]
