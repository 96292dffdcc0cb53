"""The command line `xai-client`: predicts and explains pictures, reports what they showed, describes the model.

Exit status: 0 when all went well, 1 when a call or a file failed, 2 when the command was wrong, 130 on Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import sys
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from xai_client import text
from xai_client.client import Client
from xai_client.errors import (
    ArgumentError,
    ImageError,
    InvalidRequestError,
    MessageTooLargeError,
    PictureSizeError,
    XaiError,
)
from xai_client.feedback import Feedback, read_objects
from xai_client.files import OverlayFiles
from xai_client.request import Explain, explanation_names, parse_parameter
from xai_client.truth import GroundTruthWarning
from xai_client.watch import Watch

DEFAULT_SERVER: Final = "127.0.0.1:50051"

# Faults of one picture, after which the others are still worth trying.
_PICTURE_REASONS: Final = frozenset({"PICTURE", "PICTURE_TOO_LARGE"})

_EXAMPLES: Final = """examples:
  xai-client predict cat.jpg
  xai-client predict cat.jpg --explain gradcam,gradient --out maps
  xai-client predict *.jpg --explain gradcam --param gradcam.layer=blocks.10 --json
  xai-client predict cat.jpg --explain gradcam --target 281 --target 285
  xai-client predict cat.jpg --explain rise --watch --budget 10
  xai-client feedback 3f2a --label "tabby, tabby cat" --box 40,25,310,290
  xai-client info --server gpu-box:50051
"""

_FEEDBACK: Final = """The last report of a picture counts and replaces the former one whole. Only requests that
were sampled take one; 'xai-client predict' says which are. Coordinates are pixels of the upright
picture, or of the model input where one was sent; the right and the bottom edge are exclusive. A
shape belongs to the class whose LABEL is put before it; without one to every class that is
reported or, when none is, to the one that was explained.

examples:
  xai-client feedback 3f2a --label "tabby, tabby cat"
  xai-client feedback 3f2a --class-id 281 --box 40,25,310,290
  xai-client feedback 3f2a --label tabby --label lynx --box tabby=40,25,310,290 --mask lynx=lynx.png
  xai-client feedback 3f2a --polygon 40,25,310,25,175,290 --json
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit status. Failures are one line on stderr.

    Args:
        argv: The arguments; None for those of the process.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A label that the terminal cannot show must not end the program.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        arguments = _parser().parse_args(argv)
        status: int = arguments.run(arguments)
        if sys.stdout is not None:  # None when it was closed from the start
            sys.stdout.flush()
    except SystemExit as exit_:
        return exit_.code if isinstance(exit_.code, int) else 0
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        _silence_stdout()
        return 141
    except (XaiError, OSError) as error:
        wrong_command = isinstance(error, ArgumentError) and not isinstance(error, (ImageError, PictureSizeError))
        return _fail(error, 2 if wrong_command else 1)
    return status


def _fail(error: Exception | str, status: int) -> int:
    print(f"xai-client: {' '.join(str(error).split())}", file=sys.stderr)
    return status


def _silence_stdout() -> None:
    """Keeps the interpreter from complaining when it flushes the broken pipe at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="xai-client",
        description="Predicts the class of pictures and shows what the prediction rests on.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_predict(commands)
    _add_feedback(commands)
    _add_info(commands)
    return parser


def _add_predict(commands: Any) -> None:
    parser = commands.add_parser(
        "predict",
        help="classify pictures and write the overlays of their explanations",
        description="Classifies pictures. Each explanation is written as an overlay, DIR/<stem>.<explainer>.png.",
        epilog=_EXAMPLES,
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
    _add_common(parser)
    parser.set_defaults(run=_predict)


def _add_feedback(commands: Any) -> None:
    parser = commands.add_parser(
        "feedback",
        help="tell what an earlier picture really showed",
        description="Tells what an earlier picture really showed, so that explanations can be held against it.",
        epilog=_FEEDBACK,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    several: dict[str, Any] = {"action": "append", "default": []}
    parser.add_argument("request_id", metavar="REQUEST_ID", help="id of the request, as 'xai-client predict' prints it")
    parser.add_argument("--label", **several, help="a label that applies; repeatable")
    parser.add_argument("--class-id", **several, type=int, metavar="ID", help="a class that applies; repeatable")
    parser.add_argument(
        "--box", **several, metavar="[LABEL=]L,T,R,B", help="an object, by its left, top, right and bottom; repeatable"
    )
    parser.add_argument(
        "--polygon", **several, metavar="[LABEL=]X,Y,X,Y,X,Y...", help="an object, by its corners; repeatable"
    )
    parser.add_argument(
        "--mask",
        **several,
        metavar="[LABEL=]FILE",
        help="an object, by a PNG file of the picture's size, black where it is not; repeatable",
    )
    parser.add_argument(
        "--image-index", type=int, default=0, metavar="N", help="which picture of the request, from 0 (default: 0)"
    )
    _add_common(parser)
    parser.set_defaults(run=_feedback)


def _add_info(commands: Any) -> None:
    parser = commands.add_parser(
        "info",
        help="describe the model and its explainers, and how good they are",
        description="Describes the model, its input, how good its explanations have been measured to be on live"
        " traffic, and every explainer with its parameters and cost.",
    )
    _add_common(parser)
    parser.set_defaults(run=_info)


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--server",
        default=os.environ.get("XAI_SERVER") or DEFAULT_SERVER,
        metavar="HOST:PORT",
        help=f"address of the server (default: $XAI_SERVER, else {DEFAULT_SERVER})",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=30.0,
        metavar="SECONDS",
        help="longest time for a call; with --watch, for the whole stream of a picture (default: 30)",
    )
    parser.add_argument("--json", action="store_true", help="print JSON; for predict, one line per picture")


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
                status = _fail(f"{path}: {error}", 1)
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


def _feedback(arguments: argparse.Namespace) -> int:
    feedback = Feedback(
        request_id=arguments.request_id,
        image_index=arguments.image_index,
        labels=arguments.label,
        class_ids=arguments.class_id,
        objects=read_objects(arguments.box, arguments.polygon, arguments.mask),
    )
    with Client(arguments.server, timeout=arguments.timeout) as client, warnings.catch_warnings(record=True) as issued:
        warnings.simplefilter("always", GroundTruthWarning)
        changed = client.report_ground_truth(
            feedback.request_id,
            feedback.labels,
            image_index=feedback.image_index,
            objects=feedback.objects,
            class_ids=feedback.class_ids,
        )
    told = [str(each.message) for each in issued if each.category is GroundTruthWarning]
    print((feedback.json if arguments.json else feedback.text)(changed, told))
    return 0


def _info(arguments: argparse.Namespace) -> int:
    with Client(arguments.server, timeout=arguments.timeout) as client:
        info = client.model_info()
    print(text.info_json(info) if arguments.json else text.info_text(info))
    return 0
