"""The command `xai-client predict`: classifies pictures, and writes what explains the predictions."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from xai_client import text
from xai_client.client import Client
from xai_client.errors import ArgumentError, ImageError, InvalidRequestError, MessageTooLargeError
from xai_client.files import OverlayFiles
from xai_client.request import Explain, explanation_names, parse_parameter
from xai_client.watch import Watch

EXAMPLES: Final = """\
  xai-client predict cat.jpg
  xai-client predict cat.jpg --explain gradcam,gradient --out maps
  xai-client predict *.jpg --explain gradcam --param gradcam.layer=blocks.10 --json
  xai-client predict cat.jpg --explain gradcam --target 281 --target 285
  xai-client predict cat.jpg --explain rise --watch --budget 10
"""

# Faults of one picture, after which the others are still worth trying.
_PICTURE_REASONS: Final = frozenset({"PICTURE", "PICTURE_TOO_LARGE"})


def add_predict(commands: Any) -> argparse.ArgumentParser:
    """Adds the command `predict` and returns its parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "predict",
        help="classify pictures and write the overlays of their explanations",
        description="Classifies pictures. Each explanation is written as an overlay, DIR/<stem>.<explainer>.png.",
        epilog=f"examples:\n{EXAMPLES}",
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
    parser.add_argument("--out", type=Path, default=Path(), metavar="DIR", help="where overlays go (default: here)")
    parser.add_argument(
        "--target",
        type=int,
        action="append",
        metavar="ID",
        help="class id to explain; repeatable (default: the top one)",
    )
    parser.add_argument(
        "--param",
        action="append",
        default=[],
        metavar="EXPLAINER.NAME=VALUE",
        help="a parameter of an explainer, such as gradcam.layer=blocks.3; repeatable",
    )
    parser.add_argument("--seed", type=int, help="seed of everything random (default: drawn by the server)")
    parser.add_argument(
        "--budget",
        type=float,
        metavar="SECONDS",
        help="longest time for each explanation; the best map so far is then taken (default: until it is done)",
    )
    parser.add_argument(
        "--watch",
        action="store_true",
        help="show the progress on stderr, and write overlays at once, in ever better versions;"
        " with --json, print one line per event",
    )
    parser.add_argument("--ood", action="store_true", help="also show the out-of-distribution score")
    parser.set_defaults(run=_predict)
    return parser


def fail(error: Exception | str, status: int) -> int:
    """Prints what went wrong as one line on stderr, and returns the exit status."""
    print(f"xai-client: {' '.join(str(error).split())}", file=sys.stderr)
    return status


def _predict(arguments: argparse.Namespace) -> int:
    explain = _explanations(arguments)
    images: list[Path] = arguments.images
    for path in images:
        if not path.is_file():
            raise ArgumentError(f"there is no file {path}")
    status = 0
    with Client(arguments.server, timeout=arguments.timeout) as client:
        for path, stem in zip(images, _stems(images), strict=True):
            files = OverlayFiles(path, arguments.out, stem, images)
            try:
                if arguments.watch:
                    events = client.stream(path, explain, top_k=arguments.top_k, ood=arguments.ood)
                    prediction = Watch(path, explanation_names(explain), files, arguments.json).follow(events)
                else:
                    prediction = client.predict(path, explain, top_k=arguments.top_k, ood=arguments.ood)
                    for explanation in prediction.explanations.values():
                        files.write(explanation)
            except (ImageError, MessageTooLargeError, InvalidRequestError) as error:
                if isinstance(error, InvalidRequestError) and error.reason not in _PICTURE_REASONS:
                    raise
                status = fail(f"{path}: {error}", 1)
                continue
            if arguments.watch and arguments.json:
                continue
            show = text.prediction_json if arguments.json else text.prediction_text
            print(show(prediction, path, files.written))
    return status


def _explanations(arguments: argparse.Namespace) -> list[Explain]:
    names = [name.strip() for group in arguments.explain for name in group.split(",") if name.strip()]
    options = {"--target": arguments.target, "--seed": arguments.seed, "--budget": arguments.budget}
    given = [option for option, value in options.items() if value is not None]
    if given and not names:
        raise ArgumentError(f"{given[0]} is for explanations; name explainers with --explain")
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
    common = {"targets": arguments.target, "seed": arguments.seed, "budget": arguments.budget}
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
