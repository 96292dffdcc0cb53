"""Which maps a report shows: those that fit best and worst, and what is right or wrong for the wrong reason."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from xai_sidecar.evaluator.annotations import regions
from xai_sidecar.evaluator.reading import Reader
from xai_sidecar.evaluator.records import MapRecord, SampleKey, SampleRecord, TruthObject
from xai_sidecar.evaluator.store import Store
from xai_sidecar.metrics.discovery import installed_metrics
from xai_sidecar.metrics.localization import salient_part
from xai_sidecar.metrics.objects import union
from xai_sidecar.runner.results import name_of, samples

_SHOWN = 10
_LOOKED_AT = 200
"""Wrong predictions, the surest ones, whose maps are compared with where the objects are: maps are large."""

_BESIDE = 0.5
"""A map of which less than this part lies on the objects lies beside them."""


@dataclass(frozen=True)
class Example:
    """A sample of which a report may show a map.

    Attributes:
        sample: The sample.
        value: The map's score by the metric that leads; None where there is none.
        truth: The true classes; empty where they are not known.
        objects: Where the picture's objects are; empty where that is not known.
    """

    sample: SampleRecord
    value: float | None
    truth: tuple[int, ...]
    objects: tuple[TruthObject, ...] = ()

    @property
    def predicted(self) -> bool:
        """Whether the class that is explained counts as predicted."""
        return self.sample.target in self.sample.positives

    @property
    def wrong(self) -> bool:
        """Whether the class that is explained was predicted, and is none of the true ones."""
        return self.predicted and bool(self.truth) and self.sample.target not in self.truth


@dataclass(frozen=True)
class ShownMap:
    """A map that a report shows.

    Attributes:
        example: Its sample.
        map: The map.
        thumbnail: The picture, small, as a JPEG file; empty where it is not kept.
        on_objects: The part of the map's salient region that lies on the picture's objects; None where it is not known.
    """

    example: Example
    map: MapRecord
    thumbnail: bytes
    on_objects: float | None


def galleries(
    store: Store, values: Mapping[tuple[str, int], float | None], explainer: str, lead: str
) -> list[tuple[str, list[ShownMap]]]:
    """Lists of maps to show, with their titles; a list may be empty.

    Args:
        store: The run's.
        values: Scores of the explainer's maps by the metric that leads, by picture and class.
        explainer: Whose maps are shown.
        lead: The metric that leads.
    """
    reader, examples = Reader(store.database), list(_examples(store, values))
    found = [(title, list(islice(_maps(reader, some, explainer), _SHOWN))) for title, some in chosen(examples, lead)]
    surest = (each for each in surest_wrong(examples) if each.objects)
    beside = [
        (each.on_objects, number, each)
        for number, each in enumerate(islice(_maps(reader, surest, explainer), _LOOKED_AT))
        if each.on_objects is not None and each.on_objects < _BESIDE
    ]
    title = "Wrong for the wrong reason: what the map shows lies beside the objects"
    return [*found, (title, [each for *_, each in sorted(beside)[:_SHOWN]])]


def chosen(examples: Sequence[Example], lead: str) -> list[tuple[str, Iterable[Example]]]:
    """Lists whose beginnings are shown, as far as maps need not be looked at for them.

    Classes that were explained besides those that were predicted are neither right nor wrong.
    """
    sign = 1 if installed_metrics()[lead].higher_is_better else -1
    scored = sorted((each for each in examples if each.value is not None), key=lambda each: -sign * (each.value or 0.0))
    right = [each for each in reversed(scored) if each.predicted and each.sample.target in each.truth]
    few = min(_SHOWN, len(scored) // 2 or len(scored))
    return [
        ("Where the explanation fits best", scored[:few]),
        ("Where it fits worst", scored[::-1][:few]),
        ("Right, though the prediction hardly depends on what the map shows", right[:few]),
        ("Wrong, and sure of it", surest_wrong(examples)),
    ]


def surest_wrong(examples: Sequence[Example]) -> list[Example]:
    """Wrong predictions, the surest first."""
    return sorted((each for each in examples if each.wrong), key=lambda each: -each.sample.probability)


def _examples(store: Store, values: Mapping[tuple[str, int], float | None]) -> Iterator[Example]:
    """Every sample, with the score of its map, by picture and class."""
    for sample in samples(store):
        truth = store.truth(SampleKey(sample.key.request_id, 0))
        value = values.get((name_of(sample.key), sample.target))
        yield Example(sample, value, *((truth.class_ids, truth.objects) if truth else ((), ())))


def _maps(reader: Reader, examples: Iterable[Example], explainer: str) -> Iterator[ShownMap]:
    """The maps of examples, as far as they are kept; each is read when it is asked for."""
    for each in examples:
        detail = reader.sample(each.sample.key, [explainer])
        made = detail.explanations.get(explainer) if detail else None
        if detail and made and made.map:
            yield ShownMap(each, made.map, detail.view.thumbnail, on_objects(each, made.map))


def on_objects(example: Example, shown: MapRecord) -> float | None:
    """The part of a map's salient region that lies on the picture's objects; None where nothing is known of them."""
    frame = example.sample.frame
    areas = regions([each.annotation for each in example.objects], frame)
    objects = union(areas, (frame.height, frame.width))
    return salient_part(shown.saliency.astype(np.float64), objects) if objects.any() else None
