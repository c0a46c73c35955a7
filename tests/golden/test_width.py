"""Tables fit the terminal; what is piped keeps every column."""

from __future__ import annotations

import fcntl
import os
import re
import struct
import subprocess
import termios
from typing import TYPE_CHECKING

import pytest
from tracing import COMMAND

from tracer.correlate.words import STAGES

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Say = Callable[..., str]

# command, and the columns that are there at 80
LISTINGS: dict[str, tuple[tuple[str, ...], str]] = {
    "awaits": (("awaits",), "await task kind where total longest stage"),
    "threads": (("awaits", "--kind", "thread"), "await task kind where total longest stage"),
    "where": (("awaits", "--group", "where"), "where count p50 p95 p99 max longest stage"),
    "task": (("awaits", "--group", "task"), "task count p50 p95 p99 max longest stage"),
    "tasks": (("tasks",), "task name coroutine steps awaits on CPU longest step"),
    "steps": (("steps",), "step what happens at took status"),
    "blocking": (("blocking",), "at held cause who where C code delayed"),
    "timeline": (("timeline",), "lane step at took status what happens"),
}


def titles(text: str) -> list[list[str]]:
    """Return the words of each table's header."""
    lines = text.splitlines()
    return [lines[n - 1].split() for n, line in enumerate(lines) if re.fullmatch("[- ]+", line)]


@pytest.mark.parametrize("listing", LISTINGS)
def test_80_columns(said: Say, listing: str) -> None:
    """No line is longer, and what matters most is there."""
    (command, *options), wanted = LISTINGS[listing]
    text = said(command, *options, "--width", "80")
    assert [line for line in text.splitlines() if len(line) > 80] == []
    assert titles(text)[0] == wanted.split()


@pytest.mark.parametrize("listing", LISTINGS)
def test_200_columns(said: Say, listing: str) -> None:
    """No line is longer, and every column is there."""
    command, *options = LISTINGS[listing][0]
    text = said(command, *options, "--width", "200")
    assert [line for line in text.splitlines() if len(line) > 200] == []
    everything = titles(said(command, *options))
    shown = titles(text)
    if listing == "threads":  # twenty columns; the worker's go first
        assert set(STAGES) <= set(shown[0])
    else:
        assert shown == everything


def test_shortened_texts_keep_what_tells_them_apart(said: Say) -> None:
    """Of a place the line stays, of a long sentence all its words."""
    text = said("awaits", "--group", "where", "--width", "80")
    assert re.search(r"^…\S+/pool\.py:\d+ ", text, re.MULTILINE)
    rows = said("steps", "--width", "80")
    for word in re.findall(r"[a-z]{4,}", said("steps").partition("your code")[2].split("  ")[1]):
        assert word in rows


def test_piped_output_is_whole_but_columns_is_obeyed(
    said: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    """COLUMNS says how wide; formats of other programs are never cut."""
    whole = said("awaits")
    assert max(map(len, whole.splitlines())) > 150
    form = said("awaits", "--fmt", "github")
    monkeypatch.setenv("COLUMNS", "80")
    assert said("awaits") == said("awaits", "--width", "80") != whole
    assert said("awaits", "--fmt", "github") == form


def test_a_terminal_is_asked_for_its_width(recorded: Path, said: Say) -> None:
    """Its lines are as long as its window."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k != "COLUMNS"}
    argv = [str(COMMAND), "tasks", str(recorded)]
    with subprocess.Popen(argv, stdout=theirs, env=environment) as running:
        os.close(theirs)
        seen = b""
        try:
            while part := os.read(ours, 4096):
                seen += part
        except OSError:  # the other end is closed
            pass
        assert running.wait() == 0
    os.close(ours)
    assert seen.decode().replace("\r\n", "\n") == said("tasks", "--width", "80")
