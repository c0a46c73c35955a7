"""Raw slots to columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import duckdb
import numpy as np

from tracer.events.header import load
from tracer.store import decode
from tracer.store.finalise import write_kernel_table
from tracer.store.layout import TraceFolder

if TYPE_CHECKING:
    from pathlib import Path

RECORDS = load().records
DISCARDED = 0x40000000  # BPF_RINGBUF_DISCARD_BIT


def records(name: str, *rows: dict[str, Any]) -> np.ndarray[Any, Any]:
    """Return records of one kind."""
    made = np.zeros(len(rows), RECORDS[name].dtype)
    made["kind"] = RECORDS[name].kind
    for i, row in enumerate(rows):
        for column, value in row.items():
            made[i][column] = value
    return made


def slots(made: np.ndarray[Any, Any], *, flags: int = 0) -> bytes:
    """Return the BPF ring's slots that hold records: length and page offset, then the record."""
    head = (made.dtype.itemsize | flags).to_bytes(4, "little") + bytes(4)
    return b"".join(head + row.tobytes() for row in made)


def test_discarded_and_truncated_slots_are_dropped(tmp_path: Path) -> None:
    """What the probe took back, or a kill cut off, is no record."""
    call = records("syscall", {"ts_ns": 5, "fd": 3}, {"ts_ns": 9, "fd": 4})
    gone = records("syscall", {"ts_ns": 7, "fd": 99})
    wait = records("epoll_wait", {"ts_ns": 6})
    raw = tmp_path / "kernel.raw"
    raw.write_bytes(slots(call[:1]) + slots(gone, flags=DISCARDED) + slots(wait) + slots(call[1:]))
    for cut in (0, 1, 63):
        content = raw.read_bytes()
        raw.write_bytes(content[: len(content) - cut])
        found = decode.kernel_records(raw)
        raw.write_bytes(content)
        assert sorted(found) == ["epoll_wait", "syscall"]
        assert found["syscall"]["fd"].tolist() == ([3, 4] if cut == 0 else [3])
        assert found["epoll_wait"]["ts_ns"].tolist() == [6]


def test_unknown_kinds_are_passed_over(tmp_path: Path) -> None:
    """A record of a kind that record.h does not have spoils no other."""
    call = records("syscall", {"ts_ns": 1}, {"ts_ns": 2})
    call["kind"][0] = 31
    raw = tmp_path / "kernel.raw"
    raw.write_bytes(slots(call))
    assert {k: v["ts_ns"].tolist() for k, v in decode.kernel_records(raw).items()} == {
        "syscall": [2]
    }


def test_no_file_and_an_empty_one_have_no_records(tmp_path: Path) -> None:
    """A recording that ended before its first record is an empty trace."""
    raw = tmp_path / "kernel.raw"
    assert decode.kernel_records(raw) == {}
    assert decode.agent_records(decode.agent_slots(raw)) == {}
    raw.write_bytes(b"x" * 63)
    assert decode.kernel_records(raw) == {}
    assert decode.agent_records(decode.agent_slots(raw)) == {}


def test_an_agents_ring_continues_its_file(tmp_path: Path) -> None:
    """Drained records come first, then what is in the ring; one that a kill cut off is dropped."""
    raw = tmp_path / "agent.raw"
    raw.write_bytes(records("step", {"ts_ns": 1, "run": 1}).tobytes() + b"x" * 63)
    rest = records("step", {"ts_ns": 2, "run": 2}).tobytes() + records("loop", {}).tobytes()
    found = decode.agent_records(decode.agent_slots(raw) + rest)
    assert found["step"]["run"].tolist() == [1, 2]
    assert len(found["loop"]) == 1


def test_columns_are_sorted_by_time_and_numbered() -> None:
    """Row ids follow ts_ns; records of the same moment keep their order."""
    rows = records("syscall", *({"ts_ns": t, "fd": f} for t, f in ((9, 1), (3, 2), (9, 3), (1, 4))))
    columns = decode.columns_of("syscall", decode.sorted_by_time(rows))
    assert columns["id"].tolist() == [0, 1, 2, 3]
    assert columns["fd"].tolist() == [4, 2, 1, 3]
    assert "kind" not in columns
    assert "spare" not in columns


def test_thread_names_become_text() -> None:
    """Zero padding ends a text, and bytes that are no UTF-8 are shown as such."""
    rows = records("thread", {"comm": b"python3"}, {"comm": b"x" * 16}, {"comm": b"\xff"})
    assert decode.columns_of("thread", rows)["comm"].tolist() == ["python3", "x" * 16, "\ufffd"]


def test_ready_descriptors_overflow_into_further_records(tmp_path: Path) -> None:
    """An epoll_wait with more than four descriptors has them all, in the kernel's order."""
    waits = records(
        "epoll_wait",
        {"ts_ns": 20, "tid": 1, "n": 4, "ret": 15, "fds": [10, 11, 12, 13]},
        {"ts_ns": 20, "tid": 2, "n": 2, "ret": 2, "fds": [30, 31, 99, 99]},
        {"ts_ns": 10, "tid": 1, "n": 0, "ret": 0, "fds": [99] * 4},
    )
    more = records(
        "epoll_ready",
        {"ts_ns": 20, "tid": 1, "first": 13, "n": 2, "fds": [23, 24] + [99] * 7},
        {"ts_ns": 20, "tid": 1, "first": 4, "n": 9, "fds": list(range(14, 23))},
        {"ts_ns": 15, "tid": 1, "first": 4, "n": 1, "fds": [77] * 9},
    )
    full = [[], list(range(10, 25)), [30, 31]]
    for kernel, expected in (
        ({"epoll_wait": waits, "epoll_ready": more}, full),
        ({"epoll_wait": waits}, [[], [10, 11, 12, 13], [30, 31]]),
    ):
        folder = TraceFolder(tmp_path)
        with duckdb.connect() as connection:
            write_kernel_table(connection, folder, "epoll_wait", kernel)
            found = f"SELECT fds FROM {folder.table_sql('epoll_wait')}"
            assert [fds for (fds,) in connection.execute(found).fetchall()] == expected


def test_strings_are_joined_from_their_pieces() -> None:
    """Pieces are 40 bytes, whatever characters they cut, in any order."""
    text = "ä" + "é" * 30 + "/app.py:7"
    raw = text.encode()
    pieces = records(
        "string",
        {"id": 2, "len": len(raw), "first": 40, "text": raw[40:]},
        {"id": 1, "len": 2, "first": 0, "text": b"ok"},
        {"id": 2, "len": len(raw), "first": 0, "text": raw[:40]},
    )
    assert decode.strings_of(pieces) == {1: "ok", 2: text}
    assert decode.strings_of(None) == {}


def test_addresses_keep_their_trailing_zeros() -> None:
    """A 16-byte address that numpy shortened is padded again."""
    assert decode.address6(b"") == "::"
    assert decode.address6(bytes.fromhex("20010db8")) == "2001:db8::"
