/* SPDX-License-Identifier: MIT
 *
 * Reads of kernel memory by BTF offset. The loader passes every O_* as a define, read from
 * /sys/kernel/btf/vmlinux: struct layouts move between kernels (research: six of ours did
 * between 6.1 and 7.2), and bcc does not relocate.
 */
/* A read that fails gives zeros (bpf_probe_read_kernel clears what it could not fill). */
#define RD(type, base, off) \
	({ type _v; bpf_probe_read_kernel(&_v, sizeof(_v), (void *)((u64)(base) + (off))); _v; })

/* Two fields of one object with one read where they lie near each other: a read is mostly its call. */
#define SPAN_FROM(a, b) ((a) < (b) ? (a) : (b))
#define SPAN_BYTES(a, b) (((a) < (b) ? (b) - (a) : (a) - (b)) + 8)
#define RD2(base, type_a, a, off_a, type_b, b, off_b) \
	do { \
		if (SPAN_BYTES(off_a, off_b) <= 96) { \
			u64 _s[SPAN_BYTES(off_a, off_b) / 8 + 1]; \
			void *_at = (void *)((u64)(base) + SPAN_FROM(off_a, off_b)); \
			bpf_probe_read_kernel(_s, SPAN_BYTES(off_a, off_b), _at); \
			a = *(type_a *)((u8 *)_s + (off_a) - SPAN_FROM(off_a, off_b)); \
			b = *(type_b *)((u8 *)_s + (off_b) - SPAN_FROM(off_a, off_b)); \
		} else { \
			a = RD(type_a, base, off_a); \
			b = RD(type_b, base, off_b); \
		} \
	} while (0)

#define S_IFMT 0170000
#define S_IFSOCK 0140000
#define S_IFIFO 0010000
#define IPPROTO_TCP 6
#define AF_INET 2
#define AF_INET6 10
#define NET_RX_SOFTIRQ 3
#define TCP_ESTABLISHED 1 /* include/net/tcp_states.h */
#define TCP_SYN_RECV 3
#define TCP_LISTEN 10
#define NO_SYSCALL 65535
#define EPOLL_CTL_ADD 1 /* include/uapi/linux/eventpoll.h */
#define EPOLL_CTL_DEL 2
#define EPOLL_ALWAYS 24 /* EPOLLERR, EPOLLHUP: the kernel adds them to what was asked for */

/* Has the CPU quota of the task's cgroup run out? From 6.18 on each task says so (task_struct.throttled);
 * before, its run queue does, for the whole hierarchy (cfs_rq.throttle_count). */
static __always_inline int throttled(u64 task)
{
#ifdef O_TASK_THROTTLED
	return RD(u8, task, O_TASK_THROTTLED) != 0;
#elif defined O_CFS_RQ_THROTTLE_COUNT
	return RD(s32, RD(u64, task, O_TASK_CFS_RQ), O_CFS_RQ_THROTTLE_COUNT) > 0;
#else
	return 0;
#endif
}

struct tcp_head { u32 ports, seq, ack; u8 offset, bits; u16 window; }; /* RFC 9293, big endian */
struct tcp_cb { u32 seq, end_seq, size; u8 more[8]; }; /* tcp_skb_cb begins so; its flags: O_CB_FLAGS */
#define TCP_FIN 1
#define TCP_SYN 2

struct regs3 { u64 dx, si, di; }; /* contiguous in x86-64's pt_regs: one read for three arguments */

/* The name that makes a program an fentry program: bcc took a module's name into it in 2023. */
#ifdef MODULE_KFUNC_PROBE
#define FENTRY(function) kfunc__vmlinux__##function
#else
#define FENTRY(function) kfunc__##function
#endif
