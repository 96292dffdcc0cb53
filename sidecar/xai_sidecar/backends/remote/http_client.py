"""The Open Inference Protocol by REST, with binary tensors where the server takes them."""

from __future__ import annotations

import contextlib
import http.client
import json
import queue
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import grpc
import numpy as np

from xai_sidecar.backends.remote.credentials import tls_context, token_of
from xai_sidecar.backends.remote.failures import code_of, failure
from xai_sidecar.backends.remote.protocol import Inferred, ModelMetadata, Tensor, from_numbers, from_raw, raw
from xai_sidecar.config.upstream import UpstreamAddress, UpstreamConfig
from xai_sidecar.engine.work import Array
from xai_sidecar.errors import DeviceError

_LENGTH = "Inference-Header-Content-Length"
"""Bytes of the JSON before the binary tensors; a header of the extension for these."""


class HttpClient:
    """See `Client`.

    Args:
        address: Where the model is.
        settings: How it is called.
    """

    def __init__(self, address: UpstreamAddress, settings: UpstreamConfig) -> None:
        self._address = address
        self._settings = settings
        version = f"/versions/{quote(settings.version, safe='')}" if settings.version else ""
        self._model = f"/v2/models/{quote(address.model, safe='')}{version}"
        self._context = tls_context(settings) if address.secure else None
        self._token = token_of(address, settings)
        self._idle: queue.LifoQueue[http.client.HTTPConnection] = queue.LifoQueue()
        self._binary: bool | None = None  # whether the server takes binary tensors; None until tried
        self._closed = False

    def server(self) -> str:
        """See `Client`."""
        found = self._json("GET", "/v2")
        return f"{found.get('name', '')} {found.get('version', '')}".strip()

    def ready(self) -> bool:
        """See `Client`."""
        status, _, content = self._request("GET", f"{self._model}/ready")
        if status == 200:
            # Some servers say it in the status, some in the content, too.
            return content.strip()[:1] != b"{" or bool(_parsed(content).get("ready", True))
        if status in (400, 404, 503):  # Triton says 400 of what it has not loaded
            return False
        raise self._failed(status, content)

    def metadata(self) -> ModelMetadata:
        """See `Client`."""
        found = self._json("GET", self._model)
        with _understood():
            return ModelMetadata(
                str(found.get("name", "")),
                tuple(map(str, found.get("versions") or ())),
                str(found.get("platform", "")),
                _tensors(found.get("inputs")),
                _tensors(found.get("outputs")),
            )

    def infer(self, tensor: Tensor, rows: Array, outputs: Sequence[str]) -> Inferred:
        """See `Client`."""
        if self._binary is not None:
            return self._infer(tensor, rows, outputs, self._binary)
        try:
            found = self._infer(tensor, rows, outputs, True)
            self._binary = True
        except DeviceError:  # it took the binary part for JSON, say; whether it is that shows now
            found = self._infer(tensor, rows, outputs, False)
            self._binary = False
        return found

    def close(self) -> None:
        """See `Client`."""
        self._closed = True
        while not self._idle.empty():
            self._idle.get_nowait().close()

    def _infer(self, tensor: Tensor, rows: Array, outputs: Sequence[str], binary: bool) -> Inferred:
        datatype = tensor.datatype or "FP32"
        values = raw(rows, datatype)
        given: dict[str, Any] = {"name": tensor.name, "datatype": datatype, "shape": list(rows.shape)}
        if binary:
            given["parameters"] = {"binary_data_size": values.nbytes}
        else:
            given["data"] = values.ravel().tolist()
        asked: dict[str, Any] = {"inputs": [given]}
        if outputs:
            wants = {"parameters": {"binary_data": True}} if binary else {}
            asked["outputs"] = [{"name": name, **wants} for name in outputs]
        elif binary:
            asked["parameters"] = {"binary_data_output": True}
        head = json.dumps(asked).encode()
        headers = {"Content-Type": "application/json"}
        body = head
        if binary:
            headers = {"Content-Type": "application/octet-stream", _LENGTH: str(len(head))}
            body = b"".join((head, values.data.cast("B")))
        status, response, content = self._request("POST", f"{self._model}/infer", body, headers)
        if status != 200:
            raise self._failed(status, content)
        with _understood():
            return _inferred(response, content)

    def _json(self, method: str, path: str) -> dict[str, Any]:
        status, _, content = self._request(method, path)
        if status != 200:
            raise self._failed(status, content)
        return _parsed(content)

    def _failed(self, status: int, content: bytes) -> Exception:
        text = content.decode(errors="replace")
        with contextlib.suppress(ValueError, KeyError, TypeError):
            text = str(json.loads(text)["error"])
        return failure(self._address, code_of(status), f"{text} (status {status})")

    def _request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Mapping[str, str], bytes]:
        """One request, on a connection that is free or a new one."""
        shown = {} if self._token is None else {"Authorization": self._token.header()}
        while True:
            connection, used = self._connection()
            try:
                connection.request(method, path, body, {**(headers or {}), **shown})
                response = connection.getresponse()
                content = response.read()
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                if used and isinstance(error, (ConnectionError, http.client.RemoteDisconnected)):
                    continue  # the server had closed it while it was idle
                raise self._lost(error) from None
            self._idle.put(connection)
            return response.status, {key.lower(): value for key, value in response.getheaders()}, content

    def _connection(self) -> tuple[http.client.HTTPConnection, bool]:
        """A connection, and whether it was in use before."""
        if self._closed:
            raise failure(self._address, grpc.StatusCode.CANCELLED, "the connection was closed")
        try:
            return self._idle.get_nowait(), True
        except queue.Empty:
            host, port, seconds = self._address.host.strip("[]"), self._address.port, self._settings.timeout_seconds
            if self._context is not None:
                return http.client.HTTPSConnection(host, port, timeout=seconds, context=self._context), False
            return _Connection(host, port, timeout=seconds), False

    def _lost(self, error: Exception) -> Exception:
        late = isinstance(error, TimeoutError)
        code = grpc.StatusCode.DEADLINE_EXCEEDED if late else grpc.StatusCode.UNAVAILABLE
        return failure(self._address, code, f"{type(error).__name__}: {error}")


class _Connection(http.client.HTTPConnection):
    """One that sends the end of a request at once."""

    def connect(self) -> None:
        super().connect()
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


@contextlib.contextmanager
def _understood() -> Iterator[None]:
    """Says of JSON that is not what the protocol has that it is so."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DeviceError(
            "The model's server sent something else than the Open Inference Protocol has: "
            f"{type(error).__name__}: {error}. Its log may say more."
        ) from error


def _parsed(content: bytes | memoryview) -> dict[str, Any]:
    try:
        found = json.loads(bytes(content))
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise DeviceError("The model's server sent something else than JSON. Its log may say more.")
    return found


def _tensors(given: Any) -> tuple[Tensor, ...]:
    return tuple(
        Tensor(str(each["name"]), str(each.get("datatype", "")), tuple(map(int, each.get("shape") or ())))
        for each in given or ()
    )


def _inferred(headers: Mapping[str, str], content: bytes) -> Inferred:
    length = int(headers.get(_LENGTH.lower(), len(content)))
    found, rest = _parsed(content[:length]), memoryview(content)[length:]
    outputs: dict[str, Array] = {}
    for each in found.get("outputs") or ():
        name, datatype, shape = str(each["name"]), str(each["datatype"]), [int(axis) for axis in each["shape"]]
        size = (each.get("parameters") or {}).get("binary_data_size")
        if size is None:
            outputs[name] = from_numbers(name, datatype, shape, np.asarray(each["data"]))
        else:
            outputs[name], rest = from_raw(name, datatype, shape, rest[:size]), rest[size:]
    return Inferred(str(found.get("model_version") or ""), outputs)
