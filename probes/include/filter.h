/* SPDX-License-Identifier: MIT
 *
 * Who is traced: threads of the target's process tree and of --also processes, and the
 * sockets that these threads touched. No entry = not ours = nothing is read or recorded.
 */

/* All we know of a traced thread; found once per program by its tid. */
struct thread_state {
	u64 enter_ns;   /* entry of the running system call, 0 none */
	u64 task;       /* stamp taken there */
	u64 sock;       /* socket of its descriptor */
	u64 arg1, arg2; /* second and third argument */
	u64 slot;       /* where the agent publishes the running task, 0 no agent */
	u64 regs;       /* registers of the running system call, in the kernel */
	u64 polled_ns;  /* its last epoll_wait returned, 0 none or it is in one */
	u64 out_ns;     /* switched out since, 0 on a CPU */
	u64 wake_ns;    /* last sched_waking */
	u64 wake_sock;  /* the socket that caused it */
	u32 tgid;
	u32 epfd;       /* the epoll that it waited in, and 1; 0 none, or it is closed */
	u32 seq;
	s32 fd;
	u32 waker_tid;
	s32 timeout_ms;
	u16 nr;
	u16 out_state;
	u16 out_cpu;
	u16 wake_cpu;
	u8 class;
	u8 flags;
	u8 wake_flags;
	u8 why;         /* OFF_*: it is off the CPU because of that */
	u8 keep;        /* read and write: its descriptor is one that we record */
};
BPF_HASH(threads, u32, struct thread_state, 16384);

/* Where the interpreter of a process keeps its GIL, and its size: address | bytes << 48. */
BPF_HASH(gils, u32, u64, 4096);

/* What the session tells the programs after they are loaded. */
struct config {
	u32 seed_tid;   /* the held target, in the tracer's pid namespace; traced from its exec on */
	u32 seed_pidns; /* inode of that namespace */
	u32 recording;  /* 0: write nothing */
	u32 spare;
};
BPF_ARRAY(config, struct config, 1);

/* Class of each system call by number; the session fills it from its table of names. */
#define CLASS_OTHER 0       /* recorded only if it took SLOW_NS */
#define CLASS_SEND 1        /* descriptor of a socket; bytes go out */
#define CLASS_RECV 2
#define CLASS_WRITE 3       /* as SEND, RECV; only sockets, pipes and descriptors that a loop watches */
#define CLASS_READ 4
#define CLASS_EPOLL_WAIT 5
#define CLASS_EPOLL_CTL 6
#define CLASS_ACCEPT 7
#define CLASS_CONNECT 8
#define CLASS_SOCKET 9      /* returns a new descriptor */
#define CLASS_FD 10         /* any other with a descriptor first */
#define CLASS_PLAIN 11      /* recorded, no descriptor */
#define CLASS_PRCTL 12
#define CLASS_POLL 13       /* as PLAIN; poll, select and their likes */
#define SLOW_NS 1000000
#define ADDRESSES 65536     /* mmap and brk return none below */
BPF_ARRAY(syscall_class, u32, 512);

struct sock_state {
	u64 id;
	u32 ino;
	u16 tcp;
	u16 told;       /* its record was written as it is now; else it is tried again */
};
BPF_HASH(socks, u64, struct sock_state, 65536);

/* The interrupts of network cards, from sysfs: what they tell of, and the card. */
#define IRQ_BRINGS 1        /* packets that came */
#define IRQ_SENT 2          /* packets that left */
struct nic_irq { u32 tells; u32 ifindex; };
BPF_HASH(nic_irqs, u32, struct nic_irq, 1024);

/* Network cards that interrupt, key netns << 32 | ifindex: tracked packets since the last TX_INTERRUPT. */
struct nic_state { u64 first_ns, last_ns; };
BPF_HASH(nics, u64, struct nic_state, 256);

/* Who asked for a NET_RX softirq: handlers that can bring packets, and those that tell of sent ones. */
struct raised {
	u64 raise_ns;
	u64 irq_ns, tx_irq_ns;      /* handler entry, 0 none */
	u32 irq, tx_irq;
	u32 ifindex;                /* card of `irq`, 0 unknown */
	u32 handler_ns, tx_handler_ns;
	u32 spare;
};

/* What this CPU is doing between an interrupt and the socket that its packet reaches. */
#define RX_KEPT 8 /* gro_normal_batch: so many packets are handed up before the first is looked at */
struct cpu_state {
	u64 irq_ns, softirq_ns;
	struct raised now, next;    /* of the softirq that runs or is due; of the one after it */
	u64 rx_ns[RX_KEPT], rx_skb[RX_KEPT];
	u64 probe_sk, probe_skb;
	u64 ready_sock;
	u64 sendmsg_sk, sendmsg_ns;
	u64 child_sk, child_ns;     /* the connection that became established last, whosoever it is */
	u64 rq, stolen_ns;          /* its run queue, and what was stolen from it when `stolen_tid` was last seen on it */
	u32 irq, in_irq, rx_count, iif;
	u32 seq, len, ready_tid, active;
	u32 stolen_tid, spare;
};
BPF_PERCPU_ARRAY(cpu_states, struct cpu_state, 1);

/*
 * The way of packets that an interrupt brought, by sk_buff: one that finds its socket locked waits
 * in the backlog, and TCP sees it outside of its softirq. An address is reused: `seq` must fit, too.
 */
struct way {
	u64 irq_ns, raise_ns, softirq_ns, rx_ns;
	u32 irq, ifindex, seq, spare;
};
BPF_TABLE("lru_hash", u64, struct way, ways, 1024);

/* Threaded NAPI: what a card's interrupt woke instead of raising a softirq, by thread. */
struct napi_thread { u64 irq_ns, wake_ns; u32 irq, ifindex, used, spare; };
BPF_HASH(napi_threads, u32, struct napi_thread, 256);

static __always_inline struct cpu_state *this_cpu(void)
{
	u32 zero = 0;
	return cpu_states.lookup(&zero);
}

static __always_inline struct thread_state *this_thread(void)
{
	u32 tid = bpf_get_current_pid_tgid();
	return threads.lookup(&tid);
}

/* The current thread if it is traced, else 0: softirqs run on top of anybody. */
static __always_inline u32 our_tid(void)
{
	u32 tid = bpf_get_current_pid_tgid();
	return threads.lookup(&tid) ? tid : 0;
}
