"""Tables in files and pipes, and on terminals that are narrower."""

import fcntl
import io
import os
import pty
import struct
import termios
from pathlib import Path

import pytest
from rich.cells import cell_len

from xai_client.command.tables import pairs, table, terminal_width
from xai_client.command.text import info_text
from xai_client.model_info import model_info

ROWS = [("7", "75.00%", "tabby cat [bold]x[/] :smile:"), ("281", "5.00%", "虎斑猫"), ("3", "1.00%", "")]


def test_as_wide_as_it_is_where_there_is_no_terminal():
    """Also where labels look like rich's markup; what is wide in East Asia takes two columns."""
    assert table(("class", "probability", "label"), ROWS, right=(0, 1), indent=1) == [
        " class  probability  label",
        "     7       75.00%  tabby cat [bold]x[/] :smile:",
        "   281        5.00%  虎斑猫",
        "     3        1.00%",
    ]
    wide = table(("a", "b"), [("虎斑猫", "1"), ("x", "2" * 1000)])
    assert wide[1:] == ["虎斑猫  1", f"x       {'2' * 1000}"]


def test_cells_are_folded_where_a_terminal_is_narrower():
    assert table(("a", "meaning"), [("one", "a few words and a/path/without/spaces")], width=20) == [
        "a    meaning",
        "one  a few words and",
        "     a/path/without/",
        "     spaces",
    ]
    assert pairs([("model", "lite0"), ("", "three short words")], 20) == [
        "model     lite0",
        "          three",
        "          short",
        "          words",
    ]


@pytest.mark.parametrize("width", [60, 80])
def test_info_fits_a_terminal_and_loses_nothing(described_model, width):
    info = model_info(described_model)
    narrow, wide = info_text(info, width), info_text(info)
    assert max(map(cell_len, narrow.splitlines())) <= width < max(map(cell_len, wide.splitlines()))
    assert sorted("".join(narrow.split())) == sorted("".join(wide.split()))


def test_only_terminals_have_a_width():
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 61, 0, 0))
    with os.fdopen(theirs, "w") as terminal, Path(os.devnull).open("w") as file:
        assert terminal_width(terminal) is not None
        assert terminal_width(file) is None
    assert terminal_width(terminal) is None  # closed
    assert terminal_width(io.StringIO()) is None
    assert terminal_width(None) is None
    os.close(ours)


def test_info_on_a_terminal(spawn):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    process = spawn("info", stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    while True:
        try:
            shown += os.read(ours, 65536)
        except OSError:
            break
    os.close(ours)
    assert process.wait(20) == 0
    lines = shown.decode().split("\r\n")
    assert "runs on   cpu with mindspore 2.10.0, xai-sidecar 0.1.0" in lines
    limits = lines.index("limits    8 pictures, 4 explanations, 5 targets of each;")
    assert lines[limits + 1].startswith(" " * 10)
    assert b"\x1b" not in shown
