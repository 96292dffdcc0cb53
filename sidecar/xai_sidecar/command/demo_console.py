"""What `xai-sidecar demo` has to look at: the web console, and pictures sent and partly labelled."""

from __future__ import annotations

import contextlib
import importlib.util
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Final

from PIL import Image

from xai_sidecar.zoo.sample import sample_picture

_PICTURES: Final = ("astronaut", "chelsea", "clock_motion", "coffee", "coins", "motorcycle_left", "rocket")
# What they really show, of those whose class the classifier knows; rockets are no missiles.
_TRUTH: Final = {
    "chelsea": "Egyptian cat",
    "clock_motion": "wall clock",
    "coffee": "espresso",
    "motorcycle_left": "moped",
    "rocket": "space shuttle",
}
_BOXES: Final = {"chelsea": (120.0, 15.0, 345.0, 285.0), "coffee": (140.0, 30.0, 520.0, 330.0)}
_SCALES: Final = (1.0, 0.8)


@contextlib.contextmanager
def console(server: str, listen: str) -> Iterator[str]:
    """Runs the console while the demo runs.

    Args:
        server: Address of the server, which need not be there yet.
        listen: Where the console listens.

    Yields:
        Its address for browsers, at once; empty where it is not installed, or the server takes any port.
    """
    if importlib.util.find_spec("nicegui") is None or server.endswith(":0"):
        yield ""
        return
    command = [sys.executable, "-m", "xai_console", "--server", server, "--listen", listen]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)  # noqa: S603
    try:
        yield f"http://{listen}"
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)


def send_pictures(grpc_address: str, report: Callable[[str], None]) -> int:
    """Sends photographs as callers do, and says what some of them really show.

    Args:
        grpc_address: Where gRPC is served.
        report: Called with a line that tells how many of them.

    Returns:
        How many were sampled.
    """
    from xai_client import Client

    sampled = labelled = 0
    with Client(grpc_address, tls=False, token="") as client:
        ood = client.model_info().ood is not None
        for scale in _SCALES:
            for name in _PICTURES:
                with Image.open(sample_picture(name)) as opened:
                    picture = _cut(opened.convert("RGB"), scale)
                prediction = client.predict(picture, ood=ood)
                sampled += prediction.sampled
                if scale == 1.0 and name in _TRUTH and prediction.sampled:
                    boxes = [_BOXES[name]] if name in _BOXES else []
                    client.report_ground_truth(prediction.request_id, _TRUTH[name], boxes)
                    labelled += 1
    sent = len(_SCALES) * len(_PICTURES)
    report(f"Sent {sent} photographs: {sampled} were sampled, and {labelled} of these have been labelled")
    return sampled


def tell_progress(grpc_address: str, sampled: int, report: Callable[[str], None], pause_seconds: float = 1.0) -> None:
    """Tells how many samples have been explained, after each quarter, and how many scored once none of them waits.

    All are explained before any is scored by the last metric. Samples that come later do not count.

    Args:
        grpc_address: Where gRPC is served.
        sampled: How many there are at least.
        report: Called with a line each.
        pause_seconds: How long to wait before the server is asked again.
    """
    from xai_client import Client, SampleFilter

    with Client(grpc_address, tls=False, token="") as client:
        before, told = SampleFilter(end=time.time()), 0
        while True:
            samples = client.list_samples(before, page_size=200).samples
            explained = sum(bool(each.explainers) for each in samples)
            if explained >= told + sampled / 4:
                report(f"Explained {explained} of {len(samples)} samples")
                told = explained
            if len(samples) >= sampled and all(each.state != "pending" for each in samples):
                break
            time.sleep(pause_seconds)
    scored = sum(each.state == "scored" for each in samples)
    report(f"Scored {scored} of {len(samples)} samples by all metrics")


def _cut(picture: Image.Image, scale: float) -> Image.Image:
    """The middle of a picture."""
    width, height = round(picture.width * scale), round(picture.height * scale)
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))
