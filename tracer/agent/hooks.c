/* SPDX-License-Identifier: MIT
 *
 * The hooks on asyncio: BaseEventLoop._call_soon (who woke what), Handle._run (runs); further ones
 * are in eager.c and work.c. Each does what the function does that it replaces, whether or not
 * anything is recorded.
 */
#include "agent.h"

#define WAYS 4
#define SETS 1024
#define IN_FLIGHT 16

static struct scheduled scheduled[SETS][WAYS], in_flight[IN_FLIGHT];
static u32 next_way, flying;
static u32 runs;

static PyObject *old_call_soon, *old_run, *report_exception;
static PyTypeObject *handle_type, *timer_type;
static Py_ssize_t callback_at, args_at, context_at, loop_at, when_at;

static PyObject *slot(PyObject *object, Py_ssize_t offset)
{
	return *(PyObject **)((char *)object + offset);
}

/* ---- when callbacks were scheduled ---- */

static struct scheduled *set_of(const void *handle)
{
	u64 hash = (u64)(uintptr_t)handle * 0x9E3779B97F4A7C15ull;

	return scheduled[hash >> 54];
}

void schedule_remember(const struct scheduled *entry)
{
	struct scheduled *set = set_of(entry->handle);
	int way;

	for (way = 0; way < WAYS; way++)
		if (!set[way].handle || set[way].handle == entry->handle)
			break;
	if (way == WAYS) /* handles cancelled before they ran stay here: any may go */
		way = (int)(next_way++ % WAYS);
	set[way] = *entry;
}

struct wake schedule_recall(const void *handle, const void *callback, const void *args)
{
	struct scheduled *set = set_of(handle);
	struct wake wake = {0};

	for (int way = 0; way < WAYS; way++) {
		if (set[way].handle != handle)
			continue;
		if (set[way].callback == callback && set[way].args == args)
			wake = set[way].wake;
		set[way].handle = NULL;
		return wake;
	}
	for (int i = 0; flying && i < IN_FLIGHT; i++) {
		if (in_flight[i].callback != callback || in_flight[i].args != args)
			continue;
		wake = in_flight[i].wake;
		in_flight[i].callback = NULL;
		return wake;
	}
	return wake;
}

/* The loop's thread may run a handle before the thread that made it gets to know it. */
static struct scheduled *take_off(const struct scheduled *entry)
{
	for (int i = 0; i < IN_FLIGHT; i++) {
		if (in_flight[i].handle)
			continue;
		in_flight[i] = *entry;
		in_flight[i].handle = entry; /* taken */
		flying++;
		return &in_flight[i];
	}
	return NULL;
}

static bool land(struct scheduled *flight)
{
	bool still = flight->callback != NULL;

	flight->handle = NULL;
	flight->callback = NULL;
	flying--;
	return still;
}

/* Call a method that was replaced, with the arguments that its replacement got. */
PyObject *call_method(PyObject *function, PyObject *self, PyObject *const *args, Py_ssize_t n,
		      PyObject *names)
{
	Py_ssize_t all = n + (names ? PyTuple_GET_SIZE(names) : 0);
	PyObject *few[8], **stack = few, *result;

	if (all + 2 > 8 && !(stack = PyMem_Malloc(((size_t)all + 2) * sizeof(*stack))))
		return PyErr_NoMemory();
	stack[1] = self;
	memcpy(stack + 2, args, (size_t)all * sizeof(*stack));
	result = PyObject_Vectorcall(function, stack + 1,
				     (size_t)(n + 1) | PY_VECTORCALL_ARGUMENTS_OFFSET, names);
	if (stack != few)
		PyMem_Free(stack);
	return result;
}

/* ---- BaseEventLoop._call_soon(callback, args, context) ---- */

static PyObject *call_soon_callback(PyObject *loop, PyObject *const *args, struct thread *thread)
{
	struct scheduled entry = {NULL, args[0], args[1], {now_ns(), thread->run, thread->tid}};
	struct scheduled *flight = thread->run ? NULL : take_off(&entry);
	PyObject *handle = soon(old_call_soon, loop, args);

	entry.handle = handle;
	if ((!flight || land(flight)) && handle)
		schedule_remember(&entry);
	return handle;
}

static PyObject *call_soon(PyObject *loop, PyObject *const *args, Py_ssize_t n)
{
	struct thread *thread;
	struct task *task;
	PyObject *object;
	bool thrown;

	if (n != 3 || !ring_ready())
		return call_method(old_call_soon, loop, args, n, NULL);
	thread = thread_self();
	object = task_of(args[0], &thrown);
	if (!object)
		return call_soon_callback(loop, args, thread);
	{
		u64 now = now_ns();

		task = task_see(object, loop, thread, now);
		if (task)
			task->wake = (struct wake){now, thread->run, thread->tid};
	}
	return soon(old_call_soon, loop, args);
}

/* ---- BaseEventLoop._add_callback_signalsafe(handle): a signal arrived ---- */

static PyObject *old_add_signalsafe;

static PyObject *add_signalsafe(PyObject *loop, PyObject *handle)
{
	if (ring_ready() && handle_type && PyObject_TypeCheck(handle, handle_type)) {
		struct thread *thread = thread_self();
		struct wake wake = {now_ns(), thread->run, thread->tid};
		struct scheduled entry = {handle, slot(handle, callback_at),
					  slot(handle, args_at), wake};

		schedule_remember(&entry);
	}
	return PyObject_CallFunctionObjArgs(old_add_signalsafe, loop, handle, NULL);
}

/* ---- runs ---- */

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

static void begin_callback(struct run *run, PyObject *handle, PyObject *callback, PyObject *args)
{
	PyObject *when;
	u32 told;

	if (timer_type && PyObject_TypeCheck(handle, timer_type)) {
		when = slot(handle, when_at);
		run->flags |= RUN_TIMER;
		if (when && PyFloat_Check(when) && PyFloat_AS_DOUBLE(when) > 0)
			run->wake.ns = (u64)(PyFloat_AS_DOUBLE(when) * 1e9);
		return;
	}
	run->wake = schedule_recall(handle, callback, args);
	told = work_told(callback, ((PyTupleObject *)args)->ob_item, PyTuple_GET_SIZE(args));
	if (told)
		run->wake.run = told;
}

static void begin(struct run *run, PyObject *handle, PyObject *callback, PyObject *args)
{
	if (!run_of(run, slot(handle, loop_at), callback, ((PyTupleObject *)args)->ob_item,
		    PyTuple_GET_SIZE(args)))
		begin_callback(run, handle, callback, args);
	run_begin(run);
}

/* ---- Handle._run() ---- */

/* Do what the except clauses of Handle._run do, with the exception as the one being handled. */
static PyObject *report(PyObject *handle)
{
	PyObject *type, *value, *trace, *old_type, *old_value, *old_trace, *result;

	if (PyErr_ExceptionMatches(PyExc_SystemExit) ||
	    PyErr_ExceptionMatches(PyExc_KeyboardInterrupt))
		return NULL;
	PyErr_Fetch(&type, &value, &trace);
	PyErr_NormalizeException(&type, &value, &trace);
	if (trace)
		PyException_SetTraceback(value, trace);
	PyErr_GetExcInfo(&old_type, &old_value, &old_trace);
	Py_INCREF(value);
	PyErr_SetExcInfo(type, new_ref(value), trace);
	result = PyObject_CallFunctionObjArgs(report_exception, handle, value, NULL);
	PyErr_SetExcInfo(old_type, old_value, old_trace);
	Py_DECREF(value);
	Py_DECREF(value);
	if (!result)
		return NULL;
	Py_DECREF(result);
	Py_RETURN_NONE;
}

static PyObject *call_in(PyObject *context, PyObject *callback, PyObject *args)
{
	PyObject *result;

	if (PyContext_Enter(context) < 0)
		return NULL;
	result = PyObject_Vectorcall(callback, ((PyTupleObject *)args)->ob_item,
				     (size_t)PyTuple_GET_SIZE(args), NULL);
	if (PyContext_Exit(context) < 0)
		Py_CLEAR(result);
	return result;
}

static PyObject *handle_run(PyObject *handle, PyObject *Py_UNUSED(none))
{
	PyObject *callback = slot(handle, callback_at), *args = slot(handle, args_at);
	PyObject *context = slot(handle, context_at), *result;
	PyObject *type, *value, *trace;
	bool recording = ring_ready();
	struct run run;

	if (!callback || !args || !context || !PyTuple_CheckExact(args) ||
	    !PyContext_CheckExact(context))
		return PyObject_CallOneArg(old_run, handle);
	Py_INCREF(callback);
	Py_INCREF(args);
	Py_INCREF(context);
	if (recording)
		begin(&run, handle, callback, args);
	result = call_in(context, callback, args);
	if (recording) {
		if (!result)
			PyErr_Fetch(&type, &value, &trace);
		run_end(&run, callback);
		if (!result)
			PyErr_Restore(type, value, trace);
	}
	if (result) {
		Py_DECREF(result);
		result = new_ref(Py_None);
	} else {
		result = report(handle);
	}
	Py_DECREF(callback);
	Py_DECREF(args);
	Py_DECREF(context);
	return result;
}

/* ---- installing ---- */

static PyMethodDef call_soon_def = {
	"_call_soon", (PyCFunction)(void (*)(void))call_soon, METH_FASTCALL,
	"_call_soon($self, callback, args, context)\n--\n\n"};
static PyMethodDef add_signalsafe_def = {
	"_add_callback_signalsafe", add_signalsafe, METH_O,
	"_add_callback_signalsafe($self, handle)\n--\n\n"};
static PyMethodDef run_def = {"_run", handle_run, METH_NOARGS, "_run($self)\n--\n\n"};

static int slot_offset(PyObject *type, const char *name, Py_ssize_t *offset)
{
	PyObject *member = attribute(type, name);
	int failed = !member || Py_TYPE(member) != &PyMemberDescr_Type;

	if (failed)
		PyErr_Format(PyExc_RuntimeError, "%s is no slot of the handle", name);
	else
		*offset = ((PyMemberDescrObject *)member)->d_member->offset;
	Py_XDECREF(member);
	return failed ? -1 : 0;
}

/* Put a C method into a class and keep the one that it had; -1 with an exception. */
int hook_put(PyObject *type, PyMethodDef *def, PyObject **old)
{
	PyObject *descriptor;
	int result = -1;

	*old = PyObject_GetAttrString(type, def->ml_name);
	if (!*old)
		return -1;
	descriptor = PyDescr_NewMethod((PyTypeObject *)type, def);
	if (descriptor)
		result = PyObject_SetAttrString(type, def->ml_name, descriptor);
	Py_XDECREF(descriptor);
	return result;
}

/* Put a C method in the place of a Python one; -1 with an exception if it is not asyncio's. */
int hook_replace(PyObject *type, PyMethodDef *def, PyObject **old)
{
	PyObject *found = PyObject_GetAttrString(type, def->ml_name);
	bool is = found && PyFunction_Check(found);

	Py_XDECREF(found);
	if (is)
		return hook_put(type, def, old);
	PyErr_Format(PyExc_RuntimeError, "%s is not asyncio's own", def->ml_name);
	return -1;
}

/* Put the hooks in place; -1 with an exception, and nothing changed, if that cannot be done. */
int hooks_install(PyObject *loop_type, PyObject *handle, PyObject *timer, PyObject *helper)
{
	if (slot_offset(handle, "_callback", &callback_at) ||
	    slot_offset(handle, "_args", &args_at) ||
	    slot_offset(handle, "_context", &context_at) ||
	    slot_offset(handle, "_loop", &loop_at) || slot_offset(timer, "_when", &when_at))
		return -1;
	handle_type = (PyTypeObject *)new_ref(handle);
	timer_type = (PyTypeObject *)new_ref(timer);
	report_exception = new_ref(helper);
	if (hook_replace(handle, &run_def, &old_run))
		return -1;
	if (hook_replace(loop_type, &call_soon_def, &old_call_soon)) {
		PyObject *type, *value, *trace;

		PyErr_Fetch(&type, &value, &trace);
		PyObject_SetAttrString(handle, "_run", old_run);
		PyErr_Restore(type, value, trace);
		return -1;
	}
	soon_install(handle, old_call_soon);
	eager_install(loop_type, ASYNCIO);
	if (hook_replace(loop_type, &add_signalsafe_def, &old_add_signalsafe))
		PyErr_Clear(); /* then it is not seen that a signal was the cause, nothing else */
	threadsafe_install();
	work_install(loop_type, ASYNCIO);
	return 0;
}
