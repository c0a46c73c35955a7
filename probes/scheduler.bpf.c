/* SPDX-License-Identifier: MIT
 *
 * Hooks: sched_switch, sched_waking, hrtimer_expire_exit (raw tracepoints). One record per stretch
 * off the CPU, one per tick or switch at which the hypervisor had taken the CPU from a thread on it.
 * Cost: two look-ups per switch of the machine, one per waking, one per timer (the tick is one); a
 * read per switch of ours and per timer on top of ours.
 * Cannot see: sched_wakeup is left out: it says when the thread was enqueued, a few us after
 * sched_waking, and no table reads it; the run queue begins at the waking.
 */

/* Is the thread asleep for the GIL of its process? Its futex lies in the GIL's state then. */
static __always_inline int wants_gil(struct thread_state *t)
{
	if (t->nr != NR_FUTEX)
		return 0;
	u32 tgid = t->tgid;
	u64 *gil = gils.lookup(&tgid);
	if (!gil)
		return 0;
	u64 futex = RD(u64, t->regs, O_REGS_DI);
	return futex - (*gil & 0xffffffffffffULL) < *gil >> 48;
}

/* A card's handler woke a thread: the one that polls for it (threaded NAPI). */
static __always_inline void note_napi_thread(struct cpu_state *p, u32 tid)
{
	u32 irq = p->irq;
	struct nic_irq *nic = nic_irqs.lookup(&irq);
	if (!nic || !(nic->tells & IRQ_BRINGS))
		return;
	struct napi_thread n = {};
	n.irq_ns = p->irq_ns;
	n.wake_ns = bpf_ktime_get_ns();
	n.irq = irq;
	n.ifindex = nic->ifindex;
	napi_threads.update(&tid, &n);
}

#ifdef O_RQ_STEAL
/*
 * What the hypervisor took from this CPU since the last look belongs to `prev_tid` (0: nobody of ours)
 * if that was on it then; `next_tid` is on it from here on. The kernel brings prev_steal_time_rq up to
 * date at each tick and switch (update_rq_clock_task), right before these programs run, and
 * prev_steal_time at each tick: a long stretch without the CPU ends with one, beneath the same thread.
 */
static __always_inline void note_stolen(u64 task, u32 prev_tid, u32 next_tid)
{
	struct cpu_state *p = this_cpu();
	if (!p)
		return;
	if (!p->rq)
		p->rq = RD(u64, RD(u64, task, O_TASK_CFS_RQ), O_CFS_RQ_RQ);
	u64 so_far = RD(u64, p->rq, O_RQ_STEAL), stolen = so_far - p->stolen_ns;
	int known = prev_tid && p->stolen_tid == prev_tid;
	p->stolen_ns = so_far;
	p->stolen_tid = next_tid;
	if (!known || !stolen)
		return;
	struct ev_stolen *e = reserve(KIND_STOLEN, bpf_ktime_get_ns() - stolen, prev_tid, 0);
	if (!e)
		return;
	e->dur_ns = stolen;
	submit(e);
}

/* The scheduler's tick is a timer. It goes on beneath a thread that never leaves its CPU. */
int on_hrtimer_expire_exit(struct bpf_raw_tracepoint_args *ctx)
{
	u32 tid = our_tid();
	if (tid)
		note_stolen(bpf_get_current_task(), tid, tid);
	return 0;
}
#else
static __always_inline void note_stolen(u64 task, u32 prev_tid, u32 next_tid) {}
#endif

int on_sched_waking(struct bpf_raw_tracepoint_args *ctx)
{
	u64 wakee = ctx->args[0];
	u32 tid = RD(u32, wakee, O_TASK_PID);
	struct thread_state *t = threads.lookup(&tid);
	struct cpu_state *p = this_cpu();
	if (!t) {
		if (p && p->in_irq)
			note_napi_thread(p, tid);
		return 0;
	}
	u32 self = bpf_get_current_pid_tgid();
	t->wake_ns = bpf_ktime_get_ns();
	t->wake_cpu = bpf_get_smp_processor_id();
	t->waker_tid = 0;
	struct thread_state *waker = this_thread();
	/* a futex is woken by a call; else a timer or a signal did it, on top of whoever ran */
	if (waker && (t->nr != NR_FUTEX || waker->nr == NR_FUTEX || waker->nr == NR_EXIT))
		t->waker_tid = self;
	if (throttled(wakee))
		t->why |= OFF_THROTTLED;
	t->wake_sock = 0;
	t->wake_flags = 0;
	if (p) {
		if (p->softirq_ns)
			t->wake_flags = FLAG_SOFTIRQ;
		if (p->ready_sock && p->ready_tid == self)
			t->wake_sock = p->ready_sock;
		p->ready_sock = 0;
	}
	return 0;
}

int on_sched_switch(struct bpf_raw_tracepoint_args *ctx)
{
	u64 prev = ctx->args[1], next = ctx->args[2];
	u32 prev_tid = bpf_get_current_pid_tgid(); /* it is still the current one */
	u32 next_tid = RD(u32, next, O_TASK_PID);
	struct thread_state *t = NULL;
	u64 now;
	if (prev_tid) {
		t = threads.lookup(&prev_tid);
		if (t) {
			note_stolen(next, prev_tid, next_tid);
			t->out_ns = bpf_ktime_get_ns();
			t->out_state = ctx->args[0] ? 0 : ctx->args[3];
			t->out_cpu = bpf_get_smp_processor_id();
			t->why = 0;
			if (!t->out_state)
				t->why = throttled(prev) ? OFF_THROTTLED : 0;
			else if (wants_gil(t))
				t->why = OFF_GIL;
		}
	}
	if (!next_tid)
		return 0;
	int seen = t != NULL;
	t = threads.lookup(&next_tid);
	if (!t)
		return 0;
	if (!seen)
		note_stolen(next, 0, next_tid);
	if (!t->out_ns)
		return 0;
	now = bpf_ktime_get_ns();
	u8 flags = 0;
	u64 wake = 0;
	if (t->out_state) {
		flags = t->wake_flags;
		if (t->wake_ns >= t->out_ns)
			wake = t->wake_ns - t->out_ns;
		else
			flags |= FLAG_WOKEN_EARLY;
	}
	struct ev_off_cpu *e = reserve(KIND_OFF_CPU, t->out_ns, next_tid, flags);
	if (e) {
		e->dur_ns = now - t->out_ns;
		e->wake_ns = wake;
		e->state = t->out_state;
		e->nr = t->nr;
		e->why = t->why;
		e->in_cpu = e->cpu;
		e->cpu = t->out_cpu;
		if (t->out_state) {
			e->sock = t->wake_sock;
			e->waker_tid = t->waker_tid;
			e->wake_cpu = t->wake_cpu;
		}
		submit(e);
	}
	t->out_ns = 0;
	t->wake_sock = 0;
	return 0;
}
