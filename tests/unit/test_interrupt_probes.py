"""The probes' own code on sequences of interrupts, softirqs and packets that real cards make.

The C of probes/ is compiled for this process with a stub of bcc (bpf_stub.h); each call below is
one tracepoint that fires, 10 ns after the one before.
"""

from __future__ import annotations

import ctypes
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tracer.capture.offsets import _OFFSETS, _OPTIONAL
from tracer.events.header import load as load_header
from tracer.paths import probes_dir
from tracer.system import syscalls

if TYPE_CHECKING:
    from collections.abc import Iterator

RX, TX, LINE, OTHER_RX, STRANGER = 30, 31, 40, 50, 60  # interrupt numbers
CARD, LINE_CARD, OTHER_CARD = 3, 4, 5  # device indices
BRINGS, SENT = 1, 2
NET_RX = 3
NETNS = 77
IP_BYTES = 20  # of its header
FILES = ("sockets", "epoll", "packets", "interrupts", "scheduler")
INCLUDES = ("record", "kernel", "filter", "emit", "socket")
# A made-up kernel: every struct is a page, and each member that the probes read has its own place.
OFFSET = {name: 16 * place for place, name in enumerate([*_OFFSETS, *_OPTIONAL])}


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the probes once."""
    folder = tmp_path_factory.mktemp("probes")
    stub = Path(__file__).with_name("bpf_stub.h").read_text()
    parts = [stub]
    parts += [(probes_dir() / "include" / f"{name}.h").read_text() for name in INCLUDES]
    parts += [(probes_dir() / f"{name}.bpf.c").read_text() for name in FILES]
    (folder / "probes.c").write_text("\n".join(parts))
    defines = [f"-D{name}={offset}" for name, offset in OFFSET.items()] + syscalls.defines()
    command = ["gcc", "-shared", "-fPIC", "-w", "-O1", *defines, "-o", "probes.so", "probes.c"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder / "probes.so"


def test_slots_are_checked_at_once() -> None:
    """Between a reserve and its comparison with NULL stands nothing: Linux 6.1 refuses the rest."""
    for path in [*probes_dir().glob("*.bpf.c"), *(probes_dir() / "include").glob("*.h")]:
        text = path.read_text()
        taken = re.findall(r"(\w+) = reserve\(", text)
        checked = re.findall(r"(\w+) = reserve\([^;]*;\s*if \(!?(\w+)\)", text)
        assert [(name, name) for name in taken] == checked, path.name


class Kernel:
    """One CPU of a made-up kernel, with a tracked socket and four network cards."""

    def __init__(self, library: Path, copy: Path) -> None:
        """Load a fresh copy: its static variables are this kernel's state."""
        copy.write_bytes(library.read_bytes())
        self._c = ctypes.CDLL(str(copy))
        self._c.log_at.restype = ctypes.c_void_p
        self._now = ctypes.c_uint64.in_dll(self._c, "now_ns")
        self._now.value = 1000
        self._kept: list[Any] = []
        self._ip: dict[int, int] = {}
        self.net = self.page(O_NET_INUM=NETNS)
        self.sock = self.page(O_SK_NET=self.net, O_SK_PROTOCOL=17)
        self._set("socks", ctypes.c_uint64(self.sock), (ctypes.c_uint64 * 2)(9, 0))
        for irq, tells, card in (
            (RX, BRINGS, CARD),
            (TX, SENT, CARD),
            (LINE, BRINGS | SENT, LINE_CARD),
            (OTHER_RX, BRINGS, OTHER_CARD),
        ):
            self._set("nic_irqs", ctypes.c_uint32(irq), (ctypes.c_uint32 * 2)(tells, card))
        for card in (CARD, LINE_CARD, OTHER_CARD):
            key = ctypes.c_uint64(NETNS << 32 | card)
            self._set("nics", key, (ctypes.c_uint64 * 2)(0, 0))

    def _set(self, table: str, key: Any, leaf: Any) -> None:
        getattr(self._c, f"{table}_set")(ctypes.byref(key), ctypes.byref(leaf))

    def page(self, **members: int) -> int:
        """Return the address of a struct with these members."""
        memory = ctypes.create_string_buffer(4096)
        self._kept.append(memory)
        for name, value in members.items():
            ctypes.memmove(ctypes.addressof(memory) + OFFSET[name], value.to_bytes(8, "little"), 8)
        return ctypes.addressof(memory)

    def fire(self, hook: str, *args: int) -> int:
        """Let a tracepoint fire; return when."""
        self._now.value += 10
        getattr(self._c, f"on_{hook}")((ctypes.c_uint64 * 12)(*args))
        return int(self._now.value)

    def current(self, cpu: int, tid: int) -> None:
        """Let a thread run on a CPU."""
        ctypes.c_uint32.in_dll(self._c, "cpu").value = cpu
        ctypes.c_uint32.in_dll(self._c, "current_tid").value = tid

    def interrupt(self, irq: int, *, raises: bool = True) -> int:
        """Let a handler run that schedules a poll; return its entry."""
        entry = self.fire("irq_handler_entry", irq)
        if raises:
            self.fire("softirq_raise", NET_RX)
        self.fire("irq_handler_exit", irq)
        return entry

    def hand_up(self, skb: int) -> int:
        """Let the card's poll hand up a packet: its data begin with the IP header."""
        self._point(skb, self._ip[skb])
        return self.fire("netif_receive_skb", skb)

    def deliver(self, skb: int) -> int:
        """Let TCP give a packet to our socket: its data begin with the TCP header."""
        self._point(skb, self._ip[skb] + IP_BYTES)
        self._c.on_tcp_probe((ctypes.c_uint64 * 12)(self.sock, skb))
        return self.fire("sk_data_ready", self.sock)

    def packet(self, card: int = CARD, seq: int = 7) -> int:
        """Return a packet that came through a card."""
        skb = self.page(O_SKB_IIF=card)
        self._ip[skb] = self.page()
        ctypes.memset(self._ip[skb], 0x45, 1)  # IPv4, a header of five words
        self.number(skb, seq)
        return skb

    @staticmethod
    def _point(skb: int, data: int) -> None:
        ctypes.memmove(skb + OFFSET["O_SKB_DATA"], data.to_bytes(8, "little"), 8)

    def number(self, skb: int, seq: int) -> None:
        """Give a packet its sequence number: in its TCP header, and in tcp_skb_cb."""
        ctypes.memmove(self._ip[skb] + IP_BYTES + 4, seq.to_bytes(4, "big"), 4)
        ctypes.memmove(skb + OFFSET["O_SKB_CB"], seq.to_bytes(4, "little"), 4)

    def receive(self, card: int = CARD) -> int:
        """Let one packet come through a card, all the way up."""
        skb = self.packet(card)
        self.hand_up(skb)
        return self.deliver(skb)

    def poll(self, work: int, card: int = CARD) -> int:
        """Let a poll of a card end."""
        device = self.page(O_DEV_IFINDEX=card, O_DEV_NET=self.net)
        return self.fire("napi_poll", self.page(O_NAPI_DEV=device), work, 64)

    def send(self, card: int = CARD) -> int:
        """Hand a packet of our socket to a card."""
        device = self.page(O_DEV_IFINDEX=card, O_DEV_NET=self.net)
        skb = self.page(O_SKB_SK=self.sock, O_SKB_HEAD=self.page())
        return self.fire("net_dev_start_xmit", skb, device)

    def records(self, name: str) -> list[Any]:
        """Return what was recorded of one kind."""
        record = load_header().records[name]
        count = ctypes.c_int.in_dll(self._c, "log_count").value
        slots = [ctypes.string_at(self._c.log_at(n), 56) for n in range(count)]
        return [np.frombuffer(s, record.dtype)[0] for s in slots if s[14] == record.kind]

    def arrivals(self) -> list[tuple[int, int, bool]]:
        """Return irq, its handler's entry and whether the packet is known, of each RECEIVE."""
        return [
            (
                int(r["irq"]),
                int(r["ts_ns"] - r["irq_age_ns"]) if r["irq"] else 0,
                bool(r["rx_age_ns"]),
            )
            for r in self.records("receive")
        ]


@pytest.fixture
def kernel(library: Path, tmp_path: Path) -> Iterator[Kernel]:
    """Return a kernel in which nothing has happened yet."""
    return Kernel(library, tmp_path / "kernel.so")


def test_an_interrupt_brings_a_packet(kernel: Kernel) -> None:
    """The plain way: handler, raise, softirq, packet, poll; each time is in the records."""
    entry = kernel.interrupt(RX)
    softirq = kernel.fire("softirq_entry", NET_RX)
    skb = kernel.packet()
    up = kernel.hand_up(skb)
    ready = kernel.deliver(skb)
    end = kernel.poll(1)
    kernel.fire("softirq_exit", NET_RX)
    (rx,) = kernel.records("receive")
    assert (rx["irq"], rx["ts_ns"] - rx["irq_age_ns"]) == (RX, entry)
    assert rx["ts_ns"] - rx["raise_age_ns"] == entry + 10
    assert (rx["ts_ns"] - rx["softirq_age_ns"], rx["ts_ns"] - rx["rx_age_ns"]) == (softirq, up)
    (poll,) = kernel.records("napi_poll")
    assert (poll["irq"], poll["irq_ns"], poll["handler_ns"]) == (RX, entry, 20)
    assert (poll["ts_ns"], poll["work"], poll["softirq_ns"]) == (end, 1, softirq)
    assert rx["ts_ns"] == ready


def test_sent_packets_bring_none(kernel: Kernel) -> None:
    """A card that tells of sent packets raises NET_RX first: the answer's own interrupt counts."""
    kernel.interrupt(TX)
    entry = kernel.interrupt(RX)
    kernel.fire("softirq_entry", NET_RX)
    kernel.poll(0)
    kernel.receive()
    assert kernel.arrivals() == [(RX, entry, True)]


def test_a_poll_for_sent_packets_is_no_interrupt_of_a_packet(kernel: Kernel) -> None:
    """Only the interrupt for sent packets came: a packet in that softirq has none of its own."""
    kernel.interrupt(TX)
    kernel.fire("softirq_entry", NET_RX)
    kernel.receive()
    assert kernel.arrivals() == [(0, 0, True)]


def test_one_interrupt_brings_many(kernel: Kernel) -> None:
    """Packets that were handed up together (GRO) each keep their own time and the interrupt."""
    entry = kernel.interrupt(RX)
    kernel.fire("softirq_entry", NET_RX)
    skbs = [kernel.packet() for _ in range(8)]
    times = [kernel.hand_up(skb) for skb in skbs]
    for skb in skbs:
        kernel.deliver(skb)
    kernel.poll(8)
    assert kernel.arrivals() == [(RX, entry, True)] * 8
    assert [int(r["ts_ns"] - r["rx_age_ns"]) for r in kernel.records("receive")] == times
    assert [int(p["work"]) for p in kernel.records("napi_poll")] == [8]


def test_a_poll_that_goes_on_has_no_interrupt(kernel: Kernel) -> None:
    """After a full budget the softirq raises itself: its packets have no interrupt of their own."""
    entry = kernel.interrupt(RX)
    kernel.fire("softirq_entry", NET_RX)
    kernel.receive()
    kernel.poll(64)
    kernel.fire("softirq_raise", NET_RX)
    kernel.fire("softirq_exit", NET_RX)
    kernel.fire("softirq_entry", NET_RX)
    kernel.receive()
    kernel.poll(1)
    assert kernel.arrivals() == [(RX, entry, True), (0, 0, True)]
    assert [int(p["irq"]) for p in kernel.records("napi_poll")] == [RX, 0]


def test_an_interrupt_during_a_softirq_belongs_to_the_next(kernel: Kernel) -> None:
    """Until 6.3 a handler raises the softirq although it runs: its packet comes in the next one."""
    first = kernel.interrupt(RX)
    kernel.fire("softirq_entry", NET_RX)
    kernel.receive()
    second = kernel.interrupt(RX)
    kernel.poll(1)
    kernel.fire("softirq_exit", NET_RX)
    kernel.fire("softirq_entry", NET_RX)
    kernel.receive()
    assert kernel.arrivals() == [(RX, first, True), (RX, second, True)]


def test_an_interrupt_joins_a_softirq_that_runs(kernel: Kernel) -> None:
    """Since 6.4 it raises none then: its packet comes in the softirq that runs."""
    kernel.fire("softirq_raise", NET_RX)
    kernel.fire("softirq_entry", NET_RX)
    entry = kernel.interrupt(RX, raises=False)
    kernel.receive()
    assert kernel.arrivals() == [(RX, entry, True)]


def test_ksoftirqd_keeps_the_interrupt(kernel: Kernel) -> None:
    """A softirq that a thread runs later, after other interrupts, is still the card's."""
    entry = kernel.interrupt(RX)
    kernel.interrupt(9, raises=False)
    kernel.fire("softirq_entry", NET_RX)
    kernel.receive()
    assert kernel.arrivals() == [(RX, entry, True)]


def test_one_line_for_all_brings_and_sends(kernel: Kernel) -> None:
    """A card with one line (e1000) tells of sent packets and brings some with one interrupt."""
    sent = kernel.send(LINE_CARD)
    entry = kernel.interrupt(LINE)
    kernel.fire("softirq_entry", NET_RX)
    kernel.receive(LINE_CARD)
    kernel.poll(1, LINE_CARD)
    assert kernel.arrivals() == [(LINE, entry, True)]
    (told,) = kernel.records("tx_interrupt")
    assert (told["irq"], told["ts_ns"], told["since_ns"]) == (LINE, entry, sent)


def test_another_cards_interrupt_does_not_count(kernel: Kernel) -> None:
    """A packet through one card is not the interrupt's of another in the same softirq."""
    kernel.interrupt(OTHER_RX)
    kernel.fire("softirq_entry", NET_RX)
    kernel.receive(CARD)
    assert kernel.arrivals() == [(0, 0, True)]


def test_a_packet_above_a_card_keeps_its_interrupt(kernel: Kernel) -> None:
    """A bond, bridge or VLAN has no interrupt: its packet has that of the card below."""
    entry = kernel.interrupt(RX)
    kernel.fire("softirq_entry", NET_RX)
    kernel.receive(99)
    assert kernel.arrivals() == [(RX, entry, True)]


def test_a_card_that_came_later_counts(kernel: Kernel) -> None:
    """A handler that raises NET_RX and was not there at the start is a card's."""
    entry = kernel.interrupt(STRANGER)
    kernel.fire("softirq_entry", NET_RX)
    kernel.receive()
    assert kernel.arrivals() == [(STRANGER, entry, True)]


def test_only_our_packets_are_told_to_be_sent(kernel: Kernel) -> None:
    """An interrupt for sent packets is recorded once after a tracked one, and never before it."""
    for _ in range(2):
        kernel.interrupt(TX)
        kernel.fire("softirq_entry", NET_RX)
        kernel.poll(0)
        kernel.fire("softirq_exit", NET_RX)
    assert kernel.records("tx_interrupt") == []
    sent = kernel.send()
    for _ in range(2):
        entry = kernel.interrupt(TX)
        kernel.fire("softirq_entry", NET_RX)
        end = kernel.poll(0)
        kernel.fire("softirq_exit", NET_RX)
        if len(kernel.records("tx_interrupt")) == 1 and _ == 0:
            first = (entry, end)
    (told,) = kernel.records("tx_interrupt")
    assert (told["ts_ns"], told["poll_ns"], told["since_ns"]) == (*first, sent)
    assert (told["irq"], told["ifindex"], told["netns"], told["handler_ns"]) == (
        TX,
        CARD,
        NETNS,
        20,
    )


def test_a_packet_waits_for_its_socket(kernel: Kernel) -> None:
    """The interrupt came inside the program's own send: the way up is known after the softirq."""
    entry = kernel.interrupt(RX)
    softirq = kernel.fire("softirq_entry", NET_RX)
    skb = kernel.packet()
    up = kernel.hand_up(skb)
    kernel.poll(1)
    kernel.fire("softirq_exit", NET_RX)
    kernel.deliver(skb)
    (rx,) = kernel.records("receive")
    assert rx["ts_ns"] - rx["irq_age_ns"] == entry
    assert rx["ts_ns"] - rx["raise_age_ns"] == entry + 10
    assert (rx["ts_ns"] - rx["softirq_age_ns"], rx["ts_ns"] - rx["rx_age_ns"]) == (softirq, up)
    assert not rx["flags"] & load_header().constants["FLAG_SOFTIRQ"]


def test_a_reused_address_is_another_packet(kernel: Kernel) -> None:
    """A packet without an interrupt, at the address of one that had it, gets none."""
    kernel.interrupt(RX)
    kernel.fire("softirq_entry", NET_RX)
    skb = kernel.packet()
    kernel.hand_up(skb)
    kernel.fire("softirq_exit", NET_RX)
    kernel.number(skb, 8)
    kernel.deliver(skb)
    assert kernel.arrivals() == [(0, 0, False)]


def wake_thread(kernel: Kernel, tid: int) -> tuple[int, int]:
    """Let the card's handler wake the thread that polls; return its entry and the waking."""
    entry = kernel.fire("irq_handler_entry", RX)
    woken = kernel.fire("sched_waking", kernel.page(O_TASK_PID=tid))
    kernel.fire("irq_handler_exit", RX)
    return entry, woken


def test_a_thread_polls_for_packets(kernel: Kernel) -> None:
    """Threaded NAPI: the interrupt woke a thread, which hands the packet up on any CPU."""
    entry, woken = wake_thread(kernel, 55)
    kernel.current(cpu=1, tid=55)
    skb = kernel.packet()
    up = kernel.hand_up(skb)
    kernel.deliver(skb)
    (rx,) = kernel.records("receive")
    assert (rx["irq"], rx["ts_ns"] - rx["irq_age_ns"]) == (RX, entry)
    assert (rx["ts_ns"] - rx["raise_age_ns"], rx["ts_ns"] - rx["rx_age_ns"]) == (woken, up)
    assert (rx["softirq_age_ns"], rx["flags"] & 1) == (0, 0)


def test_a_threads_next_poll_needs_an_interrupt(kernel: Kernel) -> None:
    """A thread that polls on has no interrupt; one that came after the poll counts for the next."""
    wake_thread(kernel, 55)
    kernel.current(cpu=0, tid=55)
    kernel.receive()
    kernel.poll(64)
    kernel.receive()
    second, _ = wake_thread(kernel, 55)
    kernel.poll(0)
    kernel.receive()
    irqs = [(irq, entry) for irq, entry, _known in kernel.arrivals()]
    assert irqs[1:] == [(0, 0), (RX, second)]


def test_another_threads_packets_are_not_the_cards(kernel: Kernel) -> None:
    """A packet that another thread hands up (a tap, a busy poll) has no interrupt."""
    wake_thread(kernel, 55)
    kernel.current(cpu=0, tid=56)
    kernel.receive()
    assert kernel.arrivals() == [(0, 0, False)]
