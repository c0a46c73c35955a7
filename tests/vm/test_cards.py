"""Other network cards, and other ways in which a kernel looks after one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from images import kernel_of
from loads import Pair, awaits_at, run_alone, run_pair, steps_missing, what_is_wrong
from machine import Lab

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [pytest.mark.lab, pytest.mark.slow, pytest.mark.timeout(900)]


def answers(pair: Pair) -> list[dict[str, int]]:
    """Return the packets that brought the answers to the queries in turn."""
    rows = awaits_at(pair.load, "turns.py", "await conn.fetch(text")
    ids = ", ".join(str(row["await_id"]) for row in rows)
    found = pair.load.query(
        "SELECT l.await_id, r.irq, r.ts_ns - r.irq_age_ns AS entry, r.softirq_age_ns FROM leg l"
        f" JOIN receive r ON r.id = l.rx_first_id WHERE l.await_id IN ({ids})"
    )
    assert len(found) == len(rows) == pair.turns["answers"]
    return found


def check_interrupts(pair: Pair, name: str) -> None:
    """Fail unless each answer has an interrupt of this name, or came in a poll that ran."""
    packets = answers(pair)
    own = {(p["irq"], p["entry"]) for p in packets if p["irq"]}
    assert len(own) + sum(not p["irq"] for p in packets) == len(packets)
    assert len(own) > 0.9 * len(packets)
    queues = {i["irq"]: i["name"] for d in pair.load.info["devices"] for i in d["interrupts"]}
    assert {queues[irq] for irq, _entry in own} == {name}
    assert len(own) <= pair.turns["interrupts"][name]


def test_one_line_for_all(bookworm: Lab, say: Callable[[str], None], tmp_path: Path) -> None:
    """e1000 has one line for packets that came and that left: both are told apart by the poll."""
    lab = Lab(kernel_of("bookworm", say, "amd64"), bookworm.root)
    pair = run_pair(lab, tmp_path, say, device="e1000")
    assert what_is_wrong(pair) == []
    check_interrupts(pair, "eth0")
    assert {d["driver"] for d in pair.load.info["devices"] if d["name"] == "eth0"} == {"e1000"}
    told = pair.load.query("SELECT DISTINCT irq FROM tx_interrupt")
    assert told == [{"irq": answers(pair)[0]["irq"]}]


def test_a_thread_polls(bookworm: Lab, say: Callable[[str], None], tmp_path: Path) -> None:
    """Threaded NAPI: no softirq brings the packets, and each has its interrupt all the same."""
    pair = run_pair(bookworm, tmp_path, say, prepare="echo 1 >/sys/class/net/eth0/threaded")
    assert what_is_wrong(pair) == []
    packets = answers(pair)
    queues = {i["irq"]: i["name"] for d in pair.load.info["devices"] for i in d["interrupts"]}
    check_interrupts(pair, queues[next(p["irq"] for p in packets if p["irq"])])
    assert not any(p["softirq_age_ns"] for p in packets)
    eight = pair.load.steps(next(p["await_id"] for p in packets if p["irq"]))["steps"][7]
    assert (eight["status"], eight["reason"]) == ("observed", "threaded_napi")
    assert [e["event"] for e in eight["evidence"]][:3] == [
        *("irq_handler_entry", "sched_waking", "netif_receive_skb")
    ]


def test_one_guest_asks_itself(bookworm: Lab, say: Callable[[str], None], tmp_path: Path) -> None:
    """Its own PostgreSQL, out and in through its card: 13 steps, with a hardware interrupt."""
    demo = run_alone(bookworm, tmp_path, say)
    assert steps_missing(demo) == []
    interrupt = demo["steps"][7]["evidence"][0]
    assert (interrupt["event"], interrupt["driver"]) == ("irq_handler_entry", "virtio_net")
    assert "input" in interrupt["queue"]
