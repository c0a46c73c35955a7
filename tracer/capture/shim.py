"""Let bcc compile without kernel headers.

bcc changes into $BCC_KERNEL_SOURCE, force-includes include/linux/kconfig.h and then its own
bpf.h and helpers.h, which name a handful of kernel headers. One real file with the basic types
and empty stubs for the rest satisfy it; struct offsets come from BTF instead. Distribution
headers are never used: those of another kernel compile and read wrong values.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_STUBS = (
    "linux/types.h",
    "linux/bpf_common.h",
    "linux/version.h",
    "linux/log2.h",
    "linux/ptrace.h",
    "asm/page.h",
    "uapi/linux/bpf.h",
    "uapi/linux/if_packet.h",
    "uapi/linux/if_ether.h",
    "uapi/linux/ptrace.h",
)
_KCONFIG = """\
#pragma once
#define CONFIG_BPF_SYSCALL 1
#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + ((c) > 255 ? 255 : (c)))
#define LINUX_VERSION_CODE {version}
#define PAGE_SIZE {page_size}UL
#define NULL ((void *)0)
#define __user
#define __force
#define __always_inline inline __attribute__((always_inline))
typedef unsigned char u8, __u8, uint8_t;
typedef signed char s8, __s8, int8_t;
typedef unsigned short u16, __u16, __le16, __be16, __sum16, uint16_t;
typedef short s16, __s16, int16_t;
typedef unsigned int u32, __u32, __le32, __be32, __wsum, uint32_t;
typedef int s32, __s32, int32_t;
typedef unsigned long long u64, __u64, __le64, __be64, uint64_t;
typedef long long s64, __s64, int64_t, loff_t;
typedef u64 __aligned_u64 __attribute__((aligned(8)));
typedef unsigned long size_t, uintptr_t;
typedef long ssize_t, off_t;
typedef int pid_t;
typedef unsigned int uid_t, gid_t, dev_t, gfp_t, fmode_t;
typedef unsigned short umode_t, sa_family_t;
typedef _Bool bool;
struct pt_regs {{
    unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip, cs,
        flags, sp, ss;
}};
"""


def version_code(release: str) -> int:
    """Return LINUX_VERSION_CODE for a uname release such as `6.12.107+deb13-amd64`."""
    numbers = [
        int("".join(c for c in part if c.isdigit()) or 0)
        for part in release.split("-", maxsplit=1)[0].split("+", maxsplit=1)[0].split(".")[:3]
    ]
    major, minor, patch = [*numbers, 0, 0, 0][:3]
    return (major << 16) + (minor << 8) + min(patch, 255)


def write_shim(folder: Path) -> None:
    """Create the header tree in an existing, private folder."""
    include = folder / "include"
    for name in _STUBS:
        stub = include / name
        stub.parent.mkdir(parents=True, exist_ok=True)
        stub.touch()
    (include / "linux" / "kconfig.h").write_text(
        _KCONFIG.format(
            version=version_code(os.uname().release), page_size=os.sysconf("SC_PAGESIZE")
        )
    )
