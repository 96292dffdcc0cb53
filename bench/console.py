"""The web console before a server with 10,000 samples, in Chromium: how long pages and filters take.

A page counts as painted when it shows something, and its pictures where it has any; and as there when its content can
be used: cards of samples, tables, charts. Then predictions with five viewers over
those without, in alternating order.
"""

from __future__ import annotations

import importlib.util
import io
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench import models
from bench.console_store import repeat_samples
from bench.figure import Figure, MissingError
from bench.load_client import LoadClient, load_client
from bench.server import served
from xai_client import Client
from xai_client.request import predict_request
from xai_sidecar.zoo.sample import sample_picture

COUNT = int(os.environ.get("XAI_BENCH_CONSOLE_SAMPLES", "10000"))
PAGE_MILLISECONDS = 1000.0
FILTER_MILLISECONDS = 300.0
MOST_BESIDE = 1.05
_EXPLAINERS = ("gradcam", "gradient")
_PICTURES = ("astronaut", "chelsea", "clock_motion", "coffee", "motorcycle_left", "rocket")
_TRUTH = {"chelsea": "Egyptian cat", "coffee": "espresso", "rocket": "space shuttle"}
_VISITS = 5
_VIEWERS, _ROUNDS, _SECONDS, _RATE = 5, 6, 8.0, 20.0
_CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
_ARGUMENTS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
_CONTENT = {
    "live": ("/", "#app .sample canvas"),
    "sample": ("/sample?request={sample}", "#app [data-tile=gradcam] figure[data-drawn]"),
    "side by side": ("/side-by-side", "#app [data-tile=gradcam] figure[data-drawn]"),
    "explain": ("/explain", "#app .drop"),
    "quality": ("/quality", "#app .table tbody tr"),
    "classes": ("/classes", "#app #main table, #app #main .card"),
    "drift": ("/drift", "#app .figure"),
    "review": ("/review", "#app .answer"),
}
_SEEN = """
(() => {
  const look = () => {
    if (window.seenAt === undefined && document.querySelector(%r)) window.seenAt = performance.now();
  };
  new MutationObserver(look).observe(document, { childList: true, subtree: true, attributes: true });
})();
"""
_PICTURED = """
(() => {
  const inView = (each) => {
    const box = each.getBoundingClientRect();
    return box.width > 0 && box.top < innerHeight && box.bottom > 0;
  };
  const shown = () => {
    const pictures = [...document.querySelectorAll("#preview img")].filter(inView);
    if (pictures.length) return pictures.every((each) => each.complete && each.naturalWidth);
    const drawn = [...document.querySelectorAll("#app canvas[role=img]")].filter(inView);
    return drawn.length && drawn.every((each) => each.closest("[data-drawn]"));
  };
  const look = () => {
    if (window.picturedAt !== undefined || !shown()) return;
    window.picturedAt = NaN; // until they are painted
    requestAnimationFrame(() => setTimeout(() => { window.picturedAt = performance.now(); }));
  };
  new MutationObserver(look).observe(document, { childList: true, subtree: true, attributes: true });
  document.addEventListener("load", look, true);
})();
"""
_OF_PICTURES = ("live", "sample", "side by side")
_PAINTED = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? NaN"
_FILTERED = """
async (button) => {
  const list = document.querySelector(".samples");
  const shown = () => [...list.querySelectorAll("a")].map((each) => each.getAttribute("href")).join();
  const before = shown();
  const began = performance.now();
  return await new Promise((done) => {
    const look = () => {
      if (shown() === before) return;
      watching.disconnect();
      requestAnimationFrame(() => done(performance.now() - began));
    };
    const watching = new MutationObserver(look);
    watching.observe(list, { childList: true, subtree: true, attributes: true });
    button.click();
  });
}
"""
_FILTERS = ("TP", "FP", "no label")


def figures() -> list[Figure]:
    """Pages, filters, and predictions beside viewers; some three minutes."""
    chromium = next(filter(None, map(shutil.which, _CHROMIUM)), None)
    if importlib.util.find_spec("playwright") is None or chromium is None:
        raise MissingError("The console is measured in Chromium: apt install chromium, pip install playwright.")
    with tempfile.TemporaryDirectory() as folder, models.sample_config(None) as (_, config):
        store = Path(folder) / "store.sqlite"
        _configure(config, store)
        _fill(config, store)
        with served(config) as (address, _, server):
            return [*_pages(address, server, chromium), *_beside(address, server, Path(folder))]


def _configure(config: Path, store: Path) -> None:
    config.write_text(
        config.read_text()
        + f"""
[evaluator]
sample_rate = 0.1
interval_seconds = 0.5
keep_pictures = true
explainers = {list(_EXPLAINERS)}
store = "sqlite:///{store}"
[evaluator.metric_parameters."faithfulness/srg"]
steps = 10
""".replace("'", '"')
    )


def _fill(config: Path, store: Path) -> None:
    """Has a server measure some pictures, and repeats these."""
    text = config.read_text()
    config.write_text(text.replace("sample_rate = 0.1", "sample_rate = 1.0"))
    with served(config) as (address, _, _), Client(address) as client:
        for name in _PICTURES:
            prediction = client.predict(sample_picture(name))
            if name in _TRUTH:
                client.report_ground_truth(prediction.request_id, _TRUTH[name], [(100, 50, 300, 250)])
        while any(each.state == "pending" for each in client.list_samples().samples):
            time.sleep(0.2)
    config.write_text(text)
    repeat_samples(store, COUNT)


# ------------------------------------------------------------------------------------------------ pages


@contextmanager
def _console(server: str) -> Iterator[tuple[str, int]]:
    """A console before a server: its address, and the process id."""
    command = [sys.executable, "-m", "xai_console", "--server", server, "--listen", "127.0.0.1:0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        found = re.search(r"http://\S+", process.stdout.readline() if process.stdout else "")
        if found is None:
            raise RuntimeError("the console did not start")
        try:
            yield found[0], process.pid
        finally:
            process.terminate()


def _pages(address: str, server: int, chromium: str) -> Iterator[Figure]:
    from playwright.sync_api import sync_playwright

    with Client(address) as client:
        sample = client.list_samples(page_size=1).samples[0].request_id
    with _console(address) as (url, console), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(_ARGUMENTS))
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        for name, (path, selector) in _CONTENT.items():
            yield from _page(context, name, url + path.format(sample=sample), selector, (console, server))
        yield _filter(context, url)
        browser.close()


def _page(context: Any, name: str, url: str, selector: str, processes: tuple[int, int]) -> Iterator[Figure]:
    times, paints, before = [], [], [_cpu_seconds(each) for each in processes]
    for _ in range(1 + _VISITS):
        page = context.new_page()
        page.add_init_script(_SEEN % selector)
        page.add_init_script(_PICTURED)
        page.goto(url)
        page.wait_for_function("window.seenAt !== undefined")
        times.append(page.evaluate("window.seenAt"))
        page.wait_for_timeout(300)
        painted = page.evaluate(_PAINTED)
        if name in _OF_PICTURES:
            page.wait_for_function("window.picturedAt > 0")
            painted = max(painted, page.evaluate("window.picturedAt"))
        paints.append(painted)
        page.close()
    first, *later = times
    console, server = (
        1e3 * (_cpu_seconds(each) - ago) / len(times) for each, ago in zip(processes, before, strict=True)
    )
    paint = f"{paints[0]:.0f} ms the first time, worst later {max(paints[1:]):.0f}"
    yield Figure(f"page {name}: first paint", statistics.median(paints[1:]), "ms", PAGE_MILLISECONDS, paint)
    note = (
        f"{first:.0f} ms the first time, worst later {max(later):.0f}; CPU a visit: console {console:.0f}, server "
        f"{server:.0f} ms"
    )
    yield Figure(
        f"page {name}: content there, {COUNT:,} samples", statistics.median(later), "ms", PAGE_MILLISECONDS, note
    )


def _filter(context: Any, url: str) -> Figure:
    page = context.new_page()
    page.goto(url)
    page.locator(".sample canvas").first.wait_for()
    page.wait_for_timeout(1000)
    times = []
    for _ in range(2):
        for label in _FILTERS:
            button = page.get_by_role("button", name=label, exact=True)
            for _ in ("on", "off"):
                times.append(button.evaluate(_FILTERED))
                page.wait_for_timeout(200)
    page.close()
    note = f"{', '.join(_FILTERS)} on and off: fastest {min(times):.0f}, slowest {max(times):.0f} ms"
    return Figure(f"a filter of {COUNT:,} samples", statistics.median(times), "ms", FILTER_MILLISECONDS, note)


# ------------------------------------------------------------------------------------------------ viewers


def _beside(address: str, server: int, folder: Path) -> Iterator[Figure]:
    """Predictions with viewers over those without."""
    file = io.BytesIO()
    Image.open(models.photograph()).save(file, "JPEG", quality=90)
    request = predict_request([file.getvalue()], (), top_k=None, ood=False, request_id="")
    (folder / "request").write_bytes(request.SerializeToString())
    taken: dict[bool, list[list[float]]] = {False: [], True: []}
    cpu: dict[bool, list[float]] = {False: [], True: []}
    with load_client(address, folder) as client:
        client.ask("closed_loop", "request", callers=4, settle=0, seconds=2)()
        for number in range(_ROUNDS):
            for viewed in (False, True) if number % 2 == 0 else (True, False):
                with _viewers(address, _VIEWERS if viewed else 0):
                    before = _cpu_seconds(server)
                    found = _send(client, number)
                    cpu[viewed].append(1e3 * (_cpu_seconds(server) - before) / len(found))
                    taken[viewed].append(found)
    for percentile, bar in ((50, None), (99, MOST_BESIDE)):
        alone, beside = (
            [1e3 * float(np.percentile(found, percentile)) for found in taken[viewed]] for viewed in (False, True)
        )
        by_pair = statistics.median(there / without for there, without in zip(beside, alone, strict=True))
        all_alone, all_beside = (
            float(np.percentile(np.concatenate(taken[viewed]), percentile)) for viewed in (False, True)
        )
        note = (
            f"{1e3 * all_beside:.1f} of {1e3 * all_alone:.1f} ms, of {sum(map(len, taken[True]))} predictions each; by "
            f"pairs of rounds {by_pair:.2f}"
        )
        ratio = all_beside / all_alone
        yield Figure(f"prediction p{percentile} with {_VIEWERS} viewers over without", ratio, "×", bar, note)
    more = statistics.median(cpu[True]) - statistics.median(cpu[False])
    note = (
        f"{statistics.median(cpu[True]):.1f} of {statistics.median(cpu[False]):.1f} ms a prediction, sampling and all"
    )
    yield Figure(f"server's CPU time a prediction that {_VIEWERS} viewers add, at {_RATE:g}/s", more, "ms", None, note)


def _send(client: LoadClient, seed: int) -> list[float]:
    found: list[float] = client.ask("open_loop", "request", rate=_RATE, seconds=_SECONDS, seed=seed)()["taken"]
    return found


@contextmanager
def _viewers(address: str, count: int) -> Iterator[None]:
    if not count:
        yield
        return
    command = [sys.executable, "-m", "bench.console_viewers", address, str(count)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        if process.stdout is None or not process.stdout.readline():
            raise RuntimeError("the viewers did not start")
        try:
            yield
        finally:
            process.kill()


def _cpu_seconds(process: int) -> float:
    """CPU time that a process has taken, in user and system mode."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
