"""The command `xai-client predict`: classifies pictures, and writes what explains the predictions."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Iterable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, Final

from xai_client.client import Client
from xai_client.colours import COLORMAPS
from xai_client.command import text
from xai_client.command.common import add_common, default_server, fail, open_client
from xai_client.command.files import OverlayFiles, check_folder
from xai_client.command.tables import terminal_width
from xai_client.command.watch import Watch
from xai_client.errors import ArgumentError, ImageError, InvalidRequestError, MessageTooLargeError
from xai_client.overlay import DEFAULT_ALPHA
from xai_client.request import Explain, explanation_names, parse_parameter
from xai_client.types import Explanation, Prediction

EXAMPLES: Final = """\
  xai-client predict cat.jpg
  xai-client predict cat.jpg --explain gradcam,rise --param rise.masks=500 --out maps
  xai-client predict cat.jpg --explain gradcam --target "tiger cat" --target 285 --npy
  xai-client predict *.jpg --explain gradcam --if-top-probability-below 0.5 --json
  xai-client predict cat.jpg --explain rise --watch --budget 10
"""

# Options that say nothing without an explanation.
_FOR_EXPLANATIONS: Final = (
    *("target", "top_count", "min_probability", "seed", "budget", "if_top_probability_below"),
    *("if_ood_percentile_below", "colormap", "alpha", "no_legend", "npy", "values", "panel"),
)

_STATUS: Final = """\
exit status:
  0 when all went well, 1 when a call or a file failed, 2 when the command was wrong,
  3 when a picture was predicted but an explanation of it has no map, unless its condition did not hold,
  130 on Ctrl-C
"""
_NO_MAP: Final = 3

_SCORES: Final = 3
"""Scores that stand below a map of a panel."""

# Faults of one picture, after which the others are still worth trying.
_PICTURE_REASONS: Final = frozenset({"PICTURE", "PICTURE_TOO_LARGE"})


def add_predict(commands: Any) -> None:
    """Adds the command `predict`."""
    parser = commands.add_parser(
        "predict",
        help="classify pictures and write the overlays of their explanations",
        description="""\
Classifies pictures. Each explanation is written as an overlay, DIR/<stem>.<explainer>.png, or
DIR/<stem>.<explainer>.<class id>.png where there are several targets. It replaces an earlier
file of that name, but none of the pictures given.""",
        epilog=f"examples:\n{EXAMPLES}\n{_STATUS}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "images", nargs="+", type=Path, metavar="IMAGE", help="a JPEG, PNG, WebP, GIF, BMP or TIFF file"
    )
    parser.add_argument(
        "--explain",
        action="append",
        default=[],
        metavar="NAME[,NAME...]",
        help="explainers to run, or 'auto' for the best measured one; 'xai-client info' lists them",
    )
    parser.add_argument("--top-k", type=int, metavar="K", help="classes to show (default: 5)")
    parser.add_argument("--out", type=Path, default=Path(), metavar="DIR", help="where files go (default: here)")
    targets = parser.add_mutually_exclusive_group()
    targets.add_argument(
        "--target",
        action="append",
        metavar="ID|LABEL",
        help="class to explain; repeatable (default: the most probable one)",
    )
    targets.add_argument("--top-count", type=int, metavar="N", help="explain the N most probable classes instead")
    targets.add_argument(
        "--min-probability", type=float, metavar="P", help="explain every class at least this probable instead"
    )
    parser.add_argument(
        "--param",
        action="append",
        default=[],
        metavar="EXPLAINER.NAME=VALUE",
        help="a parameter of an explainer, such as rise.masks=500; repeatable",
    )
    parser.add_argument("--seed", type=int, help="seed of everything random (default: drawn by the server)")
    parser.add_argument(
        "--budget",
        type=float,
        metavar="SECONDS",
        help="longest time for each explanation; the best map so far is then taken (default: until it is done)",
    )
    parser.add_argument(
        "--if-top-probability-below",
        type=float,
        metavar="P",
        help="explain only where the highest probability is below this",
    )
    parser.add_argument(
        "--if-ood-percentile-below",
        type=float,
        metavar="P",
        help="explain only where the OoD percentile is below this; of both conditions, either is enough",
    )
    parser.add_argument("--colormap", choices=COLORMAPS, help="colours of the overlays (default: by the map's values)")
    parser.add_argument(
        "--alpha", type=float, metavar="A", help=f"opacity at the most salient pixel, 0 to 1 (default: {DEFAULT_ALPHA})"
    )
    parser.add_argument(
        "--no-legend",
        action="store_true",
        help="overlays of the picture's own size, without a line below of class, explainer and what the colours mean",
    )
    parser.add_argument(
        "--npy",
        action="store_true",
        help="also write each map as it is, beside its overlay: .npy, float32 (height, width) of the model input",
    )
    parser.add_argument(
        "--panel",
        action="store_true",
        help="also write the picture and its maps side by side, with legends and how good each explainer has been"
        " measured to be: DIR/<stem>.panel.png",
    )
    parser.add_argument("--values", action="store_true", help="with --json, print each map's values, too, row by row")
    parser.add_argument(
        "--watch",
        action="store_true",
        help="show the progress on stderr, and write overlays at once, in ever better versions;"
        " with --json, print one line per event",
    )
    parser.add_argument("--ood", action="store_true", help="also show the out-of-distribution score")
    parser.add_argument(
        "--skip-sampling",
        action="store_true",
        help="this is no traffic: the server neither samples the pictures nor counts them in what it measures",
    )
    add_common(parser, "longest time for each picture, all explanations included", "print JSON, one line per picture")
    parser.set_defaults(run=_predict)


def _predict(arguments: argparse.Namespace) -> int:
    explain = _explanations(arguments)
    _check(arguments, explain)
    images: list[Path] = arguments.images
    for path in images:
        if path.is_dir():
            raise ArgumentError(f"{path} is a folder; name the pictures in it, as in {path / '*.jpg'}")
        if not path.exists():
            raise ArgumentError(f"there is no file {path}")
    if explain:
        check_folder(arguments.out)
    status = 0
    with open_client(arguments) as client:
        explain = _explanations(arguments, _class_ids(arguments.target, client))
        scores = cache(partial(_scores, client))
        for path, stem in zip(images, _stems(images), strict=True):
            files = _files(arguments, path, stem)
            try:
                prediction = _one(arguments, client, explain, path, files)
            except (ImageError, MessageTooLargeError, InvalidRequestError) as error:
                if isinstance(error, InvalidRequestError) and error.reason not in _PICTURE_REASONS:
                    raise
                status = fail(f"{path}: {error}", 1)
                continue
            if arguments.panel:
                explainers = {name: each.explainer for name, each in prediction.explanations.items()}
                files.write_panel(prediction, {name: scores().get(each, ()) for name, each in explainers.items()})
            if any(map(_lacks_map, prediction.explanations.values())):
                status = status or _NO_MAP
            _show(arguments, prediction, path, files)
    return status


def _lacks_map(explanation: Explanation) -> bool:
    """Whether a map that was asked for is not there."""
    nothing = not explanation.maps and explanation.status == "truncated"
    return nothing or any(each.values is None for each in explanation.maps)


def _one(
    arguments: argparse.Namespace, client: Client, explain: Sequence[Explain], image: Path, files: OverlayFiles
) -> Prediction:
    """Predicts one picture, and writes what explains it."""
    asked = {"top_k": arguments.top_k, "ood": arguments.ood, "skip_sampling": arguments.skip_sampling}
    if arguments.watch:
        events = client.stream(image, explain, **asked)
        return Watch(image, explanation_names(explain), files, arguments.json, arguments.values).follow(events)
    prediction = client.predict(image, explain, **asked)
    for explanation in prediction.explanations.values():
        files.write(explanation)
    return prediction


def _show(arguments: argparse.Namespace, prediction: Prediction, image: Path, files: OverlayFiles) -> None:
    if not arguments.json:
        there = "" if arguments.server == default_server() else f" --server {arguments.server}"
        width = terminal_width(sys.stdout)
        print(text.prediction_text(prediction, image, files.written, files.arrays, there, width))
        if files.panel:
            print(f"side by side: {files.panel}\n")
    elif not arguments.watch:  # else every event has been printed
        print(text.prediction_json(prediction, image, files.written, files.arrays, arguments.values, files.panel))


def _scores(client: Client) -> dict[str, list[str]]:
    """How good each explainer has been measured to be, a line each for the metrics that come first."""
    explainers = client.model_info().explainers
    return {name: [text.measure_text(each) for each in one.quality[:_SCORES]] for name, one in explainers.items()}


def _check(arguments: argparse.Namespace, explain: Sequence[Explain]) -> None:
    """Refuses options that would have no effect, or could not be followed."""
    values = {name: getattr(arguments, name) for name in _FOR_EXPLANATIONS}
    given = [name for name, value in values.items() if value is not None and value is not False]
    if given and not explain:
        raise ArgumentError(f"--{given[0].replace('_', '-')} is for explanations; name explainers with --explain")
    if arguments.values and not arguments.json:
        raise ArgumentError("--values is for --json; to save the maps as arrays use --npy")
    if arguments.alpha is not None and not 0 <= arguments.alpha <= 1:
        raise ArgumentError(f"--alpha must be from 0 to 1, not {arguments.alpha:g}")


def _files(arguments: argparse.Namespace, image: Path, stem: str) -> OverlayFiles:
    return OverlayFiles(
        image,
        arguments.out,
        stem,
        arguments.images,
        alpha=DEFAULT_ALPHA if arguments.alpha is None else arguments.alpha,
        colormap=arguments.colormap,
        arrays=arguments.npy,
        legend=not arguments.no_legend,
    )


def _class_ids(targets: Sequence[str] | None, client: Client) -> list[int] | None:
    """The classes named by ids or labels; the server is asked for its labels where there are any of these."""
    if targets is None:
        return None
    named = [each for each in targets if not each.isdecimal()]
    labels = client.model_info().labels if named else ()
    return [int(each) if each.isdecimal() else _class_id(each, labels) for each in targets]


def _class_id(label: str, labels: Sequence[str]) -> int:
    found = [class_id for class_id, each in enumerate(labels) if each == label]
    if len(found) == 1:
        return found[0]
    if found:
        raise ArgumentError(f"--target {label!r} is the label of classes {', '.join(map(str, found))}; give an id")
    close = difflib.get_close_matches(label, labels, n=3)
    hint = f"did you mean {' or '.join(map(repr, close))}?" if close else "'xai-client info --json' lists the labels"
    raise ArgumentError(f"the model has no class {label!r}; {hint}")


def _explanations(arguments: argparse.Namespace, targets: Sequence[int] | None = None) -> list[Explain]:
    names = [name.strip() for group in arguments.explain for name in group.split(",") if name.strip()]
    parameters: dict[str, dict[str, Any]] = {name: {} for name in names}
    for item in arguments.param:
        match = re.fullmatch(r"([^.=]+)\.([^.=]+)=(.*)", item, re.DOTALL)
        if match is None:
            raise ArgumentError(f"--param takes EXPLAINER.NAME=VALUE, not {item!r}")
        explainer, name, value = match.groups()
        if explainer not in parameters:
            raise ArgumentError(f"--param {item} is for {explainer!r}, which is not among --explain")
        if name in parameters[explainer]:
            raise ArgumentError(f"--param {explainer}.{name} is given twice; give it once")
        parameters[explainer][name] = parse_parameter(explainer, name, value)
    common = {
        "targets": targets,
        "top_count": arguments.top_count,
        "min_probability": arguments.min_probability,
        "seed": arguments.seed,
        "budget": arguments.budget,
        "top_probability_below": arguments.if_top_probability_below,
        "ood_percentile_below": arguments.if_ood_percentile_below,
    }
    return [Explain(name, **common, **parameters[name]) for name in names]


def _stems(paths: Iterable[Path]) -> list[str]:
    """The stem of every path, told apart where two are equal."""
    stems: list[str] = []
    for path in paths:
        stem, number = path.stem, 1
        while stem in stems:
            number += 1
            stem = f"{path.stem}-{number}"
        stems.append(stem)
    return stems
