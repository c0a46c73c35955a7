"""The interrupts behind steps 5 and 8: which queue of which card, and the packet's way up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tracer.events.header import load as load_header

if TYPE_CHECKING:
    from tracer.correlate.trace import Row, Trace

# each event on a packet's way and the age that places it in `receive`, in their order
WAY_UP = (
    ("irq_handler_entry", "irq_age_ns"),
    ("softirq_raise", "raise_age_ns"),  # threaded NAPI: the thread was woken
    ("softirq_entry", "softirq_age_ns"),
    ("netif_receive_skb", "rx_age_ns"),
)


class Cards:
    """The devices that the recording saw at its start, by interrupt and by namespace and index."""

    def __init__(self, trace: Trace) -> None:
        """Read the manifest."""
        devices = trace.manifest.get("devices", [])
        self._trace = trace
        self._by_index = {(d["netns"], d["ifindex"]): d for d in devices}
        self._by_irq = {i["irq"]: (i["name"], d) for d in devices for i in d["interrupts"]}

    def name(self, irq: int) -> str:
        """Return an interrupt in words: number, queue, device and driver as far as known."""
        queue, device = self._by_irq.get(irq, ("", None))
        about = f" ({device['name']}, {device['driver']})" if device else ""
        return f"interrupt {irq}{' ' if queue else ''}{queue}{about}"

    def facts(self, irq: int) -> dict[str, Any]:
        """Return the same as columns."""
        queue, device = self._by_irq.get(irq, ("", None))
        facts: dict[str, Any] = {"irq": irq}
        if device:
            facts |= {"queue": queue, "device": device["name"], "driver": device["driver"]}
        return facts

    def interrupts(self, sock: int, ifindex: int) -> bool:
        """Say whether packets of a socket come through a device that interrupts."""
        rows = self._trace.rows("SELECT max(netns) AS netns FROM socket WHERE sock = ?", sock)
        device = self._by_index.get((rows[0]["netns"], ifindex))
        return bool(device and device["interrupts"])

    def remark(self, rx: Row) -> str | None:
        """Return why a packet has no interrupt, or waited after it; None for the plain way."""
        if rx["irq_age_ns"]:
            if rx["flags"] & load_header().constants["FLAG_SOFTIRQ"]:
                return None
            return "backlog" if rx["softirq_age_ns"] else "threaded_napi"
        own = self.interrupts(rx["sock"], rx["ifindex"])
        return "poll_already_running" if own else "no_irq_device"

    def words(self, rx: Row, poll: Row | None) -> str:
        """Return what step 8 says of a packet's interrupt and poll, "" for a virtual device."""
        parts = []
        if rx["irq_age_ns"]:
            parts.append(self.name(rx["irq"]))
            if poll and poll["irq"] == rx["irq"]:
                parts.append(f"{poll['handler_ns'] / 1e3:.1f} µs in its handler")
        if poll:
            count = poll["work"]
            parts.append(f"a poll of {count} packet{'' if count == 1 else 's'}")
        return f"; {', '.join(parts)}" if parts else ""

    def way_up(self, rx: Row, poll: Row | None) -> list[dict[str, Any]]:
        """Return the events between the interrupt and the socket as evidence, in their order."""
        way: list[dict[str, Any]] = []
        for event, age in WAY_UP:
            if not rx[age]:
                continue
            threaded = event == "softirq_raise" and rx["irq_age_ns"] and not rx["softirq_age_ns"]
            proof = {
                "event": "sched_waking" if threaded else event,
                "table": "receive",
                "id": rx["id"],
                "ts_ns": rx["ts_ns"] - rx[age],
                "tid": rx["tid"] or None,
                "cpu": rx["cpu"],
            }
            if event == "irq_handler_entry":
                proof |= self.facts(rx["irq"])
                if poll and poll["irq"] == rx["irq"]:
                    proof["dur_ns"] = poll["handler_ns"]
            way.append(proof)
        return sorted(way, key=lambda proof: proof["ts_ns"])
