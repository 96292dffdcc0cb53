"""The interface of a backend: a model on a device, as the engine uses it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from xai_sidecar.engine.work import Array, Kind

Report = Callable[[str], None]
"""Called with lines of progress while something slow runs."""


@dataclass(frozen=True)
class Layer:
    """A layer with a spatial output, whose positions correspond to those of the picture.

    Attributes:
        name: Its name in the net.
        channels: Channels of its output.
        height: Rows of its output.
        width: Columns of its output.
    """

    name: str
    channels: int
    height: int
    width: int


@dataclass(frozen=True)
class OodTraining:
    """How the OoD net behind a backend's OoD scores was trained.

    Attributes:
        sample_count: Pictures that it was trained on.
        time: When, as Unix time.
        auroc: Its AUROC on held-out pictures against each kind of outlier, 0 to 1 with 0.5 for guessing.
    """

    sample_count: int
    time: float
    auroc: Mapping[str, float]


class Backend(Protocol):
    """A model on a device. Its methods are called on the device thread alone, but for `costs`; see `concurrency`.

    Attributes:
        device: As in the config: "cpu", "gpu:0".
        engine: What runs forward passes, with its version.
        engine_note: Why a faster engine does not run them; empty if there is none. Both are final after `warm_up`.
        version: Digest of net, weights and preparation of the input; equal versions give equal answers but for
            rounding. It is the same on every machine and device, and stays when the sidecar, Python or a library is
            upgraded: OoD nets and measured quality are kept by it.
        weights: Where the weights came from, in a sentence.
        weights_warning: What is doubtful about that, with a cure; empty if nothing is.
        class_count: Number of logits.
        layers: The layers that `LayerGradient` accepts, by name, in the order in which they run.
        refused_layers: Why other layers with a seemingly spatial output are not accepted, by name.
        default_layer: The layer for explanations by default; None if the net has no spatial layer.
        ood: How its OoD net was trained; None if it has none, and thus no OoD scores.
        hang_is_fatal: Whether a batch that does not come back means that the process has to end, as with a device
            driver. Where it does not, as with a model on another server, the batch fails with a HungError and the
            engine goes on: then `run` is called on another thread while an earlier call has not come back. Until it is
            given up everything else waits. Where several hang at once, the process ends all the same.
        reduced_precision: A precision below float32 in which forward passes gain speed on this device: "bfloat16",
            "float16"; empty if there is none. They are run in it where a kind names it, once `warm_up` was given that.
        compiling: Whether `run` is compiling at this moment, which may take long; any thread may read it.
        concurrency: How many batches may be in progress at once, as with a model on another server. Where that is more
            than one, `run` is called on as many threads beside each other, and what it costs is told by how soon one
            batch ends after another.
        unready: Why it can answer nothing at present, as while a model's server is away; empty if it can. Any thread
            may read it. While it is set the server says that it is not ready, and calls fail as `run` does.
    """

    device: str
    engine: str
    engine_note: str
    version: str
    weights: str
    weights_warning: str
    class_count: int
    layers: Mapping[str, Layer]
    refused_layers: Mapping[str, str]
    default_layer: str | None
    ood: OodTraining | None
    hang_is_fatal: bool = True
    reduced_precision: str = ""
    compiling: bool = False
    concurrency: int = 1

    @property
    def unready(self) -> str:
        """See above."""

    def warm_up(self, kinds: list[Kind], report: Report) -> Mapping[Kind, str]:
        """Compiles the kinds in all their batch sizes, checks their results and measures their costs.

        Returns:
            Kinds that this net does not support, each with the reason. They are not run.

        Raises:
            ConfigError: Not even forward passes can be run.
        """

    def costs(self, kind: Kind) -> Mapping[int, float]:
        """The batch sizes compiled for a kind, with the measured seconds of a batch of each; any thread may call it."""

    def run(self, kind: Kind, rows: tuple[Array, ...]) -> tuple[Array, ...]:
        """Runs one batch.

        This table is the contract between explainers and backends. n, the first axis of every array, is one of the
        batch sizes of `costs`; row i of each array out belongs to row i of each array in, whatever the other rows are.
        (C, H, W) is the model input, whatever axes the net itself takes; (c, h, w) is a layer's output as it lies on
        the picture. All arrays are float32 but the targets, class ids in int32.

        ================  ================================  ==========================================================
        kind              rows in                           arrays out
        ================  ================================  ==========================================================
        forward           inputs (n, C, H, W)               logits (n, classes)
        masked_forward    masks (n, H, W) in [0, 1],        logits (n, classes) of image * mask + fill * (1 - mask)
                          images (n, C, H, W),
                          fills (n, C, H, W)
        ood_score         inputs (n, C, H, W)               inlier scores (n,), higher for what is more of an inlier,
                                                            percentiles (n,) of these in [0, 100],
                                                            logits (n, classes)
        masked_ood_score  as masked_forward                 as ood_score
        features          inputs (n, C, H, W)               inputs of the last dense layer (n, features),
                                                            logits (n, classes)
        input_gradient    inputs (n, C, H, W), targets (n,) gradients of the targets' logits by the inputs
                                                            (n, C, H, W); ReLUs by `kind.relu_rule`
        layer_gradient    inputs (n, C, H, W), targets (n,) outputs (n, c, h, w) of the layer `kind.layer`,
                                                            gradients (n, c, h, w) of the targets' logits by these
        ================  ================================  ==========================================================

        More arrays after these are ignored. Images and fills of masks are often one row over and over, as views of
        stride 0: `batching.masked` computes with them once.

        Args:
            kind: What is wanted; one that `warm_up` was given and did not refuse, or a layer of `layers`.
            rows: The inputs, as the table says.

        Returns:
            The results, as the table says.

        Raises:
            Exception: The batch failed. Its jobs are tried apart, and the one at fault gets the error: a SidecarError
                as it is, any other as a DeviceError. Where the error says that no row is at fault (`blames_rows`), all
                fail with it at once, but for evaluation, which tries again after its `retry_seconds`.
        """

    def close(self) -> None:
        """Releases the device."""
