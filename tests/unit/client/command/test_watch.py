"""Watching a stream: what is shown, on a terminal and elsewhere, and which overlays there are at every moment."""

import codecs
import fcntl
import io
import json
import os
import pty
import re
import signal
import struct
import termios
import threading
import time

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2
from PIL import Image

from xai_client.command.files import OverlayFiles
from xai_client.command.progress import ProgressState, display
from xai_client.response import predictions
from xai_proto import explanation_pb2 as pb

PARTIAL, COMPLETE, TRUNCATED, SKIPPED = (
    pb.EXPLANATION_STATUS_PARTIAL,
    pb.EXPLANATION_STATUS_COMPLETE,
    pb.EXPLANATION_STATUS_TRUNCATED,
    pb.EXPLANATION_STATUS_SKIPPED,
)
MAP = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.fixture
def play(answer):
    """Makes a stream that predicts, plays the steps and finishes. A step is an event, a failure, or a function."""

    def make(*steps):
        def stream(request):
            response = answer(request.request)
            del response.predictions[0].explanations[:]
            named = {"request_id": request.request.request_id}
            yield pb.PredictStreamResponse(predicted=response, **named)
            for step in steps:
                if callable(step):
                    step()
                elif isinstance(step, pb.ExplanationProgress):
                    yield pb.PredictStreamResponse(progress=step, **named)
                elif isinstance(step, pb.Explanation):
                    yield pb.PredictStreamResponse(explained=pb.ExplanationUpdate(explanation=step), **named)
                else:
                    yield step
            yield pb.PredictStreamResponse(finished=pb.StreamFinished(), **named)

        return stream

    return make


@pytest.fixture
def explained(make_map):
    def make(name, status=COMPLETE, passes=9, values=MAP, error=None, **more):
        more.setdefault("maps", [make_map(7, values, **({} if error is None else {"standard_error": error}))])
        explanation = pb.Explanation(name=name, explainer=name, status=status, pass_count=passes, **more)
        explanation.elapsed.FromMilliseconds(1500)
        return explanation

    return make


def progress(name, done, planned=1000, error=None, left=None):
    message = pb.ExplanationProgress(name=name, pass_count=done, planned_pass_count=planned)
    if error is not None:
        message.standard_error = error
    if left is not None:
        message.remaining.FromMilliseconds(round(left * 1000))
    return message


def wait_for(path):
    """A step that waits until the client has written a file."""

    def step():
        deadline = time.monotonic() + 10
        while not path.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    return step


def leftovers(folder):
    return [each.name for each in folder.iterdir() if each.name.startswith(".")]


# ------------------------------------------------------------------------------------------------- results


@pytest.mark.parametrize("more", [(), ("--ood", "--top-k", 2)], ids=str)
def test_the_text_at_the_end_is_that_of_a_call_without_a_stream(run, cat, fake, play, explained, more):
    arguments = ("predict", cat, "--explain", "gradcam,rise", *more)
    _, plain, _ = run(*arguments)
    fake.script = [play(explained("rise", PARTIAL), progress("rise", 500), explained("rise"), explained("gradcam"))]
    status, watched, _ = run(*arguments, "--watch")
    assert status == 0
    unnamed = [re.sub(r"request \w+", "request", out) for out in (plain, watched)]
    assert unnamed[0] == unnamed[1]
    (request,) = fake.requests("PredictStream")
    assert [each.name for each in request.request.explanations] == ["gradcam", "rise"]


def test_json_is_one_line_for_each_event(run, cat, fake, play, explained):
    fake.script = [
        play(
            progress("rise", 100, 1000, 0.5, 2.5),
            explained("rise", PARTIAL, 100),
            progress("rise", 500),
            explained("rise", TRUNCATED, 500, error=0.25, truncated=True, status_message="1 s is over"),
            explained("gradcam", SKIPPED, 0, maps=[], status_message="too sure"),
        )
    ]
    status, out, _ = run("predict", cat, "--explain", "rise,gradcam", "--watch", "--json", "--out", "maps")
    assert status == 0
    events = [json.loads(line) for line in out.splitlines()]
    assert [each["event"] for each in events] == [
        "predicted",
        "progress",
        "explained",
        "progress",
        "explained",
        "explained",
        "finished",
    ]
    predicted, first, partial, second, cut, skipped, _ = events
    assert {each["image"] for each in events} == {str(cat)}
    assert len({each["request_id"] for each in events}) == 1
    assert predicted["classes"][0]["label"] == "tabby cat"
    assert "explanations" not in predicted
    assert {key: first[key] for key in ("name", "passes", "planned_passes", "standard_error", "remaining_seconds")} == {
        "name": "rise",
        "passes": 100,
        "planned_passes": 1000,
        "standard_error": 0.5,
        "remaining_seconds": 2.5,
    }
    assert (second["standard_error"], second["remaining_seconds"]) == (None, None)
    assert [each["final"] for each in (partial, cut, skipped)] == [False, True, True]
    assert partial["maps"][0]["overlay"] == cut["maps"][0]["overlay"] == "maps/cat.rise.png"
    assert (cut["status"], cut["status_message"]) == ("truncated", "1 s is over")
    assert (skipped["name"], skipped["maps"], skipped["status_message"]) == ("gradcam", [], "too sure")


def test_overlays_are_there_at_once_and_become_better(run, cat, fake, play, explained, tmp_path):
    path = tmp_path / "cat.rise.png"
    seen = []
    fake.script = [
        play(
            explained("rise", PARTIAL, 100),
            wait_for(path),
            lambda: seen.append(path.read_bytes()),
            explained("rise", values=MAP[::-1]),
        )
    ]
    assert run("predict", cat, "--explain", "rise", "--watch", "--no-legend")[0] == 0
    first, last = Image.open(io.BytesIO(seen[0])), Image.open(path)
    assert first.size == last.size == (40, 30)
    assert first.getpixel((39, 29)) == last.getpixel((39, 0)) != first.getpixel((39, 0))
    assert leftovers(tmp_path) == []


def test_a_map_that_is_withheld_at_the_end_leaves_no_overlay(run, cat, fake, play, explained, tmp_path):
    path = tmp_path / "cat.rise.png"
    withheld = explained("rise", maps=[pb.SaliencyMap(class_id=7, status=pb.MAP_STATUS_NOT_FINITE)])
    fake.script = [play(explained("rise", PARTIAL), wait_for(path), withheld)]
    status, out, err = run("predict", cat, "--explain", "rise", "--watch")
    assert status == 3
    assert not path.exists()
    assert "withheld" in out.splitlines()[-2]
    assert err.splitlines()[-1] == "rise: complete, 9 passes, 1.5 s, withheld: not_finite"


def test_a_map_that_is_unreliable_at_the_end_says_so(run, cat, fake, play, explained, make_map):
    unsure = make_map(standard_error=1.5, standard_error_bound=0.7)
    unsure.status = pb.MAP_STATUS_UNRELIABLE
    fake.script = [play(explained("rise", maps=[unsure]))]
    status, out, err = run("predict", cat, "--explain", "rise", "--watch")
    assert status == 0
    assert "9 passes, error 1.50, unreliable, 1.5 s" in err.splitlines()[-1]
    assert "rise: warning: the map of class 7" in out


def test_a_file_that_cannot_be_finished_leaves_the_version_before(cat, tmp_path, fake, answer, monkeypatch):
    request = pb.PredictRequest(
        images=[pb.Image(encoded=cat.read_bytes())], explanations=[pb.ExplanationRequest(name="rise")]
    )
    explanation = predictions(answer(request), "r", 1)[0].explanations["rise"]
    files = OverlayFiles(cat, tmp_path, "cat", [cat])
    files.write(explanation)
    path = tmp_path / "cat.rise.png"
    before = path.read_bytes()

    def fill_the_disk(self, file, **options):
        file.write(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(Image.Image, "save", fill_the_disk)
    with pytest.raises(OSError, match="no space"):
        files.write(explanation)
    assert path.read_bytes() == before
    assert leftovers(tmp_path) == []


# ------------------------------------------------------------------------------------------------ failures


def test_a_stream_that_breaks_says_what_there_is(run, cat, fake, play, explained, failure, tmp_path):
    path = tmp_path / "cat.rise.png"
    gone = failure(grpc.StatusCode.INTERNAL, "the device is gone")
    fake.script = [play(explained("rise", PARTIAL), wait_for(path), gone)]
    status, out, err = run("predict", cat, "--explain", "rise", "--watch")
    assert (status, out) == (1, "")
    kept, error = err.splitlines()[-2:]
    assert kept == "xai-client: the best so far: cat.rise.png (not final)"
    assert "the device is gone" in error
    assert path.exists()


def test_a_bad_picture_is_reported_and_the_others_still_watched(run, cat, fake, play, explained, failure, tmp_path):
    other = tmp_path / "dog.png"
    Image.new("RGB", (8, 8)).save(other)
    details = (error_details_pb2.ErrorInfo(reason="PICTURE"),)
    bad = failure(grpc.StatusCode.INVALID_ARGUMENT, "cannot be decoded", details)
    fake.script = [bad, play(explained("rise"))]
    status, out, err = run("predict", cat, other, "--explain", "rise", "--watch")
    assert status == 1
    assert err.splitlines()[0].startswith(f"xai-client: {cat}: cannot be decoded")
    assert "dog.rise.png" in out


def test_a_stream_without_a_prediction_is_an_error(run, cat, fake):
    status, out, err = run("predict", cat, "--watch")
    assert (status, out, err) == (1, "", "xai-client: the stream ended without a prediction\n")


@pytest.mark.parametrize("maps", [True, False])
def test_ctrl_c_leaves_the_best_so_far(fake, cat, spawn, play, explained, tmp_path, maps):
    path = tmp_path / "cat.rise.png"
    leave = threading.Event()
    first = [explained("gradcam"), explained("rise", PARTIAL), wait_for(path)] if maps else []
    process = None

    def interrupt():
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        leave.wait(10)

    fake.script = [play(progress("rise", 1), *first, interrupt)]
    process = spawn("predict", "cat.jpg", "--explain", "gradcam,rise", "--watch", "--no-legend")
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out) == (130, b"")
    assert fake.received[0].ended.wait(2)
    leave.set()
    kept = "the best so far: cat.gradcam.png, cat.rise.png (not final)" if maps else "no overlay was written"
    assert err.decode().splitlines()[-1] == f"xai-client: interrupted; {kept}"
    if maps:
        assert Image.open(path).convert("RGB").size == (40, 30)
    assert leftovers(tmp_path) == []


# ------------------------------------------------------------------------------------------- what is shown


def test_elsewhere_than_on_a_terminal_there_are_few_plain_lines(run, cat, fake, play, explained):
    many = [progress("rise", done, 1000, 0.5, 12.3) for done in range(10, 900)]
    fake.script = [
        play(
            *many,
            lambda: time.sleep(1.1),
            progress("rise", 950, 1000, 0.25),
            explained("rise", passes=1000, error=0.125),
            explained("gradcam", SKIPPED, 0, maps=[], status_message="the top probability is 0.75"),
            explained("occlusion", TRUNCATED, 0, maps=[], status_message="1 s was too short"),
        )
    ]
    status, _, err = run("predict", cat, "--explain", "rise,gradcam,occlusion", "--watch")
    assert status == 3  # of occlusion there is none
    lines = [line for line in err.splitlines() if not re.match(r"rise: [2-8]\d\d of", line)]
    assert lines == [
        f"{cat}  75.00% tabby cat",
        "rise: 10 of 1,000 passes, error 0.50, 13 s left",
        "rise: 950 of 1,000 passes, error 0.25",
        "rise: complete, 1,000 passes, error 0.12, 1.5 s, cat.rise.png",
        "gradcam: skipped, the top probability is 0.75",
        "occlusion: truncated, 1 s was too short",
    ]


def test_a_stderr_that_is_closed_is_no_matter():
    shown = display(["rise"], None)
    shown.begin("cat.jpg")
    shown.update("rise", ProgressState())
    shown.close()


def test_several_targets_are_counted(run, cat, fake, play, explained, make_map):
    fake.script = [play(explained("rise", maps=[make_map(3), make_map(1)]))]
    _, out, err = run("predict", cat, "--explain", "rise", "--target", 3, "--target", 1, "--watch")
    assert err.splitlines()[-1] == "rise: complete, 9 passes, 1.5 s, cat.rise.3.png and 1 more"
    assert "cat.rise.1.png" in out


class Terminal:
    """The screen of a terminal: what is written, moved and erased; colours are dropped."""

    def __init__(self, columns, rows=24):
        self._ours, self.theirs = pty.openpty()
        fcntl.ioctl(self.theirs, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.columns = columns
        self.text = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        decode = codecs.getincrementaldecoder("utf-8")().decode  # a read may end within a character
        while True:
            try:
                self.text += decode(os.read(self._ours, 65536))
            except OSError:
                return

    def close(self):
        os.close(self.theirs)
        self._reader.join(5)
        os.close(self._ours)

    @property
    def lines(self):
        screen, row, column = [""], 0, 0
        for token in re.findall(r"\x1b\[[?0-9;]*[A-Za-z]|[^\x1b]", self.text):
            if token == "\r":
                column = 0
            elif token == "\n":
                row += 1
                screen += [""] * (row == len(screen))
            elif token == "\x1b[1A":
                row -= 1
            elif token == "\x1b[2K":
                screen[row] = ""
            elif token.startswith("\x1b"):
                assert re.fullmatch(r"\x1b\[([0-9;]*m|\?25[hl])", token)
            else:
                screen[row] = screen[row].ljust(column)[:column] + token + screen[row][column + 1 :]
                column += 1
                assert column <= self.columns
        return [line.rstrip() for line in screen]

    def until(self, text):
        """A step that waits until the text is on the screen, and returns it."""

        def step():
            deadline = time.monotonic() + 10
            while not any(text in line for line in self.lines):
                assert time.monotonic() < deadline, self.lines
                time.sleep(0.02)
            shown = []
            while shown != self.lines and time.monotonic() < deadline:  # for the rest of the rows
                shown = self.lines
                time.sleep(0.2)
            return shown

        return step


@pytest.fixture
def terminal(request):
    terminal = Terminal(getattr(request, "param", 100))
    yield terminal


def test_bars_on_a_terminal(fake, cat, spawn, play, explained, terminal):
    screens = []
    skipped = "the top probability is 0.75"
    names = "gradcam,rise,occlusion,gradient"
    fake.script = [
        play(
            explained("gradcam", passes=1),
            explained("gradient", SKIPPED, 0, maps=[], status_message=skipped),
            progress("rise", 500, 2000, 0.5, 12.3),
            progress("occlusion", 500, 1000, left=3),
            explained("rise", PARTIAL, 500),
            lambda: screens.append(terminal.until("[bold]/cat.rise.png")()),
            explained("occlusion", TRUNCATED, 750, status_message="1 s is over"),
            explained("rise", passes=1200, error=0.1),
        )
    ]
    arguments = ("predict", "cat.jpg", "--explain", names, "--watch", "--out", "[bold]")
    process = spawn(*arguments, stderr=terminal.theirs, TERM="xterm")
    out, _ = process.communicate(timeout=20)
    terminal.close()
    assert process.returncode == 0
    assert "occlusion: 1 s is over" in out.decode()
    (halfway,) = screens
    assert halfway == [
        "cat.jpg  75.00% tabby cat",
        "✓ gradcam   100% ━━━━━━━━━━━━━━━━━━━━ 1 pass                    1.5 s      → [bold]/cat.gradcam.png",
        "  rise       25% ━━━━━╺━━━━━━━━━━━━━━ 500 of 2,000  error 0.50  13 s left  → [bold]/cat.rise.png",
        "  occlusion  50% ━━━━━━━━━━╺━━━━━━━━━ 500 of 1,000              3 s left",
        f"– gradient                            skipped: {skipped}",
    ]
    assert terminal.lines[1:] == [
        "✓ gradcam   100% ━━━━━━━━━━━━━━━━━━━━ 1 pass                    1.5 s         → [bold]/cat.gradcam.…",
        "✓ rise      100% ━━━━━━━━━━━━━━━━━━━━ 1,200 passes  error 0.10  1.5 s         → [bold]/cat.rise.png",
        "✓ occlusion  75% ━━━━━━━━━━━━━━━╺━━━━ 750 of 1,000              cut at 1.5 s  → [bold]/cat.occlusio…",
        f"– gradient                            skipped: {skipped}",
        "",
    ]
    assert terminal.text.rfind("\x1b[?25h") > terminal.text.rfind("\x1b[?25l")  # the cursor is seen


def test_ctrl_c_leaves_the_bars_as_they_are(fake, cat, spawn, play, terminal):
    leave = threading.Event()
    process = None

    def interrupt():
        terminal.until("500 of 1,000")()
        process.send_signal(signal.SIGINT)
        leave.wait(10)

    fake.script = [play(progress("rise", 500), interrupt)]
    arguments = ("predict", "cat.jpg", "--explain", "gradcam,rise", "--watch")
    process = spawn(*arguments, stderr=terminal.theirs, TERM="xterm", NO_COLOR="1")
    assert process.wait(20) == 130
    leave.set()
    terminal.close()
    assert terminal.lines[1:] == [
        "  gradcam                          waiting",
        "  rise    50% ━━━━━━━━━━           500 of 1,000",
        "xai-client: interrupted; no overlay was written",
        "",
    ]
    assert not re.search(r"\x1b\[[0-9;]*m", terminal.text)  # no colours


def test_ctrl_c_at_any_moment_leaves_whole_rows(monkeypatch):
    """That of a terminal comes while a row is drawn as likely as not."""
    monkeypatch.setenv("TERM", "xterm")
    for seconds in np.random.default_rng(0).uniform(0.0005, 0.01, 30):
        terminal = Terminal(100)
        with os.fdopen(os.dup(terminal.theirs), "w") as stream:
            shown = display(["gradcam", "rise"], stream)
            shown.begin("cat.jpg")
            with pytest.raises(KeyboardInterrupt):
                threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT)).start()
                for done in range(1_000_000):
                    shown.update("rise", ProgressState(share=0.5, done=done, planned=1_000_000))
            shown.close()
            stream.write("interrupted\n")
        terminal.close()
        headline, waiting, running, *rest = terminal.lines
        assert (headline, waiting.split()) == ("cat.jpg", ["gradcam", "waiting"])
        assert re.fullmatch(r"  rise +(50% ━+╺━+ [0-9,]+ of 1,000,000|waiting)", running)
        assert rest == ["interrupted", ""]


def test_a_terminal_that_cannot_show_bars_gets_lines(fake, cat, spawn, play, explained, terminal):
    fake.script = [play(explained("rise"))]
    process = spawn("predict", "cat.jpg", "--explain", "rise", "--watch", stderr=terminal.theirs, TERM="dumb")
    assert process.wait(20) == 0
    terminal.close()
    assert terminal.lines[1:] == ["rise: complete, 9 passes, 1.5 s, cat.rise.png", ""]


def test_events_on_the_same_terminal_are_not_drawn_over(fake, cat, spawn, play, explained, terminal):
    terminal.columns = 2000
    fake.script = [play(progress("rise", 500), explained("rise"))]
    arguments = ("predict", "cat.jpg", "--explain", "rise", "--watch", "--json")
    process = spawn(*arguments, stdout=terminal.theirs, stderr=terminal.theirs, TERM="xterm")
    assert process.wait(20) == 0
    terminal.close()
    events = [json.loads(line)["event"] for line in terminal.lines if line.startswith("{")]
    assert events == ["predicted", "progress", "explained", "finished"]
    assert "rise: complete, 9 passes, 1.5 s, cat.rise.png" in terminal.lines


def test_a_pipe_gets_no_control_characters(fake, cat, spawn, play, explained):
    fake.script = [play(progress("rise", 500), explained("rise"))]
    forced = dict.fromkeys(("FORCE_COLOR", "TTY_COMPATIBLE", "CLICOLOR_FORCE"), "1")
    process = spawn("predict", "cat.jpg", "--explain", "rise", "--watch", TERM="xterm-256color", **forced)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert not re.search(rb"[\x00-\x09\x0b-\x1f]", out + err)


@pytest.mark.parametrize("terminal", [40], indirect=True, ids=str)
def test_bars_of_a_narrow_terminal_in_ascii(fake, cat, spawn, play, explained, terminal):
    fake.script = [play(progress("rise", 500), explained("rise"))]
    arguments = ("predict", "cat.jpg", "--explain", "rise", "--watch", "--out", "a_folder_of_a_long_name")
    process = spawn(*arguments, stderr=terminal.theirs, TERM="xterm", PYTHONIOENCODING="ascii")
    assert process.wait(20) == 0
    terminal.close()
    assert terminal.lines[1:] == ["* rise 100% -------- 9 passes  1.5 s  ->", ""]
