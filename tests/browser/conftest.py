"""The console in a real browser, before a real server of the sample classifier; one of each for all tests."""

import base64
import contextlib
import importlib.util
import io
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import urlsplit

import axe_playwright_python
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import sync_playwright

from xai_client import Client
from xai_sidecar.zoo.sample import sample_picture

HERE = Path(__file__).parent
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js")
SETTLED = """async () => {
  const moving = document.getAnimations().filter((each) => each instanceof CSSTransition);
  await Promise.allSettled(moving.map((each) => each.finished));
}"""
"""Waits until no colour is on its way to another: half-way, none need stand out from what it is on."""
PATIENCE = 60_000
"""Milliseconds that a page may take on a machine that is busy with other things."""


def load(path):
    spec = importlib.util.spec_from_file_location(f"browser_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


integration = load(HERE.parent / "integration" / "conftest.py")

eventually = integration.eventually
only = integration.only
sample_cache = integration.sample_cache
sample_config = integration.sample_config
start_misbehaving = integration.start_misbehaving


@contextlib.contextmanager
def showing(server, *options, shown="--server"):
    """Runs a console before a server, or of a run; gives its address."""
    command = [sys.executable, "-m", "xai_console", shown, server, "--listen", "127.0.0.1:0", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    said = []
    try:
        line = process.stdout.readline()
        found = re.search(r"http://\S+", line)
        assert found, line + process.stdout.read()
        reader = threading.Thread(target=lambda: said.extend(process.stdout), daemon=True)
        reader.start()
        yield found[0]
    finally:
        process.terminate()
        process.wait(30)
        assert not said, "".join(said)  # it has nothing to say where nothing goes wrong


@pytest.fixture(scope="session")
def start_console():
    """`showing`, for tests that want a console of their own."""
    return showing


@pytest.fixture(scope="session")
def server(sample_config, only, tmp_path_factory):
    """The sample classifier, with an evaluator that keeps pictures."""
    store = tmp_path_factory.mktemp("store") / "store.db"
    overrides = (
        "evaluator.sample_rate=1",
        "evaluator.interval_seconds=0.1",
        "evaluator.device_share=1",
        "evaluator.keep_pictures=true",
        f"evaluator.store=sqlite:///{store}",
        'evaluator.explainers=["gradcam", "gradient"]',
        'evaluator.metrics=["faithfulness/srg", "localization/pointing_game"]',
        "evaluator.auto.min_samples=2",
        "evaluator.metric_parameters.faithfulness/srg.steps=8",
        "explainers.rise.masks=64",
        "model.batch_sizes=[1]",  # fewer programs to load
    )
    with integration.serving(
        sample_config, *only("gradcam", "gradient", "rise"), *overrides, forked=False, program=("-m", "xai_sidecar")
    ) as running:
        yield running


@pytest.fixture(scope="session")
def client(server):
    """The SDK, before the same server."""
    with Client(server.grpc, timeout=60) as made:
        yield made


@pytest.fixture(scope="session")
def console(server):
    """The address of the console."""
    with showing(server.grpc) as address:
        yield address


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium, Debian's, not a build of Playwright's."""
    found = next(filter(None, map(shutil.which, CHROMIUM)), None)
    assert found, "the browser tests need Debian's package chromium"
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=found, args=list(ARGUMENTS), env=dict(os.environ))
        yield running
        running.close()


@pytest.fixture(scope="session")
def open_page(browser):
    """Opens a page, in a `with` statement, which at its end had no error, and asked nobody but its own console."""
    contexts = {}

    @contextlib.contextmanager
    def opened(url, *, width=1280, height=900, locale="en-US", scheme="light", zone=None, allow=()):
        key = (width, height, locale, scheme, zone)
        if key not in contexts:  # what a browser keeps of a page is not fetched again
            size = {"width": width, "height": height}
            contexts[key] = browser.new_context(viewport=size, locale=locale, color_scheme=scheme, timezone_id=zone)
        context = contexts[key]
        context.clear_cookies()
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        wrong, asked = [], []
        page.on("console", lambda message: wrong.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        try:
            page.goto(url)
            yield page
            assert [each for each in wrong if not any(part in each for part in allow)] == []
            own = urlsplit(url).netloc
            assert {urlsplit(each).netloc for each in asked if not each.startswith(("data:", "blob:"))} <= {own}
        finally:
            page.close()

    yield opened
    for context in contexts.values():
        context.close()


@pytest.fixture(scope="session")
def photo():
    """The file of a picture of a cat, 451 x 300 pixels."""
    return sample_picture("chelsea")


# ------------------------------------------------------------------------------------------------ what a page shows


@pytest.fixture(scope="session")
def pixels():
    """The colours of a canvas, (height, width, 3), as floats."""

    def pixels(canvas):
        data = canvas.evaluate("canvas => canvas.toDataURL('image/png')")
        with Image.open(io.BytesIO(base64.b64decode(data.partition(",")[2]))) as shown:
            return np.asarray(shown.convert("RGB"), np.float64)

    return pixels


@pytest.fixture(scope="session")
def drawn_values():
    """The values that an overlay draws, (rows, columns), once it has drawn them."""

    def drawn_values(figure, rows, columns):
        figure.locator("xpath=self::*[@data-drawn and @data-drawn != 'picture']").wait_for()
        url = figure.get_attribute("data-drawn")
        data = figure.page.request.get(f"http://{urlsplit(figure.page.url).netloc}{url}").body()
        return np.frombuffer(data, "<f4").reshape(rows, columns)

    return drawn_values


@pytest.fixture(scope="session")
def axe():
    """What axe has to say of a page: rules that it breaks, with the elements that do."""

    def axe(page):
        # A page's policy lets no script in; an evaluation is not one of the page's.
        page.evaluate(AXE.read_text())
        page.evaluate(SETTLED)
        # What axe fetches itself shows Quasar's loading bar, as nothing of the console's does.
        found = page.evaluate(
            "axe.run({exclude: ['.q-loading-bar']}, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa']})"
        )
        return [(each["id"], [node["html"][:160] for node in each["nodes"]][:4]) for each in found["violations"]]

    return axe


@pytest.fixture(scope="session")
def at_night():
    """Shows an open page as a phone in dark colours does; it must not have to be moved sideways."""

    def at_night(page):
        page.emulate_media(color_scheme="dark")
        page.set_viewport_size({"width": 390, "height": 844})
        page.wait_for_function("document.body.classList.contains('body--dark')")
        page.wait_for_function("document.documentElement.scrollWidth <= 390")

    return at_night


@pytest.fixture(scope="session")
def charted():
    """What a chart shows: ECharts' options, once it is drawn."""

    def charted(page, label):
        chart = page.locator(f'.chart[aria-label="{label}"]')
        chart.locator("canvas").wait_for()
        return chart.evaluate(
            "async (chart) => (await import('nicegui-echart')).echarts.getInstanceByDom(chart).getOption()"
        )

    return charted
