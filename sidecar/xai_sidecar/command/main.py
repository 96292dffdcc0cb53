"""The command line: serve, demo, check, run, compare, browse, train-ood, sample, token."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xai_sidecar import __version__
from xai_sidecar.command.browse import add_browse, browse
from xai_sidecar.command.environment import keep_for_good, prepare_environment, switch_often
from xai_sidecar.command.run import add_compare, add_run, compare, run, run_overrides
from xai_sidecar.command.sample import add_sample, sample
from xai_sidecar.command.token import add_token, make_token
from xai_sidecar.command.training import add_train, train
from xai_sidecar.errors import ConfigError
from xai_sidecar.interrupt import interruptible

if TYPE_CHECKING:  # commands import only what they need, since a server's packages may not be installed
    from xai_sidecar.config import Config

_EXAMPLES = """\
examples:
  xai-sidecar demo                                 the sample classifier, end to end
  xai-sidecar check --config sidecar.toml          load everything, say what was found, do not serve
  xai-sidecar run --config sidecar.toml --data pictures/ --out RUN
  xai-sidecar compare RUN RUN_AFTER_TRAINING       which scores differ beyond chance
  xai-sidecar train-ood --config sidecar.toml --data pictures/
  xai-sidecar token --name shop --roles predict,explain >> tokens.toml
  xai-sidecar serve --config sidecar.toml --set server.grpc=127.0.0.1:50051
"""
_EXIT_CONFIG = 2
_EXIT_INTERRUPTED = 130
_LEAVING_SECONDS = 1.0
_POOLS = ("store_", "shapes_", "codec_", "decoder_")
"""Prefixes of the names of their threads."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status: 0, 1 for a lost device, 2 for a wrong config."""
    prepare_environment()
    parsed = _parser().parse_args(arguments)
    if not hasattr(parsed, "run"):
        _parser().print_help()
        return 0
    try:
        # The others take care of signals themselves.
        with interruptible() if parsed.run is _check else contextlib.nullcontext():
            status: int = parsed.run(parsed)
    except ConfigError as error:
        print(f"xai-sidecar: {error}", file=sys.stderr)
        status = _EXIT_CONFIG
    except ModuleNotFoundError as error:
        print(
            f"xai-sidecar: the package {error.name} is missing. Run pip install 'xai-sidecar[server]'.", file=sys.stderr
        )
        status = _EXIT_CONFIG
    except KeyboardInterrupt:
        status = _EXIT_INTERRUPTED
    except BrokenPipeError:  # of `xai-sidecar check | head`, say
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    return _leave(status)


def _leave(status: int) -> int:
    """Ends the process at once if threads are left that may never end: the interpreter would wait for them.

    A device that still compiles cannot be interrupted, nor torn down safely; a database that does not answer, or a
    picture that takes minutes to decode, keeps the threads of the pools.
    """
    patience = time.monotonic() + _LEAVING_SECONDS
    while _left(_POOLS) and time.monotonic() < patience:
        time.sleep(0.01)
    if _left(("device", *_POOLS)):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


def _left(names: tuple[str, ...]) -> bool:
    return any(thread.name.startswith(names) and thread.is_alive() for thread in threading.enumerate())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="xai-sidecar",
        description="A model server that explains its own predictions while they happen.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"xai-sidecar {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    serve = commands.add_parser("serve", help="serve a classifier", description="Serve a classifier until SIGTERM.")
    _add_config(serve)
    serve.set_defaults(run=_serve)

    demo = commands.add_parser(
        "demo",
        help="the sample classifier, end to end",
        description="Serve EfficientNet-Lite0 with its ImageNet weights, send it a photograph of a cat through the "
        "SDK, and show what comes back. Needs the extra `demo`.",
    )
    demo.add_argument("--once", action="store_true", help="end after that instead of serving until Ctrl-C")
    demo.add_argument(
        "--out",
        type=Path,
        default=Path("demo-output"),
        metavar="DIR",
        help="where the overlay goes (default: demo-output)",
    )
    _add_set(demo)
    demo.set_defaults(run=_demo)

    check = commands.add_parser(
        "check",
        help="load everything and say what was found",
        description="Load a config's model, compile it, and print what was found and what calls will cost. "
        "Exit status 2 on a problem.",
    )
    _add_config(check)
    check.add_argument(
        "--weights",
        action="store_true",
        help="try how far maps depend on what an ONNX file has learnt, by putting its weights in disorder; it is "
        "loaded a second time, and what was found is kept with model.compile_cache",
    )
    check.set_defaults(run=_check)

    add_run(commands, _add_config).set_defaults(run=_run)
    add_compare(commands).set_defaults(run=compare)
    add_browse(commands).set_defaults(run=_browse)
    add_train(commands, _add_config).set_defaults(run=_train_ood)
    add_sample(commands).set_defaults(run=lambda arguments: sample(arguments, _progress()))
    add_token(commands).set_defaults(run=make_token)
    return parser


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the config file (TOML)")
    _add_set(parser)


def _add_set(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="override a key of the config, as in --set server.grpc=127.0.0.1:50051; may be repeated. Environment "
        "variables do so, too: XAI_SERVER__GRPC=127.0.0.1:50051",
    )


def _serve(arguments: argparse.Namespace) -> int:
    return _run_server(_config(arguments))


def _config(arguments: argparse.Namespace, *, needs_ood: bool = True) -> Config:
    from xai_sidecar.config import load_config

    config = load_config(arguments.config, arguments.set, needs_ood=needs_ood)
    # A user's own model.py lies beside the config or in the working directory, as a rule.
    sys.path += [
        str(folder) for folder in (arguments.config.resolve().parent, Path.cwd()) if str(folder) not in sys.path
    ]
    return config


def _run_server(config: Config, on_ready: Any = lambda server: None, report: Any = None) -> int:
    import structlog

    from xai_sidecar.telemetry.logs import set_up_logs

    writer = set_up_logs(config.server.log_level, config.server.log_format)
    log = structlog.get_logger("xai_sidecar")
    log.info("starting", version=__version__)
    from xai_sidecar.backends.loading import load_early
    from xai_sidecar.command.memory import keep_freed_memory

    keep_freed_memory()
    switch_often()
    make_backend = load_early(config)
    # Only now, since importing all that a server is made of takes most of a second.
    from xai_sidecar.command.server import Sidecar

    report = report or (lambda line: log.info("loading", step=line))
    server = Sidecar(config, make_backend, log=writer)

    def ready(server: Sidecar) -> None:
        keep_for_good()
        on_ready(server)

    try:
        status = asyncio.run(server.run(report, ready))
    finally:
        writer.flush()
    if server.lost is not None:
        sys.stdout.flush()
        os._exit(status)  # a device that hangs would keep the interpreter from ending
    return status


def _check(arguments: argparse.Namespace) -> int:
    from xai_client.command.tables import terminal_width
    from xai_sidecar.backends.loading import load_backend
    from xai_sidecar.command.disordered import try_weights
    from xai_sidecar.command.listening import Guards
    from xai_sidecar.command.steps import StepReports
    from xai_sidecar.command.summary import summary
    from xai_sidecar.command.trials import try_or_recall
    from xai_sidecar.engine.engine import Engine
    from xai_sidecar.serving.evaluation import open_store
    from xai_sidecar.serving.explanation_costs import ExplanationCosts
    from xai_sidecar.serving.model import start_model
    from xai_sidecar.serving.weight_dependence import with_kept

    config = _config(arguments)
    _set_up_logs(config)
    Guards.of(config.server)
    engine = Engine(lambda: load_backend(config))
    with StepReports(_progress()) as report:
        model = start_model(engine, config, report).result()
        if config.evaluator.enabled:
            open_store(config).close()
        report("trying what explanations take beyond their passes")
        asyncio.run(try_or_recall(model, engine))
        model = try_weights(model, engine, report) if arguments.weights else with_kept(model)
    print(summary(model, ExplanationCosts(engine), terminal_width(sys.stdout)))
    engine.close()
    return 0


def _run(arguments: argparse.Namespace) -> int:
    arguments.set += run_overrides(arguments)
    config = _config(arguments)
    _set_up_logs(config)
    return run(config, arguments, _progress())


def _browse(arguments: argparse.Namespace) -> int:
    from xai_sidecar.telemetry.logs import set_up_logs

    set_up_logs("warning", "auto")
    return browse(arguments)


def _train_ood(arguments: argparse.Namespace) -> int:
    config = _config(arguments, needs_ood=False)
    _set_up_logs(config)
    return train(config, arguments, _progress())


def _set_up_logs(config: Config) -> None:
    from xai_sidecar.telemetry.logs import set_up_logs

    set_up_logs("warning", config.server.log_format)


def _demo(arguments: argparse.Namespace) -> int:
    from xai_sidecar.command.demo_run import run_demo

    return run_demo(arguments, _progress(), _run_server)


def _progress() -> Any:
    """Prints lines to stderr with the time since the start."""
    started = time.monotonic()

    def report(line: str) -> None:
        print(f"[{time.monotonic() - started:5.1f} s] {line}", file=sys.stderr, flush=True)

    return report


if __name__ == "__main__":
    sys.exit(main())
