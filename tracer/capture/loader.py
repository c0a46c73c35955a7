"""Compile, load and attach the probes with bcc: the only place that uses it.

All sources are one object (one compilation is 1 s, six would be six). A hook's arguments are
checked against the kernel's own prototype before it is used; what could not be attached is
kept as rung `absent` with the reason (rungs.py).
"""

from __future__ import annotations

import ctypes
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracer.capture.hooks import HOOKS, INCLUDES, SOURCES
from tracer.capture.offsets import offset_defines, tells_throttled
from tracer.capture.quiet import captured_stderr
from tracer.capture.ring import default_ring_bytes
from tracer.capture.rungs import Probe, Rungs
from tracer.capture.shim import write_shim
from tracer.errors import Prerequisite
from tracer.paths import probes_dir
from tracer.system import syscalls
from tracer.system.bcc_module import find_bcc
from tracer.system.btf import Btf
from tracer.system.stolen import untold

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tracer.system.interrupts import NetDevice

_BRINGS, _SENT = 1, 2  # IRQ_* in filter.h
_RINGBUF = 27  # BPF_MAP_TYPE_RINGBUF, include/uapi/linux/bpf.h


def _online_cpus() -> list[int]:
    """Return the numbers of the CPUs that run (/sys/devices/system/cpu/online, `0-3,8`)."""
    cpus: list[int] = []
    for part in Path("/sys/devices/system/cpu/online").read_text().strip().split(","):
        first, _, last = part.partition("-")
        cpus += range(int(first), int(last or first) + 1)
    return cpus


def source_text() -> str:
    """Return all probe sources as one C text; bcc rewrites only the main file."""
    folder = probes_dir()
    parts = [(folder / "include" / name).read_text() for name in INCLUDES]
    parts += [(folder / name).read_text() for name in SOURCES]
    return "\n".join(parts)


class Loader:
    """The loaded probes of one session; close() takes every program and map out of the kernel."""

    def __init__(self, level: int, ring_bytes: int | None, btf: Btf | None = None) -> None:
        """Compile and load; nothing is attached yet.

        Args:
            level: 1..3, see hooks.py.
            ring_bytes: size of each CPU's BPF ring, a power of two, at least one page; None
                chooses it by the number of CPUs.
            btf: the kernel's BTF if the caller has read it already.

        Raises:
            Prerequisite: no bcc, no BTF, no permission, or the verifier refused.

        """
        bcc, self.bcc_version, _path = find_bcc()
        try:
            self._btf = btf or Btf.load()
        except OSError as error:
            raise Prerequisite(
                "the kernel has no BTF (/sys/kernel/btf/vmlinux)",
                "boot a kernel with CONFIG_DEBUG_INFO_BTF=y (Debian's own kernels have it)",
            ) from error
        self.level = level
        self._cpus = _online_cpus()
        self.ring_bytes = ring_bytes or default_ring_bytes(len(self._cpus))
        self.probes: list[Probe] = []
        self._bcc = bcc
        self.tells_throttled = tells_throttled(self._btf)
        self.stolen_untold = untold(self._btf)
        here = Path.cwd()
        with tempfile.TemporaryDirectory(prefix="awaitscope-shim-") as shim:
            write_shim(Path(shim))
            before = os.environ.get("BCC_KERNEL_SOURCE")
            os.environ["BCC_KERNEL_SOURCE"] = shim
            try:
                with captured_stderr() as said:
                    self._bpf = self._compile(said)
            finally:
                os.chdir(here)  # bcc changes into the header tree while it compiles
                if before is None:
                    del os.environ["BCC_KERNEL_SOURCE"]
                else:
                    os.environ["BCC_KERNEL_SOURCE"] = before
        self._rungs = Rungs(self._bcc.lib, self._bpf, self._btf)
        self._fill_syscall_classes()
        self.ring_fds = self._make_rings()

    def _compile(self, said: list[str]) -> Any:  # noqa: ANN401 (bcc is untyped)
        flags = [
            "-Wno-everything",
            f"-DMAX_CPUS={max(self._cpus) + 1}",
            *syscalls.defines(),
            "-DEPOLL_STRIDE=12",
            "-DEPOLL_DATA=4",
            *offset_defines(self._btf),
        ]
        try:
            # bcc would attach every program named kfunc__… at once, and fail where one is refused
            bpf = type("Bpf", (self._bcc.BPF,), {"_trace_autoload": lambda _self: None})
            return bpf(text=source_text().encode(), cflags=flags)
        except Exception as error:
            raise Prerequisite(
                f"the probes do not compile: {error} {' / '.join(said[-3:])}",
                "run `awaitscope doctor`",
            ) from error

    def _fill_syscall_classes(self) -> None:
        table = self._bpf[b"syscall_class"]
        for nr, cls in syscalls.CLASS_OF.items():
            table[ctypes.c_uint(nr)] = ctypes.c_uint(cls)

    def attach(self) -> None:
        """Attach every hook of the level; from here on the kernel runs our programs."""
        for hook in HOOKS:
            if hook.level > self.level:
                continue
            probe = self._rungs.attach(hook)
            if probe.reason and hook.required:
                raise Prerequisite(
                    f"the required hook {hook.name} cannot be used: {probe.reason}",
                    "run `sudo awaitscope doctor`",
                )
            self.probes.append(probe)

    def programs(self) -> dict[str, int]:
        """Return the descriptors of the attached programs by the names of their hooks."""
        return dict(self._rungs.programs)

    def _make_rings(self) -> list[int]:
        """Give each CPU its ring; return the maps' descriptors."""
        create = self._bcc.lib.bcc_create_map
        create.argtypes = [ctypes.c_int, ctypes.c_char_p] + [ctypes.c_int] * 4
        table, fds = self._bpf[b"rings"], []
        for cpu in self._cpus:
            fd = create(_RINGBUF, b"ring", 0, 0, self.ring_bytes, 0)
            if fd < 0:
                raise Prerequisite(
                    f"the kernel gives no ring of {self.ring_bytes >> 10} KiB for CPU {cpu}",
                    "choose a smaller --ring",
                )
            fds.append(fd)
            table[ctypes.c_int(cpu)] = ctypes.c_int(fd)
        return fds

    def configure(self, *, seed_tid: int, seed_pidns: int) -> None:
        """Name the held target by its tid in our pid namespace and that namespace's inode."""
        table = self._bpf[b"config"]
        table[ctypes.c_int(0)] = table.Leaf(seed_tid, seed_pidns, 1, 0)

    def name_cards(self, devices: Iterable[NetDevice], netns: int) -> None:
        """Tell the programs which interrupts are network cards', in the namespace of that inode."""
        irqs, cards = self._bpf[b"nic_irqs"], self._bpf[b"nics"]
        for device in devices:
            for irq in device.interrupts:
                tells = irq.brings * _BRINGS + irq.sent * _SENT
                if tells:
                    irqs[ctypes.c_uint(irq.number)] = irqs.Leaf(tells, device.ifindex)
            if device.has_interrupt:
                cards[ctypes.c_ulonglong(netns << 32 | device.ifindex)] = cards.Leaf(0, 0)

    def seed_thread(self, tid: int, tgid: int) -> None:
        """Trace a thread that exists already (root pid namespace)."""
        table = self._bpf[b"threads"]
        leaf = table.Leaf()
        leaf.tgid = tgid
        leaf.nr = 65535
        table[ctypes.c_uint(tid)] = leaf

    def _emits(self) -> list[Any]:
        """Return `struct emit_state` of each CPU."""
        return list(self._bpf[b"emits"][ctypes.c_int(0)])

    def counters(self) -> dict[str, list[list[int]]]:
        """Return what was `seen` and `lost` so far, each as [kind][cpu]."""
        states = self._emits()
        return {
            name: [list(cpus) for cpus in zip(*(getattr(s, name) for s in states), strict=True)]
            for name in ("seen", "lost")
        }

    def untold_gaps(self) -> list[dict[str, int]]:
        """Return the losses that no GAP record told yet: cpu, first_ns, last_ns, count, kinds."""
        names = ("first_ns", "last_ns", "count", "kinds")
        return [
            {"cpu": cpu, **{name: int(getattr(state, name)) for name in names}}
            for cpu, state in enumerate(self._emits())
            if state.count
        ]

    def open_threads(self) -> dict[int, Any]:
        """Return the state of all traced threads by tid: what is still running at the end."""
        return {int(key.value): leaf for key, leaf in self._bpf[b"threads"].items()}

    def polled_ns(self, tid: int, tgid: int) -> int:
        """Return when the last epoll_wait of a thread returned; 0 if it is in one or had none.

        Args:
            tid: thread id, root pid namespace.
            tgid: its process.

        """
        table = self._bpf[b"threads"]
        leaf = table.get(ctypes.c_uint(tid))
        return int(leaf.polled_ns) if leaf and leaf.tgid == tgid else 0

    def detach(self) -> None:
        """Take the programs off their hooks; maps stay readable."""
        self._rungs.detach()

    def close(self) -> None:
        """Detach and free everything."""
        self.detach()
        while self.ring_fds:
            os.close(self.ring_fds.pop())
        self._bpf.cleanup()
