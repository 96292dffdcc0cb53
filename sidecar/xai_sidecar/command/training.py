"""`xai-sidecar train-ood`: trains an OoD net."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # importing it takes a while, and the command line has to answer at once
    from xai_sidecar.config import Config


def add_train(commands: Any, add_config: Any) -> argparse.ArgumentParser:
    """Adds the command; returns its parser."""
    train: argparse.ArgumentParser = commands.add_parser(
        "train-ood",
        help="train an OoD net, which tells pictures like those trained on from others",
        description="Train an OoD net on the features of a config's model: pictures in a folder for each class, named "
        "by its label or id, or in no folders, then what the model predicts counts. The model is not changed. Ctrl-C "
        "loses nothing: the same command goes on from there. Ends with how well the net tells held-out pictures from "
        "noise, shuffled patches and masked pictures (AUROC: 1 is perfect, 0.5 is guessing).",
    )
    add_config(train)
    train.add_argument("--data", type=Path, required=True, metavar="DIR", help="the pictures")
    train.add_argument(
        "--out", type=Path, metavar="FILE", help="where the net goes (default: ood.checkpoint, else ood.safetensors)"
    )
    train.add_argument(
        "--epochs", type=_at_least(1), default=90, metavar="N", help="passes over the pictures (default: 90)"
    )
    train.add_argument(
        "--batch-size", type=_at_least(4), default=128, metavar="N", help="pictures a step (default: 128)"
    )
    train.add_argument("--holdout", type=_share, default=0.2, metavar="SHARE", help="held out to test (default: 0.2)")
    train.add_argument("--seed", type=_at_least(0), default=0, metavar="N", help="of all that is random (default: 0)")
    return train


def train(config: Config, arguments: argparse.Namespace, report: Any) -> int:
    """Trains an OoD net; returns the exit status."""
    from xai_sidecar.backends.ood_training import train_configured
    from xai_sidecar.ood.progress import shown_progress
    from xai_sidecar.ood.training import TrainingOptions

    options = TrainingOptions(arguments.epochs, arguments.batch_size, arguments.seed, arguments.holdout)
    out = arguments.out or config.ood.checkpoint or Path("ood.safetensors")
    with shown_progress(report) as progress:
        head = train_configured(config, arguments.data, out, options, report, progress)
    print(f"trained on {head.training.sample_count:,} pictures; how well it tells held-out ones from (AUROC):")
    for kind, value in head.training.auroc.items():
        print(f"  {kind:<12}{value:.3f}")
    print(f"written to {out.resolve()}; set ood.checkpoint to it.")
    return 0


def _at_least(least: int) -> Callable[[str], int]:
    def whole_number(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None
        if number < least:
            raise argparse.ArgumentTypeError(f"{text} is too little; give at least {least}")
        return number

    return whole_number


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no share; give a number above 0 and below 1")
    return share
