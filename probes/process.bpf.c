/* SPDX-License-Identifier: MIT
 *
 * Hooks: sched_process_fork, sched_process_exec, sched_process_exit (raw tracepoints).
 * Cost: one look-up for other processes; rare for ours. Follows the process tree.
 * Cannot see: threads that were there before (the session seeds those of --also processes).
 */
static __always_inline u32 ns_tid_of(u64 task)
{
	u64 pid = RD(u64, task, O_TASK_THREAD_PID);
	u32 level = RD(u32, pid, O_PID_LEVEL);
	return RD(u32, pid + O_PID_NUMBERS + (u64)level * O_UPID_SIZE, O_UPID_NR);
}

static __always_inline void emit_thread(u64 task, u32 tid, u32 what, u32 parent_tid, u32 parent_tgid)
{
	struct ev_thread *e = reserve(KIND_THREAD, bpf_ktime_get_ns(), tid, 0);
	if (!e)
		return;
	e->tgid = RD(u32, task, O_TASK_TGID);
	e->ns_tid = ns_tid_of(task);
	e->parent_tid = parent_tid;
	e->parent_tgid = parent_tgid;
	e->what = what;
	if (what == THREAD_EXIT)
		e->exit_code = RD(u32, task, O_TASK_EXIT_CODE);
	bpf_probe_read_kernel(e->comm, sizeof(e->comm), (void *)(task + O_TASK_COMM));
	submit(e);
}

int on_fork(struct bpf_raw_tracepoint_args *ctx)
{
	struct thread_state *parent = this_thread();
	if (!parent)
		return 0;
	u64 child = ctx->args[1];
	u32 tid = RD(u32, child, O_TASK_PID);
	struct thread_state n = {};
	n.tgid = RD(u32, child, O_TASK_TGID);
	n.nr = NO_SYSCALL;
	n.out_ns = bpf_ktime_get_ns(); /* it is off the CPU until it runs first */
	n.wake_ns = n.out_ns;
	n.out_cpu = bpf_get_smp_processor_id();
	n.waker_tid = bpf_get_current_pid_tgid();
	threads.update(&tid, &n);
	emit_thread(child, tid, THREAD_FORK, bpf_get_current_pid_tgid(), parent->tgid);
	return 0;
}

/* Is this the held target's exec? Says so only once. */
static __always_inline int is_seed(u64 task)
{
	u32 zero = 0;
	struct config *c = config.lookup(&zero);
	if (!c || !c->seed_tid)
		return 0;
	u64 pid = RD(u64, task, O_TASK_THREAD_PID);
	u32 level = RD(u32, pid, O_PID_LEVEL);
	u64 upid = pid + O_PID_NUMBERS + (u64)level * O_UPID_SIZE;
	if (RD(u32, upid, O_UPID_NR) != c->seed_tid)
		return 0;
	if (RD(u32, RD(u64, upid, O_UPID_NS), O_PIDNS_INUM) != c->seed_pidns)
		return 0;
	c->seed_tid = 0; /* once: the number may be given to another process later */
	return 1;
}

int on_exec(struct bpf_raw_tracepoint_args *ctx)
{
	u64 task = ctx->args[0];
	u32 old_tid = ctx->args[1];
	u32 tid = bpf_get_current_pid_tgid();
	struct thread_state *t = threads.lookup(&old_tid);
	if (!t && !is_seed(task))
		return 0;
	struct thread_state n = {};
	n.tgid = bpf_get_current_pid_tgid() >> 32;
	n.nr = NO_SYSCALL;
	if (old_tid != tid)
		threads.delete(&old_tid);
	gils.delete(&n.tgid);
	polled.delete(&tid);
	threads.update(&tid, &n); /* the agent's slot went with the old image */
	emit_thread(task, tid, THREAD_EXEC, 0, 0);
	return 0;
}

int on_exit(struct bpf_raw_tracepoint_args *ctx)
{
	u32 tid = bpf_get_current_pid_tgid();
	struct thread_state *t = threads.lookup(&tid);
	if (!t)
		return 0;
	emit_thread(ctx->args[0], tid, THREAD_EXIT, 0, 0);
	if (tid == t->tgid)
		gils.delete(&tid);
	polled.delete(&tid);
	threads.delete(&tid);
	return 0;
}
