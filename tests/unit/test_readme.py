"""The README's example loads, and the generated references say what the code says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from xai_sidecar.config import parse_config
from xai_sidecar.config.reading import tomllib

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").rglob("*.md")]


def test_the_references_are_those_of_the_code():
    done = subprocess.run([sys.executable, "docs/generate.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_stale_reference_fails_the_check(tmp_path):
    copy = tmp_path / "docs"
    (copy / "reference").mkdir(parents=True)
    (copy / "generate.py").write_text((ROOT / "docs" / "generate.py").read_text())
    for page in (ROOT / "docs" / "reference").iterdir():
        (copy / "reference" / page.name).write_text(page.read_text().replace("| `rise` |", "| `rise2` |", 1))
    config = copy / "reference" / "config.md"
    config.write_text(config.read_text().replace("| `name` |", "| `nam` |", 1))
    done = subprocess.run([sys.executable, copy / "generate.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "-| `nam` |" in done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" not in link and not link.startswith("#"):
            assert (page.parent / link.partition("#")[0]).exists(), link


def test_the_readme_fits_three_screens():
    assert len(README.splitlines()) <= 3 * 45


def test_the_example_loads(tmp_path):
    (tmp_path / "resnet50.ckpt").touch()
    (tmp_path / "labels.txt").touch()
    example = re.search(r"```toml\n(.*?)```", README, re.DOTALL).group(1)
    config = parse_config(tomllib.loads(example), folder=tmp_path)
    assert config.model.arguments == {"num_classes": 20}
    assert config.explainers.gradcam.layer == "layer4"
