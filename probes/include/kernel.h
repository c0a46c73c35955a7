/* SPDX-License-Identifier: MIT
 *
 * Reads of kernel memory by BTF offset. The loader passes every O_* as a define, read from
 * /sys/kernel/btf/vmlinux: struct layouts move between kernels (research: six of ours did
 * between 6.1 and 7.2), and bcc does not relocate.
 */
#define RD(type, base, off) \
	({ type _v = 0; bpf_probe_read_kernel(&_v, sizeof(_v), (void *)((u64)(base) + (off))); _v; })

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

struct regs3 { u64 dx, si, di; }; /* contiguous in x86-64's pt_regs: one read for three arguments */

/* The name that makes a program an fentry program: bcc took a module's name into it in 2023. */
#ifdef MODULE_KFUNC_PROBE
#define FENTRY(function) kfunc__vmlinux__##function
#else
#define FENTRY(function) kfunc__##function
#endif
