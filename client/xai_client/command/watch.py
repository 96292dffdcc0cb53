"""Follows a stream for the command line, and writes overlays as their maps come."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TextIO

from xai_client.command import text
from xai_client.command.files import OverlayFiles
from xai_client.command.progress import WAITING, ProgressState, display, ended, improved, is_terminal, running
from xai_client.errors import ResponseError, ServiceError
from xai_client.types import Event, Explained, Explanation, Predicted, Prediction, Progress


class Watch:
    """Follows the stream of one picture.

    Args:
        image: The picture.
        names: Names of the explanations, in the order of the request.
        files: Takes every version of an overlay.
        as_json: Whether to print every event as a line of JSON.
        values: Whether these lines hold the maps themselves, too.
    """

    def __init__(
        self, image: Path, names: Sequence[str], files: OverlayFiles, as_json: bool, values: bool = False
    ) -> None:
        self._image = image
        self._names = names
        self._files = files
        self._as_json = as_json
        self._values = values
        self._display = display(names, sys.stderr, shared=as_json and is_terminal(sys.stdout))
        self._prediction: Prediction | None = None
        self._explanations: dict[str, Explanation] = {}
        self._states: dict[str, ProgressState] = {}

    def follow(self, events: Generator[Event, None, None]) -> Prediction:
        """Takes all events; returns what a call without a stream would have returned.

        Raises:
            ServiceError: The call failed.
            ResponseError: The server's answer contradicts the contract.
            KeyboardInterrupt: Ctrl-C. The call is cancelled, and a line has said what was written.
        """
        try:
            with contextlib.closing(events):
                for event in events:
                    self._take(event)
        except KeyboardInterrupt:
            self._display.close()
            _write_line(f"xai-client: interrupted; {self._kept() or 'no overlay was written'}", sys.stderr)
            raise
        except ServiceError:
            self._display.close()
            if self._files.written:
                _write_line(f"xai-client: {self._kept()}", sys.stderr)
            raise
        finally:
            self._display.close()
        if self._prediction is None:
            raise ResponseError("the stream ended without a prediction")
        came = self._explanations
        order = [name for name in self._names if name in came]
        return dataclasses.replace(self._prediction, explanations={name: came[name] for name in order})

    def _take(self, event: Event) -> None:
        if isinstance(event, Predicted):
            self._prediction = event.prediction
            top = [f"{each.probability:.2%} {each.label}" for each in event.prediction.classes[:1]]
            self._display.begin("  ".join([str(self._image), *top]))
        elif isinstance(event, Progress):
            self._update(event.name, running(event, self._files.paths(event.name)))
        elif isinstance(event, Explained):
            self._explained(event)
        if self._as_json:
            files = self._files
            _write_line(text.event_json(event, self._image, files.written, files.arrays, self._values), sys.stdout)

    def _explained(self, event: Explained) -> None:
        explanation, name = event.explanation, event.explanation.name
        self._files.write(explanation)
        self._explanations[name] = explanation
        paths, before = self._files.paths(name), self._states.get(name, WAITING)
        self._update(name, (ended if event.final else improved)(explanation, before, paths))

    def _update(self, name: str, state: ProgressState) -> None:
        self._states[name] = state
        self._display.update(name, state)

    def _kept(self) -> str:
        """Names the overlays written so far; empty if there are none."""
        partial = {name for name, each in self._explanations.items() if each.status == "partial"}
        kept = [f"{path}{' (not final)' * (name in partial)}" for (name, _), path in self._files.written.items()]
        return f"the best so far: {', '.join(kept)}" if kept else ""


def _write_line(line: str, stream: TextIO | None) -> None:
    if stream is not None:
        stream.write(f"{line}\n")
        stream.flush()
