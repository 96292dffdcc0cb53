"""Builds the image and runs it as the manifests have it; by hand, since it takes minutes and needs a container engine.

    python tests/containers/try_image.py --engine podman --base BASE

Starts it as user 10001 with a read-only root file system, the config as a file of its own and volumes for store and
cache; asks it through the SDK; ends it with SIGTERM; and starts it again with the volumes that are left.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from xai_client import Client, Explain
from xai_sidecar.zoo.sample import sample_picture

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 600


def main() -> int:
    """Builds, runs and prints what was found; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", default="docker", help="docker or podman (default: docker)")
    parser.add_argument("--base", help="an image with Python and pip (default: as in the Dockerfile)")
    parser.add_argument("--extras", help="of the package (default: as in the Dockerfile)")
    parser.add_argument("--build-option", action="append", default=[], help="goes to the engine's build; repeatable")
    parser.add_argument("--run-option", action="append", default=[], help="goes to the engine's run; repeatable")
    parser.add_argument("--built", action="store_true", help="do not build: the image xai-sidecar is there")
    arguments = parser.parse_args()
    engine = shutil.which(arguments.engine)
    if engine is None:
        parser.error(f"there is no {arguments.engine} on the PATH")
    if not arguments.built:
        build(engine, arguments)
    print(f"image: {image_bytes(engine) / 1e6:,.0f} MB")
    for name in ("store", "cache"):
        subprocess.run([engine, "volume", "rm", "--force", volume(name)], check=False, capture_output=True)
    for start in ("first", "second"):
        seconds = try_once(engine, arguments.run_option)
        print(f"{start} start: ready after {seconds['ready']:.1f} s, ended {seconds['ended']:.1f} s after SIGTERM")
    return 0


def build(engine: str, arguments: argparse.Namespace) -> None:
    """Builds the image `xai-sidecar`."""
    given = {"BASE": arguments.base, "EXTRAS": arguments.extras}
    options = [part for name, value in given.items() if value for part in ("--build-arg", f"{name}={value}")]
    command = [engine, "build", *arguments.build_option, *options, "-f", "deploy/docker/Dockerfile"]
    subprocess.run([*command, "-t", "xai-sidecar", "."], cwd=ROOT, check=True)


def image_bytes(engine: str) -> int:
    """The image's size."""
    shown = subprocess.run([engine, "image", "inspect", "xai-sidecar"], check=True, capture_output=True)
    return int(json.loads(shown.stdout)[0]["Size"])


def volume(name: str) -> str:
    """The volume of a name, of this program alone."""
    return f"xai-sidecar-try-{name}"


def try_once(engine: str, options: list[str]) -> dict[str, float]:
    """Runs a container, asks it, ends it; returns seconds."""
    command = [engine, "run", "--rm", "--name", "xai-sidecar-try", "--read-only", "--tmpfs", "/tmp"]
    command += ["--cap-drop", "ALL", "--security-opt", "no-new-privileges", *options]
    command += ["-v", f"{ROOT / 'deploy' / 'config' / 'sidecar.toml'}:/etc/xai-sidecar/sidecar.toml:ro"]
    command += ["-v", f"{volume('store')}:/var/lib/xai-sidecar", "-v", f"{volume('cache')}:/var/cache/xai-sidecar"]
    command += ["-p", "127.0.0.1:50051:50051", "-p", "127.0.0.1:9090:9090", "xai-sidecar"]
    container = subprocess.Popen(command)
    try:
        until(lambda: running(engine), container)  # with its layers laid out, which may take a while
        started = time.monotonic()
        until(lambda: status("/healthz") == 200, container)
        until(lambda: status("/readyz") == 200, container)
        ready = time.monotonic() - started
        check_user(engine)
        ask()
        ending = time.monotonic()
        subprocess.run([engine, "kill", "--signal", "TERM", "xai-sidecar-try"], check=True, capture_output=True)
        until(lambda: status("/healthz") == 0, container)
        ended = time.monotonic() - ending
        code = container.wait(PATIENCE_SECONDS)  # its layers are removed
        if code != 0:
            raise SystemExit(f"it ended with {code} after SIGTERM")
        return {"ready": ready, "ended": ended}
    finally:
        if container.poll() is None:
            subprocess.run([engine, "rm", "--force", "xai-sidecar-try"], check=False, capture_output=True)
            container.wait(60)


def until(done: Callable[[], bool], container: subprocess.Popen[bytes]) -> None:
    """Waits for something as long as the container runs."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not done():
        if container.poll() not in (None, 0):
            raise SystemExit(f"the container ended with {container.returncode}")
        if time.monotonic() > deadline:
            raise SystemExit(f"it was not ready within {PATIENCE_SECONDS} s")
        time.sleep(0.2)


def status(path: str) -> int:
    """The status of a probe; 0 while nothing answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:9090{path}", timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def running(engine: str) -> bool:
    """Whether the container's process has been started."""
    command = [engine, "inspect", "--format", "{{.State.Running}}", "xai-sidecar-try"]
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout.strip() == "true"


def check_user(engine: str) -> None:
    """That the process is no root."""
    shown = subprocess.run([engine, "exec", "xai-sidecar-try", "id", "-u"], check=True, capture_output=True, text=True)
    if shown.stdout.strip() != "10001":
        raise SystemExit(f"it runs as user {shown.stdout.strip()}")


def ask() -> None:
    """That it says what the photograph shows, and why."""
    with Client("127.0.0.1:50051") as client:
        prediction = client.predict(sample_picture("chelsea"), explain=[Explain("gradcam")], timeout=60)
    best = prediction.classes[0]
    print(f"  {best.label} {best.probability:.2f}, map of {prediction.explanations['gradcam'].saliency.shape}")
    if "cat" not in best.label and "tabby" not in best.label:
        raise SystemExit(f"it takes the cat for {best.label}")


if __name__ == "__main__":
    sys.exit(main())
