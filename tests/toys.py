"""A toy explainer and a toy metric, a file each, and how they get into a package; and how other explainers get out."""

from xai_sidecar.explainers.discovery import installed_explainers

EXPLAINER = '''"""A channel of the picture; of no use but to tests."""

from typing import Literal

import numpy as np
from pydantic import Field

from xai_sidecar.engine.work import Forward
from xai_sidecar.explainers.base import Computed, Explainer, ExplainerParameters, PassCounts


class ToyParameters(ExplainerParameters):
    channel: int = Field(default=0, ge=0, le=2, description="Which channel of the picture.")
    factor: float = Field(default=1, gt=0, le=100, description="What it is multiplied by.")
    sign: Literal["plus", "minus"] = Field(default="plus", description="Its sign.")
    squared: bool = Field(default=False, description="Whether it is squared.")


class Toy(Explainer[ToyParameters]):
    name = "toy"
    description = "A channel of the picture."
    parameters_type = ToyParameters

    def kind(self, parameters):
        return Forward.kind

    def pass_counts(self, target_count, parameters, model):
        return PassCounts(1, 1, 1)

    def _compute(self, image, targets, parameters, context):
        yield Forward(image[np.newaxis])
        channel = image[parameters.channel] ** (2 if parameters.squared else 1)
        factor = np.float32(parameters.factor * (1 if parameters.sign == "plus" else -1))
        return Computed(np.stack([factor * channel] * len(targets)), [None] * len(targets))
'''
METRIC = '''"""How many pixels are above a value; of no use but to tests."""

from pydantic import Field

from xai_sidecar.metrics.base import Metric, MetricParameters, Need, Score


class ToyParameters(MetricParameters):
    above: float = Field(default=0.0, description="Pixels above this value count.")


class Toy(Metric[ToyParameters]):
    name = "toys/toy"
    description = "The part of a map's pixels that are above a value (nobody 2026)."
    higher_is_better = True
    value_range = (0, 1)
    needs = frozenset({Need.SALIENCY})
    parameters_type = ToyParameters

    def pass_count(self, parameters, model, call=None):
        return 0

    def _measure(self, instance, parameters, context):
        yield from ()
        return Score((instance.saliency > parameters.above).mean())
'''


def write_package(folder, name, attribute="Toy", **sources):
    """A package of somebody else's as pip installs it: a module and an entry point for each group of `sources`."""
    folder.mkdir(exist_ok=True)
    points = ""
    for group, source in sources.items():
        (folder / f"{name}_{group}.py").write_text(source)
        points += f"[xai_sidecar.{group}]\nplaything = {name}_{group}:{attribute}\n"
    info = folder / f"{name}-1.5.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
    (info / "entry_points.txt").write_text(points)


def only(*names):
    """Overrides of the config that switch every explainer off but these, whichever else there are."""
    return tuple(f"explainers.{name}.enabled=false" for name in installed_explainers() if name not in names)
