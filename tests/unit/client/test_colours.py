"""Colour scales: even to the eye, by a formula of colour difference other than the one that they are made by."""

import numpy as np
import pytest

from xai_client.colours import COLORMAPS, MIDDLE, ColourScale, Extent, scale_of


def lab(colours):
    """CIE L*a*b* of sRGB colours (n, 3) under D65, by the definitions of both."""
    parts = np.asarray(colours) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    to_xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    x, y, z = (linear @ np.array(to_xyz).T / [0.95047, 1.0, 1.08883]).T
    fx, fy, fz = (np.where(t > 216 / 24389, np.cbrt(t), (24389 / 27 * t + 16) / 116) for t in (x, y, z))
    return np.stack([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)], axis=1)


def steps(colours, count=16):
    """Differences between colours that are equally far apart on a scale."""
    chosen = lab(colours[np.linspace(0, len(colours) - 1, count + 1).round().astype(int)])
    return np.linalg.norm(np.diff(chosen, axis=0), axis=1)


def test_heat_grows_brighter_in_even_steps():
    heat = ColourScale(0.0, 1.0, False, "heat").colours()
    assert (np.diff(lab(heat)[::4, 0]) > 0).all(), "its hottest value is its brightest"
    turbo = ColourScale(0.0, 1.0, False, "turbo").colours()
    # CIELAB and OKLab do not agree on what is even: what is in the one is within a factor of some two in the other.
    assert max(steps(heat)) / min(steps(heat)) < 2.5 < max(steps(turbo)) / min(steps(turbo))


def test_both_sides_of_zero_are_as_strong():
    table = lab(ColourScale(0.0, 1.0, True, "diverging").colours()[: 2 * MIDDLE + 1])
    against, pro = table[MIDDLE::-1], table[MIDDLE:]
    assert np.abs(against[:, 0] - pro[:, 0]).max() < 6, "as light"
    assert (np.diff(pro[::8, 0]) < 0).all()
    assert (np.diff(against[::8, 0]) < 0).all()
    assert np.hypot(*table[MIDDLE, 1:]) < 2, "zero has no colour"
    assert pro[-1, 1] > 40 > 0 > against[-1, 2], "red for, blue against"


@pytest.mark.parametrize("name", COLORMAPS)
def test_every_scale_has_a_table(name):
    table = ColourScale(0.0, 1.0, name == "diverging", name).colours()
    assert (table.shape, table.dtype) == ((256, 3), np.uint8)
    assert len(np.unique(table, axis=0)) > 200


def test_maps_to_compare_share_what_a_colour_is_worth_but_not_where_they_begin():
    ramp = np.linspace(0, 1, 1000, dtype=np.float32).reshape(20, 50)
    higher = scale_of(0.5 + ramp, [3 * ramp, ramp])
    assert higher.low == 0.5
    assert scale_of(Extent(0.5 + ramp), [3 * ramp, Extent(ramp)]) == higher
    assert higher.high == pytest.approx(0.5 + 3 * 0.995, abs=3e-3)
    scale = scale_of(ramp, [3 * ramp, 0.5 + ramp])
    assert (scale.low, scale.signed, scale.colormap) == (0.0, False, "heat")
    assert scale.high == pytest.approx(3 * 0.995, abs=3e-3)
    levels = scale.levels(np.array([-1.0, 0.0, scale.high / 2, 9.0], np.float32))
    np.testing.assert_allclose(levels, [0, 0, 0.5, 1], atol=1e-6)


def test_one_signed_map_makes_all_of_them_signed():
    ramp = np.linspace(0, 1, 1000, dtype=np.float32)[None]
    scale = scale_of(ramp, [-2 * ramp])
    assert (scale.low, scale.signed, scale.colormap) == (0.0, True, "diverging")
    assert scale_of(Extent(ramp), [Extent(-2 * ramp)]) == scale
    assert scale.high == pytest.approx(2 * 0.995, abs=2e-3)
    assert scale.indices(scale.levels(np.array([-9.0, 0.0, 9.0], np.float32))).tolist() == [0, MIDDLE, 2 * MIDDLE]
    positive = scale_of(ramp, [-2 * ramp], "inferno")
    assert (positive.low, positive.signed, positive.colormap) == (0.0, False, "inferno")


@pytest.mark.parametrize("value", [0.0, 5.0, -5.0])
def test_constant_maps_have_no_level(value):
    constant = np.full((3, 4), value, np.float32)
    scale = scale_of(constant)
    levels = scale.levels(constant)
    assert np.isfinite(levels).all()
    assert (np.abs(levels) == float(value < 0)).all(), "of a signed scale, a constant below zero is all against"
