"""Every command on traces with nothing in them, too much, or names that mean harm."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result
from mermaid_lines import diagrams
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as pb

sys.path.append(str(Path(__file__).parent))
import synthetic

from tracer.cli.main import main
from tracer.report.page.spans import MOST_TASKS
from tracer.report.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

LISTINGS = ("awaits", "tasks", "blocking")
MANY = 100_000
MOST_BYTES = 8 << 20


def run(command: str, trace: Path, *args: str, code: int = 0) -> Result:
    """Run a command on a trace."""
    done = CliRunner().invoke(main, [command, str(trace), *args])
    assert done.exit_code == code, done.output
    return done


def rows(trace: Path, command: str) -> list[dict[str, Any]]:
    """Return the rows of a listing."""
    return list(json.loads(run(command, trace, "--json").stdout)["rows"])


def exported(trace: Path, to: str) -> bytes:
    """Return a trace in another format."""
    return run("export", trace, "--to", to, "-o", "-").stdout_bytes


def track_names(trace: Path) -> list[str]:
    """Return the names of the Perfetto tracks."""
    packets = pb.Trace.FromString(exported(trace, "perfetto")).packet
    return [p.track_descriptor.name for p in packets if p.HasField("track_descriptor")]


def page(trace: Path, out: Path) -> tuple[str, dict[str, Any]]:
    """Return the page, and the data in it."""
    run("report", trace, "-o", str(out))
    html = out.read_text()
    block = re.search(r'<script type="application/json" id="data">(.*?)</script>', html)
    assert block
    return html, json.loads(block[1])


@pytest.mark.parametrize("make", [synthetic.empty, synthetic.no_awaits, synthetic.only_losses])
def test_nothing_to_see(make: Any, tmp_path: Path) -> None:
    """Listings have their header, files are whole; what needs an await says that there is none."""
    trace = make(tmp_path / "t.trace")
    for command in LISTINGS:
        assert rows(trace, command) == []
        assert len(run(command, trace).stdout.splitlines()) == 2
    diagram = tmp_path / "m.md"
    for command in (["timeline"], ["steps"], ["export", "--to", "mermaid", "-o", str(diagram)]):
        done = run(command[0], trace, *command[1:], code=2)
        assert "no await on a socket" in done.stderr
        assert done.stdout == ""
    assert not diagram.exists()
    html, data = page(trace, tmp_path / "t.html")
    assert "No await took any time in this trace." in html
    assert (data["awaits"], data["totals"]["tasks"], data["lines"]) == ({}, 0, [])
    assert not [name for name in track_names(trace) if name.startswith("task ")]
    events = json.loads(exported(trace, "chrome"))["traceEvents"]
    calls = [event for event in events if event.get("cat") == "syscall"]
    assert bool(calls) == (make is synthetic.no_awaits)
    assert exported(trace, "csv").decode().strip() in ("", "await_id")


def test_losses_come_first(tmp_path: Path) -> None:
    """A trace of losses alone says so in every answer."""
    trace = synthetic.only_losses(tmp_path / "t.trace")
    for command in (*LISTINGS, "info"):
        assert run(command, trace).stderr.startswith(f"LOST {synthetic.LOST} records")
    assert run("export", trace, "--to", "csv", "-o", "-").stderr.startswith("LOST")
    html, data = page(trace, tmp_path / "t.html")
    assert data["lost"] == synthetic.LOST
    told = re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)
    assert re.search(rf"\b{synthetic.LOST} events were lost", told)


def test_one_task(tmp_path: Path) -> None:
    """It has its track, its lane and its awaits; nothing else has a task."""
    trace = synthetic.one_task(tmp_path / "t.trace")
    (task,) = rows(trace, "tasks")
    mine = [row for row in rows(trace, "awaits") if row["task_id"] is not None]
    assert {row["task_id"] for row in mine} == {task["task_id"]}
    assert len(mine) == task["awaits"] > 2
    assert [name for name in track_names(trace) if name.startswith("task ")] == ["task Task-1"]
    _, data = page(trace, tmp_path / "t.html")
    assert [lane["name"] for lane in data["timeline"]["lanes"] if lane["group"] == "task"] == [
        "task Task-1"
    ]
    assert diagrams(exported(trace, "mermaid").decode())


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Give the trace with the hostile names."""
    return synthetic.hostile(tmp_path_factory.mktemp("hostile") / "t.trace")


def test_hostile_names_in_mermaid(hostile: Path) -> None:
    """No name ends a label, a diagram or a block, nor begins a heading."""
    text = exported(hostile, "mermaid").decode()
    found = diagrams(text)
    assert len(found) == 4
    assert text.count("```") == 2 * len(found)
    headings = [line for line in text.splitlines() if line.startswith("#")]
    assert len(headings) == text.count("## ") == len(found)
    assert re.search(r"heading of theirs|forged|owned", text), "they are there as text"
    assert "<script" not in text


def test_hostile_names_in_chrome(hostile: Path) -> None:
    """Each name is one text in one event: nothing is forged, nothing cut."""
    events = json.loads(exported(hostile, "chrome"))["traceEvents"]
    assert not [event for event in events if event["name"] == "forged"]
    tracks = {e["args"]["name"] for e in events if e["name"] == "thread_name"}
    names = {row["task_name"] for row in rows(hostile, "tasks")}
    assert names == set(synthetic.HOSTILE)
    assert {f"task {name}" for name in names} <= tracks
    assert {f"task {name}" for name in names} <= set(track_names(hostile))


def test_hostile_names_elsewhere(hostile: Path, tmp_path: Path) -> None:
    """No table commands a terminal, no page runs a name, CSV has one line for each await."""
    for command in (*LISTINGS, "steps", "timeline"):
        for options in ((), ("--width", "80")):
            text = run(command, hostile, *options).stdout
            assert not [c for c in text if not c.isprintable() and c != "\n"]
    html, data = page(hostile, tmp_path / "t.html")
    assert "<script>alert" not in html
    assert {data["awaits"][one]["await"]["task_name"] for one in data["awaits"]} <= set(
        synthetic.HOSTILE
    )
    table = csv.DictReader(io.StringIO(exported(hostile, "csv").decode(), newline=""))
    shown = {printable(name) for name in synthetic.HOSTILE}
    assert {line["task_name"] for line in table} - {""} == shown


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_many_tasks(tmp_path: Path) -> None:
    """A hundred thousand tasks: exports have them all, the page shows some and says so."""
    trace = synthetic.many_tasks(tmp_path / "t.trace", MANY)
    (found,) = json.loads(
        run("query", trace, "SELECT count(*) AS n FROM task_total", "--json").stdout
    )["rows"]
    assert found["n"] > MANY
    html, data = page(trace, tmp_path / "t.html")
    assert len(html.encode()) < MOST_BYTES
    assert data["totals"]["tasks"] == found["n"]
    lanes = [lane for lane in data["timeline"]["lanes"] if lane["group"] == "task"]
    assert len(lanes) <= MOST_TASKS
    assert f"{MOST_TASKS} of 100,0" in data["timeline"]["omitted"][-1]
    out = tmp_path / "t.pftrace"
    run("export", trace, "--to", "perfetto", "-o", str(out))
    assert len(set(re.findall(rb"task many-\d+", out.read_bytes()))) == MANY
