"""A model on another server as a backend: forward passes are calls, and there is nothing else to be had of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

import numpy as np

from xai_sidecar.backends.passes import ood_training, run_passes, same_passes, to_layout
from xai_sidecar.backends.remote.contract import contract_of
from xai_sidecar.backends.remote.grpc_client import GrpcClient
from xai_sidecar.backends.remote.http_client import HttpClient
from xai_sidecar.backends.remote.monitor import Monitor
from xai_sidecar.backends.remote.outputs import Gives, kind_of, logits, rows_of
from xai_sidecar.backends.remote.protocol import Client, Inferred, ModelMetadata
from xai_sidecar.backends.remote.source import RemoteSource
from xai_sidecar.backends.timing import seconds, take_times
from xai_sidecar.digest import digest
from xai_sidecar.engine.backend import Layer, Report
from xai_sidecar.engine.work import Array, Features, FloatArray, Kind
from xai_sidecar.errors import ConfigError, DeviceError, SidecarError, UpstreamError

NO_GRADIENTS = (
    "It takes gradients of the model, or what a layer of it gives, and a model on another server gives only its "
    "outputs. Ask for rise, rise_plus or occlusion instead."
)
_NO_FEATURES = (
    "The model on the other server gives no features. Name an output with the inputs of its last dense layer in "
    "model.upstream.features."
)
_AGREEMENT = 0.02
"""Difference of two answers to the same input, as a part of their range, up to which they are of the same model: a
server may compute in a lower precision, and otherwise for another batch size."""

_AGAIN_SECONDS = 1.0
_EXTREME = 100.0

Result = TypeVar("Result")


class RemoteBackend:
    """A model on another server as a `Backend`.

    Args:
        source: Which one.
        waiting: Where the server is not there yet, called with why, once a second until it is; None to give up at
            once.

    Raises:
        ConfigError: The model does not fit the config; or it is not there, and nobody waits.
    """

    compiling = False
    hang_is_fatal = False
    reduced_precision = ""
    no_gradients = NO_GRADIENTS

    def __init__(self, source: RemoteSource, waiting: Callable[[str], None] | None = None) -> None:
        self._source = source
        self._waiting = waiting
        make = GrpcClient if source.address.by_grpc else HttpClient
        self._client: Client = make(source.address, source.settings)
        self._metadata = self._patiently(self._present)
        self._contract = contract_of(self._metadata, source)
        self._inputs = _made_up(source, max(2, *self._contract.batch_sizes))
        first = self._patiently(lambda: self._ask(self._inputs[: min(self._contract.batch_sizes)]))
        self._served = first.version
        answers = self._rows(first, self._contract.output.name, self._contract.columns)
        self.class_count = answers.shape[1]
        self._gives = self._found_gives(answers)
        self._answers: FloatArray = answers
        self.concurrency = source.settings.concurrency
        self.device = source.address.server
        self.engine = f"{self._patiently(self._client.server)}, by {'gRPC' if source.address.by_grpc else 'REST'}"
        self.engine_note = self._note()
        self.version = self._version()
        self.weights = f"Those of {source.address.model}{self._named_version()} on {source.address.server}."
        self.weights_warning = "" if self._known_version else _UNVERSIONED.format(source.address.model)
        self.layers: Mapping[str, Layer] = {}
        self.refused_layers: Mapping[str, str] = {}
        self.default_layer: str | None = None
        self.ood = ood_training(source.ood, self.version)
        self._costs: dict[Kind, dict[int, float]] = {}
        self._monitor = Monitor(str(source.address), self._check_present, self._check_same)
        self._monitor.start()

    # ---------------------------------------------------------------------------------------- the Backend protocol

    @property
    def unready(self) -> str:
        """See `Backend`."""
        return self._monitor.unready

    def warm_up(self, kinds: list[Kind], report: Report) -> dict[Kind, str]:
        """Tries the batch sizes, and measures what they cost; see `Backend.warm_up`."""
        refused = {kind: reason for kind in kinds if (reason := self._refusal(kind))}
        report(f"asking {self._source.address} for batches of each size")
        sizes = self._agreeing_sizes()
        wanted = dict.fromkeys(same_passes(kind) for kind in kinds if kind not in refused)
        costs = {kind: dict.fromkeys(sizes, float("inf")) for kind in wanted}
        take_times(costs, self._seconds)
        self._costs = costs
        return refused

    def costs(self, kind: Kind) -> Mapping[int, float]:
        """Batch sizes and measured seconds, of one call at a time; see `Backend.costs`."""
        return self._costs.get(same_passes(kind)) or {min(self._contract.batch_sizes): 1.0}

    def run(self, kind: Kind, rows: tuple[Array, ...]) -> tuple[Array, ...]:
        """Runs one batch; see `Backend.run`. Any thread may call it, several at once.

        Raises:
            UpstreamError: The server does not answer, or has another model by now.
            UpstreamBusyError: It takes no more.
            DeviceError: It failed on this batch.
        """
        self._monitor.check()
        try:
            done = run_passes(kind, rows, partial(self._pass, same_passes(kind)), "nchw", {}, self._source.ood)
        except SidecarError as error:
            self._monitor.failed(error)
            raise
        self._monitor.answered()
        return done

    def close(self) -> None:
        """Ends the connections."""
        self._monitor.close()
        self._client.close()

    # ---------------------------------------------------------------------------------------- passes

    def _pass(self, kind: Kind, rows: tuple[Array, ...]) -> tuple[Array, ...]:
        """The outputs for inputs (n, C, H, W), as the backend's table has them."""
        found = self._ask(rows[0], features=kind == Features.kind)
        if found.version != self._served:
            raise UpstreamError(_changed(f"the version was {self._served!r} and is {found.version!r}"))
        values = self._rows(found, self._contract.output.name, self.class_count)
        answers = logits(values, self._gives, self._source.activation)
        if kind != Features.kind or self._contract.features is None:
            return (answers,)
        return self._rows(found, self._contract.features.name), answers

    def _ask(self, inputs: FloatArray, *, features: bool = False) -> Inferred:
        contract = self._contract
        names = [contract.output.name]
        if features and contract.features is not None:
            names.insert(0, contract.features.name)
        found = self._client.infer(contract.input, to_layout(inputs, contract.layout), names)
        for name in names:
            output = found.outputs.get(name)
            if output is None or output.ndim < 1 or len(output) != len(inputs):
                given = {key: value.shape for key, value in found.outputs.items()}
                raise DeviceError(
                    f"The model's server gave {given} for {len(inputs)} rows, where {name!r} has to have a row for "
                    "each. Its log may say more."
                )
        return found

    def _rows(self, found: Inferred, name: str, columns: int | None = None) -> FloatArray:
        """An output as rows; columns are those at the start."""
        try:
            return rows_of(found.outputs[name], name, columns)
        except DeviceError as error:
            if columns is None:
                raise
            raise UpstreamError(_changed(error.message)) from error

    def _refusal(self, kind: Kind) -> str:
        """Why a kind of work cannot be had; empty if it can."""
        if kind.name.endswith("gradient"):
            return NO_GRADIENTS
        if same_passes(kind) == Features.kind and self._contract.features is None:
            return _NO_FEATURES
        return ""

    # ---------------------------------------------------------------------------------------- at the start

    def _patiently(self, ask: Callable[[], Result]) -> Result:
        """What the server answers, once it does."""
        while True:
            try:
                return ask()
            except ConfigError:
                raise
            except SidecarError as error:
                if self._waiting is None or error.retry_seconds is None:
                    raise ConfigError(error.message, field="model.oip") from error
                self._waiting(error.message)
                time.sleep(_AGAIN_SECONDS)

    def _found_gives(self, answers: FloatArray) -> Gives:
        """What the output is: as configured, or as it looks for inputs like pictures and far beyond any picture's."""
        if self._source.settings.gives != "auto":
            return self._source.settings.gives
        few = self._inputs[: len(answers)]
        beyond = self._patiently(lambda: self._ask(np.asarray(_EXTREME * few, np.float32)))
        extreme = self._rows(beyond, self._contract.output.name, self.class_count)
        return kind_of(np.concatenate([answers, extreme]), self._source.activation)

    def _agreeing_sizes(self) -> list[int]:
        """The batch sizes that the server takes, and for which it gives the same answers as for the smallest."""
        smallest, *larger = self._contract.batch_sizes
        singly = np.concatenate(
            [self._patiently(partial(self._answers_to, at, at + smallest)) for at in self._starts(smallest)]
        )
        self._answers = singly
        sizes, notes = [smallest], []
        for size in larger:
            try:
                together = self._patiently(partial(self._answers_to, 0, size))
            except ConfigError as error:
                notes.append(f"It takes no batch of {size}: {error.message}")
                break  # nor a larger one
            if _differs(together, singly[:size]):
                notes.append(f"For a batch of {size} its answers are others than for {smallest}.")
            else:
                sizes.append(size)
        self.engine_note = " ".join(filter(None, (self.engine_note, *notes)))
        return sizes

    def _starts(self, size: int) -> range:
        return range(0, len(self._inputs) - size + 1, size)

    def _answers_to(self, start: int, stop: int) -> FloatArray:
        """What the model gives for some of the made-up inputs, (n, classes)."""
        return self._rows(self._ask(self._inputs[start:stop]), self._contract.output.name, self.class_count)

    def _seconds(self, kind: Kind, size: int) -> float:
        return self._patiently(lambda: seconds(partial(self._pass, kind), (self._inputs[:size],)))

    # ---------------------------------------------------------------------------------------- what it is

    @property
    def _known_version(self) -> str:
        """The version as the server tells it; empty where it does not."""
        return self._served or self._source.settings.version or ", ".join(self._metadata.versions)

    def _named_version(self) -> str:
        return f", version {self._known_version}," if self._known_version else ""

    def _version(self) -> str:
        """A digest of all that is known of the model; see `Backend.version`."""
        contract, source = self._contract, self._source
        tensors = [
            (each.name, each.datatype, list(each.shape)) if each else None
            for each in (contract.input, contract.output, contract.features)
        ]
        names = (source.address.model, self._known_version, self._metadata.platform)
        return digest("oip", names, tensors, contract.layout, self._gives, source.preparation)

    def _note(self) -> str:
        if self._gives == "logits":
            return ""
        return "It gives probabilities: logits are their logarithms, whose softmax or sigmoid gives the same again."

    # ---------------------------------------------------------------------------------------- looking after it

    def _present(self) -> ModelMetadata:
        if not self._client.ready():
            raise UpstreamError(
                f"The model's server {self._source.address.server} says that {self._source.address.model} is not "
                "ready. Try again later, or another server.",
                retry_seconds=_AGAIN_SECONDS,
            )
        return self._client.metadata()

    def _check_present(self) -> None:
        found = self._present()
        try:
            contract = contract_of(found, self._source)
        except ConfigError as error:
            raise UpstreamError(_changed(error.message)) from error
        if contract != self._contract or found.platform != self._metadata.platform:
            raise UpstreamError(_changed("its metadata are others than at the start"))

    def _check_same(self) -> None:
        size = min(self._contract.batch_sizes)
        found = self._ask(self._inputs[:size])
        if found.version != self._served:
            raise UpstreamError(_changed(f"the version was {self._served!r} and is {found.version!r}"))
        if _differs(self._rows(found, self._contract.output.name, self.class_count), self._answers[:size]):
            raise UpstreamError(_changed("it answers otherwise than at the start"))


_UNVERSIONED = (
    "The server names no version of {0}. OoD nets and measured quality are kept by its name and metadata alone: "
    "empty the store and train the OoD net anew when its weights change, or serve it with a version."
)


def _changed(what: str) -> str:
    return f"The server has another model than at the start: {what}. Start this server anew to serve that one."


def _differs(answers: FloatArray, others: FloatArray) -> bool:
    """Whether two answers to the same inputs are of different models."""
    spread = float(np.ptp(others)) or 1.0
    return not np.allclose(answers, others, rtol=0, atol=_AGREEMENT * spread, equal_nan=True)


def _made_up(source: RemoteSource, count: int) -> FloatArray:
    """Random inputs, (n, C, H, W) float32, the same in every process."""
    shape = (count, source.channels, source.height, source.width)
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)
