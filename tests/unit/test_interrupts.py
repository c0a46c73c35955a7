"""Devices and their interrupt numbers, from sysfs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tracer.system.interrupts import (
    Interrupt,
    device_irqs,
    interrupt_counts,
    irq_actions,
    net_devices,
)

if TYPE_CHECKING:
    from pathlib import Path


def test_a_virtio_device_has_its_parents_interrupts(tmp_path: Path) -> None:
    """Message interrupts are looked for in the device, then in the device above it."""
    pci = tmp_path / "devices/pci0/0000:00:03.0"
    (pci / "virtio0").mkdir(parents=True)
    (pci / "msi_irqs").mkdir()
    for number in ("38", "37"):
        (pci / "msi_irqs" / number).write_text("msix\n")
    assert device_irqs(pci / "virtio0") == (37, 38)
    assert device_irqs(pci) == (37, 38)


def test_a_legacy_line_counts_and_zero_does_not(tmp_path: Path) -> None:
    """Without message interrupts the file `irq` names the line; 0 is none."""
    device = tmp_path / "a/b/c/device"
    device.mkdir(parents=True)
    assert device_irqs(device) == ()
    (device / "irq").write_text("0\n")
    assert device_irqs(device) == ()
    (device / "irq").write_text("11\n")
    assert device_irqs(device) == (11,)


def test_only_handled_interrupts_have_a_name(tmp_path: Path) -> None:
    """An interrupt without a handler is left out."""
    for number, action in (("37", "virtio2-input.0\n"), ("5", "\n")):
        folder = tmp_path / "sys/kernel/irq" / number
        folder.mkdir(parents=True)
        (folder / "actions").write_text(action)
    assert irq_actions(tmp_path) == {37: "virtio2-input.0"}


@pytest.mark.parametrize(
    ("name", "brings", "sent"),
    [
        ("virtio2-input.0", True, False),
        ("virtio2-output.0", False, True),
        ("virtio2-config", False, False),
        ("eth0-rx-0", True, False),
        ("eth0-tx-3", False, True),
        ("eth0-TxRx-1", True, True),
        ("eth0", True, True),
        ("mlx5_comp3@pci:0000:08:00.0", True, True),
        ("ena-mgmnt@pci:0000:00:05.0", False, False),
    ],
)
def test_a_name_tells_what_an_interrupt_is_for(name: str, *, brings: bool, sent: bool) -> None:
    """Only a name can rule out that an interrupt brings packets, or tells of sent ones."""
    interrupt = Interrupt(30, name)
    assert (interrupt.brings, interrupt.sent) == (brings, sent)


def test_interrupts_are_counted_over_all_cpus(tmp_path: Path) -> None:
    """/proc/interrupts has a column for each CPU, then words; some lines have no number."""
    folder = tmp_path / "proc"
    folder.mkdir()
    (folder / "interrupts").write_text(
        "           CPU0       CPU1       \n"
        " 38:         17        100  PCI-MSIX-0000:00:03.0   1-edge      virtio2-input.0\n"
        "LOC:       1234       5678   Local timer interrupts\n"
    )
    assert interrupt_counts(tmp_path) == {38: 117}


def test_loopback_has_no_interrupt() -> None:
    """Device 1 of every network namespace raises none."""
    loopback = net_devices()[0]
    assert (loopback.ifindex, loopback.name, loopback.has_interrupt) == (1, "lo", False)


@pytest.mark.netns
def test_a_missing_namespace_is_not_made() -> None:
    """Asking for the devices of a namespace that does not exist only fails."""
    from pyroute2 import netns

    name = "awaitscope-test-none"
    with pytest.raises(OSError, match=name):
        net_devices(name)
    assert name not in netns.listnetns()


@pytest.mark.netns
def test_a_virtual_pair_in_another_namespace_has_no_interrupt() -> None:
    """The devices of a named namespace are listed; veth has a kind and no driver."""
    from pyroute2 import NetNS, netns

    name = "awaitscope-test-irq"
    space = NetNS(name)
    try:
        space.link("add", ifname="a0", kind="veth", peer="b0")
        found = {device.name: device for device in net_devices(name)}
    finally:
        space.close()
        netns.remove(name)
    assert set(found) == {"lo", "a0", "b0"}
    assert (found["a0"].kind, found["a0"].driver, found["a0"].interrupts) == ("veth", "", ())
