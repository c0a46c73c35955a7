"""An agent's ring file, read from outside."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tracer.events.header import load
from tracer.store.decode import agent_records
from tracer.store.ringfile import RingFile

if TYPE_CHECKING:
    from pathlib import Path

HEADER = load()
PAGE, SLOT, SLOTS = 4096, 64, 8


def ring_file(path: Path, head: int = 0, tail: int = 0, **more: Any) -> Path:
    """Write a ring of eight slots, the n-th record ever written filled with the byte n."""
    values = {
        "magic": HEADER.constants["AGENT_MAGIC"],
        "schema": HEADER.constants["RECORD_SCHEMA"],
        "agent": 0xABCD,
        "pid": 42,
        "slots": SLOTS,
        "python": b"3.11.2 cpython",
    }
    page = np.zeros((), HEADER.records["agent_ring"].dtype)
    for name, value in {**values, "head": head, "tail": tail, **more}.items():
        page[name] = value
    content = bytearray(page.tobytes().ljust(PAGE + SLOTS * SLOT, b"\0"))
    for n in range(max(0, head - SLOTS), head):
        at = PAGE + n % SLOTS * SLOT
        content[at : at + SLOT] = bytes([n]) * SLOT
    path.write_bytes(content)
    return path


def advance(path: Path, head: int) -> None:
    """Write further records, as the agent in another process does."""
    content = ring_file(path.with_suffix(".next"), head).read_bytes()
    offset = HEADER.records["agent_ring"].dtype.fields["head"][1]
    with path.open("r+b") as file:
        file.seek(PAGE)
        file.write(content[PAGE:])
        file.seek(offset)
        file.write(head.to_bytes(8, "little"))


def numbers(raw: bytes) -> list[int]:
    """Return the records' numbers; each slot is whole."""
    parts = [raw[i : i + SLOT] for i in range(0, len(raw), SLOT)]
    assert all(part == part[:1] * SLOT for part in parts)
    return [part[0] for part in parts]


@pytest.mark.parametrize(
    ("head", "tail"),
    [(0, 0), (3, 0), (8, 0), (8, 8), (13, 6), (16, 8), (15, 8), (17, 16), (24, 17)],
)
def test_a_drain_takes_what_is_new_across_the_wrap(tmp_path: Path, head: int, tail: int) -> None:
    """Records come out once, in the order of writing, and their slots go back to the agent."""
    path = ring_file(tmp_path / "a.ring", head, tail)
    ring = RingFile(path)
    out = tmp_path / "out"
    fd = os.open(out, os.O_WRONLY | os.O_CREAT)
    try:
        assert numbers(ring.rest()) == list(range(tail, head))
        assert ring.drain(fd) == head - tail
        assert ring.drain(fd) == 0
        assert ring.rest() == b""
        assert numbers(out.read_bytes()) == list(range(tail, head))
        advance(path, head + 5)
        assert ring.drain(fd) == 5
        assert numbers(out.read_bytes()) == list(range(tail, head + 5))
    finally:
        os.close(fd)
        ring.close()
    reopened = RingFile(path)
    assert reopened.rest() == b"", "the tail is in the file"
    reopened.close()


def test_the_header_is_read(tmp_path: Path) -> None:
    """Who wrote the ring, and what it lost, by kind."""
    ring = RingFile(ring_file(tmp_path / "a.ring", lost=[0, 0, 7] + [0] * 13))
    assert (ring.agent, ring.ns_tgid, ring.python) == (0xABCD, 42, "3.11.2 cpython")
    assert ring.lost[HEADER.constants["KIND_STEP"] - 32] == 7
    assert sum(ring.lost) == 7
    ring.close()


def test_a_nonsense_count_reads_no_foreign_memory(tmp_path: Path) -> None:
    """The traced process may write anything to its ring; the reader stays inside."""
    for head, tail in ((2**64 - 1, 0), (0, 2**64 - 1), (5, 9)):
        path = ring_file(tmp_path / "a.ring")
        dtype = HEADER.records["agent_ring"].dtype
        with path.open("r+b") as file:
            for name, value in (("head", head), ("tail", tail)):
                file.seek(dtype.fields[name][1])
                file.write(value.to_bytes(8, "little"))
        ring = RingFile(path)
        assert len(ring.rest()) <= SLOTS * SLOT
        ring.close()


@pytest.mark.parametrize(
    "wrong",
    [{"magic": 0}, {"magic": 1}, {"schema": 999}, {"slots": 0}, {"slots": 6}, {"slots": 1 << 40}],
    ids=str,
)
def test_a_foreign_file_is_refused(tmp_path: Path, wrong: dict[str, int]) -> None:
    """Neither a half-made ring (its magic is written last) nor another schema is read."""
    path = ring_file(tmp_path / "a.ring", **wrong)
    with pytest.raises(ValueError, match="not a ring"):
        RingFile(path)


def test_a_short_file_and_a_link_are_refused(tmp_path: Path) -> None:
    """A file that is still growing is tried again later; a symbolic link is never followed."""
    whole = ring_file(tmp_path / "whole")
    for size in (0, 8, PAGE, PAGE + SLOT - 1):
        short = tmp_path / "short"
        short.write_bytes(whole.read_bytes()[:size])
        with pytest.raises(ValueError, match="not a ring"):
            RingFile(short)
    link = tmp_path / "a.ring"
    link.symlink_to(whole)
    with pytest.raises(OSError, match="symbolic"):
        RingFile(link)


def test_what_a_dead_reader_took_is_not_read_again(tmp_path: Path) -> None:
    """A reader that died between writing records and giving them back has written them once."""
    ring = RingFile(ring_file(tmp_path / "a.ring", 13, 6))
    for taken in (0, 5, 6, 9, 13, 99):
        assert numbers(ring.rest(taken)) == list(range(max(taken, 6), 13))
    ring.close()


def test_the_runs_that_threads_are_in_are_read(tmp_path: Path) -> None:
    """Behind the header stands each thread's open run; records of no kind are none."""
    path = ring_file(tmp_path / "a.ring")
    step = np.zeros(1, HEADER.records["step"].dtype)
    step["kind"], step["run"], step["ts_ns"] = HEADER.constants["KIND_STEP"], 7, 5
    with path.open("r+b") as file:
        file.seek(HEADER.constants["AGENT_OPEN_AT"] + 2 * SLOT)
        file.write(step.tobytes())
    ring = RingFile(path)
    found = agent_records(ring.open_runs())
    assert list(found) == ["step"]
    assert found["step"]["run"].tolist() == [7]
    ring.close()
    last = HEADER.constants["AGENT_OPEN_AT"] + HEADER.constants["AGENT_OPEN_RUNS"] * SLOT
    assert HEADER.records["agent_ring"].dtype.itemsize <= HEADER.constants["AGENT_OPEN_AT"]
    assert last <= PAGE


def test_children_without_a_ring_are_named(tmp_path: Path) -> None:
    """A forked child that could not open its own ring stands in its parent's, with the error."""
    more = {"orphans": 2, "orphan_pid": [41, 43] + [0] * 13, "orphan_errno": [2, 13] + [0] * 13}
    ring = RingFile(ring_file(tmp_path / "a.ring", **more))
    assert ring.orphans == [(41, 2), (43, 13)]
    ring.close()
