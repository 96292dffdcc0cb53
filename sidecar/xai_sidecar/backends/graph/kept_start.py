"""Keeps on disk what a start has found out about a file, so that the next one reads no graph, derives none, times none.

Taken from an earlier start is what follows from things that are the same, and named by a digest of them: the file with
its external data, the settings, the sources of the backends, the versions of the libraries, the CPU, and the number of
threads. From these follow the net's layers and its version, the graphs of the kinds of work, that these are derived
rightly (by central differences), and which engine runs each of them fastest.

What no start takes from another is that the programs that it has loaded are right: each is compared with what its graph
gave when it was run plainly, row by row, at every batch size. Where one is not right, its graph is made anew.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast

from xai_sidecar.backends.graph.comparing import compared_rows, tolerances
from xai_sidecar.backends.graph.kept_runs import decoded, encoded
from xai_sidecar.backends.graph.loaded import Found
from xai_sidecar.backends.graph.programs import KindProgram
from xai_sidecar.backends.graph.source import GraphSource
from xai_sidecar.backends.runtimes.choosing import chosen_before, recorded, versions
from xai_sidecar.backends.runtimes.keeping import EngineCache, cache_key, code_digest, external_files, file_digest
from xai_sidecar.backends.runtimes.program import Engine, LazyModel, Precision
from xai_sidecar.backends.runtimes.sharing import SharedPrograms
from xai_sidecar.backends.runtimes.trial import Examples
from xai_sidecar.backends.spatial.layers import Layers, SpatialLayer
from xai_sidecar.cpus import usable_cpus
from xai_sidecar.engine.work import Array, Kind
from xai_sidecar.errors import PreconditionError

_FOUND = "found"
_BACKENDS = Path(__file__).parent.parent
_LIBRARIES = "onnx", "numpy"
_NOT_SETTINGS = "path", "cache", "ood", "threads"


class KeptStart:
    """What earlier starts have found out about a file.

    Args:
        source: The file and its settings.
        cache: Where it is kept; None keeps nothing.
        engines: What may run the graphs.
    """

    def __init__(self, source: GraphSource, cache: EngineCache | None, engines: Sequence[Engine]) -> None:
        self._source = source
        self._cache = cache
        self._engines = engines
        self._file = "" if cache is None else _digest(source.path)
        self._beside: Sequence[tuple[str, str]] = ()  # the names and digests of files with its external data

    def found(self) -> Found | None:
        """What was found out about the classifier; None if that is not known."""
        record = self._record(_FOUND)
        if record is None:
            return None
        head = json.loads(record)
        self._beside = [(name, _digest(self._source.path.parent / name)) for name, _ in head["beside"]]
        if self._beside != [tuple(each) for each in head["beside"]]:
            return None
        layers = {each["name"]: SpatialLayer(**{**each, "order": tuple(each["order"])}) for each in head["layers"]}
        return Found(**{**head["found"], "layers": Layers(layers, head["refused"])})

    def keep_found(self, found: Found) -> None:
        """Keeps what was found out about the classifier."""
        if self._cache is None or not self._file:
            return
        folder = self._source.path.parent
        self._beside = [(str(path.relative_to(folder)), _digest(path)) for path in external_files(self._source.path)]
        if _digest(self._source.path) != self._file:  # it was replaced while it was loaded
            self._file = ""
            return
        plain = {field.name: getattr(found, field.name) for field in fields(found) if field.name != "layers"}
        layers = [asdict(layer) for layer in found.layers.spatial.values()]
        head = {"found": plain, "layers": layers, "refused": found.layers.refused, "beside": self._beside}
        self._cache.keep(self._key(_FOUND), json.dumps(head).encode())

    def program(self, kind: Kind, rows: tuple[Array, ...], found: Found, shared: SharedPrograms) -> KindProgram | None:
        """The program that an earlier start has chosen for a kind, compared anew; None if there is none that is right.

        Args:
            kind: The kind.
            rows: Inputs of the kind, as many as the largest batch size and at least two, all different.
            found: What is known of the classifier.
            shared: What runs graphs at present.

        Raises:
            PreconditionError: An earlier start has found that the kind is not worth having; see `keep_refused`.
        """
        record = self._record(kind)
        if record is None:
            return None
        line, _, content = record.partition(b"\n")
        head, expected = json.loads(line), decoded(content)
        if "refused" in head:
            raise PreconditionError(head["refused"])
        if expected is None:
            return None
        fed = compared_rows(kind, rows, found.class_count, found.rows)
        examples = Examples(fed, expected, tolerances(kind, len(expected)))
        choice = shared.find(head["digest"], kind.precision, examples) or chosen_before(
            LazyModel(head["digest"], _not_kept),
            self._engines,
            head["choice"],
            examples,
            precision=cast(Precision, kind.precision or "float32"),
            threads=self._source.threads,
        )
        if choice is None:
            return None
        shared.add(head["digest"], kind.precision, choice)
        return KindProgram(kind, choice, found.class_count, found.rows)

    def keep_program(self, program: KindProgram) -> None:
        """Keeps which engines run a kind, whose program was made and checked by this start."""
        origin = program.origin
        if self._cache is None or not self._file or origin is None or not _by_engines(program, self._engines):
            return
        head = json.dumps({"digest": origin.digest, "choice": recorded(program.choice)})
        content = encoded(origin.expected, float("inf"))
        if content is not None:
            self._cache.keep(self._key(program.kind), head.encode() + b"\n" + content)

    def keep_refused(self, kind: Kind, why: str) -> None:
        """Keeps why a kind is not worth having: a precision that gains too little would be tried at each start."""
        if self._cache is not None and self._file:
            self._cache.keep(self._key(kind), json.dumps({"refused": why}).encode() + b"\n")

    def _record(self, what: object) -> bytes | None:
        path = self._cache.find(self._key(what)) if self._cache is not None and self._file else None
        return None if path is None else path.read_bytes()

    def _key(self, what: object) -> str:
        settings = [(each.name, getattr(self._source, each.name)) for each in fields(self._source)]
        plain = [(name, value) for name, value in settings if name not in _NOT_SETTINGS]
        made_by = code_digest(_BACKENDS), versions(self._engines), [_version(name) for name in _LIBRARIES]
        threads = self._source.threads or usable_cpus()
        # Which files lie beside it is only known from the record of what was found, which says what was in them.
        beside = () if what == _FOUND else tuple(self._beside)
        return cache_key(self._file.encode(), "start", what, plain, made_by, threads, beside)


def _by_engines(program: KindProgram, engines: Sequence[Engine]) -> bool:
    """Whether all that runs it can be loaded again; a graph that is run as it stands is not kept."""
    names = {engine.name for engine in engines}
    return all(chosen.name in names for chosen in program.choice.by_size.values())


def _not_kept() -> bytes:
    raise FileNotFoundError("what an engine has made of the graph is no longer there")


def _digest(path: Path) -> str:
    try:
        return file_digest(path)
    except OSError:
        return ""


def _version(name: str) -> Any:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
