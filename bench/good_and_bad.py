"""The picture of the README: a good and a bad explanation of the sample classifier, with their scores.

python -m bench.good_and_bad docs/good-and-bad.png
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from xai_client.colours import ColourScale
from xai_client.overlay import draw
from xai_sidecar.backends.loading import load_backend
from xai_sidecar.command.demo import demo_config
from xai_sidecar.command.environment import prepare_environment
from xai_sidecar.engine.batching import in_batches
from xai_sidecar.engine.work import FloatArray, drive, forward
from xai_sidecar.evaluator.annotations import regions
from xai_sidecar.evaluator.measurement import Measurer
from xai_sidecar.evaluator.records import BoxAnnotation, Frame, Sample, SampleKey
from xai_sidecar.explainers.activations import softmax
from xai_sidecar.imaging import Region, decode, prepare
from xai_sidecar.metrics.discovery import installed_metrics
from xai_sidecar.serving.evaluation import evaluated_model
from xai_sidecar.serving.model import served_model
from xai_sidecar.zoo.sample import sample_picture

EXPLAINERS = {"gradcam": "Grad-CAM", "deconvolution": "Deconvolution"}
OBJECT = (171.0, 15.0, 411.0, 311.0)
"""The cup, as a person marks it: left, top, right and bottom in pixels of the picture."""

COLUMNS = (
    ("faithfulness/srg", "faithfulness/insertion_auc", "faithfulness/deletion_auc", "faithfulness/naive"),
    ("localization/pointing_game", "localization/iosr", "class_sensitivity", "robustness"),
)
NAMES = {"srg": "SRG", "insertion_auc": "insertion", "deletion_auc": "deletion", "iosr": "IoSR"}
SCALE = 0.75
GAP, LINE, TITLE, LEGEND, BAR = 18, 28, 34, 38, 10


@dataclass(frozen=True)
class Explained:
    """What is shown of one explanation.

    Attributes:
        title: The explainer, and the class.
        saliency: The map, (H, W).
        scores: By metric.
    """

    title: str
    saliency: FloatArray
    scores: Mapping[str, float]


def explained() -> tuple[Image.Image, Region, list[Explained]]:
    """The picture, the part that the model sees, and the explanations, measured as the evaluator does."""
    config = demo_config([], print)
    backend = load_backend(config)
    model = served_model(config, backend)
    backend.warm_up(model.kinds, print)
    evaluated = evaluated_model(model)
    measurer, run = Measurer(evaluated, config.evaluator), in_batches(backend.run, 1)
    picture = decode(sample_picture("coffee").read_bytes(), config.server.max_pixels)
    prepared = prepare(picture, model.input)
    if prepared.region is None:
        raise ValueError("what the model sees of a picture is always known")
    logits = drive(forward(prepared.array[np.newaxis]), run)[0]
    target = int(logits.argmax())
    print(f"explaining {model.labels[target]!r}")
    frame = Frame(model.input.height, model.input.width, prepared.picture_size, prepared.region)
    sample = Sample(
        key=SampleKey("good and bad", 0),
        time=time.time(),
        model_version=evaluated.version,
        frame=frame,
        image=prepared.array,
        logits=logits,
        probabilities=np.asarray(softmax(logits), np.float32),
        positives=(target,),
    )
    objects = regions([BoxAnnotation(*OBJECT)], frame)
    found = []
    for name, title in EXPLAINERS.items():
        measurement, steps = measurer.begin(sample, name)
        drive(steps, run)
        if measurement.map is None:
            raise ValueError(f"the map of {name} cannot be believed")
        scores = [*measurement.scores, *measurer.locate(measurement.map, (frame.height, frame.width), objects)]
        known = {one.metric: one.value for one in scores if one.value is not None}
        found.append(Explained(f"{title}, {model.labels[target]}", measurement.map.saliency, known))
    return picture, prepared.region, found


def drawn(picture: Image.Image, region: Region, explanations: Sequence[Explained]) -> Image.Image:
    """The explanations side by side, the better score of each metric in bold."""
    width, height = round(SCALE * picture.width), round(SCALE * picture.height)
    below = TITLE + height + LEGEND
    figure = Image.new("RGB", (2 * width + 3 * GAP, below + max(map(len, COLUMNS)) * LINE + 16), "white")
    pen = ImageDraw.Draw(figure)
    for place, one in enumerate(explanations):
        left = GAP + place * (width + GAP)
        pen.text((left, 8), one.title, "black", _font(17, bold=True))
        overlaid = draw(picture, one.saliency, (region.left, region.top, region.right, region.bottom), picture.size)
        shown = overlaid.image.resize((width, height), Image.Resampling.LANCZOS)
        box = [SCALE * edge for edge in OBJECT]
        ImageDraw.Draw(shown).rectangle(box, outline="white", width=2)
        figure.paste(shown, (left, TITLE))
        _legend(figure, (left, TITLE + height + 6), width, overlaid.scale)
        for column, metrics in enumerate(COLUMNS):
            start = left + column * (width // 2 + 5)
            for row, metric in enumerate(metrics):
                corner = (start, below + 12 + row * LINE)
                _score(pen, corner, width // 2 - GAP, metric, one, explanations[1 - place])
    return figure


def _legend(figure: Image.Image, corner: tuple[int, int], width: int, scale: ColourScale) -> None:
    """What the colours of a map mean."""
    left, top = corner
    figure.paste(Image.fromarray(np.repeat(scale.shown(width)[np.newaxis], BAR, axis=0)), corner)
    pen, font = ImageDraw.Draw(figure), _font(13, bold=False)
    for mark, place, anchor in zip(scale.marks(), (0, width // 2, width), ("la", "ma", "ra"), strict=True):
        pen.text((left + place, top + BAR + 4), mark, "#555555", font, anchor=anchor)


def _score(
    pen: ImageDraw.ImageDraw, corner: tuple[float, float], width: int, metric: str, one: Explained, other: Explained
) -> None:
    better = installed_metrics()[metric].higher_is_better
    mine, others = (round(each.scores[metric], 2) for each in (one, other))
    wins = mine > others if better else mine < others
    font, colour = _font(15, bold=wins), "black" if wins else "#555555"
    name = metric.rpartition("/")[2]
    pen.text(corner, f"{NAMES.get(name, name.replace('_', ' '))} {'↑' if better else '↓'}", colour, font)
    pen.text((corner[0] + width, corner[1]), f"{mine:.2f}", colour, font, anchor="ra")


def _font(size: int, *, bold: bool) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, of which Pillow knows where systems keep it."""
    return ImageFont.truetype("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf", size)


if __name__ == "__main__":
    prepare_environment()
    drawn(*explained()).save(Path(sys.argv[1]), optimize=True)
