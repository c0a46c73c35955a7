/* SPDX-License-Identifier: MIT
 *
 * Runs: the steps of tasks and the callbacks that a loop runs, from begin to end.
 */
#include "agent.h"

static u32 runs;

u32 run_serial(void)
{
	return ++runs;
}

static void publish(struct thread *thread, u32 run, u32 task)
{
	thread->run = run;
	thread->task = task;
	if (thread->slot)
		__atomic_store_n(thread->slot, task, __ATOMIC_RELAXED);
}

void run_enter(struct run *run, u32 serial, u32 task)
{
	run->serial = serial;
	run->outer_run = run->thread->run;
	run->outer_task = run->thread->task;
	publish(run->thread, serial, task);
}

void run_leave(struct run *run)
{
	publish(run->thread, run->outer_run, run->outer_task);
	Py_CLEAR(run->task);
}

/* Say in which run the thread is: if the process ends in it, nothing else ever will. */
static void show(struct thread *thread)
{
	struct ev_step *shown = ring_open_run(thread);
	struct run *run = thread->open;

	if (!shown)
		return;
	__atomic_store_n(&shown->kind, 0, __ATOMIC_RELAXED);
	if (!run)
		return;
	__atomic_thread_fence(__ATOMIC_RELEASE);
	ring_show_spot(thread, run->spot);
	shown->ts_ns = run->begin_ns;
	shown->tid = thread->tid;
	shown->flags = run->flags | RUN_OPEN;
	shown->wake_ns = run->wake.ns;
	shown->run = run->serial;
	shown->waker_run = run->wake.run;
	if (run->task) {
		shown->task = run->task->serial;
		shown->wake_tid = run->wake.tid;
	} else {
		struct ev_callback *callback = (void *)shown;

		callback->name_str = 0;
		callback->wake_tid = run->wake.tid;
	}
	__atomic_store_n(&shown->kind, run->task ? KIND_STEP : KIND_CALLBACK, __ATOMIC_RELEASE);
}

void write_step(struct run *run, u64 end_ns)
{
	struct ev_step step = {0}, *record;

	step.flags = run->flags;
	task_park(run->task, run->object, &step);
	string_send(step.where_str);
	string_send(step.leaf_str);
	record = ring_reserve(KIND_STEP, run->begin_ns, run->thread->tid);
	if (!record)
		return;
	record->how = step.how;
	record->flags = step.flags;
	record->end_ns = end_ns;
	record->wake_ns = run->wake.ns;
	record->run = run->serial;
	record->waker_run = run->wake.run;
	record->task = run->task->serial;
	record->awaited = step.awaited;
	record->where_str = step.where_str;
	record->leaf_str = step.leaf_str;
	record->row = step.row;
	record->wake_tid = run->wake.tid;
	ring_commit();
}

static void write_callback(struct run *run, PyObject *callback, u64 end_ns)
{
	u32 name = string_send(callback_name(callback));
	struct ev_callback *record;

	record = ring_reserve(KIND_CALLBACK, run->begin_ns, run->thread->tid);
	if (!record)
		return;
	record->flags = run->flags;
	record->end_ns = end_ns;
	record->wake_ns = run->wake.ns;
	record->run = run->serial;
	record->waker_run = run->wake.run;
	record->name_str = name;
	record->wake_tid = run->wake.tid;
	ring_commit();
}

static void begin_step(struct run *run, PyObject *future, PyObject *loop, bool thrown)
{
	struct thread *thread = run->thread;

	run->task = task_see(run->object, loop, thread, 0);
	if (!run->task)
		return;
	Py_INCREF(run->task);
	run->wake = run->task->wake;
	run->task->wake = (struct wake){0};
	run->flags |= task_resume_flags(run->object, future, thrown);
	if (run->task->named != ring_generation)
		task_name(run->task, run->object, thread->tid);
}

/* Find out what a callback is that a loop is about to call; false if it steps no task. */
bool run_of(struct run *run, PyObject *loop, PyObject *callback, PyObject *const *args,
	    Py_ssize_t n)
{
	bool thrown;

	memset(run, 0, sizeof(*run));
	run->thread = thread_self();
	thread_announce(run->thread);
	if (loop)
		loop_see(loop, run->thread);
	run->object = task_of(callback, &thrown);
	if (run->object)
		begin_step(run, n == 1 ? args[0] : NULL, loop, thrown);
	return run->object != NULL;
}

void run_begin(struct run *run)
{
	if (run->wake.tid && run->wake.tid != run->thread->tid)
		run->flags |= RUN_FROM_THREAD;
	run_enter(run, run_serial(), run->task ? run->task->serial : 0);
	run->spot = internals_spot();
	run->begin_ns = now_ns();
	if (run->task || !run->object) {
		run->outer = run->thread->open;
		run->thread->open = run;
		show(run->thread);
	}
}

void run_end(struct run *run, PyObject *callback)
{
	u64 end_ns = now_ns();

	if (ring_ready()) {
		if (run->task)
			write_step(run, end_ns);
		else if (!run->object)
			write_callback(run, callback, end_ns);
	}
	if (run->thread->open == run) {
		run->thread->open = run->outer;
		show(run->thread);
	}
	run_leave(run);
}
