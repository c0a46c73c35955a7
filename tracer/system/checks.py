"""The doctor's list: what tracing needs, what was seen, why it matters and the exact fix.

The same functions decide in the tests what can run here. They only read; the one exception
loads two BPF instructions and takes them out again.
"""

from __future__ import annotations

import shutil
import sysconfig
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tracer.errors import Prerequisite
from tracer.system.bcc_module import DIST_PACKAGES, find_bcc
from tracer.system.btf import Btf
from tracer.system.interrupts import NetDevice, net_devices
from tracer.system.invocation import sudo_line
from tracer.system.kernel import (
    CAPABILITIES,
    INITIAL_PID_NAMESPACE,
    Kernel,
    Rights,
    read_kernel,
    read_rights,
    read_text,
    try_raw_tracepoint,
)
from tracer.system.stolen import stolen_ticks, untold

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Status = Literal["ok", "warn", "fail"]
OLDEST_KERNEL = (5, 8)
LITTLE_DISK_BYTES = 1 << 30
# a container's engine and systemd take capabilities from root
HOW_TO_GIVE = "--cap-add BPF --cap-add PERFMON of a container, CapabilityBoundingSet=~ of a service"
COMPILERS = ("cc", "gcc", "clang")


@dataclass(frozen=True)
class Check:
    """One line of the doctor; `fix` is a command or an instruction, None if nothing is wrong."""

    name: str
    status: Status
    required: bool
    seen: str
    why: str
    fix: str | None = None


@dataclass(frozen=True)
class Tracepoint:
    """A raw tracepoint that a probe sits on and how many of its arguments it reads.

    Where it is missing, a probe on the function (if there is one) stands in for it.
    """

    name: str
    args: int
    required: bool
    function: str = ""


@dataclass(frozen=True)
class Machine:
    """Where the checks look: a root folder and four ways to ask the running system."""

    root: Path = Path("/")
    which: Callable[[str], str | None] = shutil.which
    try_load: Callable[[], None] = try_raw_tracepoint
    devices: Callable[[], list[NetDevice]] = net_devices
    free_bytes: Callable[[], int] = field(default=lambda: shutil.disk_usage(Path.cwd()).free)

    def at(self, path: str | Path) -> Path:
        """Return an absolute path below this machine's root."""
        return self.root / str(path).lstrip("/")

    @cached_property
    def types(self) -> Btf | None:
        """Return the kernel's types, read once; None without BTF."""
        return Btf.load(self.kernel.btf) if self.kernel.btf else None

    @cached_property
    def kernel(self) -> Kernel:
        """Return the kernel's facts, read once."""
        return read_kernel(self.root)

    @cached_property
    def rights(self) -> Rights:
        """Return what this process may do, read once."""
        return read_rights(self.root)


def rights(machine: Machine) -> Check:
    """Check the capabilities that loading needs (kernel/bpf/syscall.c)."""
    why = "the kernel lets only root load tracing programs; reading a finished trace needs none"
    mine = machine.rights
    names = ", ".join(sorted(mine.capabilities)) or "none of " + ", ".join(CAPABILITIES)
    seen = f"uid {mine.uid}, capabilities {names}"
    if mine.may_load:
        return Check("root", "ok", required=True, seen=seen, why=why)
    fix = sudo_line() if mine.uid else f"give it CAP_BPF and CAP_PERFMON: {HOW_TO_GIVE}"
    return Check("root", "fail", required=True, seen=seen, why=why, fix=fix)


def kernel_version(machine: Machine) -> Check:
    """Check the release and the architecture."""
    why = "the BPF ring buffer came with Linux 5.8; system call numbers are those of x86-64"
    seen = f"Linux {machine.kernel.release} on {machine.kernel.arch}"
    fix = None
    if machine.kernel.version < OLDEST_KERNEL:
        fix = "boot Linux 5.8 or newer (Debian 12 has 6.1)"
    elif machine.kernel.arch != "x86_64":
        fix = "use an x86-64 machine"
    return Check("kernel", "fail" if fix else "ok", required=True, seen=seen, why=why, fix=fix)


def btf(machine: Machine) -> Check:
    """Check that the kernel describes its own types."""
    why = "struct offsets and tracepoint arguments of this very kernel are read from it"
    if machine.kernel.btf:
        seen = "/sys/kernel/btf/vmlinux"
        return Check("BTF", "ok", required=True, seen=seen, why=why)
    seen = "/sys/kernel/btf/vmlinux does not exist"
    fix = "boot a kernel with CONFIG_DEBUG_INFO_BTF=y (Debian's own kernels have it)"
    return Check("BTF", "fail", required=True, seen=seen, why=why, fix=fix)


def bcc(machine: Machine) -> Check:
    """Check which copy of the BPF Compiler Collection is found."""
    why = "it compiles and loads the probes"
    try:
        _module, version, folder = find_bcc(machine.at(DIST_PACKAGES))
    except Prerequisite as error:
        return Check("bcc", "fail", required=True, seen=error.message, why=why, fix=error.fix)
    return Check("bcc", "ok", required=True, seen=f"{version} in {folder}", why=why)


def lockdown(machine: Machine) -> Check:
    """Check the kernel's lockdown mode (security/lockdown)."""
    why = "mode `confidentiality` forbids BPF programs to read kernel memory"
    mode = machine.kernel.lockdown
    if mode != "confidentiality":
        return Check("lockdown", "ok", required=True, seen=mode, why=why)
    fix = "boot with lockdown=integrity or without lockdown= on the kernel's command line"
    return Check("lockdown", "fail", required=True, seen=mode, why=why, fix=fix)


def load(machine: Machine) -> Check:
    """Load and attach a program of two instructions; only asked with the rights for it."""
    why = "capabilities alone do not tell: seccomp or a security module may refuse"
    if not machine.rights.may_load:
        return Check("load", "warn", required=False, seen="not tried", why=why, fix=sudo_line())
    try:
        machine.try_load()
    except OSError as error:
        return Check(
            "load",
            "fail",
            required=True,
            seen=f"the kernel refused a raw tracepoint program: {error.strerror}",
            why=why,
            fix="in a container add --privileged, or --cap-add BPF --cap-add PERFMON "
            "--security-opt seccomp=unconfined",
        )
    return Check("load", "ok", required=True, seen="a raw tracepoint program attached", why=why)


def tracepoints(machine: Machine, wanted: Sequence[Tracepoint]) -> Check:
    """Compare the tracepoints that the probes use with the kernel's own prototypes."""
    why = "each probe sits on one; where one is missing its events are absent, with the reason"
    types = machine.types
    if not types:
        return Check("tracepoints", "warn", required=False, seen="unknown without BTF", why=why)
    missing, required, by_function = [], False, []
    for point in wanted:
        count = types.raw_tracepoint_args(point.name)
        if count is not None and count >= point.args:
            continue
        if point.function and types.has_func(point.function):
            by_function.append(point.name)
            continue
        missing.append(point.name)
        required = required or point.required
    if not missing:
        seen = f"all {len(wanted)} with the expected arguments"
        if by_function:
            seen = f"{len(wanted) - len(by_function)} with the expected arguments, "
            seen += f"{', '.join(by_function)} as a function (fentry or kprobe)"
        return Check("tracepoints", "ok", required=True, seen=seen, why=why)
    return Check(
        "tracepoints",
        "fail" if required else "warn",
        required=required,
        seen=f"missing: {', '.join(missing)}",
        why=why,
        fix="boot a newer kernel (6.12 and newer have more of them)",
    )


def tracefs(machine: Machine) -> Check:
    """Say that tracefs is not needed, mounted or not."""
    mounts = read_text(machine.at("/proc/mounts")).splitlines()
    mounted = any(line.split()[2:3] == ["tracefs"] for line in mounts)
    seen = f"{'mounted' if mounted else 'not mounted'}; not needed"
    why = "raw tracepoints are attached by the bpf system call alone"
    return Check("tracefs", "ok", required=False, seen=seen, why=why)


def clock(machine: Machine) -> Check:
    """Check that Python's CLOCK_MONOTONIC is the kernel's bpf_ktime_get_ns."""
    why = "events of the kernel and of the interpreter are ordered on one clock"
    offset = machine.rights.monotonic_offset
    source = machine.kernel.clocksource or "unknown"
    if offset != "0 0":
        return Check(
            "clock",
            "fail",
            required=True,
            seen=f"a time namespace shifts CLOCK_MONOTONIC by {offset.split()[0]} s",
            why=why,
            fix="run awaitscope outside that time namespace",
        )
    if source in ("hpet", "acpi_pm"):
        seen = f"CLOCK_MONOTONIC from {source}: reading it costs over 1 µs"
        fix = "boot without clocksource= or with tsc=reliable, if the machine's TSC is good"
        return Check("clock", "warn", required=False, seen=seen, why=why, fix=fix)
    return Check("clock", "ok", required=True, seen=f"CLOCK_MONOTONIC from {source}", why=why)


def stolen_time(machine: Machine) -> Check:
    """Check that CPU time which a hypervisor takes from this machine is told."""
    why = "a loop whose CPU was taken away did not hold itself"
    reason = untold(machine.types, machine.root)
    if reason is None:
        seen = f"{stolen_ticks(machine.root)} ticks since boot"
        return Check("stolen time", "ok", required=False, seen=seen, why=why)
    fix = "none needed: CPU time that a hypervisor takes counts as the thread's"
    return Check("stolen time", "warn", required=False, seen=reason, why=why, fix=fix)


def compiler(machine: Machine) -> Check:
    """Check for a C compiler."""
    why = "the agent inside the traced program is built for its interpreter on first use"
    found = next(filter(None, map(machine.which, COMPILERS)), None)
    if found:
        return Check("compiler", "ok", required=False, seen=found, why=why)
    seen = f"none of {', '.join(COMPILERS)} is in PATH: tasks are recorded in light mode"
    fix = "sudo apt-get install gcc libc6-dev"
    return Check("compiler", "warn", required=False, seen=seen, why=why, fix=fix)


def python_headers(machine: Machine, include: str | None = None) -> Check:
    """Check for Python.h, by default that of the interpreter that runs awaitscope."""
    why = "the agent is compiled against the headers of the traced interpreter"
    header = machine.at(Path(include or sysconfig.get_path("include"), "Python.h"))
    if header.is_file():
        return Check("Python.h", "ok", required=False, seen=str(header), why=why)
    seen = f"{header} does not exist: tasks are recorded in light mode"
    fix = "sudo apt-get install python3-dev (another Python: its own development files)"
    return Check("Python.h", "warn", required=False, seen=seen, why=why, fix=fix)


def pid_namespace(machine: Machine) -> Check:
    """Say whether this is a container's pid namespace."""
    why = "from inside a container only its own processes can be named"
    inode = machine.rights.pid_namespace
    if inode == INITIAL_PID_NAMESPACE:
        return Check("pid namespace", "ok", required=False, seen="the machine's own", why=why)
    seen = f"a container's (inode {inode})"
    fix = "only to name processes outside it: start the container with --pid=host"
    return Check("pid namespace", "warn", required=False, seen=seen, why=why, fix=fix)


def interrupts(machine: Machine) -> Check:
    """Check for a network device that raises interrupts."""
    why = "steps 7 and 8 show the interrupt that announced a packet; loopback and veth raise none"
    try:
        real = [device for device in machine.devices() if device.has_interrupt and device.up]
    except OSError as error:
        return Check("interrupts", "warn", required=False, seen=str(error), why=why)
    if real:
        seen = ", ".join(f"{d.name} ({d.driver}, {len(d.interrupts)} interrupts)" for d in real)
        return Check("interrupts", "ok", required=False, seen=seen, why=why)
    seen = "no device here has one: these rows say `no_irq_device`"
    fix = "none needed; to see interrupts, talk to another machine through a real network card"
    return Check("interrupts", "warn", required=False, seen=seen, why=why, fix=fix)


def network_namespaces(machine: Machine) -> Check:
    """Check the rights to make a network namespace."""
    why = "the demo puts its PostgreSQL behind a veth pair"
    if {"NET_ADMIN", "SYS_ADMIN"} <= machine.rights.capabilities:
        return Check("netns", "ok", required=False, seen="may be made", why=why)
    seen = "needs CAP_NET_ADMIN and CAP_SYS_ADMIN"
    fix = "run the demo with sudo, or with --link lo"
    return Check("netns", "warn", required=False, seen=seen, why=why, fix=fix)


def postgres(machine: Machine) -> Check:
    """Check for PostgreSQL's server programs (Debian's folder)."""
    why = "only the demo needs it, which starts a private server"
    servers = sorted(
        machine.at("/usr/lib/postgresql").glob("*/bin/postgres"),
        key=lambda path: float(path.parent.parent.name),
    )
    if servers:
        return Check("PostgreSQL", "ok", required=False, seen=str(servers[-1]), why=why)
    seen = "no server below /usr/lib/postgresql"
    fix = "sudo make setup, or give the demo --dsn of another server"
    return Check("PostgreSQL", "warn", required=False, seen=seen, why=why, fix=fix)


def disk(machine: Machine) -> Check:
    """Check the room for a trace in the current folder."""
    why = "a busy program fills about 10 MB/s while it is recorded"
    free = machine.free_bytes()
    seen = f"{free / (1 << 30):.1f} GiB free in the current folder"
    if free >= LITTLE_DISK_BYTES:
        return Check("disk", "ok", required=False, seen=seen, why=why)
    fix = "write the trace elsewhere: run -o DIR"
    return Check("disk", "warn", required=False, seen=seen, why=why, fix=fix)


def run_checks(machine: Machine | None = None, wanted: Sequence[Tracepoint] = ()) -> list[Check]:
    """Return the whole list for a machine (default: this one).

    Args:
        machine: where to look.
        wanted: the tracepoints that the probes use; this module does not know them.

    """
    here = machine or Machine()
    return [
        rights(here),
        kernel_version(here),
        btf(here),
        bcc(here),
        lockdown(here),
        load(here),
        tracepoints(here, wanted),
        clock(here),
        stolen_time(here),
        tracefs(here),
        compiler(here),
        python_headers(here),
        pid_namespace(here),
        interrupts(here),
        network_namespaces(here),
        postgres(here),
        disk(here),
    ]


def first_failure(checks: Sequence[Check]) -> Check | None:
    """Return the first required check that failed."""
    return next((c for c in checks if c.status == "fail" and c.required), None)
