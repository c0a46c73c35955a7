"""The struct offsets that the probes read, as defines, from the running kernel's BTF."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracer.errors import Prerequisite
from tracer.system.stolen import STEAL_COUNTERS

if TYPE_CHECKING:
    from tracer.system.btf import Btf

_OFFSETS = {
    "O_TASK_PID": ("task_struct", "pid"),
    "O_TASK_TGID": ("task_struct", "tgid"),
    "O_TASK_COMM": ("task_struct", "comm"),
    "O_TASK_FILES": ("task_struct", "files"),
    "O_TASK_EXIT_CODE": ("task_struct", "exit_code"),
    "O_TASK_THREAD_PID": ("task_struct", "thread_pid"),
    "O_PID_LEVEL": ("pid", "level"),
    "O_PID_NUMBERS": ("pid", "numbers"),
    "O_UPID_NR": ("upid", "nr"),
    "O_UPID_NS": ("upid", "ns"),
    "O_PIDNS_INUM": ("pid_namespace", "ns.inum"),
    "O_FILES_FDT": ("files_struct", "fdt"),
    "O_FDT_FD": ("fdtable", "fd"),
    "O_FDT_MAX_FDS": ("fdtable", "max_fds"),
    "O_FILE_INODE": ("file", "f_inode"),
    "O_FILE_PRIVATE": ("file", "private_data"),
    "O_INODE_MODE": ("inode", "i_mode"),
    "O_INODE_INO": ("inode", "i_ino"),
    "O_SOCKET_SK": ("socket", "sk"),
    "O_SOCKET_INODE": ("socket_alloc", "vfs_inode"),  # beside its socket, which comes first
    "O_SK_SOCKET": ("sock", "sk_socket"),
    "O_SK_FAMILY": ("sock", "__sk_common.skc_family"),
    "O_SK_STATE": ("sock", "__sk_common.skc_state"),
    "O_SK_PROTOCOL": ("sock", "sk_protocol"),
    "O_SK_NET": ("sock", "__sk_common.skc_net"),
    "O_SK_COOKIE": ("sock", "__sk_common.skc_cookie"),
    "O_SK_NUM": ("sock", "__sk_common.skc_num"),
    "O_SK_DPORT": ("sock", "__sk_common.skc_dport"),
    "O_SK_RCV_SADDR": ("sock", "__sk_common.skc_rcv_saddr"),
    "O_SK_DADDR": ("sock", "__sk_common.skc_daddr"),
    "O_SK_V6_RCV_SADDR": ("sock", "__sk_common.skc_v6_rcv_saddr"),
    "O_SK_V6_DADDR": ("sock", "__sk_common.skc_v6_daddr"),
    "O_NET_INUM": ("net", "ns.inum"),
    "O_TCP_WRITE_SEQ": ("tcp_sock", "write_seq"),
    "O_TCP_COPIED_SEQ": ("tcp_sock", "copied_seq"),
    "O_TCP_SRTT": ("tcp_sock", "srtt_us"),
    "O_SKB_SK": ("sk_buff", "sk"),
    "O_SKB_LEN": ("sk_buff", "len"),
    "O_SKB_DATA": ("sk_buff", "data"),
    "O_SKB_HEAD": ("sk_buff", "head"),
    "O_SKB_CB": ("sk_buff", "cb"),
    "O_CB_FLAGS": ("tcp_skb_cb", "tcp_flags"),
    "O_SKB_IIF": ("sk_buff", "skb_iif"),
    "O_SKB_TRANSPORT": ("sk_buff", "transport_header"),
    "O_DEV_IFINDEX": ("net_device", "ifindex"),
    "O_DEV_NET": ("net_device", "nd_net"),
    "O_NAPI_DEV": ("napi_struct", "dev"),
    "O_NAPI_ID": ("napi_struct", "napi_id"),
    "O_REGS_DX": ("pt_regs", "dx"),
    "O_REGS_DI": ("pt_regs", "di"),
    "O_REGS_R10": ("pt_regs", "r10"),
    "O_REGS_R8": ("pt_regs", "r8"),
}
# how it is known that a cgroup's CPU quota ran out: the first that the kernel has
_THROTTLED = (
    {"O_TASK_THROTTLED": ("task_struct", "throttled")},  # 6.18
    {
        "O_TASK_CFS_RQ": ("task_struct", "se.cfs_rq"),
        "O_CFS_RQ_THROTTLE_COUNT": ("cfs_rq", "throttle_count"),
    },
)

# what the hypervisor took from a CPU: the first that the kernel has
_OF_RQ = {"O_TASK_CFS_RQ": ("task_struct", "se.cfs_rq"), "O_CFS_RQ_RQ": ("cfs_rq", "rq")}
_STOLEN = tuple({**_OF_RQ, "O_RQ_STEAL": counter} for counter in STEAL_COUNTERS)

# what one hook reads that can be absent: without these its programs are not compiled
_OPTIONAL = {
    "O_EPPOLL_BASE": ("eppoll_entry", "base"),
    "O_EPPOLL_WAIT": ("eppoll_entry", "wait"),
    "O_EPITEM_FILE": ("epitem", "ffd.file"),
    "O_EPITEM_FD": ("epitem", "ffd.fd"),
    "O_KIOCB_OPCODE": ("io_kiocb", "opcode"),
    "O_KIOCB_RES": ("io_kiocb", "cqe.res"),
    "O_IO_EPOLL_EPFD": ("io_epoll", "epfd"),
    "O_IO_EPOLL_OP": ("io_epoll", "op"),
    "O_IO_EPOLL_FD": ("io_epoll", "fd"),
    "O_IO_EPOLL_EVENTS": ("io_epoll", "event.events"),
}


def offset_defines(btf: Btf) -> list[str]:
    """Return `-DO_NAME=bytes` for every offset that this kernel has.

    Raises:
        Prerequisite: this kernel's BTF lacks one; the message names it.

    """
    flags = []
    for name, (struct, member) in _OFFSETS.items():
        try:
            flags.append(f"-D{name}={btf.offset(struct, member)}")
        except KeyError as error:
            raise Prerequisite(
                f"this kernel's BTF has no {struct}.{member}, which the probes read",
                "please report the kernel version: it is not supported yet",
            ) from error
    for name, (struct, member) in _OPTIONAL.items():
        if btf.has_member(struct, member):
            flags.append(f"-D{name}={btf.offset(struct, member)}")
    flags.append(f"-DO_UPID_SIZE={btf.sizeof('upid')}")
    both = [*_first_of(btf, _THROTTLED), *_first_of(btf, _STOLEN)]
    return [*flags, *dict.fromkeys(both)]  # both may need a task's run queue


def tells_throttled(btf: Btf) -> bool:
    """Say whether this kernel can tell a throttled task."""
    return bool(_first_of(btf, _THROTTLED))


def _first_of(btf: Btf, ways: tuple[dict[str, tuple[str, str]], ...]) -> list[str]:
    """Return the offsets of the first way that this kernel has whole; none if it has none."""
    for way in ways:
        if all(btf.has_member(struct, member) for struct, member in way.values()):
            return [f"-D{name}={btf.offset(*place)}" for name, place in way.items()]
    return []
