"""The 13 steps of one await, with their proof."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracer.correlate import reasons
from tracer.correlate.anatomy import STEPS, Step
from tracer.errors import Usage
from tracer.report.awaits import await_rows, require_task
from tracer.report.cards import Cards
from tracer.report.insight import insight, off_cpu_ns
from tracer.system import syscalls

if TYPE_CHECKING:
    from tracer.correlate.trace import Row, Trace

_TABLE_OF = {
    "step_id": "step",
    "next_step_id": "step",
    "send_id": "syscall",
    "last_send_id": "syscall",
    "call_id": "syscall",
    "peer_recv_id": "syscall",
    "peer_send_id": "syscall",
    "tx_id": "transmit",
    "peer_tx_id": "transmit",
    "peer_rx_id": "receive",
    "rx_first_id": "receive",
    "rx_packet_id": "receive",
    "rx_id": "receive",
    "epoll_id": "epoll_wait",
    "poll_id": "syscall",
    "off_cpu_id": "off_cpu",
    "napi_poll_id": "napi_poll",
    "tx_interrupt_id": "tx_interrupt",
    "epoll_callback_id": "epoll_callback",
    "callback_id": "callback",
}
_PROOF_KEYS = (
    "dur_ns",
    "end_ns",
    "fd",
    "ret",
    "epfd",
    "fds",
    "seq",
    "len_bytes",
    "ifindex",
    "irq",
    "irq_age_ns",
    "raise_age_ns",
    "softirq_age_ns",
    "rx_age_ns",
    "srtt_us",
    "sendmsg_age_ns",
    "wake_ns",
    "waker_tid",
    "in_cpu",
    "work",
    "budget",
    "handler_ns",
    "poll_ns",
    "events",
    "run",
    "waker_run",
)
_FURTHER = {
    3: ("last_send_id",),
    5: ("tx_id", "rx_first_id", "tx_interrupt_id"),
    6: ("tx_id", "rx_first_id"),
    7: ("tx_id", "rx_first_id"),
    8: ("napi_poll_id",),
    9: ("epoll_callback_id",),
    10: ("off_cpu_id",),
}
_NOTES = {
    11: "asyncio reads the socket in a callback and only then puts the task on the ready queue:"
    " the coroutine runs (11) after the answer was read (12)",
    3: "the peer's receive path ran inside our own send call (3): it is not counted as ours",
}


def choose(trace: Trace, await_id: int | None, task: str | None) -> Row:
    """Return the await to explain: by id, or the slowest complete socket await (of a task)."""
    if await_id is not None:
        return await_rows(trace, await_id=await_id)[0]
    if task is not None:
        require_task(trace, task)
    found = slowest_on_a_socket(trace, task)
    if found is None:
        raise Usage("the trace has no await on a socket", "see `awaitscope awaits`")
    return await_rows(trace, await_id=found)[0]


def slowest_on_a_socket(trace: Trace, task: str | None = None) -> int | None:
    """Return the id of the await that `steps` explains by itself; None: the trace has none."""
    found = trace.rows(
        """SELECT await_id FROM "await" WHERE kind = 'socket'"""
        " AND ($1 IS NULL OR task_name = $1 OR CAST(task_id AS VARCHAR) = $1)"
        " ORDER BY (complete AND round_trips > 0) DESC, complete DESC, total_ns DESC, await_id"
        " LIMIT 1",
        task,
    )
    return int(found[0]["await_id"]) if found else None


def steps_document(trace: Trace, row: Row, trip: int | None = None) -> dict[str, Any]:
    """Return the contract's document for one await; `trip` counts from 1, the last by default."""
    return explain(trace, row, leg_of(trace, row, trip))


def leg_of(trace: Trace, row: Row, trip: int | None = None) -> Row:
    """Return a trip of an await, the last by default; Usage if it has no such."""
    legs = trace.rows('SELECT * FROM "leg" WHERE await_id = ? ORDER BY trip', row["await_id"])
    if not legs:
        raise Usage(f"await {row['await_id']} belongs to no task: it has no steps", None)
    if trip is not None and not 1 <= trip <= len(legs):
        raise Usage(f"await {row['await_id']} has {len(legs)} trips", "--trip 1 is the first")
    return legs[-1 if trip is None else trip - 1]


def explain(trace: Trace, row: Row, leg: Row) -> dict[str, Any]:
    """Return the contract's document for one trip of an await."""
    return _Explainer(trace, row, leg).document()


class _Explainer:
    def __init__(self, trace: Trace, row: Row, leg: Row) -> None:
        self.trace, self.row, self.leg = trace, row, leg
        self.found = {key: trace.one(table, leg.get(key)) for key, table in _TABLE_OF.items()}
        self.level = trace.manifest["level"]
        self.cards = Cards(trace)

    def document(self) -> dict[str, Any]:
        steps = [self._step(step) for step in STEPS]
        timed = [s for s in steps if s["start_ns"] is not None]
        order = [s["step"] for s in sorted(timed, key=lambda s: (s["start_ns"], s["step"]))]
        by_number = {s["step"]: s for s in steps}
        return {
            "await": self.row,
            "steps": steps,
            "observed_order": order,
            "notes": self._notes(steps, order),
            "insight": insight(self.trace, self.row, self._window(by_number), self._peer_path()),
        }

    @staticmethod
    def _window(steps: dict[int, Any]) -> tuple[int | None, int | None]:
        four = steps[4]
        handed = four["start_ns"] + four["dur_ns"] if four["dur_ns"] is not None else None
        return handed, steps[9]["start_ns"]

    def _peer_path(self) -> tuple[int, int]:
        """Return when our own send call ran the peer's receive path, (0, 0) if it did not.

        Its end is the peer's readiness; what the softirq did after that was not recorded.
        """
        tx, there, sent = self._at("tx_id"), self.found["peer_rx_id"], self._end("last_send_id")
        if tx is None or there is None or sent is None:
            return 0, 0
        inside = there["tid"] == self.row["tid"] and there["ts_ns"] <= sent
        return (tx, int(there["ts_ns"])) if inside else (0, 0)

    def _step(self, step: Step) -> dict[str, Any]:
        complete = self._proved(step)
        start, end = getattr(self, f"_bounds_{step.number}")()
        status, reason = "observed", self._remark(step.number)
        if not complete:
            status = "inferred" if step.inferred and start is not None else "absent"
            reason = self._missing(step)
            if status == "absent":
                start = end = None
        return {
            "step": step.number,
            "layer": step.layer,
            "what": self._what(step) if complete or step.number == 5 else self._title(step),
            "status": status,
            "reason": reason,
            "start_ns": start,
            "dur_ns": max(0, end - start) if start is not None and end is not None else None,
            "evidence": self._evidence(step) if status != "absent" else [],
        }

    def _proved(self, step: Step) -> bool:
        if step.instead and self.found[step.instead] is not None:
            return True
        return all(self.found[need] is not None for need in step.needs)

    # bounds: (start, end), None where unknown

    def _at(self, key: str, column: str = "ts_ns") -> int | None:
        event = self.found[key]
        return int(event[column]) if event else None

    def _end(self, key: str) -> int | None:
        event = self.found[key]
        return int(event["ts_ns"] + event["dur_ns"]) if event else None

    def _arrived(self, key: str) -> int | None:
        """Return when a packet reached its host: interrupt, else softirq, else hand-over."""
        event = self.found[key]
        if event is None:
            return None
        age = event["irq_age_ns"] or event["softirq_age_ns"] or event["rx_age_ns"]
        return int(event["ts_ns"] - age)

    def _waking(self) -> int | None:
        off = self.found["off_cpu_id"]
        return int(off["ts_ns"] + off["wake_ns"]) if off and off["wake_ns"] else None

    def _bounds_1(self) -> tuple[int | None, int | None]:
        return self._at("step_id"), self._at("step_id", "end_ns")

    def _bounds_2(self) -> tuple[int | None, int | None]:
        return self._at("step_id"), self._at("send_id")

    def _bounds_3(self) -> tuple[int | None, int | None]:
        return self._at("send_id"), self._end("last_send_id")

    def _bounds_4(self) -> tuple[int | None, int | None]:
        tx = self.found["tx_id"]
        if tx is None:
            return None, None
        sent = self._at("send_id") or 0
        return max(int(tx["ts_ns"] - tx["sendmsg_age_ns"]), sent), int(tx["ts_ns"])

    def _travel(self) -> int:
        """Return half a smoothed round trip, at most half of what there is, ns."""
        rx, sent, back = self.found["rx_first_id"], self._at("tx_id"), self._arrived("rx_first_id")
        if rx is None or sent is None or back is None:
            return 0
        return int(min(rx["srtt_us"] * 500, (back - sent) // 2))

    def _bounds_5(self) -> tuple[int | None, int | None]:
        sent, there = self._at("tx_id"), self._arrived("peer_rx_id")
        if there is None and sent is not None and self.found["rx_first_id"]:
            there = sent + self._travel()
        return (sent, there) if there is not None else (None, None)

    def _bounds_6(self) -> tuple[int | None, int | None]:
        got, sent = self._at("peer_recv_id"), self._at("peer_send_id")
        if got is not None and sent is not None:
            return max(got, self._at("peer_rx_id") or 0), sent
        tx, back = self._at("tx_id"), self._arrived("rx_first_id")
        if tx is None or back is None:
            return None, None
        return tx + self._travel(), back - self._travel()

    def _bounds_7(self) -> tuple[int | None, int | None]:
        sent, back = self._at("peer_tx_id"), self._arrived("rx_first_id")
        if sent is None and back is not None and self.found["tx_id"]:
            sent = back - self._travel()
        return (sent, back) if sent is not None else (None, None)

    def _bounds_8(self) -> tuple[int | None, int | None]:
        return self._arrived("rx_first_id"), self._at("rx_first_id")

    def _bounds_9(self) -> tuple[int | None, int | None]:
        ready = self._at("rx_id")
        waking, told = self._waking(), self._at("epoll_callback_id")
        return ready, waking if waking is not None and ready and waking >= ready else told or ready

    def _bounds_10(self) -> tuple[int | None, int | None]:
        returned, ready = self._end("epoll_id") or self._end("poll_id"), self._bounds_9()[1]
        if returned is None:
            return None, None
        return (min(ready, returned) if ready is not None else returned), returned

    def _bounds_11(self) -> tuple[int | None, int | None]:
        return self._at("next_step_id", "wake_ns"), self._at("next_step_id")

    def _bounds_12(self) -> tuple[int | None, int | None]:
        entered, woken = self._at("call_id"), self._at("next_step_id", "wake_ns")
        end = self._end("call_id")
        return entered, max(woken, end) if woken is not None and end is not None else end

    def _bounds_13(self) -> tuple[int | None, int | None]:
        return self._at("next_step_id"), self._at("next_step_id", "end_ns")

    # words

    def _what(self, step: Step) -> str:
        more = getattr(self, f"_words_{step.number}", None)
        return self._title(step) + (more() if more else "")

    def _title(self, step: Step) -> str:
        """Return the step's title with the call in which the loop really waited."""
        wait, poll = self.found["epoll_id"], self.found["poll_id"]
        if poll is not None:
            name = syscalls.name_of(poll["nr"])
            return step.title.replace("epoll_wait", name).replace("epoll", name)
        name = syscalls.name_of(wait["nr"]) if wait else "epoll_wait"
        return step.title.replace("epoll_wait", name)

    def _words_1(self) -> str:
        return f" ({_short(self.row['where'])})"

    def _words_2(self) -> str:
        return self._call_words("send_id")

    def _words_3(self) -> str:
        began, ended = self._peer_path()
        peer = f", {(ended - began) / 1e3:.1f} µs of it the peer's receive path" if ended else ""
        return self._call_words("send_id") + peer

    def _words_5(self) -> str:
        done, tx = self.found["tx_interrupt_id"], self._at("tx_id")
        if done is None or tx is None:
            return ""
        return f"; sent: {self.cards.name(done['irq'])} {(done['ts_ns'] - tx) / 1e3:.1f} µs later"

    def _words_6(self) -> str:
        return self._server_times()

    def _words_8(self) -> str:
        rx = self.found["rx_first_id"]
        return self.cards.words(rx, self.found["napi_poll_id"]) if rx else ""

    def _words_12(self) -> str:
        return self._call_words("call_id")

    def _call_words(self, key: str) -> str:
        call = self.found[key]
        if call is None:
            return ""
        return f": {syscalls.name_of(call['nr'])} fd {call['fd']}, {call['ret']} bytes"

    def _server_times(self) -> str:
        start, end = self._bounds_6()
        recv = self.found["peer_recv_id"]
        if recv is None or start is None or end is None:
            return ""
        off = off_cpu_ns(self.trace, recv["tid"], start, end)
        busy = max(0, end - start - off)
        return f" (on CPU {busy / 1e3:.0f} µs, waiting {off / 1e3:.0f} µs)"

    def _missing(self, step: Step) -> str:  # noqa: PLR0911 (a list of rules)
        if self.row["outcome"] == "open" and step.number >= 8:
            return "trace_ended"
        if step.number in range(4, 10) and "pipe" in self.row["reasons"]:
            return "pipe"
        if step.number in (4, 5, 7, 8) and self.level < 3:
            return "not_recorded_at_this_level"
        if step.number == 9 and self.level < 2:
            return "not_recorded_at_this_level"
        if step.number == 8 and self.found["rx_first_id"] is not None:
            return "backlog"
        if step.missing in self.row["reasons"]:
            return step.missing
        if "no_send" in self.row["reasons"] and step.number in (2, 3, 4, 5, 6):
            return "no_send"
        return step.missing

    def _remark(self, number: int) -> str | None:
        rx = self.found["rx_first_id"]
        if number in (5, 7):
            # the packet's own events at both ends were on this machine
            return "virtual_link" if self.found["peer_rx_id"] is not None else None
        if number == 8 and rx is not None:
            return self.cards.remark(rx)
        if number == 10 and self.found["poll_id"] is not None:
            return "ready_not_listed"
        if number in (9, 10) and self.found["off_cpu_id"] is None:
            return "loop_was_running"
        return None

    def _notes(self, steps: list[dict[str, Any]], order: list[int]) -> list[str]:
        notes = []
        if 11 in order and 12 in order and order.index(12) < order.index(11):
            notes.append(_NOTES[11])
        if self._peer_path() != (0, 0):
            notes.append(_NOTES[3])
        used = {step["reason"] for step in steps}
        notes += [f"{code}: {reasons.REASONS[code]}" for code in reasons.REASONS if code in used]
        return notes

    def _evidence(self, step: Step) -> list[dict[str, Any]]:
        keys = [*step.needs, step.instead or step.needs[0], *_FURTHER.get(step.number, ())]
        proof: list[dict[str, Any]] = []
        rx, poll = self.found["rx_first_id"], self.found["napi_poll_id"]
        if step.number == 8 and rx is not None:
            proof += self.cards.way_up(rx, poll)
        for key in dict.fromkeys(keys):
            event = self.found[key]
            if event is not None:
                proof.append(self._proof(_TABLE_OF[key], event))
        if step.number == 9 and self._waking() is not None:
            off = self.found["off_cpu_id"] or {}
            proof.append(
                {
                    "event": "sched_waking",
                    "table": "off_cpu",
                    "id": off.get("id"),
                    "ts_ns": self._waking(),
                    "tid": off.get("tid"),
                    "cpu": off.get("wake_cpu"),
                    "waker_tid": off.get("waker_tid"),
                }
            )
        return proof

    def _proof(self, table: str, event: Row) -> dict[str, Any]:
        """Return an event as evidence: what, when, thread, CPU, its id, and what names it."""
        name = syscalls.name_of(event["nr"]) if table == "syscall" else table
        cpu = event["cpu"] if "cpu" in event else self._cpu_at(event["tid"], event["ts_ns"])
        return {
            "event": name,
            "table": table,
            "id": event["id"],
            "ts_ns": event["ts_ns"],
            "tid": event["tid"] or None,
            "cpu": cpu,
            **{key: event[key] for key in _PROOF_KEYS if event.get(key) is not None},
            **(self.cards.facts(event["irq"]) if event.get("irq") else {}),
        }

    def _cpu_at(self, tid: int, ts_ns: int) -> int | None:
        """Return the CPU a thread was on: where it was last switched in, else of its last call."""
        rows = self.trace.rows(
            "SELECT in_cpu AS cpu FROM off_cpu WHERE tid = $1 AND ts_ns + dur_ns <= $2"
            " ORDER BY ts_ns DESC LIMIT 1",
            tid,
            ts_ns,
        ) or self.trace.rows(
            "SELECT cpu FROM syscall WHERE tid = $1 AND ts_ns <= $2 ORDER BY ts_ns DESC LIMIT 1",
            tid,
            ts_ns,
        )
        return rows[0]["cpu"] if rows else None


def _short(where: str) -> str:
    return where.rsplit("/", 1)[-1]
