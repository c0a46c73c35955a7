/* SPDX-License-Identifier: MIT
 *
 * THE event records: the only definition of what the kernel probes and the agent write.
 * Read by clang (probes), by the C compiler (agent) and by tracer/events/header.py (numpy
 * dtypes, table columns, units). The includer defines u8..u64, s16..s64 first.
 *
 * Allowed here, because three readers must agree: u8..u64, s16..s64, `char x[N]`, `s32 x[N]`;
 * one flat struct per event; no unions, nesting, bool, bitfields or pointers. A line above a
 * struct describes the event, a comment behind a field describes the column. The suffix of a
 * name is its unit. Kinds are append-only: never renumber, leave holes.
 *
 * Kernel records are 56 bytes (a 64-byte slot of the BPF ring less its 8-byte header), agent
 * records 64 bytes. All times are CLOCK_MONOTONIC nanoseconds (bpf_ktime_get_ns and
 * time.monotonic_ns read the same clock); ts_ns is always the START of what is described.
 */
#ifndef AWAITSCOPE_RECORD_H
#define AWAITSCOPE_RECORD_H

#define RECORD_SCHEMA 2

/* ---- kernel records: kinds ---- */
#define KIND_THREAD 1
#define KIND_SYSCALL 2
#define KIND_EPOLL_CTL 3
#define KIND_EPOLL_WAIT 4
#define KIND_EPOLL_READY 5
#define KIND_OFF_CPU 6
#define KIND_SOCKET 7
#define KIND_SOCKET_ADDR6 8
#define KIND_SOCKET_STATE 9
#define KIND_RECEIVE 10
#define KIND_TRANSMIT 11
#define KIND_RETRANSMIT 12
#define KIND_NAPI_POLL 13
#define KIND_GAP 14
#define KIND_AGENT_THREAD 15
#define KIND_EPOLL_CALLBACK 16
#define KIND_TX_INTERRUPT 17
#define KIND_STOLEN 18
#define KIND_MAX 19

/* ---- agent records: kinds ---- */
#define KIND_LOOP 32
#define KIND_TASK 33
#define KIND_STEP 34
#define KIND_CALLBACK 35
#define KIND_STRING 36
#define KIND_AGENT_GAP 37
#define KIND_TASK_NAME 38
#define KIND_WORK 39
#define KIND_STREAM_WRITE 40
#define KIND_HANDSHAKE 41
#define KIND_AGENT_MAX 42

/* ---- flags of the kernel head ---- */
#define FLAG_SOFTIRQ 1        /* happened inside a NET_RX softirq */
#define FLAG_PACKET 2         /* the packet that caused it is known */
#define FLAG_TCP 4            /* seq is a TCP sequence number */
#define FLAG_OPEN 8           /* not finished when the trace ended: dur_ns is up to then */
#define FLAG_MORE 16          /* further EPOLL_READY records with the same (tid, ts_ns) follow */
#define FLAG_SYN 32           /* the packet carries SYN */
#define FLAG_WOKEN_EARLY 64   /* the waking came before the switch-out was complete */
#define FLAG_UNSTAMPED 128    /* the running task could not be read from the process */

/* ---- ev_off_cpu.why ---- */
#define OFF_THROTTLED 1       /* its cgroup's CPU quota was used up (cfs_bandwidth) */
#define OFF_GIL 2             /* asleep for the interpreter's GIL, whose address the agent tells */

/* ---- values of ev_thread.what ---- */
#define THREAD_FORK 1
#define THREAD_EXEC 2
#define THREAD_EXIT 3
#define THREAD_SEED 4

/* A thread of a traced process was born, called exec, ended, or was there at the start. */
struct ev_thread {
	u64 ts_ns;        /* time of the event */
	u32 tid;          /* kernel thread id, root pid namespace */
	u16 cpu;          /* CPU it was seen on */
	u8 kind;          /* KIND_THREAD */
	u8 flags;         /* FLAG_* */
	u32 tgid;         /* process id, root pid namespace */
	u32 ns_tid;       /* thread id in the process's own pid namespace */
	u32 parent_tid;   /* thread that forked it; 0 if it was there at the start */
	u32 what;         /* THREAD_FORK, _EXEC, _EXIT or _SEED */
	u32 exit_code;    /* wait status at exit (task_struct.exit_code), else 0 */
	u32 parent_tgid;  /* process of parent_tid */
	char comm[16];    /* thread name (task_struct.comm) */
};

/* One system call of a traced thread, from entry to exit. */
struct ev_syscall {
	u64 ts_ns;        /* entry */
	u32 tid;          /* calling thread */
	u16 cpu;          /* CPU at exit */
	u8 kind;          /* KIND_SYSCALL */
	u8 flags;         /* FLAG_TCP, FLAG_OPEN, FLAG_UNSTAMPED */
	u64 task;         /* stamp: serial of the asyncio task running at entry (ev_task.task), 0 none */
	u64 dur_ns;       /* exit minus entry */
	u64 sock;         /* socket of fd (ev_socket.sock); of a pipe that a loop watches 2 * inode, + 1 for a write; else 0 */
	s32 ret;          /* result: bytes, a descriptor, a count, or a negative errno; 0 for an address */
	s32 fd;           /* first descriptor argument; accepted descriptor's listener; -1 none */
	u32 seq;          /* TCP: first sequence number of the bytes moved (write_seq or copied_seq at entry) */
	u16 nr;           /* number of the system call on this architecture */
	u16 spare;        /* 0 */
};

/* One epoll_ctl call, or a request to io_uring for the same (IORING_OP_EPOLL_CTL). */
struct ev_epoll_ctl {
	u64 ts_ns;        /* entry; of io_uring_enter where io_uring carried it out */
	u32 tid;          /* calling thread, or io_uring's worker */
	u16 cpu;          /* CPU at exit */
	u8 kind;          /* KIND_EPOLL_CTL */
	u8 flags;         /* FLAG_UNSTAMPED */
	u64 task;         /* stamp: serial of the running task, 0 none */
	u64 dur_ns;       /* exit minus entry */
	u64 sock;         /* socket of fd, 0 if fd is no socket */
	s32 ret;          /* 0 or a negative errno */
	s32 epfd;         /* epoll descriptor */
	s32 fd;           /* watched descriptor */
	u8 op;            /* EPOLL_CTL_ADD 1, _DEL 2, _MOD 3 */
	u8 io_uring;      /* 1: io_uring carried it out, it was no system call of its own */
	u16 events;       /* requested events (low 16 bits of epoll_event.events) but ERR and HUP; 0 for _DEL */
};

/* One epoll_wait, epoll_pwait or epoll_pwait2 call, with the first descriptors it returned. */
struct ev_epoll_wait {
	u64 ts_ns;        /* entry */
	u32 tid;          /* calling thread */
	u16 cpu;          /* CPU at exit */
	u8 kind;          /* KIND_EPOLL_WAIT */
	u8 flags;         /* FLAG_OPEN, FLAG_MORE */
	u64 dur_ns;       /* exit minus entry */
	s32 ret;          /* number of ready descriptors or a negative errno */
	s32 epfd;         /* epoll descriptor */
	s32 timeout_ms;   /* -1 for ever; pwait2's timespec rounded up */
	u16 nr;           /* number of the system call variant */
	u16 n;            /* entries used in fds */
	s32 fds[4];       /* low 32 bits of epoll_event.data: the descriptor for asyncio and libuv */
};

/* Further descriptors that one epoll_wait returned. */
struct ev_epoll_ready {
	u64 ts_ns;        /* entry of the epoll_wait it belongs to */
	u32 tid;          /* calling thread */
	u16 cpu;          /* CPU at exit */
	u8 kind;          /* KIND_EPOLL_READY */
	u8 flags;         /* FLAG_MORE */
	u16 n;            /* entries used in fds */
	u16 first;        /* index of fds[0] among all that were returned */
	s32 fds[9];       /* low 32 bits of epoll_event.data */
};

/* A traced thread was off the CPU: switched out, perhaps asleep, woken, switched in. */
struct ev_off_cpu {
	u64 ts_ns;        /* sched_switch out */
	u32 tid;          /* the thread */
	u16 cpu;          /* CPU it left */
	u8 kind;          /* KIND_OFF_CPU */
	u8 flags;         /* FLAG_OPEN, FLAG_SOFTIRQ (woken from one), FLAG_WOKEN_EARLY */
	u64 dur_ns;       /* until sched_switch in */
	u64 wake_ns;      /* from ts_ns to sched_waking; 0 if it stayed runnable (state 0) */
	u64 sock;         /* socket whose readiness caused the waking, 0 none or unknown */
	u32 waker_tid;    /* traced thread that woke it, 0 another's or none */
	u16 state;        /* task state at switch-out (0 runnable = preempted, 1 interruptible, 2 uninterruptible) */
	u16 wake_cpu;     /* CPU that woke it */
	u16 in_cpu;       /* CPU it came back on */
	u16 nr;           /* system call it was in, 65535 none */
	u32 why;          /* OFF_*: what kept it from running, where that is known */
};

/* The hypervisor took the CPU from a running traced thread: the scheduler's steal clock moved on. */
struct ev_stolen {
	u64 ts_ns;        /* begin if it ended when it was seen, at a tick or at a switch: up to a tick late */
	u32 tid;          /* the thread */
	u16 cpu;          /* CPU it was on */
	u8 kind;          /* KIND_STOLEN */
	u8 flags;         /* 0 */
	u64 dur_ns;       /* growth of rq.prev_steal_time_rq (or prev_steal_time) since the tick or switch before */
	u64 spare[4];     /* 0 */
};

/* A socket of a traced process became known, or its addresses did. The last record of a sock counts. */
struct ev_socket {
	u64 ts_ns;        /* time of the event */
	u32 tid;          /* thread whose call or packet showed it */
	u16 cpu;          /* CPU it was seen on */
	u8 kind;          /* KIND_SOCKET */
	u8 flags;         /* FLAG_* */
	u64 sock;         /* our id: unique in a trace, grows with the time of birth */
	u64 cookie;       /* SO_COOKIE, 0 until somebody asked for it (sock_common.skc_cookie) */
	u32 netns;        /* inode of the network namespace (net.ns.inum) */
	u32 ino;          /* inode of the socket, as in /proc/net/tcp; 0 while not accepted */
	u16 family;       /* AF_INET 2, AF_INET6 10, AF_UNIX 1 */
	u16 proto;        /* IPPROTO_TCP 6, IPPROTO_UDP 17, 0 */
	u16 lport;        /* local port, host order */
	u16 rport;        /* remote port, host order */
	u32 laddr;        /* local IPv4 address, network order */
	u32 raddr;        /* remote IPv4 address, network order */
};

/* The IPv6 addresses of a socket. */
struct ev_socket_addr6 {
	u64 ts_ns;        /* time of the event */
	u32 tid;          /* thread whose call or packet showed it */
	u16 cpu;          /* CPU it was seen on */
	u8 kind;          /* KIND_SOCKET_ADDR6 */
	u8 flags;         /* FLAG_* */
	u64 sock;         /* ev_socket.sock */
	char laddr[16];   /* local address, network order */
	char raddr[16];   /* remote address, network order */
};

/* A TCP socket changed its state (inet_sock_set_state). */
struct ev_socket_state {
	u64 ts_ns;        /* time of the change */
	u32 tid;          /* traced thread that was current, 0 another's (a softirq runs on top of anybody) */
	u16 cpu;          /* CPU it happened on */
	u8 kind;          /* KIND_SOCKET_STATE */
	u8 flags;         /* FLAG_SOFTIRQ, FLAG_PACKET */
	u64 sock;         /* ev_socket.sock */
	u32 irq_age_ns;   /* ts_ns minus the interrupt that raised the softirq; 0 none */
	u32 raise_age_ns; /* ts_ns minus softirq_raise; 0 none */
	u32 softirq_age_ns; /* ts_ns minus softirq_entry; 0 not in one */
	u32 rx_age_ns;    /* ts_ns minus netif_receive_skb; 0 not packet-driven */
	u16 oldstate;     /* TCP_* (include/net/tcp_states.h): 1 ESTABLISHED, 2 SYN_SENT, 3 SYN_RECV, 7 CLOSE, 10 LISTEN */
	u16 newstate;     /* the same, afterwards */
	u32 ifindex;      /* device the packet came from, 0 none */
	u16 irq;          /* interrupt number, 0 none */
	u16 spare;        /* 0 */
	u32 spare2;       /* 0 */
};

/* Data became readable on a socket (sk_data_ready), with the way its packet took up to here. */
struct ev_receive {
	u64 ts_ns;        /* sk_data_ready */
	u32 tid;          /* traced thread that was current, 0 another's (a softirq runs on top of anybody) */
	u16 cpu;          /* CPU it happened on */
	u8 kind;          /* KIND_RECEIVE */
	u8 flags;         /* FLAG_SOFTIRQ, FLAG_PACKET, FLAG_TCP */
	u64 sock;         /* ev_socket.sock */
	u32 irq_age_ns;   /* ts_ns minus entry of the first handler that asked for this softirq and can bring packets; 0 none */
	u32 raise_age_ns; /* ts_ns minus softirq_raise(NET_RX): the one inside that handler, else the first; threaded NAPI: minus the waking of its thread; 0 unknown */
	u32 softirq_age_ns; /* ts_ns minus softirq_entry(NET_RX); without FLAG_SOFTIRQ it is over (backlog); 0 none */
	u32 rx_age_ns;    /* ts_ns minus netif_receive_skb of this packet; 0 unknown */
	u32 srtt_us;      /* smoothed round-trip time (tcp_sock.srtt_us / 8), microseconds */
	u32 seq;          /* first sequence number of the packet */
	u32 len_bytes;    /* its payload */
	u16 ifindex;      /* device it came from */
	u16 irq;          /* interrupt number, 0 none */
};

/* A packet of a tracked socket was handed to a device (net_dev_start_xmit). */
struct ev_transmit {
	u64 ts_ns;        /* net_dev_start_xmit */
	u32 tid;          /* traced thread that was current, 0 another's (a softirq runs on top of anybody) */
	u16 cpu;          /* CPU it happened on */
	u8 kind;          /* KIND_TRANSMIT */
	u8 flags;         /* FLAG_TCP, FLAG_SYN, FLAG_SOFTIRQ */
	u64 sock;         /* ev_socket.sock */
	u32 sendmsg_age_ns; /* ts_ns minus tcp_sendmsg_locked of this socket on this CPU; 0 unknown */
	u32 seq;          /* first sequence number */
	u32 len_bytes;    /* payload (all segments of a GSO packet) */
	u32 ifindex;      /* device */
	u32 netns;        /* inode of the device's network namespace */
	u32 spare;        /* 0 */
	u64 spare2;       /* 0 */
};

/* TCP sent a packet again (tcp_retransmit_skb). */
struct ev_retransmit {
	u64 ts_ns;        /* time of the event */
	u32 tid;          /* traced thread that was current, 0 another's */
	u16 cpu;          /* CPU it happened on */
	u8 kind;          /* KIND_RETRANSMIT */
	u8 flags;         /* FLAG_TCP */
	u64 sock;         /* ev_socket.sock */
	u32 seq;          /* first sequence number */
	u32 len_bytes;    /* payload */
	u64 spare[3];     /* 0 */
};

/* The NAPI poll that brought at least one tracked packet ended; only polls of a real device. */
struct ev_napi_poll {
	u64 ts_ns;        /* napi_poll, which fires at the END of the poll */
	u32 tid;          /* traced thread that was current, 0 another's */
	u16 cpu;          /* CPU it ran on */
	u8 kind;          /* KIND_NAPI_POLL */
	u8 flags;         /* 0 */
	u32 ifindex;      /* device of the NAPI instance */
	u32 napi_id;      /* napi_struct.napi_id */
	u32 work;         /* packets it handled */
	u32 budget;       /* packets it was allowed */
	u64 softirq_ns;   /* softirq_entry it ran in, 0 for threaded NAPI */
	u64 irq_ns;       /* entry of the interrupt handler that asked for it; 0 none, see ev_receive.irq_age_ns */
	u32 irq;          /* number of that interrupt, 0 none */
	u32 handler_ns;   /* time in that handler */
};

/* Records were lost on one CPU because the ring was full; written as soon as there was room. */
struct ev_gap {
	u64 ts_ns;        /* first loss */
	u32 tid;          /* 0 */
	u16 cpu;          /* CPU whose records were lost */
	u8 kind;          /* KIND_GAP */
	u8 flags;         /* 0 */
	u64 end_ns;       /* last loss */
	u32 lost_count;   /* records lost in between, of all kinds */
	u32 kinds;        /* bit set of the kinds lost: 1 << kind */
	u64 spare[3];     /* 0 */
};

/* epoll put a socket on its ready list (ep_poll_callback); only where fentry or kprobe loads. */
struct ev_epoll_callback {
	u64 ts_ns;        /* ep_poll_callback entered */
	u32 tid;          /* traced thread that was current, 0 another's (a softirq runs on top of anybody) */
	u16 cpu;          /* CPU it happened on */
	u8 kind;          /* KIND_EPOLL_CALLBACK */
	u8 flags;         /* FLAG_SOFTIRQ */
	u64 sock;         /* ev_socket.sock */
	s32 fd;           /* descriptor that was given to epoll_ctl */
	u32 events;       /* what became possible (EPOLL* bits) */
	u64 spare[3];     /* 0 */
};

/* A device interrupted to say that packets had left, after a tracked one was handed to it. */
struct ev_tx_interrupt {
	u64 ts_ns;        /* irq_handler_entry */
	u32 tid;          /* traced thread that was current at its poll, 0 another's */
	u16 cpu;          /* CPU it happened on */
	u8 kind;          /* KIND_TX_INTERRUPT */
	u8 flags;         /* 0 */
	u32 ifindex;      /* device */
	u32 netns;        /* inode of the device's network namespace */
	u32 irq;          /* interrupt number */
	u32 handler_ns;   /* time in the handler */
	u64 softirq_ns;   /* softirq_entry of the poll that freed the packets */
	u64 poll_ns;      /* end of that poll (napi_poll) */
	u64 since_ns;     /* net_dev_start_xmit of the first tracked packet since the interrupt before */
};

/* An agent told the kernel where a thread publishes its running task. */
struct ev_agent_thread {
	u64 ts_ns;        /* time of the call */
	u32 tid;          /* kernel thread id */
	u16 cpu;          /* CPU */
	u8 kind;          /* KIND_AGENT_THREAD */
	u8 flags;         /* 0 */
	u64 slot;         /* address, in the process, of the u64 that holds the running task's serial */
	u64 agent;        /* the agent's random id, which names its ring file */
	u32 tgid;         /* process id, root pid namespace */
	u32 ns_tid;       /* thread id as the process sees it */
	u64 spare[2];     /* 0 */
};

/* ---- agent records (64 bytes): written by the agent in the traced process ---- */

/* prctl(AGENT_PRCTL, slot address, agent id, thread id, GIL): refused by the kernel with EINVAL, seen by
 * our probe. GIL is where the interpreter keeps it and its size: address | bytes << 48, 0 not known. */
#define AGENT_PRCTL 0x41575343

/* what a callback or step was asked for: ev_step.how, how the task is parked */
#define HOW_FUTURE 1          /* on a plain future */
#define HOW_TASK 2            /* on a task, its serial in `awaited` */
#define HOW_GATHER 3          /* on a future that stands for several (gather) */
#define HOW_YIELD 4           /* bare yield: asyncio.sleep(0) */
#define HOW_DONE 5            /* not parked: the coroutine returned */
#define HOW_FAILED 6          /* not parked: it raised */
#define HOW_CANCELLED 7       /* not parked: it was cancelled */

/* ev_step.flags, ev_callback.flags */
#define RUN_TIMER 1           /* a TimerHandle: wake_ns is its deadline */
#define RUN_THROWN 2          /* the step throws into the coroutine (cancellation) */
#define RUN_EAGER 4           /* eager first step, run inside the constructor */
#define RUN_CANCEL_REQUEST 8  /* cancelled: Task.cancel was called, or the awaited future was cancelled */
#define RUN_FUTURE_FAILED 16  /* the future the task waited for had an exception */
#define RUN_FROM_THREAD 32    /* scheduled by another thread (call_soon_threadsafe) */
#define RUN_RESUMED_SAME 64   /* at its end the task waits for the same object as before this step */
#define RUN_OPEN 128          /* had not ended when its process or the trace did: end_ns is then */

/* ev_loop.flags */
#define LOOP_UVLOOP 1         /* uvloop's, or of a class made of it: libuv calls protocols by itself */

/* An event loop was seen for the first time. */
struct ev_loop {
	u64 ts_ns;        /* time */
	u32 tid;          /* thread that runs it, as the process sees it */
	u16 spare0;       /* 0 */
	u8 kind;          /* KIND_LOOP */
	u8 flags;         /* LOOP_* */
	u32 loop;         /* serial of the loop in this process, from 1 */
	u32 type_str;     /* string: its class, as module.Class */
	s32 selector_fd;  /* epoll descriptor, -1 unknown */
	s32 self_fd;      /* self-pipe: reading end, -1 unknown */
	s32 self_wfd;     /* self-pipe: writing end, -1 unknown */
	u32 spare1;       /* 0 */
	u64 spare2[3];    /* 0 */
};

/* An asyncio task was born. */
struct ev_task {
	u64 ts_ns;        /* when it was first put on the ready queue, or entered its eager step */
	u32 tid;          /* thread that created it */
	u16 spare0;       /* 0 */
	u8 kind;          /* KIND_TASK */
	u8 flags;         /* RUN_EAGER */
	u32 task;         /* serial of the task in this process, from 1; never reused */
	u32 parent;       /* task that created it, 0 none */
	u32 loop;         /* ev_loop.loop */
	u32 coro_str;     /* string: qualified name of its coroutine */
	u32 where_str;    /* string: file:line where the coroutine is defined */
	u32 run;          /* ev_step.run or ev_callback.run that created it, 0 none */
	u64 addr;         /* address of the Task object: reused, no identity */
	u64 spare2[2];    /* 0 */
};

/* A task's name, read at its first step (so that set_name right after creation counts). */
struct ev_task_name {
	u64 ts_ns;        /* time */
	u32 tid;          /* thread */
	u16 len;          /* bytes of the whole name (longer ones are cut at 40) */
	u8 kind;          /* KIND_TASK_NAME */
	u8 flags;         /* 0 */
	u32 task;         /* ev_task.task */
	u32 spare;        /* 0 */
	char name[40];    /* UTF-8, zero-padded */
};

/* One step: a task's coroutine ran between two suspensions. */
struct ev_step {
	u64 ts_ns;        /* begin */
	u32 tid;          /* thread */
	u16 how;          /* HOW_*: how the task is parked at the end, or that it is over; 0 with RUN_OPEN */
	u8 kind;          /* KIND_STEP */
	u8 flags;         /* RUN_* */
	u64 end_ns;       /* end */
	u64 wake_ns;      /* when it was put on the ready queue */
	u32 run;          /* serial of this run in this process (steps and callbacks share it), from 1 */
	u32 waker_run;    /* run during which it was put on the ready queue, 0 none */
	u32 task;         /* ev_task.task */
	u32 awaited;      /* serial of the task awaited (HOW_TASK), else 0 */
	u32 where_str;    /* string: file:line of the await in the user frame, at the end; 0 when over */
	u32 leaf_str;     /* string: file:qualname of the innermost frame of the chain; 0 when over */
	u32 row;          /* serial of what is awaited, per task: grows when the user frame awaits another object */
	u32 wake_tid;     /* thread that put it on the ready queue */
};

/* One callback of an event loop that is not a task's step. */
struct ev_callback {
	u64 ts_ns;        /* begin */
	u32 tid;          /* thread */
	u16 spare0;       /* 0 */
	u8 kind;          /* KIND_CALLBACK */
	u8 flags;         /* RUN_TIMER, RUN_FROM_THREAD */
	u64 end_ns;       /* end */
	u64 wake_ns;      /* call_soon, or the deadline of a timer; 0 for a reader or writer (ready with the epoll_wait) */
	u32 run;          /* serial of this run (shared with steps) */
	u32 waker_run;    /* run during which call_soon was called, or the work whose end it tells (ev_work.run); 0 none */
	u32 name_str;     /* string: qualified name of the callback */
	u32 wake_tid;     /* thread that called call_soon, 0 unknown */
	u64 spare2[2];    /* 0 */
};

/* A loop gave a function to an executor (run_in_executor, to_thread), where it ran. */
struct ev_work {
	u64 ts_ns;        /* a worker thread began it; when it was given if end_ns is 0 */
	u32 tid;          /* worker thread; the giver if end_ns is 0 */
	u16 spare0;       /* 0 */
	u8 kind;          /* KIND_WORK */
	u8 flags;         /* 0 */
	u64 end_ns;       /* it returned or raised; 0: it ran out of sight (no plain pool of threads) */
	u64 wake_ns;      /* run_in_executor was called */
	u32 run;          /* serial of this run (shared with steps and callbacks) */
	u32 waker_run;    /* run during which run_in_executor was called, 0 none */
	u32 name_str;     /* string: qualified name of the function */
	u32 wake_tid;     /* thread that called run_in_executor */
	u32 task;         /* task that called it (ev_task.task), 0 none */
	u32 spare1;       /* 0 */
	u64 spare2;       /* 0 */
};

/* A write to a stream of uvloop's that left bytes in its queue, which are sent later. */
struct ev_stream_write {
	u64 ts_ns;        /* write or writelines was called */
	u32 tid;          /* thread */
	u16 spare0;       /* 0 */
	u8 kind;          /* KIND_STREAM_WRITE */
	u8 flags;         /* 0 */
	u64 end_ns;       /* it returned or raised */
	u64 before_bytes; /* in the stream's queue before the call */
	u64 after_bytes;  /* in it after the call; what was sent meanwhile is not */
	s32 fd;           /* descriptor of the stream */
	u32 task;         /* running task (ev_task.task), 0 none */
	u64 spare2[2];    /* 0 */
};

/* ---- ev_handshake.flags: without one, it wants to read or write first ---- */
#define HANDSHAKE_OVER 1      /* it returned: the handshake is done */
#define HANDSHAKE_FAILED 2    /* it raised something else than that it wants more */

/* One call of do_handshake: on a socket or in memory a TLS handshake takes one or several. */
struct ev_handshake {
	u64 ts_ns;        /* it was called */
	u32 tid;          /* thread */
	u16 spare0;       /* 0 */
	u8 kind;          /* KIND_HANDSHAKE */
	u8 flags;         /* HANDSHAKE_* */
	u64 end_ns;       /* it returned or raised */
	u32 tls;          /* serial of the handshake, the same in all its calls */
	u32 run;          /* run during which it was called (ev_step.run, ev_callback.run), 0 none */
	u64 spare2[4];    /* 0 */
};

/* A piece of an interned string; pieces of one id follow each other. */
struct ev_string {
	u64 ts_ns;        /* time */
	u32 tid;          /* thread */
	u16 len;          /* bytes of the whole string */
	u8 kind;          /* KIND_STRING */
	u8 flags;         /* 0 */
	u32 id;           /* serial of the string in this process, from 1 */
	u16 first;        /* offset of text[0] in the whole string */
	u16 spare;        /* 0 */
	char text[40];    /* UTF-8, zero-padded */
};

/* The agent's ring was full: what was lost in between; written as soon as there was room. */
struct ev_agent_gap {
	u64 ts_ns;        /* first loss */
	u32 tid;          /* 0 */
	u16 spare0;       /* 0 */
	u8 kind;          /* KIND_AGENT_GAP */
	u8 flags;         /* 0 */
	u64 end_ns;       /* last loss */
	u32 lost_count;   /* records lost, of all kinds */
	u32 kinds;        /* bit set of the kinds lost: 1 << (kind - 32) */
	u64 spare2[4];    /* 0 */
};

/* ---- header page (4096 bytes) of an agent's ring file ---- */
#define AGENT_MAGIC 0x3150435354494157ULL /* "WAITSCP1", little endian */
/* Behind the header: per thread the run it is in, a STEP or CALLBACK record with end_ns 0, so that
 * the last one of a process that dies in it is known. kind is 0 for none and while it is written. */
#define AGENT_OPEN_AT 1536    /* offset of the first */
#define AGENT_OPEN_RUNS 40    /* threads that have one */
#define NO_OFFSET 65535       /* this interpreter has no such field */
#define MODE_C 1
#define MODE_LIGHT 2          /* in Python, where it could not be built in C: */
#define WHY_NO_COMPILER 1     /* build.REASONS, in that order */
#define WHY_NO_HEADERS 2
#define WHY_BUILD_FAILED 3
#define WHY_UNSUPPORTED_PYTHON 4
#define WHY_UNSAFE_CACHE 5

struct agent_ring {
	u64 magic;        /* AGENT_MAGIC, written last */
	u32 schema;       /* RECORD_SCHEMA */
	u32 pid;          /* getpid() as the process sees it */
	u64 agent;        /* the agent's random id */
	u64 start_ns;     /* when the agent started */
	u64 slots;        /* capacity in 64-byte records, a power of two; they begin at offset 4096 */
	u64 head;         /* records written so far (release) */
	u64 tail;         /* records taken by the reader so far */
	u32 hexversion;   /* sys.hexversion */
	u32 mode;         /* MODE_* */
	u64 lost[16];     /* records lost, by kind - 32 */
	char python[64];  /* sys.version's first word and the implementation */
	u32 orphans;      /* forked children that could not open a ring of their own */
	u32 why;          /* WHY_*: why it is not the agent in C; 0 it is */
	s32 orphan_pid[15]; /* the first of them, as they see themselves */
	s32 orphan_errno[15]; /* what was in their way */
	u64 gil;          /* address of the GIL (struct _gil_runtime_state); 0: this layout is not known */
	u64 gil_holder;   /* address of the pointer to the thread state that has it or had it last; behind it an s32, 1 if it has */
	u64 collecting;   /* address of the s32 that is 1 while garbage is collected; 0 not known */
	u64 code_type;    /* address of PyCode_Type; 0: the layout of frames is not known */
	u64 tstate[40];   /* thread state of the thread in each open run */
	u64 base[40];     /* the frame that it was in when it began its open run */
	u64 gil_bytes;    /* size of the GIL's state */
	u16 tstate_frame; /* offset, in bytes, in PyThreadState: its frame, or cframe */
	u16 cframe_frame; /* _PyCFrame.current_frame */
	u16 tstate_tid;   /* PyThreadState.native_thread_id */
	u16 tstate_thread; /* PyThreadState.thread_id */
	u16 frame_back;   /* f_back, or previous */
	u16 frame_code;   /* f_code, or f_executable */
	u16 frame_instr;  /* f_lasti (s32), or the pointer prev_instr or instr_ptr */
	u16 frame_owner;  /* char owner: 3 has no code of its own */
	u16 code_file;    /* co_filename */
	u16 code_name;    /* co_qualname, or co_name */
	u16 code_line;    /* co_firstlineno */
	u16 code_table;   /* co_lnotab, or co_linetable */
	u16 code_start;   /* co_code_adaptive, that the instruction pointers point into */
	u16 str_length;   /* PyASCIIObject.length */
	u16 str_state;    /* PyASCIIObject.state */
	u16 str_ascii;    /* characters of an ASCII string */
	u16 str_compact;  /* characters of another compact string */
	u16 bytes_size;   /* PyBytesObject.ob_size */
	u16 bytes_data;   /* PyBytesObject.ob_sval */
	u16 type;         /* PyObject.ob_type */
	char library[256]; /* folder of the standard library */
	u64 calls;        /* address, in the process, of its agent_calls; 0: what a frame calls is not known */
};

/* ---- in the process's memory, for those who look which C function a frame is calling ---- */
#define FLOW_JUMPS 1          /* forward by its argument, in code units */
#define FLOW_JUMPS_BACK 2     /* backward */
#define FLOW_ENDS 4           /* never goes on to the next instruction */
#define FLOW_EXTENDS 8        /* its argument is the higher part of the next one's */
#define CALLS_CALL 1          /* __call__ of an object on the stack */
#define CALLS_ENTER 2         /* its __enter__ */
#define CALLS_NEXT 3          /* its __next__ */

/* Where things lie in frames, code objects and callables of this interpreter. */
struct agent_calls {
	u64 function_type;  /* address of PyCFunction_Type */
	u64 bound_type;     /* PyCMethod_Type */
	u64 method_type;    /* PyMethodDescr_Type */
	u64 type_type;      /* PyType_Type */
	u64 module_type;    /* PyModule_Type */
	u16 frame_locals;   /* offset, in bytes, in _PyInterpreterFrame: localsplus; the stack is behind them */
	u16 code_units;     /* PyCodeObject: ob_size, in code units */
	u16 code_locals;    /* co_nlocalsplus */
	u16 code_stack;     /* co_stacksize */
	u16 code_handlers;  /* co_exceptiontable */
	u16 function_def;   /* PyCFunctionObject.m_ml */
	u16 function_self;  /* m_self */
	u16 function_module; /* m_module */
	u16 method_def;     /* PyMethodDescrObject.d_method */
	u16 method_type_at; /* d_type */
	u16 def_name;       /* PyMethodDef.ml_name */
	u16 type_name;      /* PyTypeObject.tp_name */
	u16 type_base;      /* tp_base */
	u16 type_call;      /* tp_call */
	u16 type_next;      /* tp_iternext */
	u16 type_flags;     /* tp_flags */
	u16 instructions;   /* offset of 256 agent_instruction from here */
	u16 spare;          /* 0 */
	u32 spare2;         /* 0 */
};

/* What an opcode does to the stack of values; larger arguments go on in steps of four. */
struct agent_instruction {
	u8 base;          /* the opcode that it is a form of */
	u8 caches;        /* code units behind it that are no instructions */
	u8 flow;          /* FLOW_* */
	u8 calls;         /* CALLS_*, 0 nothing */
	u8 below;         /* how far below the top is the object that it calls */
	u8 arguments;     /* bits of its argument that count on top of that: 255 all */
	u16 spare;        /* 0 */
	s32 effect[16];   /* change of the stack's depth by argument 0..15 */
	s32 jump_effect[16]; /* the same where it jumps */
};

#endif
