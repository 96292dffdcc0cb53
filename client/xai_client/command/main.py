"""The command line `xai-client`: predicts and explains pictures, reports what they showed, describes the model.

Exit status: 0 when all went well, 1 when a call or a file failed, 2 when the command was wrong, 3 when an explanation
that was asked for has no map, 130 on Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any, Final

from xai_client.command import text
from xai_client.command.common import add_common, fail, open_client
from xai_client.command.feedback import Feedback, read_objects
from xai_client.command.predict import EXAMPLES, add_predict
from xai_client.command.tables import terminal_width
from xai_client.errors import ArgumentError, ImageError, PictureSizeError, XaiError
from xai_client.ground_truth import GroundTruthWarning

_EXAMPLES: Final = f"""examples:
{EXAMPLES}\
  xai-client feedback REQUEST_ID --label "tiger cat" --box 40,25,310,290
  xai-client info --server 127.0.0.1:50051
"""

_FEEDBACK: Final = """The last report of a picture counts and replaces the former one whole, unless --keep. Only
requests that were sampled take one; 'xai-client predict' says which are. Coordinates are pixels of the upright
picture, or of the model input where one was sent; the right and the bottom edge are exclusive. A
shape belongs to the class whose LABEL is put before it; without one to every class that is
reported or, when none is, to the one that was explained.

examples:
  xai-client feedback REQUEST_ID --label "tiger cat"
  xai-client feedback REQUEST_ID --class-id 282 --box 40,25,310,290
  xai-client feedback REQUEST_ID --label tabby --label lynx --box tabby=40,25,310,290 --mask lynx=lynx.png
  xai-client feedback REQUEST_ID --polygon 40,25,310,25,175,290 --json
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
        return fail(error, 2 if wrong_command else 1)
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
    add_predict(commands)
    _add_feedback(commands)
    _add_info(commands)
    return parser


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
    parser.add_argument(
        "--keep",
        action="store_true",
        help="what is not given here stays as it was reported before: the labels or, without any shape, the shapes",
    )
    add_common(parser)
    parser.set_defaults(run=_feedback)


def _add_info(commands: Any) -> None:
    parser = commands.add_parser(
        "info",
        help="describe the model and its explainers, and how good they are",
        description="Describes the model, its input, how good its explanations have been measured to be on live"
        " traffic, and every explainer with its parameters and cost.",
    )
    add_common(parser)
    parser.set_defaults(run=_info)


def _feedback(arguments: argparse.Namespace) -> int:
    feedback = Feedback(
        request_id=arguments.request_id,
        image_index=arguments.image_index,
        labels=arguments.label,
        class_ids=arguments.class_id,
        objects=read_objects(arguments.box, arguments.polygon, arguments.mask),
    )
    with (
        open_client(arguments) as client,
        warnings.catch_warnings(record=True) as issued,
    ):
        warnings.simplefilter("always", GroundTruthWarning)
        changed = client.report_ground_truth(
            feedback.request_id,
            feedback.labels,
            image_index=feedback.image_index,
            objects=feedback.objects,
            class_ids=feedback.class_ids,
            keep_unmentioned=arguments.keep,
        )
    doubts = [str(each.message) for each in issued if each.category is GroundTruthWarning]
    print((feedback.json if arguments.json else feedback.text)(changed, doubts))
    return 0


def _info(arguments: argparse.Namespace) -> int:
    with open_client(arguments) as client:
        info = client.model_info()
    print(text.info_json(info) if arguments.json else text.info_text(info, terminal_width(sys.stdout)))
    return 0
