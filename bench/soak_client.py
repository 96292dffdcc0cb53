"""A client process of `bench.soak`: mixed calls until stdin ends, and a JSON line on stdout for each."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from xai_client import AsyncClient, Explain, Explained, Finished, ModelInfo, Predicted, Prediction
from xai_client.errors import DeadlineError, InvalidRequestError

_TIMEOUT = 300.0
_PAUSE_SECONDS = 0.2
_SMALL = {"rise": {"masks": 96}, "rise_plus": {"masks": 96}, "occlusion": {"window_size": 56, "stride": 28}}
_LONG = {"rise": {"masks": 20_000}, "occlusion": {"window_size": 32, "stride": 4}}
_WEIGHTS = {"predict": 12, "several": 2, "explain": 4, "budget": 2, "stream": 2, "cancel": 2, "deadline": 1, "bad": 2}


class Caller:
    """Makes one call after the other, each drawn at random.

    The methods named in `_WEIGHTS` make a call and return how it ended.

    Args:
        client: Shared with other callers.
        explainers: Those that the server has.
        pictures: By name, files and arrays.
        classes: The most probable class of each picture, as first answered; shared with other callers.
        seed: Of all that is drawn.
    """

    def __init__(
        self, client: AsyncClient, explainers: list[str], pictures: dict[str, Any], classes: dict[str, int], seed: str
    ) -> None:
        self._client = client
        self._explainers = explainers
        self._pictures = pictures
        self._classes = classes
        self._random = random.Random(seed)

    async def run(self, stopped: Callable[[], bool]) -> None:
        """Calls until stopped, and reports each call."""
        while not stopped():
            (call,) = self._random.choices(list(_WEIGHTS), list(_WEIGHTS.values()))
            started = time.monotonic()
            problem = ""
            try:
                outcome = await getattr(self, call)()
            except Exception as error:
                outcome = "unexpected"
                problem = f"{type(error).__name__}: {error}"
            report = {"call": call, "outcome": outcome, "seconds": time.monotonic() - started, "problem": problem}
            print(json.dumps(report), flush=True)
            await asyncio.sleep(self._random.expovariate(1 / _PAUSE_SECONDS))

    async def predict(self) -> str:
        """A picture."""
        picture, image = self._picture()
        self._check(picture, await self._client.predict(image))
        return "ok"

    async def several(self) -> str:
        """Several pictures with an explanation of each."""
        drawn = [self._picture() for _ in range(self._random.randint(2, 4))]
        found = await self._client.predict_many([image for _, image in drawn], "gradcam")
        for (picture, _), prediction in zip(drawn, found, strict=True):
            self._check(picture, prediction)
            _check_maps(prediction.explanations["gradcam"])
        return "ok"

    async def explain(self) -> str:
        """One explainer, or two at once."""
        picture, image = self._picture()
        names = self._random.sample(self._explainers, self._random.randint(1, 2))
        found = await self._client.predict(image, [_small(name) for name in names])
        self._check(picture, found)
        for name in names:
            _check_maps(found.explanations[name])
        return "ok"

    async def budget(self) -> str:
        """More than fits into its budget."""
        picture, image = self._picture()
        found = await self._client.predict(image, self._long(budget=0.5))
        self._check(picture, found)
        (explanation,) = found.explanations.values()
        if explanation.status == "truncated" and not explanation.maps:
            return "truncated, no map"
        _check_maps(explanation)
        return explanation.status

    async def stream(self) -> str:
        """A stream that is read to its end, or left in the midst of it."""
        picture, image = self._picture()
        most = self._random.choice([1, 3, 10**6])
        events = self._client.stream(image, _small(self._random.choice(self._explainers)), progress_interval=0.05)
        kinds: list[type] = []
        try:
            async for event in events:
                kinds.append(type(event))
                if isinstance(event, Predicted):
                    self._check(picture, event.prediction)
                if isinstance(event, Explained) and event.final:
                    _check_maps(event.explanation)
                if len(kinds) == most:
                    return "left"
        finally:
            await events.aclose()
        if kinds[0] is not Predicted or kinds[-1] is not Finished or Explained not in kinds:
            raise RuntimeError(f"a stream of {', '.join(kind.__name__ for kind in kinds)}")
        return "ok"

    async def cancel(self) -> str:
        """A long explanation that is cancelled after a while."""
        _, image = self._picture()
        call = asyncio.ensure_future(self._client.predict(image, self._long()))
        await asyncio.wait([call], timeout=self._random.uniform(0, 1.5))
        call.cancel()
        await asyncio.wait([call])
        if call.cancelled():
            return "cancelled"
        call.result()
        return "ok"

    async def deadline(self) -> str:
        """A long explanation with too little time."""
        _, image = self._picture()
        try:
            await self._client.predict(image, self._long(), timeout=self._random.uniform(0.01, 1))
        except DeadlineError:
            return "late"
        return "ok"

    async def bad(self) -> str:
        """A request that is to be refused."""
        _, image = self._picture()
        requests: list[tuple[Any, Any]] = [
            (self._random.randbytes(1000), ()),
            (next(iter(self._pictures.values()))[:1000], ()),
            (np.full((3, 224, 224), np.nan, np.float32), ()),
            (np.zeros((3, 100, 99), np.float32), ()),
            (image, "no_such_explainer"),
            (image, Explain("gradient", targets=123_456)),
            (image, Explain("rise", masks=1_000_000)),
            (image, Explain("gradcam", layer="no.such.layer")),
        ]
        number = self._random.randrange(len(requests))
        try:
            await self._client.predict(*requests[number])
        except InvalidRequestError:
            return "refused"
        raise RuntimeError(f"bad request {number} was answered")

    def _picture(self) -> tuple[str, Any]:
        return self._random.choice(list(self._pictures.items()))

    def _long(self, **values: Any) -> Explain:
        name = self._random.choice(list(_LONG))
        return Explain(name, **_LONG[name], **values)

    def _check(self, picture: str, prediction: Prediction) -> None:
        """Whether the answer is that to the picture sent, and not another's."""
        found = prediction.classes[0].class_id
        if self._classes.setdefault(picture, found) != found:
            raise RuntimeError(f"{picture} was class {self._classes[picture]}, and is now {found}")


def _small(name: str) -> Explain:
    return Explain(name, **_SMALL.get(name, {}))


def _check_maps(explanation: Any) -> None:
    if not explanation.maps:
        raise RuntimeError(f"{explanation.name} has no map: {explanation.status_message}")
    for each in explanation.maps:
        if each.values is not None and not np.isfinite(each.values).all():
            raise RuntimeError(f"{explanation.name} has a map with values that are not finite")


def _pictures(paths: list[Path], info: ModelInfo) -> dict[str, Any]:
    """Every picture as a file, as pixels and as a model input."""
    pictures: dict[str, Any] = {path.name: path.read_bytes() for path in paths}
    for path in paths:
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB").resize((info.input.width, info.input.height)))
        normalised = (pixels / 255 - info.input.mean) / info.input.std
        pictures[f"{path.name} as pixels"] = pixels
        pictures[f"{path.name} as a model input"] = normalised.transpose(2, 0, 1).astype(np.float32)
    return pictures


async def main() -> None:
    """Runs callers until stdin ends, and their last calls to the end."""
    address, seed, callers, *paths = sys.argv[1:]
    async with AsyncClient(address, timeout=_TIMEOUT) as client:
        info = await client.model_info()
        explainers = [name for name, explainer in info.explainers.items() if explainer.available]
        pictures = _pictures([Path(path) for path in paths], info)
        classes: dict[str, int] = {}
        stdin = asyncio.ensure_future(asyncio.to_thread(sys.stdin.read))
        drivers = (Caller(client, explainers, pictures, classes, f"{seed}-{number}") for number in range(int(callers)))
        await asyncio.gather(*(driver.run(stdin.done) for driver in drivers))


if __name__ == "__main__":
    asyncio.run(main())
