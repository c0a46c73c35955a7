"""Which program sits on which hook, from which level on: the table that `info` shows.

Levels: 1 system calls, scheduler and tasks; 2 adds sockets; 3 adds packets and interrupts.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Hook:
    """A place in the kernel: a raw tracepoint and, where a kernel lacks it, a function.

    `program` sits on the tracepoint (`""`: no kernel has one) and reads `args` leading arguments.
    The function's programs are named `FENTRY(FUNCTION)` and `kprobe_FUNCTION`. A required hook that
    is missing stops the session, another one becomes rung `absent`.
    """

    name: str
    program: str
    args: int
    level: int
    required: bool = False
    function: str = ""


HOOKS = (
    Hook("sched_process_fork", "on_fork", 2, 1, required=True),
    Hook("sched_process_exec", "on_exec", 2, 1, required=True),
    Hook("sched_process_exit", "on_exit", 1, 1, required=True),
    Hook("sched_switch", "on_sched_switch", 4, 1, required=True),
    Hook("sched_waking", "on_sched_waking", 1, 1, required=True),
    Hook("hrtimer_expire_exit", "on_hrtimer_expire_exit", 0, 1),
    Hook("io_uring_complete", "on_io_uring_complete", 2, 1),
    Hook("tcp_probe", "on_tcp_probe", 2, 2),
    Hook("sk_data_ready", "on_sk_data_ready", 1, 2, function="sock_def_readable"),
    Hook("ep_poll_callback", "", 4, 2, function="ep_poll_callback"),
    Hook("inet_sock_set_state", "on_inet_sock_set_state", 3, 2),
    Hook("tcp_retransmit_skb", "on_tcp_retransmit_skb", 2, 2),
    Hook("tcp_destroy_sock", "on_tcp_destroy_sock", 1, 1),
    Hook("tcp_sendmsg_locked", "on_tcp_sendmsg_locked", 1, 3, function="tcp_sendmsg_locked"),
    Hook("net_dev_start_xmit", "on_net_dev_start_xmit", 2, 3),
    Hook("netif_receive_skb", "on_netif_receive_skb", 1, 3),
    Hook("softirq_raise", "on_softirq_raise", 1, 3),
    Hook("softirq_entry", "on_softirq_entry", 1, 3),
    Hook("softirq_exit", "on_softirq_exit", 1, 3),
    Hook("irq_handler_entry", "on_irq_handler_entry", 2, 3),
    Hook("irq_handler_exit", "on_irq_handler_exit", 1, 3),
    Hook("napi_poll", "on_napi_poll", 3, 3),
    # last: from here on system calls are seen
    Hook("sys_exit", "on_sys_exit", 2, 1, required=True),
    Hook("sys_enter", "on_sys_enter", 2, 1, required=True),
)
SOURCES = (
    "process.bpf.c",
    "syscalls.bpf.c",
    "uring.bpf.c",
    "scheduler.bpf.c",
    "sockets.bpf.c",
    "epoll.bpf.c",
    "packets.bpf.c",
    "interrupts.bpf.c",
)
INCLUDES = ("record.h", "kernel.h", "filter.h", "watch.h", "emit.h", "socket.h")
