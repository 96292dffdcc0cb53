"""Progress in words and in bars."""

import io
import re

import pytest
from rich.console import Console

from xai_sidecar.ood.progress import ProgressBars, ProgressLines, Step, duration_text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.1, "1 s"), (89, "89 s"), (90, "2 min"), (3600, "60 min"), (5400, "1 h 30 min"), (7500, "2 h 5 min")],
)
def test_times_are_told_for_people(seconds, text):
    assert duration_text(seconds) == text


def test_lines_come_every_few_seconds_and_know_the_time_left():
    now, lines = [100.0], []
    tell = ProgressLines(lines.append, lambda: now[0])
    tell(Step("features", 640, 2000, "pictures"))  # done in an earlier run, which took no time in this one
    for done in range(704, 2000, 64):
        now[0] += 1
        tell(Step("features", done, 2000, "pictures"))
    tell(Step("features", 2000, 2000, "pictures"))
    assert lines == [
        "features: 960 of 2,000 pictures, 64 a second, 16 s left",
        "features: 1,280 of 2,000 pictures, 64 a second, 11 s left",
        "features: 1,600 of 2,000 pictures, 64 a second, 6 s left",
        "features: 1,920 of 2,000 pictures, 64 a second, 1 s left",
        "features: 2,000 of 2,000 pictures, 65 a second",
    ]


def test_every_stage_is_timed_on_its_own():
    now, lines = [0.0], []
    tell = ProgressLines(lines.append, lambda: now[0])
    tell(Step("features", 5, 5, "pictures"))
    now[0] = 1000
    tell(Step("training", 1, 90, "epochs"))
    now[0] = 1010
    tell(Step("training", 11, 90, "epochs", "loss 1"))
    assert lines == ["features: 5 of 5 pictures", "training: 11 of 90 epochs, loss 1, 1 a second, 79 s left"]


def test_where_the_end_is_not_known_it_is_not_told():
    now, lines = [0.0], []
    tell = ProgressLines(lines.append, lambda: now[0])
    for done in range(4):
        tell(Step("running", done, None, "pictures"))
        now[0] += 12
    assert lines == [f"running: {done} pictures, 12 s each" for done in (1, 2, 3)]


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_bar_for_each_stage_stays(encoding):
    written = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    now = [0.0]
    console = Console(file=written, force_terminal=True, width=90, no_color=True, legacy_windows=False)
    bars = ProgressBars(console, lambda: now[0])
    bars(Step("features", 0, 2, "pictures"))
    now[0] += 8
    bars(Step("features", 2, 2, "pictures"))
    bars(Step("training", 1, 3, "epochs", "loss 0.5"))
    bars.close()
    bars.close()
    written.seek(0)
    shown = re.sub(r"\x1b\[[?0-9;]*[A-Za-z]", "", written.read()).splitlines()
    done = r"features [━-]{20} 2/2 pictures 4 s each 0:00:00 *"
    assert any(re.fullmatch(done, line.split("\r")[-1]) for line in shown)
    assert re.fullmatch(r"training [━-]{6}[╸ ] {13} 1/3 epochs  -:--:-- loss 0.5 *", shown[-1].split("\r")[-1])
