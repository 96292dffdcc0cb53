"""What an explanation costs over the bare forward pass, on ResNet-50 and EfficientNet-Lite0 at 224."""

from __future__ import annotations

import numpy as np

from bench import models
from bench.figure import Figure, interleaved, ratio
from xai_sidecar.engine.work import Forward, drive
from xai_sidecar.explainers.base import ModelFacts
from xai_sidecar.explainers.registry import EXPLAINERS

_BARS = {"gradcam": 1.6}
_ROUNDS = 25


def figures() -> list[Figure]:
    """Each explainer with its defaults and one target, over one forward pass."""
    found = []
    for title, factory in (("ResNet-50", models.RESNET), ("EfficientNet-Lite0", models.SAMPLE)):
        backend = models.backend(factory, 1)
        facts = ModelFacts(backend.layers, backend.default_layer)
        image, target = models.image(), np.array([7], np.int32)

        def forward(backend=backend, image=image):  # type: ignore[no-untyped-def]
            backend.run(Forward.kind, (image[None],))

        for explainer in EXPLAINERS.values():
            parameters = explainer.resolve(explainer.parameters_type(), facts)

            def explain(backend=backend, explainer=explainer, image=image, parameters=parameters, target=target):  # type: ignore[no-untyped-def]
                drive(explainer.explain(image, target, parameters), backend.run)

            bare, explained = interleaved(_ROUNDS, forward, explain)
            bar = _BARS.get(explainer.name)
            found.append(Figure(f"{explainer.name} over the forward pass, {title}", ratio(explained, bare), "×", bar))
        backend.close()
    return found
