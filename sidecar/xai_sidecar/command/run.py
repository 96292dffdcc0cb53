"""`xai-sidecar run`: explains and measures a data set."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # importing it takes a while, and the command line has to answer at once
    from xai_sidecar.config import Config
    from xai_sidecar.runner.session import RunResult
    from xai_sidecar.runner.telling import Telling

_LOST = 1
"""Exit status where the device was lost, or the machines were."""

_SKIPPED = 3
"""Exit status where some pictures could not be read."""


def add_run(commands: Any, add_config: Any) -> argparse.ArgumentParser:
    """Adds the command; returns its parser."""
    run: argparse.ArgumentParser = commands.add_parser(
        "run",
        help="explain and measure a whole data set",
        description="Explain every picture of a data set, measure every explanation by the config's metrics, and write "
        "what came of it: a store that the console browses, summary.json, scores.csv, and report.html, which can be "
        "sent. Ctrl-C ends once the pictures in work are done; the same command goes on from there, after a kill too. "
        "Exit status 3 if pictures could not be read.",
        epilog="What these options say may stand in the config's section [run], too; the options count.",
    )
    add_config(run)
    run.add_argument(
        "--data",
        required=True,
        metavar="DATA",
        help="a folder with a folder of pictures for each class, named by its label or id; a folder of pictures, with "
        "a CSV file of labels or without; a COCO .json; a folder as Pascal VOC has it; or module:callable, which "
        "returns MindSpore's data set or any iterable of (image), (image, labels) or (image, labels, boxes)",
    )
    run.add_argument("--out", type=Path, required=True, metavar="RUN", help="the folder that the run goes to")
    run.add_argument(
        "--explainers", type=_names, metavar="NAMES", help="the explainers, with commas between (default: the config's)"
    )
    run.add_argument(
        "--metrics", type=_names, metavar="NAMES", help="the metrics, with commas between (default: the config's)"
    )
    run.add_argument(
        "--targets",
        choices=("predicted", "true", "both"),
        help="the classes that are explained of each picture (default: predicted)",
    )
    run.add_argument(
        "--probable", type=float, metavar="P", help="explain every class of at least this probability, too"
    )
    run.add_argument("--limit", type=int, metavar="N", help="run the first N pictures only")
    run.add_argument("--seed", type=int, metavar="N", help="of all that is random (default: 0)")
    run.add_argument(
        "--no-pictures",
        dest="keep_pictures",
        action="store_const",
        const=False,
        help="keep no pictures of the data set in RUN: maps are shown by themselves",
    )
    run.add_argument(
        "--fail-fast", action="store_const", const=True, help="end at the first picture that cannot be read"
    )
    run.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="spread it over the machines of a Ray cluster, host:port of its head, or over actors on this one, "
        "`local`; needs the extra `ray`",
    )
    run.add_argument(
        "--actors",
        type=int,
        metavar="N",
        help="with --ray, how many engines there are (default: one for each accelerator, or each machine)",
    )
    return run


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def run_overrides(arguments: argparse.Namespace) -> list[str]:
    """What the options say, as overrides of the config's section [run]."""
    keys = ("explainers", "metrics", "targets", "probable", "limit", "seed", "keep_pictures", "fail_fast")
    said = {key: getattr(arguments, key) for key in keys}
    return [f"run.{key}={json.dumps(value)}" for key, value in said.items() if value is not None]


def run(config: Config, arguments: argparse.Namespace, report: Any) -> int:
    """Runs a data set; returns the exit status."""
    from xai_sidecar.errors import ConfigError, DeviceLostError, InvalidRequestError, StoreError
    from xai_sidecar.interrupt import deferred
    from xai_sidecar.ood.progress import shown_progress
    from xai_sidecar.runner.telling import Telling, written

    if arguments.actors is not None and (arguments.ray is None or arguments.actors < 1):
        raise ConfigError("it is a number of at least 1, and goes with --ray.", field="actors")
    run_it = _run_here if arguments.ray is None else _run_on_ray
    try:
        with deferred() as stop, shown_progress(report) as progress:
            telling = Telling(progress, config.evaluator.auto.weights)
            result = run_it(config, arguments, report, telling, stop)
    except (InvalidRequestError, StoreError) as error:
        raise ConfigError(error.message, field="data") from error
    except DeviceLostError as error:
        print(f"xai-sidecar: {error.message}", file=sys.stderr)
        return _LOST
    try:
        print(written(result), flush=True)
    finally:
        result.store.close()
    if result.counts.interrupted:
        raise KeyboardInterrupt
    return _SKIPPED if result.counts.skipped else 0


def _run_here(config: Config, arguments: argparse.Namespace, report: Any, telling: Telling, stop: Any) -> RunResult:
    from xai_sidecar.backends.loading import load_backend
    from xai_sidecar.runner.folder import RunFolder
    from xai_sidecar.runner.session import run_data

    return run_data(config, arguments.data, RunFolder(arguments.out), load_backend, report, telling, stop)


def _run_on_ray(config: Config, arguments: argparse.Namespace, report: Any, telling: Telling, stop: Any) -> RunResult:
    from xai_sidecar.backends.loading import load_backend
    from xai_sidecar.interrupt import remembered_handlers
    from xai_sidecar.runner.folder import RunFolder
    from xai_sidecar.runner.session import run_spread
    from xai_sidecar.runner.spread import ray_cluster
    from xai_sidecar.runner.spread.spreading import Spreader
    from xai_sidecar.runner.spread.worker import WorkerSetup

    put_back = remembered_handlers()
    with ray_cluster.connected(arguments.ray) as ray:
        put_back()
        room = ray_cluster.cluster_room(ray, config.model.device, arguments.actors)
        threads = None if room.accelerator else room.cpus
        setup = WorkerSetup(ray_cluster.worker_config(config), load_backend, ray_cluster.import_paths(), threads)
        report(f"starting {room.count} actors, each with {room.content}")
        spreader = Spreader(ray_cluster.RayCluster(ray, setup, room, report), room.count, report)
        return run_spread(config, arguments.data, RunFolder(arguments.out), spreader, telling, stop)


_WORSE = 1
"""Exit status where a score of the second run is worse beyond chance."""


def add_compare(commands: Any) -> argparse.ArgumentParser:
    """Adds the command; returns its parser."""
    compare: argparse.ArgumentParser = commands.add_parser(
        "compare",
        help="compare two runs of a data set",
        description="Say which scores of two runs differ beyond chance, from the differences on the same pictures. "
        "Exit status 0 if none is worse in the second run, 1 if one is.",
    )
    compare.add_argument("before", type=Path, metavar="RUN_A", help="the folder of the run before")
    compare.add_argument("after", type=Path, metavar="RUN_B", help="the folder of the run after")
    return compare


def compare(arguments: argparse.Namespace) -> int:
    """Compares two runs; returns the exit status."""
    from xai_sidecar.evaluator.controls import CONTROLS
    from xai_sidecar.runner.comparing import compare as compared
    from xai_sidecar.runner.comparing import comparison_lines

    differences = compared(arguments.before, arguments.after)
    print("\n".join(comparison_lines(differences)))
    # A control's map knows nothing of the model: that the model has changed says nothing against it.
    worse = any(each.certain and not each.better and each.explainer not in CONTROLS for each in differences)
    return _WORSE if worse else 0
