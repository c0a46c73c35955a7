"""Network devices and the interrupts that they raise.

An interrupt number is a name only through /sys/kernel/irq; a device finds its numbers in
`msi_irqs` (PCI message interrupts) or `irq` of its parent device. Loopback, veth and the like
have no parent device and raise none.
"""

from __future__ import annotations

import errno
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_SENT = re.compile(r"(?:^|[^a-z])(?:tx|output)(?:[^a-z]|$)", re.IGNORECASE)
_BRINGS = re.compile(r"(?:^|[^a-z])(?:rx|input)(?:[^a-z]|$)", re.IGNORECASE)
_NEITHER = re.compile(r"config|ctrl|control|mgmn?t|link", re.IGNORECASE)


@dataclass(frozen=True)
class Interrupt:
    """One interrupt of a device: its number and its handler's name, such as `virtio0-input.0`."""

    number: int
    name: str

    @property
    def brings(self) -> bool:
        """Say whether it can announce packets that came; only a name can rule that out."""
        return bool(_BRINGS.search(self.name) or not self._only(_SENT, _NEITHER))

    @property
    def sent(self) -> bool:
        """Say whether it can tell of packets that left (e1000 has one line for all)."""
        return bool(_SENT.search(self.name) or not self._only(_BRINGS, _NEITHER))

    def _only(self, *patterns: re.Pattern[str]) -> bool:
        return any(pattern.search(self.name) for pattern in patterns)


@dataclass(frozen=True)
class NetDevice:
    """A network device of one network namespace; `driver` is "" for a virtual one."""

    ifindex: int
    name: str
    kind: str
    driver: str
    up: bool
    rx_queues: int
    tx_queues: int
    interrupts: tuple[Interrupt, ...]

    @property
    def has_interrupt(self) -> bool:
        """Say whether packets can arrive here by an interrupt of the device."""
        return bool(self.interrupts)


def irq_actions(root: Path = Path("/")) -> dict[int, str]:
    """Return the name of each interrupt's handler, such as `virtio0-input.0`, by number."""
    actions: dict[int, str] = {}
    for folder in (root / "sys/kernel/irq").glob("[0-9]*"):
        try:
            name = (folder / "actions").read_text().strip()
        except OSError:
            continue
        if name:
            actions[int(folder.name)] = name
    return actions


def interrupt_counts(root: Path = Path("/")) -> dict[int, int]:
    """Return how often each interrupt was handled since the boot (/proc/interrupts), by number."""
    counts: dict[int, int] = {}
    head, *lines = (root / "proc/interrupts").read_text().splitlines()
    cpus = len(head.split())
    for line in lines:
        number, _, rest = line.partition(":")
        if number.strip().isdigit():
            counts[int(number)] = sum(map(int, rest.split()[:cpus]))
    return counts


def device_irqs(parent: Path) -> tuple[int, ...]:
    """Return the interrupt numbers of a device folder below /sys/devices.

    A virtio device has none of its own, its PCI parent has them.
    """
    for folder in (parent, *list(parent.parents)[:2]):
        messages = folder / "msi_irqs"
        if messages.is_dir():
            return tuple(sorted(int(entry.name) for entry in messages.iterdir()))
        line = folder / "irq"
        if line.is_file() and line.read_text().strip() not in ("", "0"):
            return (int(line.read_text()),)
    return ()


def net_devices(netns: str | None = None, root: Path = Path("/")) -> list[NetDevice]:
    """Return the devices of a named network namespace (None: our own), by ifindex.

    Raises:
        OSError: there is no namespace of this name, or no right to enter it.

    """
    from pyroute2 import IPRoute, NetNS  # noqa: PLC0415 (slow; a trace is read without it)
    from pyroute2.netns import listnetns  # noqa: PLC0415 (the same)

    if netns and netns not in listnetns():
        raise FileNotFoundError(errno.ENOENT, "there is no network namespace", netns)
    actions = irq_actions(root)
    # flags=0: by default pyroute2 makes a namespace that does not exist
    with NetNS(netns, flags=0) if netns else IPRoute() as route:
        links = list(route.get_links())
    return sorted((_device(link, actions, root) for link in links), key=lambda d: d.ifindex)


def _device(link: Any, actions: dict[int, str], root: Path) -> NetDevice:  # noqa: ANN401 (untyped)
    name = str(link.get_attr("IFLA_IFNAME"))
    info = link.get_attr("IFLA_LINKINFO")
    parent = _parent(link, name, root)
    driver = parent / "driver" if parent else None
    irqs = device_irqs(parent) if parent else ()
    return NetDevice(
        ifindex=int(link["index"]),
        name=name,
        kind=str(info.get_attr("IFLA_INFO_KIND") or "") if info else "",
        driver=driver.resolve().name if driver and driver.exists() else "",
        up=bool(link["flags"] & 1),  # IFF_UP
        rx_queues=int(link.get_attr("IFLA_NUM_RX_QUEUES") or 1),
        tx_queues=int(link.get_attr("IFLA_NUM_TX_QUEUES") or 1),
        interrupts=tuple(Interrupt(irq, actions[irq]) for irq in irqs if irq in actions),
    )


def _parent(link: Any, name: str, root: Path) -> Path | None:  # noqa: ANN401 (untyped)
    """Return the device's folder; netlink names it in every namespace, sysfs only in ours."""
    device, bus = link.get_attr("IFLA_PARENT_DEV_NAME"), link.get_attr("IFLA_PARENT_DEV_BUS_NAME")
    folder = root / f"sys/bus/{bus}/devices/{device}"
    if not (device and bus and folder.exists()):
        folder = root / f"sys/class/net/{name}/device"
    return folder.resolve() if folder.exists() else None
