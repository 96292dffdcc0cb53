"""The OoD net and RISEPlus on real data: LeNet-5 on Fashion-MNIST. `python -m bench.fashion_mnist`, some minutes.

First, how well the OoD net tells the test pictures from other inputs, beside the greatest softmax probability, which
is the usual measure where there is no OoD net (Hendrycks, Gimpel 2017, arXiv:1610.02136).

Second, RISE and RISEPlus by insertion (Petsiuk et al. 2018, arXiv:1806.07421, section 4.2): the picture starts blurred,
its pixels come back in the order of a map, as many a step as it is wide, and what counts is the area under the curve of
the top class's probability. The authors blur 224 pixels by a Gaussian of 5, cut off after 11. In that proportion these
pictures would keep most of their probability; a Gaussian of 4 of their 32 pixels leaves them about a fifth of it.

It needs Debian's data set (apt-get install dataset-fashion-mnist) and scikit-learn. What has been trained is kept in
the cache folder.
"""

from __future__ import annotations

import argparse
import collections
import functools
import gzip
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np

from bench import lenet
from bench.figure import Figure, table
from xai_sidecar.backends.mindspore.backend import MindSporeBackend
from xai_sidecar.backends.mindspore.source import ModelSource
from xai_sidecar.engine.batching import Run, in_batches
from xai_sidecar.engine.work import Array, Features, FloatArray, Forward, IntArray, drive, features, forward, ood_score
from xai_sidecar.explainers.activations import softmax
from xai_sidecar.explainers.base import Context, MapStatus, ModelFacts, Saliency
from xai_sidecar.explainers.blur import gaussian_blur
from xai_sidecar.explainers.discovery import installed_explainers
from xai_sidecar.explainers.resize import resize_bilinear
from xai_sidecar.ood.fitting import fit
from xai_sidecar.ood.head import OodHead, TrainingRecord
from xai_sidecar.ood.outliers import OUTLIERS, auroc
from xai_sidecar.ood.progress import Progress, ProgressLines, Step
from xai_sidecar.ood.training import TrainingOptions, hold_out
from xai_sidecar.paths import cache_folder

DATA = Path("/usr/share/datasets/fashion-mnist")
MEAN, DEVIATION = 0.2860, 0.3530
"""Of the training pictures."""

_Pictures: TypeAlias = tuple[FloatArray, IntArray]

_BATCH = 32
_OOD_SAMPLES = 20_000
_BLUR = 4.0
"""Standard deviation in pixels, an eighth of the picture."""

_OTHERS = {"noise": "noise", "shuffled": "shuffled patches", "masked": "themselves under RISE's masks"}
_NAMES = {"rise": "RISE", "rise_plus": "RISEPlus"}
_ESTIMATORS = ("regression", "plain")
_EXPLAINED = [(name, estimator) for estimator in _ESTIMATORS for name in _NAMES]


def main() -> int:
    """Prints the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.fashion_mnist", description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=DATA, metavar="DIR", help="the .gz files; default: %(default)s")
    parser.add_argument("--epochs", type=int, default=8, help="of LeNet-5's training; default: %(default)s")
    parser.add_argument("--pictures", type=int, default=200, help="to be explained; default: %(default)s")
    parser.add_argument("--masks", type=int, default=500, help="of an explanation; default: %(default)s")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the figures there as JSON, too")
    arguments = parser.parse_args()
    started = time.monotonic()
    progress = ProgressLines(lambda line: print(f"  {line}", file=sys.stderr, flush=True))

    digits = _digits()
    training, test = read_part(arguments.data, "train"), read_part(arguments.data, "t10k")
    folder = cache_folder() / "bench"
    checkpoint = lenet.trained(folder, *training, arguments.epochs, progress)
    shape = {"channels": 1, "height": lenet.SIDE, "width": lenet.SIDE}
    source = ModelSource(lenet.FACTORY, checkpoint=checkpoint, **shape, batch_sizes=(1, _BATCH))
    head = _trained_head(_loaded(source), training, folder / "fashion-mnist-ood.safetensors", progress)
    backend = _loaded(replace(source, ood=head))
    figures = _told_apart(backend, test, digits)
    figures += _insertion(backend, test[0][: arguments.pictures], arguments.masks, progress)
    backend.close()

    print(table(figures))
    print(f"{time.monotonic() - started:.0f} s, {backend.engine}", file=sys.stderr)
    if arguments.out:
        arguments.out.write_text(json.dumps([figure.as_dict() for figure in figures], indent=2) + "\n")
    return 0


def read_part(folder: Path, name: str) -> _Pictures:
    """The inputs (n, 1, 32, 32) of a part of the data set, filled up with black, and their classes (n,)."""
    paths = [folder / f"{name}-{what}-ubyte.gz" for what in ("images-idx3", "labels-idx1")]
    missing = [path for path in paths if not path.exists()]
    if missing:
        raise SystemExit(
            f"{missing[0]} is not there. Install the data set with apt-get install dataset-fashion-mnist, or name "
            "another folder of its .gz files with --data."
        )
    images, labels = (read_idx(path) for path in paths)
    margin = (lenet.SIDE - images.shape[1]) // 2
    padded = np.pad(images, ((0, 0), (margin, margin), (margin, margin)))
    return _normalised(padded / np.float32(255)), labels.astype(np.int32)


def read_idx(path: Path) -> Array:
    """A file of bytes in the IDX format: two zeros, the type, the number of axes, their lengths, the values."""
    content = gzip.decompress(path.read_bytes())
    axes = content[3]
    shape = np.frombuffer(content, ">i4", axes, 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)


def _digits() -> FloatArray:
    """Scikit-learn's handwritten digits, 8 x 8, enlarged; white on black, as the clothes are."""
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError:
        raise SystemExit("scikit-learn is not installed. Run pip install -e '.[dev]'.") from None
    images = load_digits().images.astype(np.float32) / 16
    return _normalised(resize_bilinear(images, lenet.SIDE, lenet.SIDE))


def _normalised(pixels: FloatArray) -> FloatArray:
    """Pixels (n, H, W) in [0, 1] as inputs."""
    return np.asarray((pixels[:, None] - MEAN) / DEVIATION, np.float32)


def _loaded(source: ModelSource) -> MindSporeBackend:
    backend = MindSporeBackend(source)
    failed = backend.warm_up([Forward.kind, Features.kind], lambda line: None)
    if failed:
        raise SystemExit(f"LeNet-5 cannot be compiled: {failed}")
    return backend


def _trained_head(backend: MindSporeBackend, training: _Pictures, state: Path, progress: Progress) -> OodHead:
    """An OoD net on the first training pictures with their true classes, by the defaults of `train-ood`."""
    options = TrainingOptions()
    inputs, labels = (array[:_OOD_SAMPLES] for array in training)
    seen = drive(features(inputs), in_batches(backend.run, _BATCH)).features
    epochs, seed = options.epochs, options.seed
    held = hold_out(labels, options.holdout, seed)

    def report(epoch: int, loss: float, accuracy: float) -> None:
        progress(Step("training the OoD net", epoch, epochs, "epochs", f"loss {loss:.3f}, accuracy {accuracy:.1%}"))

    how = {"epochs": epochs, "batch_size": options.batch_size, "seed": seed, "state": state, "report": report}
    fitted = fit(seen[~held], labels[~held], **how)
    version, count = backend.version, seen.shape[1]
    record = TrainingRecord(len(labels), time.time(), {}, version, count, 10, "folders", "", epochs, seed)
    head = OodHead(fitted.weights, np.arange(10, dtype=np.int32), np.zeros(1, np.float32), record)
    return replace(head, reference_scores=np.sort(head.scores(seen[held])))


def _told_apart(backend: MindSporeBackend, test: _Pictures, digits: FloatArray) -> list[Figure]:
    """The classifier's accuracy, and the areas under the ROC curves."""
    run = in_batches(backend.run, _BATCH)
    pictures, labels = test
    inliers = drive(ood_score(pictures), run)
    accuracy = float((inliers.logits.argmax(axis=1) == labels).mean())
    figures = [Figure("LeNet-5's accuracy on Fashion-MNIST", 100 * accuracy, "%", note=f"{len(labels):,} pictures")]
    outliers = {_OTHERS[name]: make(pictures, 0) for name, make in OUTLIERS.items()}
    for name, inputs in {**outliers, "scikit-learn's digits": digits}.items():
        scored = drive(ood_score(inputs), run)
        ours = 100 * auroc(inliers.scores, scored.scores)
        baseline = 100 * auroc(_confidence(inliers.logits), _confidence(scored.logits))
        note = f"greatest softmax probability: {baseline:.2f} %; {len(inputs):,} of them"
        figures.append(Figure(f"OoD net's AUROC, test pictures against {name}", ours, "%", note=note))
    return figures


def _confidence(logits: FloatArray) -> FloatArray:
    """The log odds of the greatest softmax probability: in the same order, but never rounded to 1."""
    below = np.sort(logits.astype(np.float64) - logits.max(axis=1, keepdims=True), axis=1)[:, :-1]
    return -np.log(np.exp(below).sum(axis=1))


def _insertion(backend: MindSporeBackend, inputs: FloatArray, masks: int, progress: Progress) -> list[Figure]:
    """The areas under insertion curves. A picture has the same masks whatever the explainer and the estimator."""
    run = in_batches(backend.run, _BATCH)
    targets = drive(forward(inputs), run).argmax(axis=1).astype(np.int32)
    tell = functools.partial(Step, "explaining", total=len(inputs), unit="pictures")
    progress(tell(done=0))
    maps, statuses = [], []
    for index, (image, target) in enumerate(zip(inputs, targets, strict=True)):
        found = [_explained(run, name, image, target, estimator, masks, index) for name, estimator in _EXPLAINED]
        maps.append([saliency.maps[0] for saliency in found])
        statuses.append([saliency.statuses[0] for saliency in found])
        progress(tell(done=index + 1))

    explained = [index for index, each in enumerate(statuses) if set(each) == {MapStatus.OK}]
    if len(explained) < 2:
        raise SystemExit("Fewer than two pictures could be explained. Ask for more with --pictures.")
    areas = []
    for index in explained:
        pixels = np.random.default_rng([index, 0]).random(inputs.shape[2:])
        curves = _curves(run, inputs[index], targets[index], [*maps[index], maps[index - 1][0], pixels])
        areas.append([curves[0][0], *(np.trapz(curve) / (len(curve) - 1) for curve in curves)])
    return _compared(100 * np.array(areas), collections.Counter(status for each in statuses for status in each))


def _explained(
    run: Run, name: str, image: FloatArray, target: np.int32, estimator: str, masks: int, seed: int
) -> Saliency:
    explainer = installed_explainers()[name]
    facts = ModelFacts(lenet.SIDE, lenet.SIDE, has_ood=True)
    parameters = explainer.resolve(explainer.parameters_type(masks=masks, estimator=estimator), facts)
    return drive(explainer.explain(image, np.array([target]), parameters, Context(seed=seed)), run)


def _curves(run: Run, image: FloatArray, target: np.int32, maps: Sequence[FloatArray]) -> FloatArray:
    """For each map the target's probability when 0, 1, 2, … steps of the most important pixels are revealed."""
    blurred = gaussian_blur(image, _BLUR)
    inputs = []
    for saliency in maps:
        ranks = np.argsort(np.argsort(-saliency.ravel(), kind="stable")).reshape(saliency.shape)
        inputs += [np.where(ranks < shown, image, blurred) for shown in range(0, image.size + 1, image.shape[2])]
    logits = drive(forward(np.stack(inputs)), run)
    return softmax(logits)[:, target].reshape(len(maps), -1)


def _compared(areas: FloatArray, statuses: collections.Counter[MapStatus]) -> list[Figure]:
    """Means and differences of areas in percent, (pictures, maps), the first column being where the curves start."""
    names = [f"{_NAMES[name]}, {estimator}" for name, estimator in _EXPLAINED]
    columns = dict(zip(["", *names, "RISE of another picture", "pixels at random"], areas.T, strict=True))
    start = columns.pop("").mean()
    note = f"{len(areas)} pictures, {start:.1f} % when all is blurred"
    figures = [_mean(f"insertion, {name}", column, "%", note) for name, column in columns.items()]
    pairs = [(names[1], names[0]), (names[3], names[2]), (names[0], names[2])]
    figures += [_mean(f"{a} minus {b}", columns[a] - columns[b], "points", "paired") for a, b in pairs]
    lost = statuses[MapStatus.NO_OOD_RANGE] / len(_ESTIMATORS)
    told = ", ".join(f"{count} {status.value}" for status, count in statuses.items())
    return [*figures, Figure("left out, scoring no higher than all-zero input", lost, "pictures", note=f"maps: {told}")]


def _mean(name: str, values: FloatArray, unit: str, note: str) -> Figure:
    error = values.std(ddof=1) / len(values) ** 0.5
    return Figure(name, float(values.mean()), unit, note=f"± {error:.2f}; {note}")


if __name__ == "__main__":
    sys.exit(main())
