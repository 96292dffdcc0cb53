"""docs/security.md, done as it says."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from guarded_server import Guarded

PAGE = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
MODEL = '[model]\nfactory = "none:none"\ninput.size = 32\n'


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def shell(text, folder, **variables):
    """Runs what is for a shell, with this Python's command lines."""
    python = shlex.quote(sys.executable)
    given = "".join(
        f'{name}() {{ {python} -m {name.replace("-", "_")} "$@"; }}\n' for name in ("xai-sidecar", "xai-client")
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("XAI_")}
    command = ["bash", "-euo", "pipefail", "-c", given + text]
    done = subprocess.run(
        command, cwd=folder, env={**environment, **variables}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_from_nothing_to_mutual_tls_with_tokens(tmp_path):
    make, call = blocks("sh")
    config, entry = blocks("toml")
    shell(make, tmp_path)
    with (tmp_path / "tokens.toml").open("a") as tokens:
        tokens.write(entry)
    here = re.sub(r'"0\.0\.0\.0:\d+"', '"127.0.0.1:0"', config)
    assert here.count("127.0.0.1:0") == 3
    (tmp_path / "sidecar.toml").write_text(MODEL + here)
    server = Guarded(tmp_path, None)
    server.start()
    try:
        told = call.replace("models.example:50051", server.grpc).replace("models.example:8443", server.http)
        assert server.grpc in told
        assert server.http in told
        printed = shell(told, tmp_path, no_proxy="127.0.0.1")
        assert "gradcam" in printed
        assert '"extensions"' in printed
        assert "secret" not in printed
        (python,) = blocks("python")
        program = python.replace("models.example:50051", server.grpc).replace(
            '"cat.jpg"', "__import__('numpy').zeros((3, 32, 32), 'float32')"
        )
        done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        token = (tmp_path / "shop.token").read_text().strip()
        assert token not in "".join(server.log) + printed
        assert any('"caller": "shop"' in line for line in server.log)
    finally:
        server.process.kill()
        server.process.wait()
