"""Sockets, their peers, and byte streams by sequence number.

A stream is one direction of a connection. Where both ends are traced they share it, so a
packet, the send call and the peer's receive call are found by the position of their bytes.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tracer.correlate.index import Bools, Index, Ints, ints, take

if TYPE_CHECKING:
    from tracer.correlate.events import Events

FLAG_TCP = 4
_PIPES = 1 << 33


@dataclass(frozen=True)
class Socket:
    """One socket; addresses as text, ports in host order, `peer` the traced other end or 0."""

    sock: int
    family: int
    proto: int
    netns: int
    local: tuple[str, int]
    remote: tuple[str, int]
    peer: int = 0


def _address(family: int, v4: int, v6: str) -> str:
    if family == socket.AF_INET6:
        return v6.removeprefix("::ffff:") if v6 else ""
    return socket.inet_ntoa(int(v4).to_bytes(4, "little")) if family == socket.AF_INET else ""


def is_pipe(sock: Ints) -> Bools:
    """Say which ids are a pipe's end: twice a 32-bit inode; a socket's is a time, far above."""
    return np.asarray((sock > 0) & (sock < _PIPES))


def sockets_of(events: Events) -> dict[int, Socket]:
    """Return all sockets by id; the last record of a socket counts."""
    table = events["socket"]
    found: dict[int, Socket] = {}
    for i, sock in enumerate(table["sock"].tolist()):
        family = int(table["family"][i])
        found[sock] = Socket(
            sock=sock,
            family=family,
            proto=int(table["proto"][i]),
            netns=int(table["netns"][i]),
            local=(
                _address(family, table["laddr"][i], str(table["laddr6"][i])),
                int(table["lport"][i]),
            ),
            remote=(
                _address(family, table["raddr"][i], str(table["raddr6"][i])),
                int(table["rport"][i]),
            ),
        )
    return _paired(found)


def _paired(found: dict[int, Socket]) -> dict[int, Socket]:
    """Fill in peers: the socket with the reversed addresses, born nearest in time."""
    ends: dict[Any, list[int]] = {}
    for s in found.values():
        if s.proto == socket.IPPROTO_TCP and s.remote[1]:
            ends.setdefault((s.local, s.remote), []).append(s.sock)

    def peer(s: Socket) -> int:
        others = ends.get((s.remote, s.local), ()) if s.remote[1] else ()
        return min(others, key=lambda other: abs(other - s.sock), default=0)

    return {s.sock: replace(s, peer=peer(s)) for s in found.values()}


class Streams:
    """Where bytes are: positions of calls and packets in their streams.

    Row numbers refer to `syscall` (calls), `transmit` (tx) and `receive` (rx).
    """

    def __init__(self, events: Events, sockets: dict[int, Socket]) -> None:
        """Unwrap all sequence numbers; linear in the number of TCP events."""
        call, tx, rx = events["syscall"], events["transmit"], events["receive"]
        ids = ints(sorted(sockets))
        peers = ints([sockets[s].peer for s in ids.tolist()])
        self._ids, self._peers = ids, peers
        sends, recvs = events.sends, events.recvs
        self._sends = sends[(call["flags"][sends] & FLAG_TCP) != 0]
        self._recvs = recvs[(call["flags"][recvs] & FLAG_TCP) != 0]
        self._txs = np.flatnonzero((tx["flags"] & FLAG_TCP != 0) & (tx["len_bytes"] > 0))
        self._rxs = np.flatnonzero(rx["flags"] & FLAG_TCP)
        parts = ((call, self._sends), (call, self._recvs), (tx, self._txs), (rx, self._rxs))
        ways = (self.out_stream, self.in_stream, self.out_stream, self.in_stream)
        streams = [way(t["sock"][rows]) for way, (t, rows) in zip(ways, parts, strict=True)]
        position = _unwrap(
            np.concatenate(streams),
            np.concatenate([t["ts_ns"][rows] for t, rows in parts]),
            np.concatenate([t["seq"][rows] for t, rows in parts]),
        )
        positions = np.split(position, np.cumsum([len(rows) for _t, rows in parts])[:-1])
        self.call_pos = np.full(len(call["ts_ns"]), -1, np.int64)
        self.call_pos[self._sends] = positions[0]
        self.call_pos[self._recvs] = positions[1]
        self.rx_pos = np.full(len(rx["ts_ns"]), -1, np.int64)
        self.rx_pos[self._rxs] = positions[3]
        self._send_index = Index(streams[0], positions[0])
        self._recv_index = Index(streams[1], positions[1])
        self._tx_index = Index(streams[2], positions[2])
        self._rx_index = Index(streams[3], positions[3])
        self._send_end = positions[0] + call["ret"][self._sends]
        self._recv_end = positions[1] + call["ret"][self._recvs]
        self._tx_end = positions[2] + tx["len_bytes"][self._txs]
        self._rx_end = positions[3] + rx["len_bytes"][self._rxs]

    def peer_of(self, sock: Ints) -> Ints:
        """Return the traced peer of each socket, 0 if there is none."""
        at = np.searchsorted(self._ids, sock)
        inside = at < len(self._ids)
        hit = np.zeros(len(sock), np.int64)
        ok = (
            inside & (self._ids[np.minimum(at, len(self._ids) - 1)] == sock)
            if len(self._ids)
            else inside & False
        )
        hit[ok] = self._peers[at[ok]]
        return hit

    def out_stream(self, sock: Ints) -> Ints:
        """Return the stream that a socket sends on: its own id, always."""
        return sock * 2

    def in_stream(self, sock: Ints) -> Ints:
        """Return the stream that a socket receives: the traced peer's, else one of its own."""
        peer = self.peer_of(sock)
        return np.where(peer > 0, peer * 2, sock * 2 + 1)

    @staticmethod
    def _cover(index: Index, rows: Ints, end: Ints, stream: Ints, position: Ints) -> Ints:
        at = index.before(stream, position)
        hit = (at >= 0) & (take(end, at) > position) & (position >= 0)
        return np.where(hit, take(rows, at), -1)

    def send_at(self, stream: Ints, position: Ints) -> Ints:
        """Return the send call that carried the byte at a position."""
        return self._cover(self._send_index, self._sends, self._send_end, stream, position)

    def recv_at(self, stream: Ints, position: Ints) -> Ints:
        """Return the receive call that took the byte at a position."""
        return self._cover(self._recv_index, self._recvs, self._recv_end, stream, position)

    def tx_at(self, stream: Ints, position: Ints) -> Ints:
        """Return the packet handed to a device with the byte at a position."""
        return self._cover(self._tx_index, self._txs, self._tx_end, stream, position)

    def rx_at(self, stream: Ints, position: Ints) -> Ints:
        """Return the packet that arrived with the byte at a position."""
        return self._cover(self._rx_index, self._rxs, self._rx_end, stream, position)


def _unwrap(stream: Ints, ts: Ints, seq: Ints) -> Ints:
    """Return 64-bit positions from 32-bit sequence numbers, from 2**32 on in each stream."""
    order = np.lexsort((ts, stream))
    fresh = np.ones(len(order), bool)
    fresh[1:] = np.diff(stream[order]) != 0
    seq = ints(seq[order])
    position = np.zeros(len(order), np.int64)
    position[1:] = np.diff(seq).astype(np.uint32).astype(np.int32)
    position[fresh] = 0
    np.cumsum(position, out=position)
    starts = np.flatnonzero(fresh)
    base = seq[starts] + (1 << 32) - position[starts]
    position += np.repeat(base, np.diff(starts, append=len(order)))
    found = np.empty(len(order), np.int64)
    found[order] = position
    return found
