"""The 13 steps of one await: the declarative list.

Titles are the document's, in short. A step is `observed` when the rows that bound it are in
the trace; `inferred` when its bounds follow from other rows; else `absent`, with a reason.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """One step: its number, layer, title, and the leg columns that must name a row.

    `missing` is the reason when one of them names none; `inferred` says that the bounds then
    follow from our own side. `instead` is a column that proves the step as well as all of `needs`.
    """

    number: int
    layer: str
    title: str
    needs: tuple[str, ...]
    missing: str
    inferred: bool = False
    instead: str = ""


STEPS = (
    Step(1, "your code", "await: the step that suspends begins", ("step_id",), "ring_full"),
    Step(2, "driver", "serialises the query to bytes", ("step_id", "send_id"), "no_send"),
    Step(3, "driver", "writes the bytes to the socket, returns at once", ("send_id",), "no_send"),
    Step(4, "OS kernel", "TCP/IP stack hands packets to the device", ("tx_id",), "no_packet_event"),
    Step(
        5,
        "hardware",
        "the network delivers the query",
        ("tx_id", "peer_rx_id"),
        "peer_not_traced",
        inferred=True,
    ),
    Step(
        6,
        "server",
        "receives the query, executes it, sends the answer",
        ("peer_recv_id", "peer_send_id"),
        "peer_not_traced",
        inferred=True,
    ),
    Step(
        7,
        "hardware",
        "the network brings the answer back",
        ("peer_tx_id", "rx_first_id"),
        "peer_not_traced",
        inferred=True,
    ),
    Step(
        8,
        "OS kernel",
        "interrupt, softirq: data arrived on the socket",
        ("rx_packet_id",),
        "no_packet_event",
    ),
    Step(9, "OS kernel", "epoll marks the socket ready", ("rx_id",), "no_packet_event"),
    Step(
        10,
        "asyncio",
        "epoll_wait returns, the callback is ready",
        ("epoll_id",),
        "ring_full",
        instead="poll_id",
    ),
    Step(
        11,
        "asyncio",
        "the loop runs the callback, later the task's step",
        ("callback_id", "next_step_id"),
        "ring_full",
    ),
    Step(12, "driver", "reads the answer's bytes, makes the task ready", ("call_id",), "ring_full"),
    Step(13, "your code", "has the result and goes on", ("next_step_id",), "trace_ended"),
)
