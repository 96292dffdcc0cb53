"""Runs the benchmarks; prints the figures of each as soon as it is done, as a table and as JSON to a file."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path

from bench.figure import Figure, MissingError, table

SUBJECTS = {
    "convolution": "convolution",
    "explainers": "explainers",
    "gradients": "gradients",
    "service": "service",
    "load": "load",
    "protocols": "protocols",
    "closed": "closed",
    "deadlines": "deadlines",
    "start": "start",
    "same_maps": "same_maps",
    "large_pictures": "large_pictures",
    "memory": "memory",
    "footprint": "footprint",
    "peers": "peers",
    "torch": "against_torch",
    "rise": "rise",
    "precision": "precision",
    "evaluator_latency": "evaluator_latency",
    "evaluator": "evaluator",
    "evaluator_samples": "evaluator_samples",
    "quality": "quality",
    "samples": "samples",
    "console": "console",
    "runner": "runner",
    "triton": "triton",
    "upstreams": "upstreams",
}
"""The modules of the subjects, each imported when it is measured: not all need MindSpore, or PyTorch."""


def main() -> int:
    """Runs what was asked for; exit status 1 when a bar was missed, 2 when what one needs is not installed."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", help=f"of {', '.join(SUBJECTS)}; default: all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    arguments = parser.parse_args()
    unknown = set(arguments.subjects) - set(SUBJECTS)
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    figures: list[Figure] = []
    missing = False
    for name in [name for name in SUBJECTS if not arguments.subjects or name in arguments.subjects]:
        print(f"measuring {name} …", file=sys.stderr, flush=True)
        try:
            measured = importlib.import_module(f"bench.{SUBJECTS[name]}").figures()
        except MissingError as error:
            print(f"  {error}", file=sys.stderr)
            missing |= name in arguments.subjects
            continue
        print(f"\n{name}\n{table(measured)}", flush=True)
        figures += measured
        if arguments.json:  # what is measured is not lost with what comes next
            arguments.json.write_text(json.dumps([figure.as_dict() for figure in figures], indent=2) + "\n")
    if missing:
        return 2
    return 0 if all(figure.met for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
