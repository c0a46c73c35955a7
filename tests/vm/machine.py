"""Boot guests with QEMU, run a job in each, return what it left.

Hardware is emulated (TCG): a KVM device says nothing about whether KVM works here, so it is used
only after a probe boot proved it. One thread, and no cmpxchg16b in the guest's kernel: with either
guests panicked now and then. A panic is tried once more, and said.
"""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from images import ROOT, BuildFailed, Kernel, Root, run

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

OUT_BYTES = 256 << 20  # a sparse file
SOURCES = ("tracer", "probes", "demos", "tests/apps")
LINES_SHOWN = 25
_TCG = ("-accel", "tcg,thread=single", "-cpu", "max")
_NO_CX16 = "clearcpuid=141"  # in the kernel alone: numpy needs the instruction
_KVM = ("-accel", "kvm", "-cpu", "host")
_PROBE_S = 10.0


class GuestFailed(Exception):
    """A guest did not come to the end of its job; the text ends with its console's last lines."""


class GuestPanicked(GuestFailed):
    """Its kernel panicked."""


@dataclass(frozen=True)
class Guest:
    """One guest: its address (CIDR), the job's `run.sh`, and its network card.

    `device` is QEMU's name of the card, `netdev` what it is plugged into, by the id `n0`.
    """

    name: str
    address: str
    job: str
    netdev: str = "user,id=n0"
    device: str = "virtio-net-pci"
    mac: str = "52:54:00:00:00:21"
    memory_mib: int = 1024
    cpus: int = 2


@dataclass(frozen=True)
class Result:
    """What a job left: exit code, output, a folder with its files, and the guest's console."""

    code: int
    stdout: str
    stderr: str
    folder: Path
    console: str
    seconds: float


@dataclass
class _Running:
    guest: Guest
    process: subprocess.Popen[bytes]
    console: Path
    out: Path
    started: float = field(default_factory=time.monotonic)

    def text(self) -> str:
        return self.console.read_text(errors="replace").replace("\r", "")

    def tail(self) -> str:
        lines = self.text().splitlines()[-LINES_SHOWN:]
        return "\n".join(f"  {self.guest.name}| {line}" for line in lines) or "  (no output)"


def two_guests(app_job: str, db_job: str, device: str = "virtio-net-pci") -> tuple[Guest, Guest]:
    """Return `app` and `db` on a private link: datagrams between two sockets, nothing outside."""
    here, there = "app.sock", "db.sock"
    link = "dgram,id=n0,local.type=unix,local.path={},remote.type=unix,remote.path={}"
    app = Guest("app", "10.0.2.21/24", app_job, link.format(here, there), device)
    return app, Guest(
        "db",
        "10.0.2.22/24",
        db_job,
        link.format(there, here),
        device,
        mac="52:54:00:00:00:22",
        memory_mib=768,
        cpus=1,
    )


@dataclass(frozen=True)
class Lab:
    """What guests boot, and how long they may take.

    `root` stays as it is. A guest whose job has not started `boot_s` seconds after its start, or
    not ended `job_s` after that, has failed.
    """

    kernel: Kernel
    root: Root
    boot_s: float = 90
    job_s: float = 300


def run_guests(
    lab: Lab, guests: Sequence[Guest], results: Path, say: Callable[[str], None]
) -> dict[str, Result]:
    """Run all guests until each has ended its job; return their results by name.

    Args:
        lab: what they boot.
        guests: who.
        results: an existing folder for what the jobs leave, in a folder for each guest.
        say: is told of a panic that is tried again.

    Raises:
        GuestFailed: one did not boot, panicked twice, hung or returned no result.

    """
    try:
        return _run_once(lab, guests, results)
    except GuestPanicked as panic:
        say(f"a guest's kernel panicked, once more:\n{panic}")
        return _run_once(lab, guests, results)


def _run_once(lab: Lab, guests: Sequence[Guest], results: Path) -> dict[str, Result]:
    with ExitStack() as stack:
        # short: it holds sockets, whose paths have 107 bytes
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="awaitscope-vm-")))
        lab.root.build_agent(folder / "agent")
        running = []
        for guest in guests:
            one = _start(lab, guest, folder)
            stack.callback(_end, one.process)
            running.append(one)
        done = {}
        waiting = list(running)
        while waiting:
            for one in list(waiting):
                if _has_ended(lab, one):
                    waiting.remove(one)
                    done[one.guest.name] = _result(one, results / one.guest.name)
            time.sleep(0.1)
        return done


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


def _has_ended(lab: Lab, one: _Running) -> bool:
    """Say whether a guest is through; GuestFailed if it will never be."""
    ended = one.process.poll() is not None
    text = one.text()
    name, age = one.guest.name, time.monotonic() - one.started
    panic = next((line for line in text.splitlines() if "Kernel panic" in line), None)
    if panic and (ended or age > lab.boot_s):
        raise GuestPanicked(f"guest {name}: {panic}\n{one.tail()}")
    if ended:
        return True
    if "LAB job starts" not in text:
        if age > lab.boot_s:
            raise GuestFailed(f"guest {name} did not boot within {lab.boot_s:.0f} s:\n{one.tail()}")
    elif age > lab.boot_s + lab.job_s:
        raise GuestFailed(f"guest {name} hung: no end of its job:\n{one.tail()}")
    return False


def _start(lab: Lab, guest: Guest, folder: Path) -> _Running:
    kernel = lab.kernel
    place = folder / guest.name
    place.mkdir()
    job, out, console = place / "job.tar", place / "out.tar", place / "console"
    _pack_job(job, guest.job, folder / "agent")
    console.touch()
    with out.open("wb") as file:
        file.truncate(OUT_BYTES)
    append = (
        f"console=ttyS0 quiet loglevel=4 panic=-1 mitigations=off {_NO_CX16}"
        f" lab.name={guest.name} lab.address={guest.address}"
    )
    command = [
        *("setpriv", "--pdeathsig", "KILL"),  # it goes with us
        *("qemu-system-x86_64", "-machine", "q35", *_acceleration(kernel)),
        *("-smp", str(guest.cpus), "-m", str(guest.memory_mib), "-no-reboot", "-nodefaults"),
        *("-display", "none", "-monitor", "none", "-serial", f"file:{console}"),
        *("-kernel", str(kernel.image), "-initrd", str(kernel.initrd), "-append", append),
        *_disk("d0", lab.root.image, "snapshot=on"),
        *_disk("d1", job, "readonly=on"),
        *_disk("d2", out),
        *("-netdev", guest.netdev, "-device", f"{guest.device},netdev=n0,mac={guest.mac}"),
        *("-device", "virtio-rng-pci"),
    ]
    with (place / "qemu").open("wb") as talk:
        process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=talk, stderr=talk
        )
    return _Running(guest, process, console, out)


def _disk(name: str, path: Path, *options: str) -> tuple[str, ...]:
    drive = ",".join([f"id={name},if=none,format=raw,file={path}", *options])
    return ("-drive", drive, "-device", f"virtio-blk-pci,drive={name}")


def _pack_job(path: Path, job: str, agent: Path) -> None:
    with tarfile.open(path, "w") as tar:
        script = tarfile.TarInfo("run.sh")
        script.size = len(job.encode())
        tar.addfile(script, io.BytesIO(job.encode()))
        tar.add(agent, "agent")
        for name in SOURCES:
            tar.add(ROOT / name, f"src/{name}", filter=_without_caches)


def _without_caches(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    return None if member.name.endswith("__pycache__") else member


def _result(one: _Running, folder: Path) -> Result:
    """Unpack what the job left; GuestFailed if there is nothing."""
    folder.mkdir(exist_ok=True)
    try:
        run("tar", "-C", folder, "-xf", one.out)
        code = int((folder / "rc").read_text())
    except (OSError, BuildFailed, ValueError) as error:
        said = (one.console.parent / "qemu").read_text(errors="replace").strip()
        raise GuestFailed(
            f"guest {one.guest.name} left no result ({error}) {said}:\n{one.tail()}"
        ) from error
    return Result(
        code,
        (folder / "stdout").read_text(errors="replace"),
        (folder / "stderr").read_text(errors="replace"),
        folder,
        one.text(),
        time.monotonic() - one.started,
    )


@cache
def _acceleration(kernel: Kernel) -> tuple[str, ...]:
    """Return QEMU's options: KVM if a kernel boots with it within some seconds, else TCG."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return _TCG
    with tempfile.TemporaryDirectory(prefix="awaitscope-vm-") as folder:
        console = Path(folder, "console")
        console.touch()
        probe = subprocess.Popen(
            [
                *("qemu-system-x86_64", "-machine", "q35", *_KVM, "-m", "512", "-no-reboot"),
                *("-nodefaults", "-display", "none", "-serial", f"file:{console}"),
                *("-kernel", str(kernel.image), "-initrd", str(kernel.initrd)),
                *("-append", "console=ttyS0 quiet panic=-1"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            deadline = time.monotonic() + _PROBE_S
            while time.monotonic() < deadline and probe.poll() is None:
                if "LAB kernel runs" in console.read_text(errors="replace"):
                    return _KVM
                time.sleep(0.1)
        finally:
            _end(probe)
    return _TCG
