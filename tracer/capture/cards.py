"""The network cards of this machine and how often they interrupted while it was recorded.

A number in a record gets its meaning here: the name of the handler, the queue, the driver. It
holds for the tracer's own network namespace, where a machine's cards are.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tracer.system.interrupts import NetDevice, interrupt_counts, net_devices


class Cards:
    """The devices as they were at the start."""

    def __init__(self) -> None:
        """Read sysfs, netlink and /proc/interrupts; a machine without them has no devices."""
        self.netns = Path("/proc/self/ns/net").stat().st_ino
        self.devices: list[NetDevice] = []
        self._before: dict[int, int] = {}
        try:
            self.devices = net_devices()
            self._before = interrupt_counts()
        except OSError:
            return

    def manifest(self) -> list[dict[str, Any]]:
        """Return the devices; `handled` is how often an interrupt was handled until now."""
        now = interrupt_counts() if self._before else {}
        return [
            {
                "netns": self.netns,
                "ifindex": device.ifindex,
                "name": device.name,
                "kind": device.kind,
                "driver": device.driver,
                "interrupts": [
                    {
                        "irq": irq.number,
                        "name": irq.name,
                        "brings": irq.brings,
                        "sent": irq.sent,
                        "handled": now.get(irq.number, 0) - self._before.get(irq.number, 0),
                    }
                    for irq in device.interrupts
                ],
            }
            for device in self.devices
        ]
