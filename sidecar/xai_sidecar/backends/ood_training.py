"""Training an OoD net for the configured classifier: the classifier's own backend computes the features."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from xai_sidecar.backends.loading import load_backend
from xai_sidecar.config import Config, load_labels
from xai_sidecar.engine.backend import Backend
from xai_sidecar.engine.batching import in_batches
from xai_sidecar.engine.work import Featured, Features, FloatArray, drive, features
from xai_sidecar.errors import ConfigError
from xai_sidecar.imaging import InputSpec
from xai_sidecar.interrupt import deferred
from xai_sidecar.ood.fitting import fit
from xai_sidecar.ood.head import OodHead
from xai_sidecar.ood.progress import Progress
from xai_sidecar.ood.training import TrainingOptions, train_ood
from xai_sidecar.paths import cache_folder


@dataclass(frozen=True)
class _Classifier:
    """Adapts a backend to what `train_ood` expects of a classifier."""

    backend: Backend
    labels: tuple[str, ...]
    spec: InputSpec

    @property
    def version(self) -> str:
        return self.backend.version

    @property
    def class_count(self) -> int:
        return self.backend.class_count

    def featured(self, inputs: FloatArray) -> Featured:
        run = in_batches(self.backend.run, max(self.backend.costs(Features.kind)))
        return drive(features(inputs), run)


def train_configured(
    config: Config,
    folder: Path,
    out: Path,
    options: TrainingOptions,
    report: Callable[[str], None],
    progress: Progress,
) -> OodHead:
    """Trains an OoD net for a config's classifier; see `train_ood`.

    Raises:
        ConfigError: The classifier cannot be loaded or has no features, or as `train_ood` says.
        KeyboardInterrupt: Ctrl-C or SIGTERM; called again with the same arguments it resumes.
    """
    with deferred() as stop:
        backend = load_backend(config.model_copy(update={"ood": type(config.ood)()}))
        try:
            failed = {} if stop() else backend.warm_up([Features.kind], report)
            if stop():
                raise KeyboardInterrupt
            if failed:
                raise ConfigError(failed[Features.kind], field=f"model.{config.model.source}")
            labels = load_labels(config.model.labels, backend.class_count)
            classifier = _Classifier(backend, labels, config.model.input.spec())
            return train_ood(
                folder, out, classifier, cache_folder(), fit, options, report=report, progress=progress, stop=stop
            )
        finally:
            backend.close()
