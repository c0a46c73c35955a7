"""How awaits came to their connections: names resolved, connects, TLS handshakes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracer.correlate import reasons
from tracer.system.syscalls import name_of

if TYPE_CHECKING:
    from tracer.correlate.trace import Row, Trace

_STATES_FROM_LEVEL = 2  # inet_sock_set_state
# the events that prove a part, in their order: the column that names each, and its table
_PROOFS = {
    "work_id": "work",
    "handshake_id": "handshake",
    "call_id": "syscall",
    "state_id": "socket_state",
    "last_call_id": "syscall",
}


def setups_of(trace: Trace, await_ids: list[int]) -> dict[int, list[Row]]:
    """Return the parts of these awaits' set-up, in order of their begin; most have none.

    Returns:
        by await_id: what, outcome, task_id, start_ns, dur_ns (None: its end is not known, and
        `reason` says why), evidence (event, table, id, ts_ns, tid).

    """
    found: dict[int, list[Row]] = {}
    parts = trace.rows(
        'SELECT setup.*, reasons FROM setup JOIN "await" USING (await_id)'
        " WHERE await_id IN (SELECT unnest($1)) ORDER BY await_id, setup.start_ns",
        await_ids,
    )
    events = {table: _events(trace, table, parts) for table in set(_PROOFS.values())}
    for part in parts:
        shown = {key: part[key] for key in ("what", "outcome", "task_id", "start_ns", "dur_ns")}
        shown["reason"] = _unknown_end(trace, part)
        shown["evidence"] = [
            _proof(table, events[table][part[key]])
            for key, table in _PROOFS.items()
            if part[key] is not None
        ]
        found.setdefault(part["await_id"], []).append(shown)
    return found


def _events(trace: Trace, table: str, parts: list[Row]) -> dict[int, Row]:
    """Return the events of one table that some parts name, by id."""
    keys = [key for key, its in _PROOFS.items() if its == table]
    ids = sorted({part[key] for part in parts for key in keys if part[key] is not None})
    if not ids:
        return {}
    nr = "nr" if table == "syscall" else "NULL AS nr"
    rows = trace.rows(
        f'SELECT id, ts_ns, tid, {nr} FROM "{table}" WHERE id IN (SELECT unnest($1))', ids
    )
    return {row["id"]: row for row in rows}


def _unknown_end(trace: Trace, part: Row) -> str | None:
    """Return why a part's end is not known."""
    if part["dur_ns"] is not None:
        return None
    if part["what"] == "connect" and trace.manifest["level"] < _STATES_FROM_LEVEL:
        return "not_recorded_at_this_level"
    return "ring_full" if part["reasons"] & reasons.bit("ring_full") else "trace_ended"


def _proof(table: str, event: Row) -> dict[str, Any]:
    nr = event["nr"]
    return {
        "event": table if nr is None else name_of(nr),
        "table": table,
        **{key: event[key] for key in ("id", "ts_ns", "tid")},
    }
