/* SPDX-License-Identifier: MIT
 *
 * Hook: ep_poll_callback, a function of fs/eventpoll.c: fentry, else kprobe; no tracepoint has it.
 * Cost: six reads and a look-up per readiness that any epoll of the machine is told of; a record
 * for ours. Without it step 9 lies between sk_data_ready and sched_waking.
 * Cannot see: which epoll instance it was, where several watch one socket.
 */
/* eventpoll.c's own structs */
#if defined(O_EPPOLL_BASE) && defined(O_EPPOLL_WAIT) && defined(O_EPITEM_FILE) && \
	defined(O_EPITEM_FD)
static __always_inline int epoll_told(u64 wait, u64 key)
{
	u64 item = RD(u64, wait - O_EPPOLL_WAIT, O_EPPOLL_BASE);
	u64 file = RD(u64, item, O_EPITEM_FILE);
	if ((RD(u16, RD(u64, file, O_FILE_INODE), O_INODE_MODE) & S_IFMT) != S_IFSOCK)
		return 0;
	u64 sk = RD(u64, RD(u64, file, O_FILE_PRIVATE), O_SOCKET_SK);
	struct sock_state *s = our_socket(sk);
	struct cpu_state *p = this_cpu();
	if (!s || !p)
		return 0;
	struct ev_epoll_callback *e = reserve(KIND_EPOLL_CALLBACK, bpf_ktime_get_ns(), our_tid(),
					      p->softirq_ns ? FLAG_SOFTIRQ : 0);
	if (!e)
		return 0;
	e->sock = s->id;
	e->fd = RD(s32, item, O_EPITEM_FD);
	e->events = key;
	submit(e);
	return 0;
}

int FENTRY(ep_poll_callback)(struct bpf_raw_tracepoint_args *ctx)
{
	return epoll_told(ctx->args[0], ctx->args[3]);
}

int kprobe_ep_poll_callback(struct pt_regs *ctx)
{
	return epoll_told(ctx->di, ctx->cx);
}
#endif
