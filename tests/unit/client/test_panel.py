"""Panels: each map in its place, with what it says below, at sizes worked out by hand."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageFont

from xai_client import ArgumentError, ClassScore, Explanation, MapWithheldError, Prediction, Region, SaliencyMap
from xai_client.colours import ColourScale
from xai_client.panel import Tile, drawable, panel

SIDE = 40
PAPER = (255, 255, 255)


def picture(red=128):
    return Image.new("RGB", (SIDE, SIDE), (red, 128, 128))


def saliency(class_id, status="ok", value=1.0, error=None):
    values = np.zeros((4, 4), np.float32)
    values[0, 0] = value
    return SaliencyMap(class_id, f"label {class_id}", status, None if status == "zero_gradient" else values, error)


def explanation(name="rise", *maps, **changes):
    whole = Explanation(
        name=name,
        explainer=name,
        status="complete",
        status_message="",
        maps=maps or (saliency(3), saliency(5)),
        parameters={},
        seed=None,
        passes=1,
        truncated=False,
        elapsed=0.0,
        region=Region(0, 0, SIDE, SIDE),
        picture_size=(SIDE, SIDE),
    )
    return replace(whole, **changes)


def prediction(*explanations):
    classes = (ClassScore(3, "cat", 0.7, 2.0), ClassScore(5, "\u732b", 0.2, 1.0))
    named = {each.name: each for each in explanations}
    return Prediction("id", "v", classes, None, None, named, Region(0, 0, SIDE, SIDE), (SIDE, SIDE))


def places(sheet, columns, width=100):
    """The pictures of the first row, by their places on the sheet."""
    gap = width // 20
    return [sheet.crop((gap + k * (width + gap), gap, (k + 1) * (width + gap), gap + width)) for k in range(columns)]


def texts(monkeypatch):
    """Collects what is written."""
    from PIL import ImageDraw

    written = []
    text = ImageDraw.ImageDraw.text
    monkeypatch.setattr(
        ImageDraw.ImageDraw,
        "text",
        lambda self, xy, words, **more: (written.append(words), text(self, xy, words, **more)),
    )
    return written


@pytest.mark.parametrize(
    ("count", "columns", "expected"),
    [(1, None, 1), (4, None, 4), (5, None, 3), (8, None, 4), (9, None, 3), (5, 2, 2), (2, 7, 2)],
)
def test_rows_are_as_equal_as_can_be(count, columns, expected):
    sheet = panel([Tile(picture(), "a")] * count, columns, 100)
    assert sheet.width == expected * 105 + 5
    one = panel([Tile(picture(), "a")], None, 100)
    rows = -(-count // expected)
    assert sheet.height == rows * (one.height - 5) + 5


def test_each_picture_is_in_its_place():
    sheet = panel([Tile(picture(red), "a") for red in (0, 200)], None, 100)
    reds = [np.asarray(each)[:, :, 0] for each in places(sheet, 2)]
    assert (reds[0] == 0).all()
    assert (reds[1] == 200).all()


def test_a_legend_has_the_colours_of_the_scale_from_end_to_end():
    scale = ColourScale(0.0, 2.0, False, "heat")
    sheet = np.asarray(panel([Tile(picture(), "a", (), scale)], None, 100))
    ends = scale.colours()[[0, -1]]
    rows = [row for row in sheet[:, 5:105] if (row[0] == ends[0]).all() and (row[-1] == ends[1]).all()]
    assert len(rows) == round(100 / 22), "as high as its letters"


def test_the_numbers_of_a_legend(monkeypatch):
    written = texts(monkeypatch)
    panel([Tile(picture(), "a", (), ColourScale(1.0, 2.0, False, "heat"))])
    assert written == ["a", "1", "1.5", "2"]
    written.clear()
    panel([Tile(picture(), "a", (), ColourScale(0.0, 0.25, True, "diverging"))])
    assert written == ["a", "-0.25 against", "0", "for 0.25"]


def test_a_prediction_and_its_explanations(monkeypatch):
    written = texts(monkeypatch)
    asked = prediction(
        explanation("rise", saliency(3, error=0.125)), explanation("gradient", saliency(3, "zero_gradient"))
    )
    sheet = asked.panel(picture(), scores={"rise": ["srg 0.50"]}, width=200)
    assert sheet.width == 3 * 210 + 10
    assert written[:3] == ["picture", "cat 70%", "class 5 20%"], "the font has no sign for it"
    assert written[3:7] == ["rise", "label 3", "standard error 0.12", "srg 0.50"]
    assert written[-2:] == ["gradient", "no map: zero gradient"]
    asked.panel(picture(), ["gradient"], width=200)
    assert "rise" not in written[written.index("no map: zero gradient") + 1 :]


def test_the_targets_of_an_explanation_side_by_side():
    both = explanation("rise", saliency(3), saliency(5, value=0.1))
    strengths = [
        np.ptp(np.asarray(each).astype(int), axis=2).max() for each in places(both.panel(picture(), width=100), 2)
    ]
    assert strengths[1] < strengths[0] / 2
    one = both.panel(picture(), [5], width=100)
    assert one.width == 110
    assert np.ptp(np.asarray(places(one, 1)[0]).astype(int), axis=2).max() == strengths[1]


def test_an_overlay_with_its_legend_keeps_the_picture():
    plain = explanation().overlay(picture(), 5)
    told = explanation().overlay(picture(), 5, legend=True)
    assert told.height > plain.height
    np.testing.assert_array_equal(np.asarray(told)[:SIDE, :SIDE], np.asarray(plain))


def test_what_is_too_long_is_cut():
    long = panel([Tile(picture(), "a" * 500, ("b" * 500,))], None, 100)
    assert (np.asarray(long)[:, 105:] == 255).all()


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda asked: asked.panel(picture(), ["lime"]), "explanations"),
        (lambda asked: asked.panel(picture(), target=9), "target"),
        (lambda asked: asked.panel(picture(), width=20), "width"),
        (lambda asked: asked.panel(picture(), columns=0), "columns"),
        (lambda asked: asked.panel(picture(), alpha=2), "alpha"),
        (lambda asked: asked.panel(Image.new("RGB", (7, 7))), "image"),
        (lambda asked: asked.explanations["rise"].panel(picture(), []), "explanations"),
    ],
)
def test_wrong_arguments_are_refused(call, field):
    with pytest.raises(ArgumentError) as caught:
        call(prediction(explanation()))
    assert caught.value.field == field


def test_an_explanation_without_maps_has_no_panel():
    with pytest.raises(MapWithheldError):
        replace(explanation(), maps=(), status="skipped").panel(picture())


def test_which_texts_can_be_drawn():
    assert drawable("Café ± 3", "no") == "Cafe ± 3"
    assert drawable("\u732b", "no") == "no"
    assert isinstance(ImageFont.load_default(12), ImageFont.FreeTypeFont)
