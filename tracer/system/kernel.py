"""Facts about the running kernel and about what this process may do in it.

Everything is read below a `root` folder, so that the same code looks at another machine's
files (a container's root, a test's tree).
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import re
import struct
from dataclasses import dataclass
from pathlib import Path

# include/uapi/linux/capability.h
CAPABILITIES = {
    "NET_ADMIN": 12,
    "SYS_PTRACE": 19,
    "SYS_ADMIN": 21,
    "PERFMON": 38,
    "BPF": 39,
}
# include/linux/proc_ns.h, PROC_PID_INIT_INO: the pid namespace of the machine itself
INITIAL_PID_NAMESPACE = 0xEFFFFFFC

_BPF_NR = {"x86_64": 321, "aarch64": 280}
# include/uapi/linux/bpf.h, enum bpf_cmd
_PROG_LOAD, _RAW_TRACEPOINT_OPEN, _ENABLE_STATS = 5, 17, 32
_GET_NEXT_ID = {"prog": 11, "map": 12, "link": 31}
_STATS_RUN_TIME = 0
_PROG_TYPE_RAW_TRACEPOINT = 17
# the program "return 0": BPF_MOV64_IMM of 0 to R0, then BPF_EXIT_INSN
_RETURN_0 = struct.pack("<BBhi", 0xB7, 0, 0, 0) + struct.pack("<BBhi", 0x95, 0, 0, 0)


@dataclass(frozen=True)
class Kernel:
    """What the checks and a trace's manifest need to know of a kernel."""

    release: str
    arch: str
    version: tuple[int, int]
    btf: Path | None
    lockdown: str
    clocksource: str
    boot_id: str
    bpf_stats: bool


@dataclass(frozen=True)
class Rights:
    """What this process may do; `pid_namespace` is an inode number."""

    uid: int
    capabilities: frozenset[str]
    pid_namespace: int
    monotonic_offset: str

    @property
    def may_load(self) -> bool:
        """Say whether tracing programs may be loaded (kernel/bpf/syscall.c, bpf_prog_load)."""
        return "SYS_ADMIN" in self.capabilities or {"BPF", "PERFMON"} <= self.capabilities


def read_text(path: Path) -> str:
    """Return a small file's text without outer space, "" if it cannot be read."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def parse_version(release: str) -> tuple[int, int]:
    """Return (6, 12) of `6.12.107+deb13-amd64`; (0, 0) if it starts otherwise."""
    match = re.match(r"(\d+)\.(\d+)", release)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def read_kernel(root: Path = Path("/")) -> Kernel:
    """Read the facts about the kernel."""
    release = read_text(root / "proc/sys/kernel/osrelease")
    btf = root / "sys/kernel/btf/vmlinux"
    lockdown = re.search(r"\[(\w+)\]", read_text(root / "sys/kernel/security/lockdown"))
    return Kernel(
        release=release,
        arch=platform.machine(),
        version=parse_version(release),
        btf=btf if btf.is_file() else None,
        lockdown=lockdown[1] if lockdown else "none",
        clocksource=read_text(
            root / "sys/devices/system/clocksource/clocksource0/current_clocksource"
        ),
        boot_id=read_text(root / "proc/sys/kernel/random/boot_id"),
        bpf_stats=read_text(root / "proc/sys/kernel/bpf_stats_enabled") == "1",
    )


def status_fields(text: str) -> dict[str, str]:
    """Return the fields of a /proc/PID/status text."""
    pairs = (line.partition(":") for line in text.splitlines())
    return {name: value.strip() for name, _colon, value in pairs}


def read_rights(root: Path = Path("/")) -> Rights:
    """Read the effective capabilities and namespaces of this process."""
    fields = status_fields(read_text(root / "proc/self/status"))
    effective = int(fields.get("CapEff", "0"), 16)
    try:
        namespace = (root / "proc/self/ns/pid").stat().st_ino
    except OSError:
        namespace = 0
    offsets = dict(
        line.split(None, 1)
        for line in read_text(root / "proc/self/timens_offsets").splitlines()
        if len(line.split()) > 1
    )
    return Rights(
        uid=int(fields.get("Uid", "-1 -1").split()[1]),
        capabilities=frozenset(n for n, bit in CAPABILITIES.items() if effective >> bit & 1),
        pid_namespace=namespace,
        monotonic_offset=" ".join(offsets.get("monotonic", "0 0").split()),
    )


def _bpf(command: int, attr: ctypes.Array[ctypes.c_char]) -> int:
    number = _BPF_NR.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, f"bpf() has no known number on {platform.machine()}")
    libc = ctypes.CDLL(None, use_errno=True)
    result = int(libc.syscall(number, command, attr, len(attr)))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _ids(command: int) -> list[int]:
    found: list[int] = []
    attr = ctypes.create_string_buffer(12)
    while True:
        struct.pack_into("<I", attr, 0, found[-1] if found else 0)
        try:
            _bpf(command, attr)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return found
            raise
        found.append(struct.unpack_from("<I", attr, 4)[0])


def bpf_object_ids() -> set[tuple[str, int]]:
    """Return (`prog`, `map` or `link`, id) of all that is loaded; OSError without CAP_SYS_ADMIN."""
    return {(kind, n) for kind, command in _GET_NEXT_ID.items() for n in _ids(command)}


def enable_bpf_stats() -> int:
    """Let the kernel time all BPF programs until the returned descriptor is closed.

    Raises:
        OSError: not without CAP_SYS_ADMIN (kernel/bpf/syscall.c, bpf_enable_stats).

    """
    attr = ctypes.create_string_buffer(4)
    struct.pack_into("<I", attr, 0, _STATS_RUN_TIME)
    return _bpf(_ENABLE_STATS, attr)


def try_raw_tracepoint(name: str = "sched_process_exit") -> None:
    """Load a program of two instructions, attach it to a raw tracepoint and take it off again.

    Raises:
        OSError: the kernel refused (capabilities, lockdown, seccomp, no such tracepoint).

    """
    code = ctypes.create_string_buffer(_RETURN_0, len(_RETURN_0))
    licence = ctypes.create_string_buffer(b"GPL")
    attr = ctypes.create_string_buffer(48)
    head = (_PROG_TYPE_RAW_TRACEPOINT, 2, ctypes.addressof(code), ctypes.addressof(licence))
    struct.pack_into("<IIQQ", attr, 0, *head)
    program = _bpf(_PROG_LOAD, attr)
    try:
        target = ctypes.create_string_buffer(name.encode())
        attr = ctypes.create_string_buffer(16)
        struct.pack_into("<QI", attr, 0, ctypes.addressof(target), program)
        os.close(_bpf(_RAW_TRACEPOINT_OPEN, attr))
    finally:
        os.close(program)
