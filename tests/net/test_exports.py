"""The same trace in every format: decoded by the formats' own readers, with the same numbers."""

from __future__ import annotations

import csv
import itertools
import json
import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result
from mermaid_lines import diagrams
from perfetto.protos.perfetto.trace import perfetto_trace_pb2 as pb
from tracing import STAGES, Traced, Tracings

from tracer.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path

    from tracing import Row

pytestmark = [pytest.mark.bpf, pytest.mark.postgres]


def export(trace: Traced, to: str, out: Path, *options: str) -> Result:
    """Export a trace to a file."""
    return CliRunner().invoke(
        main, ["export", str(trace.folder), "--to", to, "-o", str(out), *options]
    )


def query(trace: Traced) -> int:
    """Return an await whose last trip was sent, answered and read while another was under way."""
    (row,) = trace.query(
        "WITH trip AS (SELECT * FROM leg WHERE send_id IS NOT NULL AND call_id IS NOT NULL"
        " AND rx_id IS NOT NULL AND epoll_id IS NOT NULL"
        " QUALIFY row_number() OVER (PARTITION BY await_id ORDER BY trip DESC) = 1)"
        ' SELECT a.await_id FROM trip a JOIN "await" USING (await_id) JOIN trip b ON a.tid = b.tid'
        " AND a.sock <> b.sock AND a.t1_ns < b.t8_ns AND b.t1_ns < a.t8_ns AND a.trip = legs"
        " ORDER BY a.observed_steps DESC, a.await_id LIMIT 1"
    )
    return int(row["await_id"])


@pytest.fixture(scope="module")
def files(pool: Traced, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Give the pool's trace in each format."""
    folder = tmp_path_factory.mktemp("exports")
    found = {}
    for to in ("perfetto", "chrome", "csv", "mermaid"):
        found[to] = folder / f"pool.{to}"
        options = ("--await", str(query(pool))) if to == "mermaid" else ()
        done = export(pool, to, found[to], *options)
        assert done.exit_code == 0, done.output
    return found


@dataclass
class Decoded:
    """A Perfetto trace: slices as (name, start, end, facts) per track, arrows, counters."""

    tracks: dict[int, Any] = field(default_factory=dict)
    slices: dict[int, list[tuple[str, int, int, Row]]] = field(
        default_factory=lambda: defaultdict(list)
    )
    arrows: dict[int, list[tuple[int, bool]]] = field(default_factory=lambda: defaultdict(list))
    counters: dict[int, list[tuple[int, int]]] = field(default_factory=lambda: defaultdict(list))

    def on(self, name: str) -> list[tuple[str, int, int, Row]]:
        """Return the slices of the only track of this name."""
        (uuid,) = [uuid for uuid, track in self.tracks.items() if track.name == name]
        return self.slices[uuid]


@pytest.fixture(scope="module")
def decoded(files: dict[str, Path]) -> Decoded:
    """Give the Perfetto file as the format's own classes read it, its texts looked up."""
    out, texts = Decoded(), defaultdict(dict)
    open_: dict[int, list[tuple[str, int, Row]]] = defaultdict(list)
    for packet in pb.Trace.FromString(files["perfetto"].read_bytes()).packet:
        if packet.HasField("track_descriptor"):
            out.tracks[packet.track_descriptor.uuid] = packet.track_descriptor
        said = packet.interned_data
        for kind in ("event_names", "debug_annotation_names", "debug_annotation_string_values"):
            for entry in getattr(said, kind):
                texts[kind][entry.iid] = (
                    entry.str.decode() if kind.endswith("string_values") else entry.name
                )
        if packet.HasField("track_event"):
            _event(out, packet, texts, open_)
    assert not any(open_.values()), "a slice has no end"
    return out


def _event(out: Decoded, packet: Any, texts: Any, open_: Any) -> None:
    event, at = packet.track_event, packet.timestamp
    assert event.track_uuid in out.tracks
    if event.type == event.TYPE_COUNTER:
        out.counters[event.track_uuid].append((at, event.counter_value))
    elif event.type == event.TYPE_SLICE_END:
        name, start, facts = open_[event.track_uuid].pop()
        assert start < at
        if open_[event.track_uuid]:
            assert open_[event.track_uuid][-1][1] <= start, (
                "a slice begins before the one around it"
            )
        out.slices[event.track_uuid].append((name, start, at, facts))
    else:
        name = texts["event_names"][event.name_iid]
        facts = {
            texts["debug_annotation_names"][note.name_iid]: texts["debug_annotation_string_values"][
                note.string_value_iid
            ]
            if note.string_value_iid
            else note.int_value
            for note in event.debug_annotations
        }
        for ends, ids in ((False, event.flow_ids), (True, event.terminating_flow_ids)):
            for arrow in ids:
                out.arrows[arrow].append((at, ends))
        if event.type == event.TYPE_INSTANT:
            out.slices[event.track_uuid].append((name, at, at, facts))
        else:
            open_[event.track_uuid].append((name, at, facts))


def test_set_ups_are_slices(pool: Traced, files: dict[str, Path], decoded: Decoded) -> None:
    """Each part of a connection's set-up is on a line of the await's task, in both formats."""
    expected = sorted(
        (row["task_id"], row["await_id"], part["what"], part["start_ns"], part["dur_ns"])
        for row in pool.awaits
        for part in row["setup"]
    )
    task_of = {row["await_id"]: row["task_id"] for row in pool.awaits}
    parents = {f"task {t['task_name'] or t['task_id']}": t["task_id"] for t in pool.tasks}
    perfetto = []
    for uuid, slices in decoded.slices.items():
        track = decoded.tracks[uuid]
        if track.name == "connection set-up":
            task = parents[decoded.tracks[track.parent_uuid].name]
            perfetto += [(task, f["await_id"], what, a, b - a) for what, a, b, f in slices]
    assert sorted(perfetto) == expected
    assert expected
    chrome = [
        (task_of[e["args"]["await_id"]], e["args"]["await_id"], e["name"])
        for e in json.loads(files["chrome"].read_text())["traceEvents"]
        if e.get("cat") == "setup"
    ]
    assert sorted(chrome) == sorted(row[:3] for row in expected)


def test_the_same_await_everywhere(
    pool: Traced, files: dict[str, Path], decoded: Decoded, tmp_path: Path
) -> None:
    """An await's total and stages are equal in `awaits`, page, Perfetto, Chrome's JSON and CSV."""
    with files["csv"].open() as lines:
        table = {int(row["await_id"]): row for row in csv.DictReader(lines)}
    assert list(table) == [row["await_id"] for row in pool.awaits]
    chrome = defaultdict(list)
    for event in json.loads(files["chrome"].read_text())["traceEvents"]:
        if event.get("cat") in ("await", "stage"):
            start, dur = round(event["ts"] * 1e3), round(event["dur"] * 1e3)
            chrome[event["args"]["await_id"]].append((event["name"], start, start + dur))
    perfetto = defaultdict(list)
    for uuid, slices in decoded.slices.items():
        if decoded.tracks[uuid].name.startswith("task "):
            for name, start, end, facts in slices:
                perfetto[facts["await_id"]].append((name, start, end))
    page = page_data(pool, tmp_path / "page.html")
    drawn = _drawn(page)
    mine = [row for row in pool.awaits if row["task_id"] is not None and row["total_ns"]]
    assert len(mine) > 50
    for row in mine:
        await_id = row["await_id"]
        expected = {f"{n}": row["stages"][f"{n}_ns"] for n in STAGES if row["stages"][f"{n}_ns"]}
        line = table[await_id]
        assert int(line["total_ns"]) == row["total_ns"]
        assert {n: int(line[f"stages.{n}_ns"] or 0) for n in expected} == expected
        for shown in (perfetto[await_id], chrome[await_id]):
            wholes = [s[1:] for s in shown if s[0] not in STAGES]
            assert wholes == [(row["start_ns"], row["end_ns"])]
            assert _sums(shown) == expected
        assert _sums(drawn.get(await_id, [])) in (expected, {})
    assert len(drawn.keys() & {row["await_id"] for row in mine}) > 50
    explained = [row for row in mine if str(row["await_id"]) in page["awaits"]]
    assert len(explained) > 10
    for row in explained:
        assert page["awaits"][str(row["await_id"])]["await"] == row


def page_data(trace: Traced, path: Path) -> Row:
    """Return the data inside the page of a trace."""
    done = CliRunner().invoke(main, ["report", str(trace.folder), "-o", str(path)])
    assert done.exit_code == 0, done.output
    block = re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text())
    assert block
    data: Row = json.loads(block[1])
    return data


def _drawn(page: Row) -> dict[int, list[tuple[str, int, int]]]:
    """Return the spans of the page's timeline by await: of those that it has room for."""
    timeline = page["timeline"]
    spans = defaultdict(list)
    for lane in timeline["lanes"]:
        four = zip(*[iter(lane["spans"])] * 4, strict=True)
        for await_id, (start, length, kind, _) in zip(lane["awaits"], four, strict=False):
            spans[await_id].append((timeline["kinds"][kind], start, start + length))
    return dict(spans)


def _sums(slices: list[tuple[str, int, int]]) -> dict[str, int]:
    total: dict[str, int] = defaultdict(int)
    for name, start, end in slices:
        if name in STAGES:
            total[name] += end - start
    return dict(total)


def test_arrows_lead_from_the_packet_to_the_task(pool: Traced, decoded: Decoded) -> None:
    """Each answer's packet, the callback that read it and the step that got it share an arrow."""
    legs = pool.query(
        "SELECT await_id, trip, r.ts_ns AS packet, c.ts_ns AS callback, s.ts_ns AS step"
        " FROM leg JOIN receive r ON r.id = rx_id JOIN callback c ON c.id = callback_id"
        " JOIN step s ON s.id = next_step_id"
    )
    assert len(legs) > 20
    for leg in legs:
        found = sorted(decoded.arrows[1 << 62 | leg["await_id"] << 16 | leg["trip"]])
        wanted = [(leg["packet"], False), (leg["callback"], False), (leg["step"], True)]
        assert found == sorted(wanted)


def test_arrows_lead_from_the_waker(pool: Traced, decoded: Decoded) -> None:
    """Each step that a run woke has an arrow from that run's begin."""
    edges = pool.query(
        "SELECT s.agent, s.run, s.ts_ns, w.ts_ns AS waker FROM step s JOIN (SELECT agent, run,"
        " ts_ns FROM step UNION ALL SELECT agent, run, ts_ns FROM callback) w"
        " ON w.agent = s.agent AND w.run = s.waker_run WHERE s.waker_run > 0"
    )
    assert len(edges) > 20
    for edge in edges:
        found = sorted(decoded.arrows[edge["agent"] << 32 | edge["run"]])
        assert found == [(edge["waker"], False), (edge["ts_ns"], True)]


def test_tracks_and_counters(pool: Traced, decoded: Decoded) -> None:
    """Every process, thread and task has its track; the ready queue never holds less than none."""
    processes = {t.process.pid for t in decoded.tracks.values() if t.HasField("process")}
    assert processes == {target["tgid"] for target in pool.info["targets"]}
    threads = {t.thread.tid for t in decoded.tracks.values() if t.HasField("thread")}
    assert threads == {row["tid"] for row in pool.query("SELECT DISTINCT tid FROM thread")}
    names = [t.name for t in decoded.tracks.values() if t.name.startswith("task ")]
    assert len(names) == len(pool.tasks)
    (ready,) = [u for u, t in decoded.tracks.items() if t.name.startswith("ready queue")]
    values = [value for _, value in decoded.counters[ready]]
    assert min(values) == 0
    assert max(values) >= 2
    assert values[-1] == 0
    softirqs = [s for u in decoded.slices for s in decoded.slices[u] if s[0] == "NET_RX"]
    assert softirqs


def test_mermaid(pool: Traced, files: dict[str, Path]) -> None:
    """The diagrams are of the chosen await, each line is of the syntax, each time is real."""
    text = files["mermaid"].read_text()
    found = diagrams(text)
    assert [d.splitlines()[0] for d in found] == ["flowchart TD", *["sequenceDiagram"] * 2]
    document = pool.steps(query(pool))
    timed = [s for s in document["steps"] if s["start_ns"] is not None]
    assert len(re.findall(r"^\s+S\d+\[", found[0], re.MULTILINE)) == len(timed)
    arrows = re.findall(r"S(\d+) --> S(\d+)", found[0])
    order = [str(n) for n in document["observed_order"]]
    assert arrows == list(itertools.pairwise(order))


def test_threads(traced: Tracings, tmp_path: Path) -> None:
    """An executor's threads have their diagram; a trace without sockets has no other."""
    trace = traced("shapes.py", "thread_pool")
    (row, *_) = [r for r in trace.awaits if r["kind"] == "thread"]
    done = export(trace, "mermaid", tmp_path / "t.md", "--await", str(row["await_id"]))
    assert done.exit_code == 0, done.output
    text = (tmp_path / "t.md").read_text()
    workers = {row["thread"]["tid"] for row in trace.awaits if row["thread"]}
    shown = set(map(int, re.findall(r"participant T\d as Thread (\d+)", text)))
    assert shown <= workers
    assert len(shown) == min(len(workers), 3)
    assert "Not in this trace: no two awaits on sockets were under way together." in text


def test_timeline(pool: Traced) -> None:
    """The swimlane shows each step in its lane, in order; its JSON has the stages of the trip."""
    chosen = ("--await", str(query(pool)))
    document = pool.read("timeline", *chosen)
    (leg,) = [
        leg for leg in pool.legs(document["await"]["await_id"]) if leg["trip"] == document["trip"]
    ]
    stages = {s["stage"]: s["end_ns"] - s["start_ns"] for s in document["stages"]}
    assert stages == {n: leg[f"{n}_ns"] for n in STAGES if leg[f"{n}_ns"]}
    assert sum(stages.values()) == document["end_ns"] - document["start_ns"]
    for width in (60, 80, 200):
        done = CliRunner().invoke(
            main, ["timeline", str(pool.folder), *chosen, "--width", str(width)]
        )
        assert done.exit_code == 0
        drawing = done.stdout.split("\n\n")[1].splitlines()
        assert max(map(len, drawing)) < width
        lanes = {line[:16].strip(): line[16:] for line in drawing[1:]}
        assert set(lanes) == {"stages", *(lane["lane"] for lane in document["lanes"])}
        assert lanes["driver"].startswith(("█", "▏"))
        assert lanes["wire and server"].strip("·")
    colored = CliRunner().invoke(
        main, ["timeline", str(pool.folder), *chosen, "--color", "always"], color=True
    )
    assert "\x1b[" in colored.stdout


def test_bad_input(pool: Traced, tmp_path: Path) -> None:
    """What cannot be written is said in a line, and nothing half-written stays."""
    there = tmp_path / "there"
    there.write_text("mine")
    done = export(pool, "csv", there)
    assert (done.exit_code, there.read_text()) == (2, "mine")
    assert "--force" in done.stderr
    assert export(pool, "csv", there, "--force").exit_code == 0
    assert there.read_text().startswith("await_id,")
    assert export(pool, "csv", tmp_path / "no" / "folder").exit_code == 2
    assert export(pool, "csv", tmp_path).exit_code == 2
    assert export(pool, "csv", tmp_path / "x", "--await", "1").exit_code == 2
    assert export(pool, "mermaid", tmp_path / "x", "--await", "999999").exit_code == 2
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    assert export(pool, "csv", link).exit_code == 2
    assert export(pool, "csv", link, "--force").exit_code == 0
    assert not link.is_symlink()
    assert not (tmp_path / "elsewhere").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "there"]


def test_standard_output(pool: Traced) -> None:
    """`-o -` gives the data alone."""
    done = CliRunner().invoke(main, ["export", str(pool.folder), "--to", "csv", "-o", "-"])
    assert done.exit_code == 0
    assert len(done.stdout.splitlines()) == len(pool.awaits) + 1


def test_a_program_without_tasks(traced: Tracings, tmp_path: Path) -> None:
    """A trace without any await still gives its threads and system calls."""
    program = tmp_path / "plain.py"
    program.write_text("import json; print(json.dumps({}))")
    trace = traced(program)
    assert trace.awaits == []
    for to in ("perfetto", "chrome", "csv"):
        done = export(trace, to, tmp_path / to)
        assert done.exit_code == 0, done.output
    events = json.loads((tmp_path / "chrome").read_text())["traceEvents"]
    assert [event for event in events if event.get("cat") == "syscall"]
    for command in (["export", "--to", "mermaid", "-o", "-"], ["timeline"]):
        done = CliRunner().invoke(main, [command[0], str(trace.folder), *command[1:]])
        assert done.exit_code == 2
        assert "no await on a socket" in done.stderr
