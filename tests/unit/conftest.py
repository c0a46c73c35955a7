"""A lab for the agent; a hand-made BTF blob: small enough to check by eye, with every trap."""

from __future__ import annotations

import struct

import pytest

from tests.unit.agent_ring import agent_cache, lab, lab_in_c, light

__all__ = ["agent_cache", "lab", "lab_in_c", "light"]

INT, PTR, STRUCT, UNION, TYPEDEF, FUNC, PROTO, CONST, DATASEC = 1, 2, 4, 5, 8, 12, 13, 10, 15
ENUM, ENUM64 = 6, 19
FLAG = 1 << 31


class BtfBuilder:
    """Append types in order; the first gets id 1."""

    def __init__(self) -> None:
        """Start with the empty string."""
        self.strings = b"\0"
        self.types = b""

    def name(self, text: str) -> int:
        """Store a string and return its offset."""
        if not text:
            return 0
        at = len(self.strings)
        self.strings += text.encode() + b"\0"
        return at

    def add(self, name: str, kind: int, size_or_type: int, *tail: tuple[int, ...]) -> None:
        """Append a type with one tail tuple per vlen entry."""
        flag = FLAG if kind & FLAG else 0
        kind &= ~FLAG
        vlen = 0 if kind == INT else len(tail)
        info = flag | kind << 24 | vlen
        self.types += struct.pack("<III", self.name(name), info, size_or_type)
        for entry in tail:
            self.types += struct.pack(f"<{len(entry)}I", *entry)

    def blob(self) -> bytes:
        """Return the finished blob."""
        head = struct.pack(
            "<HBBIIIII",
            *(0xEB9F, 1, 0, 24, 0, len(self.types), len(self.types), len(self.strings)),
        )
        return head + self.types + self.strings


@pytest.fixture
def tiny_btf() -> bytes:
    """Return BTF with nested, anonymous and bit-field members, and one tracepoint."""
    b = BtfBuilder()
    b.add("int", INT, 4, (0x20,))  # 1
    b.add("", UNION, 8, (b.name("skc_pair"), 1, 0), (b.name("skc_num"), 1, 32))  # 2
    b.add("sock_common", STRUCT, 12, (b.name("first"), 1, 0), (0, 2, 32))  # 3
    b.add("", CONST, 3)  # 4
    b.add("sock", STRUCT, 20, (b.name("__sk_common"), 4, 0), (b.name("last"), 1, 128))  # 5
    # kind_flag: the upper 8 bits of an offset are the bit field's size
    b.add("flags", STRUCT | FLAG, 8, (b.name("low"), 1, 3 << 24), (b.name("rest"), 1, 4 << 24 | 35))
    b.add("", PTR, 5)  # 7
    b.add("", PROTO, 0, (0, 7), (b.name("sk"), 7), (b.name("ret"), 1))  # 8
    b.add("", PTR, 8)  # 9
    b.add("btf_trace_sk_data_ready", TYPEDEF, 9)  # 10
    b.add("sock_def_readable", FUNC, 8)  # 11
    b.add(".data", DATASEC, 4, (1, 0, 4))  # 12
    b.add("after", STRUCT, 4, (b.name("x"), 1, 0))  # 13
    negative = (1 << 32) - 1
    b.add("state", ENUM | FLAG, 4, (b.name("LOST"), negative), (b.name("FOUND"), 1))  # 14
    b.add("mask", ENUM64, 8, (b.name("HIGH"), 0, 1), (b.name("LOW"), negative, 0))  # 15
    b.add("tail", STRUCT, 8, (b.name("y"), 1, 32))  # 16
    b.add("rq", STRUCT, 4, (b.name("prev_steal_time_rq"), 1, 0))  # 17
    return b.blob()
