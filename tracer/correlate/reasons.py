"""Reason codes: why a row, a cut or a step is missing, inferred or unusual.

A fixed list; stored as a bit set, shown by name. Append only.
"""

from __future__ import annotations

REASONS: dict[str, str] = {
    "answer_before_suspend": "the answer was here before the task was parked",
    "recv_shared": "one receive call served several tasks; its bytes count for each of them",
    "read_in_task": "the task read the socket itself, after it had resumed",
    "trace_ended": "the await was still open when the recording ended",
    "ring_full": "records were lost while this await ran",
    "loop_was_running": "the loop's thread was awake already: nothing had to wake it",
    "no_irq_device": "this device raises no interrupt (loopback, veth)",
    "virtual_link": "the link is virtual: there is no wire, the peer is on this machine",
    "peer_not_traced": "the peer is not traced: its part follows from our own events",
    "socket_older_than_trace": "the socket was there before the recording began",
    "not_recorded_at_this_level": "this event is recorded at a higher --level",
    "no_packet_event": "no packet event was found for these bytes",
    "backlog": "the packet waited in the socket's backlog, outside of a softirq",
    "not_separated": "this cause cannot be told apart here; its time is in another one",
    "no_send": "this await sent nothing",
    "not_tcp": "the socket is not TCP: bytes cannot be followed by sequence number",
    "last_sender": "bytes that nobody waited for yet: given to the await that had sent last",
    "poll_already_running": "the packet came in a poll that was running: no interrupt of its own",
    "buffered_write": "the loop sent what the task had written from a buffer, after its step",
    "threaded_napi": "a thread of the kernel polled the device: no softirq brought the packet",
    "sent_by_child": "a task that this one had created for it sent the request",
    "ready_not_listed": "poll and select do not list what is ready: the receive after it tells",
    "pipe": "the bytes went through a pipe: no packets carry them",
    "send_shared": "one send call carried the bytes of several writers; each row has its own part",
}
_BIT = {name: 1 << i for i, name in enumerate(REASONS)}


def bit(name: str) -> int:
    """Return a reason's bit; KeyError for one that is not in the list."""
    return _BIT[name]


def names(bits: int) -> list[str]:
    """Return the names in a bit set, in the list's order."""
    return [name for name, value in _BIT.items() if bits & value]
