"""Features and logits of pictures, computed once by the classifier and kept on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np

from xai_sidecar.cpus import usable_cpus
from xai_sidecar.engine.work import Featured, FloatArray, IntArray
from xai_sidecar.errors import ConfigError
from xai_sidecar.imaging import InputSpec
from xai_sidecar.ood.cache import Shard, ShardCache, digest_of
from xai_sidecar.ood.outliers import OUTLIERS
from xai_sidecar.ood.pictures import MINIMUM, Pictures, read_input
from xai_sidecar.ood.progress import Progress, Step

_SHARD = 64
"""Pictures whose features are kept together: some seconds' work."""

_FORMAT = 1
"""Raise it when other shards come out of the same pictures."""

_SHOWN = 3


class Classifier(Protocol):
    """The classifier whose usual inputs the OoD net separates from all others."""

    @property
    def version(self) -> str:
        """Fingerprint of everything that its features depend on."""

    @property
    def labels(self) -> Sequence[str]:
        """Names of the classes."""

    @property
    def class_count(self) -> int:
        """Number of logits."""

    @property
    def spec(self) -> InputSpec:
        """Its input."""

    def featured(self, inputs: FloatArray) -> Featured:
        """Features and logits of inputs, (n, C, H, W) float32, for any n."""


@dataclass(frozen=True)
class Samples:
    """Features and classes of the pictures that could be read.

    Attributes:
        paths: The pictures.
        features: (n, features) float32.
        class_ids: (n,) int32, by folder or as predicted.
    """

    paths: tuple[Path, ...]
    features: FloatArray
    class_ids: IntArray


class FeatureExtraction:
    """Passes pictures through a classifier, each once even if it is interrupted and started again.

    Args:
        pictures: The pictures.
        classifier: The classifier.
        root: Folder for the features computed so far.
        report: Called with a line about pictures that cannot be read.
        progress: Called with every step.
        stop: Called before each shard; returns whether to stop.

    Raises:
        ConfigError: `root` cannot be written.
    """

    def __init__(
        self,
        pictures: Pictures,
        classifier: Classifier,
        root: Path,
        report: Callable[[str], None],
        progress: Progress,
        stop: Callable[[], bool],
    ) -> None:
        self._pictures = pictures
        self._classifier = classifier
        self._report = report
        self._progress = progress
        self._stop = stop
        files = [(self._name(path), *_size_and_time(path)) for path in pictures.paths]
        self._cache = ShardCache(root, _FORMAT, classifier.version, classifier.spec, files)

    @property
    def folder(self) -> Path:
        """Where everything of just these pictures and this classifier is kept."""
        return self._cache.folder

    def samples(self) -> Samples:
        """Features and classes of all pictures that can be read; they are held in memory, twice for a moment.

        Raises:
            ConfigError: Too few can be read, or the features are not finite.
            KeyboardInterrupt: `stop` said so.
        """
        paths = self._pictures.paths
        parts = [paths[start : start + _SHARD] for start in range(0, len(paths), _SHARD)]
        jobs = [(f"{index:06d}.npz", partial(self._picture_shard, part)) for index, part in enumerate(parts)]
        shards = self._computed("features of pictures", jobs, [len(part) for part in parts])
        readable = np.concatenate([shard["readable"] for shard in shards])
        self._check_readable(readable)
        features = np.concatenate([shard["features"] for shard in shards if len(shard["features"])])
        if not np.isfinite(features).all():
            raise ConfigError(
                "some of the classifier's features are NaN or infinite. Check that the checkpoint is whole.",
                field="model.checkpoint",
            )
        if self._pictures.class_ids is None:
            class_ids = np.concatenate([shard["predicted"] for shard in shards])
        else:
            class_ids = np.asarray(self._pictures.class_ids, np.int32)[readable]
        return Samples(tuple(path for path, good in zip(paths, readable, strict=True) if good), features, class_ids)

    def outliers(self, paths: Sequence[Path], count: int, seed: int) -> dict[str, FloatArray]:
        """By kind of outlier, the features, (m, features) float32, of outliers made of pictures.

        Args:
            paths: Pictures that can be read.
            count: How many of them to take, at most.
            seed: Equal seeds give equal outliers.
        """
        count = min(len(paths), count)
        chosen = [paths[index * len(paths) // count] for index in range(count)]
        key = digest_of(seed, [self._name(path) for path in chosen])
        parts = [chosen[start : start + _SHARD] for start in range(0, count, _SHARD)]
        jobs = [
            (f"outliers-{key}-{index:06d}.npz", partial(self._outlier_shard, part, [seed, index]))
            for index, part in enumerate(parts)
        ]
        shards = self._computed("features of outliers", jobs, [len(part) for part in parts])
        return {name: np.concatenate([shard[name] for shard in shards]) for name in OUTLIERS}

    def _check_readable(self, readable: IntArray) -> None:
        paths = self._pictures.paths
        lost = [path for path, good in zip(paths, readable, strict=True) if not good]
        if lost:
            names = ", ".join(map(self._name, lost[:_SHOWN])) + (", …" if len(lost) > _SHOWN else "")
            self._report(f"{len(lost):,} of {len(paths):,} pictures cannot be read and are left out: {names}")
        if len(paths) - len(lost) < MINIMUM:
            raise ConfigError(
                f"only {len(paths) - len(lost)} of the {len(paths)} pictures in {self._pictures.folder} can be read, "
                f"and at least {MINIMUM} are needed. Check that they open in a viewer.",
                field="data",
            )

    def _picture_shard(self, paths: Sequence[Path]) -> Shard:
        inputs = self._inputs(paths)
        readable = np.array([one is not None for one in inputs])
        good = [one for one in inputs if one is not None]
        if not good:
            return {"readable": readable, "features": np.zeros((0, 0), np.float32), "predicted": np.zeros(0, np.int32)}
        seen = self._classifier.featured(np.stack(good))
        predicted = seen.logits.argmax(axis=1).astype(np.int32)
        return {"readable": readable, "features": np.asarray(seen.features, np.float32), "predicted": predicted}

    def _outlier_shard(self, paths: Sequence[Path], seed: Sequence[int]) -> Shard:
        good = [one for one in self._inputs(paths) if one is not None]
        if not good:
            raise ConfigError(
                f"{paths[0]} could be read before and now cannot. Leave the pictures alone during the training.",
                field="data",
            )
        fill = self._classifier.spec.units.fill
        inputs = np.stack(good) - fill  # what is covered by 0 is then covered by the mean colour
        made = ((name, np.asarray(make(inputs, seed) + fill, np.float32)) for name, make in OUTLIERS.items())
        return {name: self._classifier.featured(outliers).features for name, outliers in made}

    def _computed(self, stage: str, jobs: Sequence[tuple[str, Callable[[], Shard]]], sizes: list[int]) -> list[Shard]:
        """The shards of jobs with as many pictures as `sizes` says: those that are at hand, and the rest made now."""
        shards = [self._cache.load(name) for name, _ in jobs]
        done = sum(size for shard, size in zip(shards, sizes, strict=True) if shard is not None)
        tell = partial(Step, stage, total=sum(sizes), unit="pictures")
        self._progress(tell(done=done))
        for index, (name, make) in enumerate(jobs):
            if shards[index] is None:
                if self._stop():
                    raise KeyboardInterrupt
                shards[index] = self._cache.compute(name, make)
                done += sizes[index]
                self._progress(tell(done=done))
        return [shard for shard in shards if shard is not None]

    def _inputs(self, paths: Sequence[Path]) -> list[FloatArray | None]:
        with ThreadPoolExecutor(usable_cpus()) as pool:
            return list(pool.map(partial(read_input, spec=self._classifier.spec), paths))

    def _name(self, path: Path) -> str:
        return str(path.relative_to(self._pictures.folder))


def _size_and_time(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:  # it will be counted as unreadable
        return 0, 0
    return found.st_size, found.st_mtime_ns
