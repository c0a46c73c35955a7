/* SPDX-License-Identifier: MIT
 *
 * Hooks: sys_enter, sys_exit (raw tracepoints). One record per call, written at its exit.
 * Cost: an untraced process pays one look-up twice per call; a recorded call about 0.6 us.
 * Cannot see: 32-bit calls, and what io_uring does without a system call (but see uring.bpf.c).
 */
int on_sys_enter(struct bpf_raw_tracepoint_args *ctx)
{
	struct thread_state *t = this_thread();
	if (!t)
		return 0;
	u32 nr = ctx->args[1];
	u32 key = nr & 511;
	u32 *class = syscall_class.lookup(&key);
	u32 c = class && nr < 512 ? *class : CLASS_OTHER;
	t->nr = nr;
	t->regs = ctx->args[0];
	t->class = c;
	t->flags = 0;
	t->task = 0;
	t->sock = 0;
	t->fd = -1;
	t->seq = 0;
	t->keep = 1;
	if (c != CLASS_OTHER && c != CLASS_PLAIN) {
		u64 regs = ctx->args[0];
		struct regs3 a = {};
		bpf_probe_read_kernel(&a, sizeof(a), (void *)(regs + O_REGS_DX));
		t->arg1 = a.si;
		t->arg2 = a.dx;
		if (c == CLASS_PRCTL) {
			if ((u32)a.di == AGENT_PRCTL) {
				u64 gil = RD(u64, regs, O_REGS_R8);
				t->slot = a.si;
				u32 tgid = t->tgid;
				if (gil)
					gils.update(&tgid, &gil);
				struct ev_agent_thread *e = reserve(KIND_AGENT_THREAD, bpf_ktime_get_ns(),
								    bpf_get_current_pid_tgid(), 0);
				if (e) {
					e->slot = a.si;
					e->agent = a.dx;
					e->tgid = t->tgid;
					e->ns_tid = RD(u32, regs, O_REGS_R10);
					submit(e);
				}
			}
			t->class = CLASS_OTHER;
			t->enter_ns = bpf_ktime_get_ns();
			return 0;
		}
		if (c == CLASS_POLL) {
			note_polled(t, nr, &a);
			t->enter_ns = bpf_ktime_get_ns();
			return 0;
		}
		t->fd = c == CLASS_SOCKET ? -1 : (s32)a.di;
		if (nr == NR_CLOSE)
			forget_watched(t, a.di);
		if (c == CLASS_EPOLL_WAIT) {
			t->epfd = (u32)a.di + 1;
			t->polled_ns = 0;
			t->timeout_ms = RD(s32, regs, O_REGS_R10);
			if (nr == NR_EPOLL_PWAIT2) {
				u64 ts[2] = {};
				u64 where = RD(u64, regs, O_REGS_R10);
				t->timeout_ms = -1;
				if (where && !bpf_probe_read_user(ts, 16, (void *)where))
					t->timeout_ms = ts[0] * 1000 + (ts[1] + 999999) / 1000000;
			}
		} else if (c != CLASS_SOCKET) {
			s32 fd = c == CLASS_EPOLL_CTL ? (s32)a.dx : (s32)a.di;
			u16 mode;
			u64 sk = 0;
			struct sock_state *s = socket_of(fd, &mode, &sk);
			if (s) {
				t->sock = s->id;
				if (s->tcp && c <= CLASS_READ) {
					t->flags = FLAG_TCP;
					t->seq = c == CLASS_SEND || c == CLASS_WRITE
						? RD(u32, sk, O_TCP_WRITE_SEQ) : RD(u32, sk, O_TCP_COPIED_SEQ);
				}
			} else if (c == CLASS_WRITE || c == CLASS_READ) {
				u32 in_loop = is_watched(t, fd);
				t->keep = (mode & S_IFMT) == S_IFIFO || in_loop;
				if ((mode & S_IFMT) == S_IFIFO && in_loop)
					t->sock = sk << 1 | (c == CLASS_WRITE);
			}
		}
		if (t->slot && c != CLASS_EPOLL_WAIT && t->keep &&
		    bpf_probe_read_user(&t->task, 8, (void *)t->slot))
			t->flags |= FLAG_UNSTAMPED;
	}
	t->enter_ns = bpf_ktime_get_ns();
	return 0;
}

static __always_inline void emit_epoll_wait(struct thread_state *t, u32 tid, u64 now, s64 ret)
{
	u32 total = ret > 0 ? ret : 0;
	u32 left = total > 4 ? 1 : 0;
	struct ev_epoll_wait *e = reserve(KIND_EPOLL_WAIT, t->enter_ns, tid, left ? FLAG_MORE : 0);
	if (!e)
		return;
	e->dur_ns = now - t->enter_ns;
	e->ret = ret;
	e->epfd = t->fd;
	e->timeout_ms = t->timeout_ms;
	e->nr = t->nr;
	e->n = total > 4 ? 4 : total;
	u64 events = t->arg1;
#pragma unroll
	for (int i = 0; i < 4; i++)
		if (i < total)
			bpf_probe_read_user(&e->fds[i], 4, (void *)(events + i * EPOLL_STRIDE + EPOLL_DATA));
	submit(e);
	if (!left)
		return;
	for (u32 chunk = 0; chunk < 8; chunk++) {
		u32 first = 4 + chunk * 9;
		if (first >= total)
			break;
		struct ev_epoll_ready *r = reserve(KIND_EPOLL_READY, t->enter_ns, tid,
						   first + 9 < total ? FLAG_MORE : 0);
		if (!r)
			break;
		r->first = first;
		r->n = total - first > 9 ? 9 : total - first;
#pragma unroll
		for (int i = 0; i < 9; i++)
			if (first + i < total)
				bpf_probe_read_user(&r->fds[i], 4,
					(void *)(events + (u64)(first + i) * EPOLL_STRIDE + EPOLL_DATA));
		submit(r);
	}
}

/* What epoll_ctl was asked for, by a system call of its own or through io_uring. */
struct epoll_request {
	u64 start_ns, task, sock;
	s64 ret;
	s32 epfd, fd;
	u32 op, events, io_uring;
};

static __always_inline void emit_epoll_ctl(struct epoll_request *q, u32 tgid, u32 tid, u64 now, u8 flags)
{
	u64 w = (u64)tgid << 32 | (u32)q->fd;
	u32 one = 1;
	if (!q->ret && q->op == EPOLL_CTL_ADD)
		watched.update(&w, &one);
	if (!q->ret && q->op == EPOLL_CTL_DEL)
		watched.delete(&w);
	struct ev_epoll_ctl *e = reserve(KIND_EPOLL_CTL, q->start_ns, tid, flags);
	if (!e)
		return;
	e->task = q->task;
	e->dur_ns = now - q->start_ns;
	e->sock = q->sock;
	e->ret = q->ret;
	e->epfd = q->epfd;
	e->fd = q->fd;
	e->op = q->op;
	e->io_uring = q->io_uring;
	e->events = q->events & ~EPOLL_ALWAYS;
	submit(e);
}

int on_sys_exit(struct bpf_raw_tracepoint_args *ctx)
{
	struct thread_state *t = this_thread();
	if (!t || !t->enter_ns)
		return 0;
	u64 now = bpf_ktime_get_ns();
	s64 ret = ctx->args[1];
	u32 tid = bpf_get_current_pid_tgid();
	u32 c = t->class;
	u64 started = t->enter_ns;
	if ((c == CLASS_OTHER || !t->keep) && now - started < SLOW_NS)
		goto done;
	if (c == CLASS_EPOLL_WAIT) {
		t->polled_ns = now;
		emit_epoll_wait(t, tid, now, ret);
		goto done;
	}
	if (c == CLASS_EPOLL_CTL) {
		struct epoll_request q = { t->enter_ns, t->task, t->sock, ret, t->fd, t->arg2, t->arg1 };
		u64 event = RD(u64, t->regs, O_REGS_R10);
		if (q.op != EPOLL_CTL_DEL) /* which does not look at it */
			bpf_probe_read_user(&q.events, 4, (void *)event);
		emit_epoll_ctl(&q, t->tgid, tid, now, t->flags);
		goto done;
	}
	if ((c == CLASS_ACCEPT || c == CLASS_SOCKET) && ret >= 0) {
		u16 mode;
		u64 sk;
		struct sock_state *s = socket_of(ret, &mode, &sk);
		if (s)
			t->sock = s->id;
	}
	struct ev_syscall *e = reserve(KIND_SYSCALL, started, tid, t->flags);
	if (e) {
		e->task = t->task;
		e->dur_ns = now - started;
		e->sock = t->sock;
		/* an address, which does not fit, is told as 0 */
		e->ret = ret > -4096 && ret < ADDRESSES || c != CLASS_PLAIN && c != CLASS_OTHER ? ret : 0;
		e->fd = t->fd;
		e->seq = t->seq;
		e->nr = t->nr;
		submit(e);
	}
done:
	t->enter_ns = 0;
	t->nr = NO_SYSCALL;
	return 0;
}
