"""`kill -9` of the tracer, at every stage of its life."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from bpf_scope import PYTHON, Scope, own_environment, until

from tracer.correlate.trace import Trace, open_trace
from tracer.report.info import info_document

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.bpf
STEADY = str(Path(__file__).parents[1] / "apps" / "steady.py")
MORTAL = str(Path(__file__).with_name("mortal.py"))
NOBODY = 65534

NOT_STARTED = {"before the command is there": "tracer.capture.session:Target:before:1"}
UNTRACED = {
    "before the probes are compiled": "tracer.capture.session:Loader:before:1",
    "when the probes are attached": "tracer.capture.loader:Loader.configure:before:1",
}
CUT = {
    "before the release": "tracer.capture.target:Target.release:before:1",
    "just released": "tracer.capture.target:Target.release:after:1",
    "records written, not given back": "tracer.capture.ring:KernelRing.release:before:3",
    "recording": "tracer.capture.session:_Session._drain:after:6",
    "an agent's records written, not given back": "tracer.store.ringfile:write_all:after:4",
    "the command has ended": "tracer.capture.session:_Session._finish:before:1",
    "all but the open calls written": "tracer.capture.session:open_records:before:1",
}
LOSING = {  # late enough that a small ring was full by then
    "records written, not given back": "tracer.capture.ring:KernelRing.release:before:20",
    "recording": "tracer.capture.session:_Session._drain:after:20",
}
COMPLETE = {
    "a table half written": "tracer.store.finalise:_write_table:torn:5",
    "all tables written": "tracer.store.finalise:_write_losses:after:1",
    "finalised": "tracer.store.finalise:_drop_raw:before:1",
    "an await table half written": "tracer.correlate.parts:Parts.finish:torn:1",
    "correlated": "tracer.store.layout:TraceFolder.write_manifest:after:4",
}


class Death:
    """A tracer that dies at a moment, and what its command wrote."""

    def __init__(self, scope: Scope) -> None:
        """Name the file that the command writes to."""
        self.scope = scope
        self.out = scope.folder / "out"

    def happens(self, moment: str, *options: str, **env: str) -> None:
        """Trace the steady app by a tracer that dies at the moment."""
        with self.out.open("wb") as out:
            process = self.scope.start(
                *(PYTHON, STEADY),
                before=(sys.executable, MORTAL, moment),
                options=options,
                stdout=out,
                env=own_environment(**env),
            )
            _, err = process.communicate(timeout=40)
        assert process.returncode == -signal.SIGKILL, err.decode()

    def lines(self) -> list[dict[str, Any]]:
        """Return what the command wrote so far."""
        return [json.loads(line) for line in self.out.read_text().splitlines()]

    def calls(self) -> list[dict[str, Any]]:
        """Wait for the command's own end and return its calls: none is missing."""
        until(lambda: self.out.read_text().rpartition("\n")[0].endswith("}"), "its first line")
        until(lambda: '"calls"' in self.out.read_text().rstrip("\n").rpartition("\n")[2], "its end")
        *calls, end = self.lines()
        assert end["calls"] == len(calls) > 50
        return calls

    def read(self) -> tuple[Trace, str]:
        """Let a command finish the trace; return it, and what that command said first."""
        done = self.scope.call("awaits", "t", "--json")
        assert done.code == 0, done.err
        return open_trace(self.scope.trace, self.scope.folder), done.err

    def check_rows(self, trace: Trace, calls: list[dict[str, Any]]) -> None:
        """Every call up to the end of the trace is one complete row, and no row is wrong."""
        end_ns = trace.manifest["end_ns"]
        rows = trace.rows("""SELECT * FROM "await" WHERE "where" LIKE '%steady.py%'""")
        assert all(row["start_ns"] <= end_ns for row in rows)
        assert trace.rows("SELECT agent, run FROM step GROUP BY 1, 2 HAVING count(*) > 1") == []
        whole = Counter(
            (row["sent_bytes"], row["recv_bytes"])
            for row in rows
            if row["complete"] and row["kind"] == "socket" and row["recv_bytes"] >= 20000
        )
        done = Counter(
            (call["sent_bytes"], call["recv_bytes"]) for call in calls if call["end_ns"] < end_ns
        )
        begun = done | Counter(
            (call["sent_bytes"], call["recv_bytes"]) for call in calls if call["start_ns"] < end_ns
        )
        assert done <= whole <= begun


@pytest.fixture
def death(scope: Scope) -> Iterator[Death]:
    """Give a tracer to kill."""
    return Death(scope)


@pytest.mark.usefixtures("bpf_left_clean")
@pytest.mark.parametrize("moment", NOT_STARTED.values(), ids=NOT_STARTED)
def test_before_its_start_the_command_does_not_run(death: Death, moment: str) -> None:
    """A tracer that dies before it started the command never does; the folder says what it is."""
    death.happens(moment)
    assert death.out.read_bytes() == b""
    check_empty(death.scope)


@pytest.mark.usefixtures("bpf_left_clean")
@pytest.mark.parametrize("moment", UNTRACED.values(), ids=UNTRACED)
def test_while_arming_the_command_goes_on_untraced(death: Death, moment: str) -> None:
    """A held command goes on by itself, whole; its trace is empty and says why."""
    death.happens(moment)
    death.calls()
    check_empty(death.scope)


def check_empty(scope: Scope) -> None:
    """A folder without a recording is refused with the reason, and may be used again."""
    done = scope.call("info", "t")
    assert done.code == 6
    assert "died before the recording began" in done.err
    assert scope.run("/bin/true", options=("--force",)).code == 0


@pytest.mark.usefixtures("bpf_left_clean")
@pytest.mark.parametrize("moment", CUT.values(), ids=CUT)
def test_while_recording_the_trace_is_whole_up_to_there(death: Death, moment: str) -> None:
    """The command goes on unharmed; what was drained is exact, said to be cut, and stays so."""
    death.happens(moment)
    calls = death.calls()
    trace, said = death.read()
    assert said.startswith("CUT: the tracer died")
    info = info_document(trace)
    assert info["state"] == "cut"
    assert info["exit_code"] is None
    assert info["lost_total"] == 0
    death.check_rows(trace, calls)
    assert info_document(open_trace(death.scope.trace, death.scope.folder)) == info
    assert {path.name for path in death.scope.trace.iterdir()} & {"raw", "live"} == set()


@pytest.mark.usefixtures("bpf_left_clean")
@pytest.mark.parametrize("moment", LOSING.values(), ids=LOSING)
def test_a_cut_trace_knows_what_was_lost(death: Death, moment: str) -> None:
    """With too small a ring the cut trace has its losses, each in a gap, and no row is wrong."""
    death.happens(moment, "--ring", "4")
    calls = death.calls()
    trace, said = death.read()
    lost, cut = said.splitlines()
    info = info_document(trace)
    assert lost.startswith(f"LOST {info['lost_total']} ")
    assert cut.startswith("CUT")
    gaps = trace.rows("SELECT sum(lost_count) AS n, max(end_ns) AS ns FROM gap")[0]
    assert gaps["n"] == info["lost_total"] == sum(row["lost"] for row in info["losses"]) > 0
    rows = trace.rows("""SELECT * FROM "await" WHERE "where" LIKE '%steady.py%' AND complete""")
    begun = {(c["sent_bytes"], c["recv_bytes"]) for c in calls}
    for row in rows:
        if row["kind"] == "socket" and row["recv_bytes"] >= 20000:
            assert (row["sent_bytes"], row["recv_bytes"]) in begun


def test_every_command_says_that_the_trace_was_cut(death: Death) -> None:
    """Whatever is asked first, the answer begins with what the trace lacks; data stay data."""
    death.happens(CUT["recording"])
    calls = death.calls()
    for command in ("info", "awaits", "tasks", "schema", "steps"):
        done = death.scope.call(command, "t")
        assert done.code == 0, done.err
        assert done.err.startswith("CUT: the tracer died"), command
        assert b"CUT" not in done.out, command
    assert death.scope.document("info")["state"] == "cut"
    trace, _ = death.read()
    seen = [row for row in trace.rows('SELECT * FROM "await"') if row["recv_bytes"] >= 20000]
    assert 10 < len(seen) < len(calls)


@pytest.mark.usefixtures("bpf_left_clean")
@pytest.mark.parametrize("moment", COMPLETE.values(), ids=COMPLETE)
def test_after_the_recording_nothing_is_missing(death: Death, moment: str) -> None:
    """A death while tables are written costs nothing: the next command writes them again."""
    death.happens(moment)
    calls = death.calls()
    trace, said = death.read()
    assert said == ""
    assert trace.manifest["state"] == "complete"
    assert trace.manifest["exit_code"] == 0
    death.check_rows(trace, calls)
    rows = trace.rows('SELECT * FROM "await"')
    assert len(calls) == sum(row["recv_bytes"] >= 20000 for row in rows)
    assert {path.name for path in death.scope.trace.iterdir()} & {"raw", "live"} == set()


def test_a_cut_trace_belongs_to_the_user(public: Scope) -> None:
    """Under sudo every file of a recording is the invoking user's from the start."""
    death = Death(public)
    moment = CUT["the command has ended"]
    death.happens(moment, SUDO_UID=str(NOBODY), SUDO_GID=str(NOBODY), SUDO_USER="nobody")
    paths = [death.scope.trace, *death.scope.trace.rglob("*")]
    assert any(path.suffix == ".raw" for path in paths)
    assert {path.stat().st_uid for path in paths} == {NOBODY}
    assert {path.stat().st_mode & 0o077 for path in paths} == {0}
    death.scope.document("info")
    paths = [death.scope.trace, *death.scope.trace.iterdir()]
    assert {(path.stat().st_uid, path.stat().st_mode & 0o077) for path in paths} == {(NOBODY, 0)}
    assert os.geteuid() == 0
