"""A run of Fashion-MNIST's test pictures by LeNet-5, killed again and again, with all explainers and metrics.

`python -m bench.fashion_run --limit 100`; without a limit it takes hours.

Each run is a process of its own. One is left alone; beside it another is killed by SIGKILL, by Ctrl-C and by SIGKILL
again, each time after another quarter of its pictures, and begun anew. The scores of both have to be the same. A run of
one picture comes first: it chooses the engines, which both then have.

It needs Debian's data set (apt-get install dataset-fashion-mnist). What has been trained is kept in the cache folder;
the runs stay in the folder that --out names, and a command that was interrupted goes on there.
"""

from __future__ import annotations

import argparse
import csv
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
from PIL import Image

from bench import lenet
from bench.fashion_mnist import DATA, DEVIATION, MEAN, read_idx, read_part
from xai_sidecar.metrics.discovery import installed_metrics
from xai_sidecar.ood.progress import ProgressLines
from xai_sidecar.paths import cache_folder

_SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGKILL)
_OOD_SAMPLES = 2000
_VISIBLE = 32
"""Pixels of clothes are brighter than this, of 255."""

_CONFIG = """
[model]
batch_sizes = [1, 2, 4, 8, 32]  # a pass of so small a net costs less than to begin one
gradient_batch_sizes = [1, 4, 16]
name = "LeNet-5"
factory = "{factory}"
checkpoint = "{checkpoint}"
labels = ["T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"]
input = {{size = {side}, channels = 1, mean = {mean}, std = {deviation}, mean_colour = {mean}}}
{ood}
[evaluator]
metrics = {metrics}
"""


def test_set() -> Iterator[tuple[np.ndarray, int, list[list[int]]]]:
    """The test pictures (32, 32, 1) uint8, with their classes, and the boxes of what is brighter than the ground."""
    images, labels = (read_idx(DATA / f"t10k-{what}-ubyte.gz") for what in ("images-idx3", "labels-idx1"))
    for image, label in zip(_padded(images), labels.tolist(), strict=True):
        rows, columns = np.nonzero(image > _VISIBLE)
        box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
        yield image[..., np.newaxis], label, [[int(each) for each in box]]


def _padded(images: np.ndarray) -> np.ndarray:
    margin = (lenet.SIDE - images.shape[1]) // 2
    return np.pad(images, ((0, 0), (margin, margin), (margin, margin)))


def main() -> int:
    """Prints what both runs took, and whether their scores are the same; exit status 1 where they are not."""
    parser = argparse.ArgumentParser(prog="python -m bench.fashion_run", description=__doc__.split("\n")[0])
    parser.add_argument("--limit", type=int, default=10_000, metavar="N", help="the first N pictures; default: all")
    parser.add_argument("--epochs", type=int, default=8, help="of LeNet-5's training; default: %(default)s")
    parser.add_argument("--out", type=Path, default=Path("fashion-run"), metavar="DIR", help="default: %(default)s")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    config = _config(arguments.out, arguments.epochs)
    first, alone, killed = (arguments.out / name for name in ("first", "alone", "killed"))
    _finished(_command(config, first, 1))
    with ThreadPoolExecutor(1) as beside:
        undisturbed = beside.submit(_finished, _command(config, alone, arguments.limit))
        for part, number in enumerate(_SIGNALS, 1):
            count = max(arguments.limit * part // 4, _measured(killed) + 1)  # Ctrl-C lets it finish what it has begun
            _killed(_command(config, killed, arguments.limit), number, killed, count)
            print(f"killed by {number.name} after {_measured(killed)} pictures", flush=True)
        _finished(_command(config, killed, arguments.limit))
        print(f"undisturbed: {arguments.limit} pictures in {undisturbed.result():.0f} s", flush=True)
    count, largest = _compared(_scores(alone), _scores(killed))
    print(f"{count:,} scores of both, which differ by {largest:.1e} at the most")
    return 0 if largest <= 1e-5 else 1


def _config(folder: Path, epochs: int) -> Path:
    """Writes the config, with what has to be trained for it."""
    training = read_part(DATA, "train")
    report = ProgressLines(lambda line: print(f"  {line}", file=sys.stderr, flush=True))
    checkpoint = lenet.trained(cache_folder() / "bench", *training, epochs, report)
    values = {
        "factory": lenet.FACTORY,
        "checkpoint": checkpoint,
        "side": lenet.SIDE,
        "mean": MEAN,
        "deviation": DEVIATION,
        "metrics": list(installed_metrics()),
    }
    head, config = folder / "ood.safetensors", folder / "sidecar.toml"
    config.write_text(_CONFIG.format(ood=f'[ood]\ncheckpoint = "{head.absolute()}"', **values))
    if not head.exists():
        pictures = _training_pictures(folder / "training")
        subprocess.run([*_SIDECAR, "train-ood", "--config", str(config), "--data", str(pictures)], check=True)
    return config


_SIDECAR = (sys.executable, "-m", "xai_sidecar")


def _training_pictures(folder: Path) -> Path:
    """The first training pictures, as files in folders of their classes."""
    images, labels = (
        read_idx(DATA / f"train-{what}-ubyte.gz")[:_OOD_SAMPLES] for what in ("images-idx3", "labels-idx1")
    )
    for number, (image, label) in enumerate(zip(_padded(images), labels.tolist(), strict=True)):
        path = folder / str(label) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return folder


def _command(config: Path, out: Path, limit: int) -> list[str]:
    data = ["--data", "bench.fashion_run:test_set", "--targets", "both"]
    return [*_SIDECAR, "run", "--config", str(config), "--out", str(out), "--limit", str(limit), *data]


def _finished(command: Sequence[str]) -> float:
    """Seconds that a run takes to its end."""
    started = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - started


def _killed(command: Sequence[str], number: signal.Signals, out: Path, count: int) -> None:
    """Has a run go on until it has so many pictures, and kills it."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None and _measured(out) < count:
        time.sleep(0.2)
    process.send_signal(number)
    process.wait()


def _measured(out: Path) -> int:
    """Pictures that a run's store has."""
    try:
        with closing(sqlite3.connect(f"file:{out / 'store.sqlite'}?mode=ro", uri=True)) as connection:
            (count,) = connection.execute("SELECT count(DISTINCT request_id) FROM samples").fetchone()
            return int(count)
    except sqlite3.OperationalError:  # it is not there yet
        return 0


_Scores = dict[tuple[str, ...], str]


def _scores(out: Path) -> _Scores:
    with (out / "scores.csv").open() as file:
        rows = csv.DictReader(file)
        return {(row["name"], row["target"], row["explainer"], row["metric"]): row["value"] for row in rows}


def _compared(one: _Scores, other: _Scores) -> tuple[int, float]:
    """How many scores there are in both, and the largest difference; infinite where one lacks what the other has."""
    if one.keys() != other.keys() or any(bool(one[key]) != bool(other[key]) for key in one):
        return len(one.keys() & other.keys()), float("inf")
    return len(one), max(abs(float(one[key]) - float(other[key])) for key in one if one[key])


if __name__ == "__main__":
    sys.exit(main())
