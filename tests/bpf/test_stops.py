"""Recordings that end before their command: the disk is full, nearly full, or not to be written."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from bpf_scope import PYTHON, Scope, until

from tracer.correlate.trace import Trace, open_trace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.bpf, pytest.mark.usefixtures("bpf_left_clean")]

# sends through a pair of sockets until the file `stop` is there
BUSY = """\
import asyncio, os, socket
async def main():
    one, two = socket.socketpair()
    one.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=two)
    while not os.path.exists("stop"):
        for _ in range(50):
            one.send(b"x" * 100)
            await reader.readexactly(100)
        await asyncio.sleep(0.005)
    writer.close()
    one.close()
asyncio.run(main())
raise SystemExit(3)
"""
SMALL = ("--agent-slots", "16384", "--level", "2")


@pytest.fixture
def disk(scope: Scope) -> Iterator[Path]:
    """Mount a disk of 12 MiB where the trace goes; the command works beside it."""
    folder = scope.folder / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", folder], check=True)
    scope.trace = folder / "t"
    try:
        yield folder
    finally:
        scope.close()
        subprocess.run(["umount", folder], check=True)


def fill(folder: Path) -> Path:
    """Write until the disk is full; return the file."""
    filler = folder / "filler"
    subprocess.run(["dd", "if=/dev/zero", f"of={filler}", "bs=4k", "status=none"], check=False)
    return filler


class Busy:
    """The busy program, traced to the small disk."""

    def __init__(self, scope: Scope, *before: str) -> None:
        """Start it, and wait until it is recorded."""
        self.scope = scope
        self._err = scope.folder / "err"
        with self._err.open("wb") as err:
            script = scope.script("app.py", BUSY)
            self._process = scope.start(PYTHON, script, before=before, options=SMALL, stderr=err)
        until(lambda: min(self._recorded()) > 1 << 16, "the recording")
        before = self._recorded()
        until(lambda: self._recorded() > before, "all of it to be written once more")

    def _recorded(self) -> tuple[int, int]:
        """Return the bytes written of the kernel's records, and then of the agent's."""
        raw = self.scope.trace / "raw"
        kernel, agents = (sum(f.stat().st_size for f in raw.glob(n)) for n in ("k*.raw", "a*.raw"))
        return kernel, agents

    def said(self) -> str:
        """Return what the tracer said so far."""
        return self._err.read_text()

    def stops(self) -> None:
        """Wait until the recording stopped, by itself, while the program goes on."""
        until(lambda: "the recording stops here" in self.said(), "the recording to stop")
        assert self._process.poll() is None

    def ends(self) -> int:
        """Let the program end; return the exit code."""
        (self.scope.folder / "stop").touch()
        self._process.communicate(timeout=30)
        assert "Traceback" not in self.said()
        return int(self._process.returncode)

    def check(self, reason: str | None) -> dict[str, Any]:
        """Check what there is up to the end of the trace; return what `info` says."""
        info: dict[str, Any] = self.scope.document("info")
        assert info["stopped"] == reason
        trace: Trace = open_trace(self.scope.trace, self.scope.folder)
        rows = trace.rows("""SELECT * FROM "await" WHERE "where" LIKE '%app.py:9'""")
        whole = [row for row in rows if row["complete"]]
        assert len(whole) > 50
        assert {row["recv_bytes"] for row in whole if row["outcome"] == "result"} == {100}
        assert max(row["end_ns"] for row in whole) <= trace.manifest["end_ns"]
        assert len(rows) - len(whole) <= 1, "only the last one may be open"
        return info


def test_it_stops_while_the_trace_can_still_be_finished(scope: Scope, disk: Path) -> None:
    """On a nearly full disk the recording ends in time: the trace is whole, and says why."""
    busy = Busy(scope)
    busy.stops()
    code = busy.ends()
    assert code == 3
    assert busy.check("disk_full")["state"] == "complete"
    assert "CUT: the recording stopped: its disk was full" in busy.said()


def test_a_disk_that_others_fill(scope: Scope, disk: Path) -> None:
    """What was written before opens as soon as there is room again."""
    busy = Busy(scope)
    filler = fill(disk)
    busy.stops()
    code = busy.ends()
    assert code == 125
    for said in (busy.said(), scope.call("info", str(scope.trace)).err):
        assert "was not finished and cannot be now" in said
        assert "make room" in said
    filler.unlink()
    busy.check("disk_full")


def test_a_full_disk_is_refused_before_the_command_runs(scope: Scope, disk: Path) -> None:
    """There is no half a trace, and the command did not run."""
    fill(disk)
    done = scope.run("touch", "ran")
    assert done.code == 125
    assert "No space left" in done.err
    assert "Traceback" not in done.err
    assert [path.name for path in disk.iterdir()] == ["filler"]
    assert not (scope.folder / "ran").exists()


def test_a_read_only_disk(scope: Scope, disk: Path) -> None:
    """A finished trace on it opens as ever; a new one is refused."""
    assert scope.run(PYTHON, "-c", "import asyncio; asyncio.run(asyncio.sleep(0.01))").code == 0
    before = scope.document("awaits")
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    assert scope.document("awaits") == before
    for options in ((), ("--force",)):
        scope.trace = disk / ("t" if options else "new")
        done = scope.run("touch", "ran", options=options)
        assert done.code == 125
        assert "Read-only" in done.err
        assert "Traceback" not in done.err
    assert not (scope.folder / "ran").exists()


def test_a_file_that_may_not_grow(scope: Scope) -> None:
    """A write that fails ends the recording where all had been written before."""
    busy = Busy(scope, "prlimit", f"--fsize={3 << 20}")
    busy.stops()
    assert busy.ends() == 3
    assert busy.check("write_failed")["state"] == "cut"


def test_a_folder_that_is_taken_away(scope: Scope) -> None:
    """Without its folder the recording ends, and the command goes on; what there is opens."""
    busy = Busy(scope)
    scope.trace.rename(scope.folder / "elsewhere")
    busy.stops()
    code = busy.ends()
    assert code == 125
    assert "is no awaitscope trace" in busy.said()
    scope.trace = scope.folder / "elsewhere"
    assert busy.check(None)["state"] == "cut", "nobody could note the reason"
