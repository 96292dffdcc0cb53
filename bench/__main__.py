"""Runs the benchmarks; prints the figures of each as soon as it is done, as a table and as JSON to a file."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from bench import (
    convolution,
    deadlines,
    evaluator,
    explainers,
    gradients,
    load,
    memory,
    peers,
    precision,
    quality,
    rise,
    same_maps,
    service,
    start,
    triton,
)
from bench.figure import Figure, table

SUBJECTS = {
    "convolution": convolution.figures,
    "explainers": explainers.figures,
    "gradients": gradients.figures,
    "service": service.figures,
    "load": load.figures,
    "deadlines": deadlines.figures,
    "start": start.figures,
    "same_maps": same_maps.figures,
    "memory": memory.figures,
    "peers": peers.figures,
    "rise": rise.figures,
    "precision": precision.figures,
    "evaluator": evaluator.figures,
    "quality": quality.figures,
    "triton": triton.figures,
}


def main() -> int:
    """Runs what was asked for; exit status 1 when a bar was missed."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", help=f"of {', '.join(SUBJECTS)}; default: all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    arguments = parser.parse_args()
    unknown = set(arguments.subjects) - set(SUBJECTS)
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    figures: list[Figure] = []
    for name in [name for name in SUBJECTS if not arguments.subjects or name in arguments.subjects]:
        print(f"measuring {name} …", file=sys.stderr, flush=True)
        measured = SUBJECTS[name]()
        print(f"\n{name}\n{table(measured)}", flush=True)
        figures += measured
        if arguments.json:  # what is measured is not lost with what comes next
            arguments.json.write_text(json.dumps([figure.as_dict() for figure in figures], indent=2) + "\n")
    return 0 if all(figure.met for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
