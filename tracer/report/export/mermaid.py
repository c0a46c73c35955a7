"""The diagrams of one await and its neighbours in Mermaid, from a trace's events.

The four pictures with which async is taught: the full stack, the epoll flow, requests that share
one event loop, a thread per request; here with what really happened and when. Times are since
the diagram's first event. Syntax: mermaid.js.org, `flowchart` and `sequenceDiagram`.
"""

from __future__ import annotations

import itertools
import re
from typing import IO, TYPE_CHECKING, Any

from tracer.correlate.anatomy import STEPS
from tracer.report.steps import choose, steps_document
from tracer.report.text import printable
from tracer.system.syscalls import name_of

if TYPE_CHECKING:
    from tracer.correlate.trace import Row, Trace

_LONGEST = 80
_EPOLL = "epoll#95;"
_MOST = 3  # tasks, or threads, side by side


def write_mermaid(trace: Trace, out: IO[bytes], await_id: int | None = None) -> int:
    """Write Markdown with the diagrams that this trace has events for; return how many."""
    row = choose(trace, await_id, None)
    diagrams = {
        "The full stack of one await": _stack(trace, row),
        "The epoll flow": _epoll_flow(trace, row),
        "Requests on one event loop": _one_loop(trace, row),
        "A thread per request": _threads(trace),
    }
    count = 0
    for title, found in diagrams.items():
        out.write(f"## {title}\n\n".encode())
        if isinstance(found, str):
            out.write(f"Not in this trace: {found}.\n\n".encode())
            continue
        out.write("\n".join(["```mermaid", *found, "```", "", ""]).encode())
        count += 1
    return count


def _text(value: object) -> str:
    """Return a text that Mermaid shows as it is: what could be syntax or markup becomes a code."""
    shown = printable(str(value))
    if len(shown) > _LONGEST:
        shown = shown[: _LONGEST - 1] + "…"
    return re.sub(r"[^\w\s.,()/→…–+=µ:-]|[\r\n_]", lambda found: f"#{ord(found[0])};", shown)


def _us(ns: float) -> str:
    return f"{ns / 1e3:,.1f} µs"


def _stack(trace: Trace, row: Row) -> list[str] | str:
    """Return the 13 steps by layer, joined in the order in which they were observed."""
    document = steps_document(trace, row)
    steps = {step["step"]: step for step in document["steps"]}
    lines = ["flowchart TD"]
    layers: dict[str, list[int]] = {}
    for step in STEPS:
        if steps[step.number]["start_ns"] is not None:
            layers.setdefault(step.layer, []).append(step.number)
    for place, (layer, numbers) in enumerate(layers.items()):
        lines.append(f'    subgraph L{place}["{_text(layer)}"]')
        for number in numbers:
            step = steps[number]
            took = "" if step["dur_ns"] is None else f", took {_us(step['dur_ns'])}"
            at = _us(step["start_ns"] - row["start_ns"])
            proof = step["evidence"][0] if step["evidence"] else None
            why = f"{proof['event']} {proof.get('id', '')}" if proof else step["reason"] or ""
            words = f"{number}. {_text(step['what'])}<br/>at {at}{took}<br/>{_text(why.strip())}"
            lines.append(f'        S{number}["{words}"]')
        lines.append("    end")
    order = document["observed_order"]
    lines += [f"    S{a} --> S{b}" for a, b in itertools.pairwise(order)]
    return lines


def _epoll_flow(trace: Trace, row: Row) -> list[str] | str:
    """Return what the loop asked epoll for and what it was told, around one await."""
    legs = trace.rows('SELECT * FROM "leg" WHERE await_id = ? ORDER BY trip', row["await_id"])
    wait = trace.one("epoll_wait", legs[-1]["epoll_id"]) if legs else None
    if not legs or wait is None:
        return "no epoll_wait ended this await"
    leg = legs[-1]
    packet, call = trace.one("receive", leg["rx_id"]), trace.one("syscall", leg["call_id"])
    watched = trace.rows(
        "SELECT * FROM epoll_ctl WHERE tid = ? AND sock = ? AND op = 1 AND ts_ns <= ?"
        " ORDER BY ts_ns DESC LIMIT 1",
        wait["tid"],
        leg["sock"],
        wait["ts_ns"],
    )
    again = trace.rows(
        "SELECT * FROM epoll_wait WHERE tid = ? AND ts_ns > ? ORDER BY ts_ns LIMIT 1",
        wait["tid"],
        wait["ts_ns"],
    )
    first = wait["ts_ns"]
    lines = [
        "sequenceDiagram",
        f"    participant App as Event loop, thread {wait['tid']}",
        "    participant K as Kernel, epoll",
        f"    participant N as {'Network card' if packet and packet['irq'] else 'Network'}",
    ]
    events = [(ctl["ts_ns"], f"App->>K: {_EPOLL}ctl(ADD, fd {ctl['fd']})") for ctl in watched]
    events += [(each["ts_ns"], f"App->>K: {_EPOLL}wait()") for each in (wait, *again)]
    if packet is not None:
        begun = packet["ts_ns"] - max(packet["irq_age_ns"], packet["softirq_age_ns"])
        how = f"interrupt {packet['irq']}" if packet["irq"] else "softirq, no interrupt"
        events += [
            (begun, f"N->>K: {packet['len_bytes']} bytes arrived ({how})"),
            (packet["ts_ns"], "K->>K: the socket is readable"),
        ]
    ready = ", ".join(map(str, wait["fds"] or []))
    slept = _slept(trace, leg)
    if slept is not None:
        events.append((slept["ts_ns"], f"Note over App: sleeps {_us(slept['dur_ns'])}, from here"))
    events.append((wait["ts_ns"] + wait["dur_ns"], f"K-->>App: ready: fd {ready}"))
    if call is not None:
        what = f"{_text(name_of(call['nr']))}(fd {call['fd']}): {call['ret']} bytes"
        events.append((call["ts_ns"], f"App->>K: {what}"))
    events.append((leg["t8_ns"], f"Note over App: {_text(_who(row))} runs"))
    return lines + _in_time(events, first)


def _in_time(events: list[tuple[int, str]], first: int) -> list[str]:
    return [f"    {what} at {_us(ts_ns - first)}" for ts_ns, what in sorted(events)]


def _slept(trace: Trace, leg: Row) -> Row | None:
    return trace.one("off_cpu", leg["off_cpu_id"])


def _who(row: Row) -> str:
    return row["task_name"] or f"task {row['task_id']}"


def _one_loop(trace: Trace, row: Row) -> list[str] | str:
    """Return awaits of one thread that were under way together: sends, answers, resumptions."""
    found = trace.rows(
        """
        WITH trips AS (
          SELECT *, row_number() OVER (PARTITION BY await_id ORDER BY trip DESC) AS from_last
            FROM leg WHERE send_id IS NOT NULL AND call_id IS NOT NULL AND t4_ns IS NOT NULL),
        chosen AS (SELECT t1_ns, t8_ns FROM trips WHERE await_id = $1 AND from_last = 1)
        SELECT a.task_name, a.task_id, l.t1_ns, l.t4_ns, l.t8_ns, s.ret AS sent, r.ret AS received
          FROM trips l JOIN "await" a USING (await_id) JOIN chosen c
            ON l.t1_ns < c.t8_ns AND l.t8_ns > c.t1_ns
          JOIN syscall s ON s.id = l.send_id JOIN syscall r ON r.id = l.call_id
         WHERE l.tid = $2 AND a.kind = 'socket' AND a.task_id IS NOT NULL
       QUALIFY row_number() OVER (PARTITION BY a.task_id ORDER BY abs(l.t1_ns - c.t1_ns)) = 1
         ORDER BY abs(l.t1_ns - c.t1_ns), a.task_id LIMIT $3""",
        row["await_id"],
        row["tid"],
        _MOST,
    )
    if len(found) < 2:
        return "no two awaits on sockets were under way together"
    first = min(one["t1_ns"] for one in found)
    events: list[tuple[int, str]] = []
    for one in found:
        who = _text(_who(one))
        events += [
            (one["t1_ns"], f"EL->>S: {who} sends {one['sent']} bytes"),
            (one["t4_ns"], f"S-->>EL: {one['received']} bytes for {who}"),
            (one["t8_ns"], f"Note over EL: {who} runs again"),
        ]
    lines = [
        "sequenceDiagram",
        f"    participant EL as Event loop, thread {row['tid']}",
        f"    participant S as {_text(row['peer'] or 'peer')}",
    ]
    return lines + _in_time(events, first)


def _threads(trace: Trace) -> list[str] | str:
    """Return what the workers of an executor did, each blocked in its own thread."""
    works: list[dict[str, Any]] = trace.rows(
        "SELECT * FROM work_total WHERE tid IS NOT NULL AND end_ns IS NOT NULL"
        " QUALIFY row_number() OVER (PARTITION BY tid ORDER BY blocked_ns DESC, begin_ns) = 1"
        " ORDER BY blocked_ns DESC, begin_ns LIMIT ?",
        _MOST,
    )
    if not works:
        return "no thread of an executor ran"
    works.sort(key=lambda work: work["begin_ns"])
    first = works[0]["given_ns"]
    lines = ["sequenceDiagram", "    participant EL as Event loop"]
    lines += [f"    participant T{n} as Thread {work['tid']}" for n, work in enumerate(works)]
    events: list[tuple[int, str]] = []
    for n, work in enumerate(works):
        what = _text(work["function"] or "a function")
        blocked = f"blocked {_us(work['blocked_ns'])}, on a CPU {_us(work['cpu_ns'])}"
        events += [
            (work["given_ns"], f"EL->>T{n}: {what}"),
            (work["begin_ns"], f"Note over T{n}: begins, then {blocked}"),
            (work["end_ns"], f"T{n}-->>EL: done"),
        ]
    return lines + _in_time(events, first)
