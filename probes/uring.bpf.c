/* SPDX-License-Identifier: MIT
 *
 * Hook: io_uring_complete (raw tracepoint). libuv, and so uvloop, gives most of its epoll_ctl calls
 * to io_uring (IORING_OP_EPOLL_CTL), many with one io_uring_enter: a record for each.
 * Cost: nothing for who does not use io_uring; a look-up and a read per request of the machine else.
 * Cannot see: requests other than epoll_ctl, those that ask for no completion (CQE_SKIP_SUCCESS),
 * and when one that a thread of the kernel carried out was asked for (its duration is 0).
 */
#if defined(O_KIOCB_OPCODE) && defined(O_KIOCB_RES) && defined(O_IO_EPOLL_EPFD) && \
	defined(O_IO_EPOLL_OP) && defined(O_IO_EPOLL_FD) && defined(O_IO_EPOLL_EVENTS)
#define IORING_OP_EPOLL_CTL 29 /* include/uapi/linux/io_uring.h */

int on_io_uring_complete(struct bpf_raw_tracepoint_args *ctx)
{
	u64 req = ctx->args[1], now = bpf_ktime_get_ns();
	u64 who = bpf_get_current_pid_tgid();
	u32 tgid = who >> 32, tid = who;
	struct thread_state *t = this_thread();
	/* a worker of io_uring is a thread of the process of which no fork tells */
	if (!t && !threads.lookup(&tgid))
		return 0;
	if (RD(u8, req, O_KIOCB_OPCODE) != IORING_OP_EPOLL_CTL)
		return 0;
	struct epoll_request q = {};
	u16 mode;
	u64 sk;
	u8 flags = 0;
	/* io_kiocb begins with its operation's own struct (io_kiocb.cmd) */
	q.start_ns = t && t->nr == NR_IO_URING_ENTER && t->enter_ns ? t->enter_ns : now;
	q.epfd = RD(s32, req, O_IO_EPOLL_EPFD);
	q.op = RD(u32, req, O_IO_EPOLL_OP);
	q.fd = RD(s32, req, O_IO_EPOLL_FD);
	q.events = q.op == EPOLL_CTL_DEL ? 0 : RD(u32, req, O_IO_EPOLL_EVENTS);
	q.io_uring = 1;
	q.ret = RD(s32, req, O_KIOCB_RES);
	struct sock_state *s = socket_of(q.fd, &mode, &sk);
	if (s)
		q.sock = s->id;
	if (t && t->slot && bpf_probe_read_user(&q.task, 8, (void *)t->slot))
		flags = FLAG_UNSTAMPED;
	emit_epoll_ctl(&q, tgid, tid, now, flags);
	return 0;
}
#endif
