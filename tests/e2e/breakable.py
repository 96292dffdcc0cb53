"""The command line, with explainers that can be broken while it runs.

Its first argument is a file. Explainers whose names are in it, one a line, turn their maps by half a turn: maps that
look like any other, of parts of the picture that do not matter.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from xai_sidecar.command import main as cli
from xai_sidecar.engine.work import mapped
from xai_sidecar.explainers.base import Explainer

whole = Explainer.explain


def turned(saliency):
    """The same maps, upside down and left to right."""
    return replace(saliency, maps=np.ascontiguousarray(saliency.maps[:, ::-1, ::-1]))


def breakable(broken):
    """`Explainer.explain`, which reads the file `broken` each time."""

    def explain(self, *arguments):
        steps = whole(self, *arguments)
        return mapped(steps, turned) if self.name in broken.read_text().splitlines() else steps

    return explain


if __name__ == "__main__":
    Explainer.explain = breakable(Path(sys.argv.pop(1)))
    sys.exit(cli.main())
