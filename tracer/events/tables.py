"""The table catalogue: which tables a trace has, their columns, units and meaning.

Event tables come from record.h; here is only what differs: columns that are dropped or added
when a record becomes a row.
"""

from __future__ import annotations

from dataclasses import dataclass

from tracer.events.header import load as load_header

# the kernel's fds arrays become lists, pieces of strings become texts
_DROPPED = {"kind", "fds", "n", "spare", "spare0", "spare1", "spare2"}
KERNEL_TABLES = (
    "thread",
    "syscall",
    "epoll_ctl",
    "epoll_wait",
    "off_cpu",
    "stolen",
    "socket",
    "socket_state",
    "receive",
    "transmit",
    "retransmit",
    "napi_poll",
    "epoll_callback",
    "tx_interrupt",
    "gap",
    "agent_thread",
)
AGENT_TABLES = (
    "loop",
    "task",
    "step",
    "callback",
    "work",
    "stream_write",
    "handshake",
    "agent_gap",
)


@dataclass(frozen=True)
class TableColumn:
    """A column of a stored table."""

    name: str
    type: str
    doc: str


_ID = TableColumn("id", "BIGINT", "number of the row in this table, in order of ts_ns")
_AGENT = TableColumn("agent", "BIGINT", "which agent wrote it: index into the manifest's agents")
_EXTRA: dict[str, tuple[TableColumn, ...]] = {
    "epoll_wait": (
        TableColumn("fds", "BIGINT[]", "descriptors that were returned as ready (at most 76)"),
    ),
    "socket": (
        TableColumn("laddr6", "VARCHAR", "local IPv6 address, empty for other families"),
        TableColumn("raddr6", "VARCHAR", "remote IPv6 address, empty for other families"),
    ),
    "task": (TableColumn("name", "VARCHAR", "the task's name at its first step"),),
}


def stored_columns(name: str) -> tuple[TableColumn, ...]:
    """Return the columns of an event table as it is stored, in order."""
    record = load_header().records[name]
    own = tuple(
        TableColumn(c.name, "VARCHAR" if c.ctype == "char" else "BIGINT", c.doc)
        for c in record.columns
        if c.name not in _DROPPED
    )
    lead = (_ID, _AGENT) if name in AGENT_TABLES else (_ID,)
    return lead + own + _EXTRA.get(name, ())
