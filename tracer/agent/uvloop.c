/* SPDX-License-Identifier: MIT
 *
 * The hooks on uvloop.Loop. Its handles are C structs that call their callback themselves, so a
 * callback is scheduled inside an object of ours, which notes when it begins and ends. What uvloop
 * schedules for itself passes its ready queue, see ready.c. What libuv calls with the bytes that it
 * has just read passes nothing that could be replaced: tracer/correlate/native.py finds it by its
 * system calls.
 */
#include "agent.h"

/* A callback on its way through uvloop. */
struct call {
	PyObject_HEAD
	vectorcallfunc vectorcall;
	PyObject *callback;
	struct wake wake;
	u8 flags;
	bool kept; /* for any number of calls: a descriptor's or a signal's */
};

static PyTypeObject *uvloop_type;
static PyObject *old_call_soon, *old_threadsafe, *old_call_later;
static PyObject *old_add_reader, *old_add_writer, *old_add_signal, *old_run_forever;

enum loop_kind loop_kind(PyObject *loop)
{
	return uvloop_type && PyObject_TypeCheck(loop, uvloop_type) ? UVLOOP : ASYNCIO;
}

/* ---- callbacks ---- */

static PyObject *call_run(PyObject *self, PyObject *const *args, size_t nf, PyObject *names)
{
	struct call *call = (struct call *)self;
	PyObject *callback = call->callback, *result, *type, *value, *trace;
	Py_ssize_t n = PyVectorcall_NARGS(nf);
	struct run run;
	u32 told;

	Py_INCREF(callback);
	if (!ring_ready()) {
		result = PyObject_Vectorcall(callback, args, nf, names);
		Py_DECREF(callback);
		return result;
	}
	if (!run_of(&run, now_running.loop, callback, args, n)) {
		run.flags |= call->flags;
		run.wake = call->wake;
		if (call->kept && now_running.handle)
			run.wake = schedule_recall(now_running.handle, NULL, NULL);
		told = work_told(callback, args, n);
		if (told)
			run.wake.run = told;
	}
	if (!now_running.name)
		Py_CLEAR(now_running.handle); /* it is no handle of uvloop's own */
	run_begin(&run);
	result = PyObject_Vectorcall(callback, args, nf, names);
	if (!result)
		PyErr_Fetch(&type, &value, &trace);
	run_end(&run, callback);
	if (!result)
		PyErr_Restore(type, value, trace);
	Py_DECREF(callback);
	return result;
}

static PyObject *call_getattro(PyObject *self, PyObject *name)
{
	return PyObject_GetAttr(((struct call *)self)->callback, name);
}

static PyObject *call_repr(PyObject *self)
{
	return PyObject_Repr(((struct call *)self)->callback);
}

static int call_traverse(PyObject *self, visitproc visit, void *arg)
{
	Py_VISIT(((struct call *)self)->callback);
	return 0;
}

static void call_dealloc(PyObject *self)
{
	PyObject_GC_UnTrack(self);
	Py_CLEAR(((struct call *)self)->callback);
	PyObject_GC_Del(self);
}

static PyTypeObject call_type = {
	PyVarObject_HEAD_INIT(NULL, 0)
	.tp_name = "_awaitscope_agent.Call",
	.tp_basicsize = sizeof(struct call),
	.tp_dealloc = call_dealloc,
	.tp_repr = call_repr,
	.tp_call = PyVectorcall_Call,
	.tp_vectorcall_offset = offsetof(struct call, vectorcall),
	.tp_getattro = call_getattro,
	.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_HAVE_VECTORCALL,
	.tp_traverse = call_traverse,
	.tp_doc = "A callback on its way through uvloop.",
};

static struct call *call_new(PyObject *callback)
{
	struct call *call = PyObject_GC_New(struct call, &call_type);

	if (!call)
		return NULL;
	call->vectorcall = call_run;
	call->callback = new_ref(callback);
	call->wake = (struct wake){0};
	call->flags = 0;
	call->kept = false;
	PyObject_GC_Track((PyObject *)call);
	return call;
}

enum way { SOON, LATER, KEPT };

/* Who makes what ready, and when: it is known before another thread can take it. */
static void note_wake(struct call *call, PyObject *loop)
{
	struct thread *thread = thread_self();
	struct wake wake = {now_ns(), thread->run, thread->tid};
	struct task *task;
	PyObject *object;
	bool thrown;

	object = task_of(call->callback, &thrown);
	task = object ? task_see(object, loop, thread, wake.ns) : NULL;
	if (task)
		task->wake = wake;
	else
		call->wake = wake;
}

/* A TimerHandle says when it is due; what is due at once is an ordinary handle. */
static void note_deadline(struct call *call, PyObject *handle)
{
	PyObject *when = PyObject_CallMethod(handle, "when", NULL);

	if (when && PyFloat_Check(when) && PyFloat_AS_DOUBLE(when) > 0) {
		call->flags |= RUN_TIMER;
		call->wake = (struct wake){(u64)(PyFloat_AS_DOUBLE(when) * 1e9), 0, 0};
	}
	PyErr_Clear();
	Py_XDECREF(when);
}

/* Call a method of uvloop's, with the callback at args[at] inside an object of ours. */
static PyObject *schedule(PyObject *old, PyObject *loop, PyObject *const *args, Py_ssize_t n,
			  PyObject *names, Py_ssize_t at, enum way way)
{
	Py_ssize_t all = n + (names ? PyTuple_GET_SIZE(names) : 0);
	PyObject *few[8], **stack = few, *result;
	struct call *call = NULL;
	bool outer = now_running.scheduling;

	if (n > at && PyCallable_Check(args[at]) && ring_ready()) {
		native_begin();
		if (way != KEPT || !is_coroutine_function(args[at])) /* uvloop refuses these */
			call = call_new(args[at]);
	}
	if (call && all > 8)
		stack = PyMem_Malloc((size_t)all * sizeof(*stack));
	if (!call || !stack) {
		PyErr_Clear();
		Py_XDECREF(call);
		return call_method(old, loop, args, n, names);
	}
	memcpy(stack, args, (size_t)all * sizeof(*stack));
	stack[at] = (PyObject *)call;
	call->kept = way == KEPT;
	if (way != KEPT)
		note_wake(call, loop);
	now_running.scheduling = true;
	result = call_method(old, loop, stack, n, names);
	now_running.scheduling = outer;
	if (result && way == LATER)
		note_deadline(call, result);
	Py_DECREF(call);
	if (stack != few)
		PyMem_Free(stack);
	return result;
}

static PyObject *call_soon(PyObject *loop, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
	return schedule(old_call_soon, loop, args, n, names, 0, SOON);
}

static PyObject *threadsafe(PyObject *loop, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
	return schedule(old_threadsafe, loop, args, n, names, 0, SOON);
}

static PyObject *call_later(PyObject *loop, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
	return schedule(old_call_later, loop, args, n, names, 1, LATER);
}

static PyObject *add_reader(PyObject *loop, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
	return schedule(old_add_reader, loop, args, n, names, 1, KEPT);
}

static PyObject *add_writer(PyObject *loop, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
	return schedule(old_add_writer, loop, args, n, names, 1, KEPT);
}

static PyObject *add_signal(PyObject *loop, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
	return schedule(old_add_signal, loop, args, n, names, 1, KEPT);
}

static PyObject *run_forever(PyObject *loop, PyObject *Py_UNUSED(none))
{
	PyObject *outer = now_running.loop, *result, *type, *value, *trace;

	ready_replace(loop, uvloop_type->tp_base);
	now_running.loop = loop;
	result = PyObject_CallFunctionObjArgs(old_run_forever, loop, NULL);
	PyErr_Fetch(&type, &value, &trace);
	native_end();
	PyErr_Restore(type, value, trace);
	now_running.loop = outer;
	return result;
}

/* ---- what else the loop keeps to itself ---- */

struct sockets {
	PyTypeObject *type;
	PyObject *found[2];
};

static int find_sockets(PyObject *object, void *arg)
{
	struct sockets *sockets = arg;
	int at = sockets->found[0] != NULL;

	if (PyObject_TypeCheck(object, sockets->type))
		sockets->found[at] = object;
	return sockets->found[1] != NULL;
}

/* Name the ends of the pair of sockets by which signals come, -1 each for none. */
void uvloop_pipe(PyObject *loop, s32 *fd, s32 *wfd)
{
	PyObject *module = PyDict_GetItemString(PyImport_GetModuleDict(), "socket");
	PyObject *type = module ? attribute(module, "socket") : NULL, *number;
	struct sockets sockets = {(PyTypeObject *)type, {NULL, NULL}};

	*fd = *wfd = -1;
	if (type && PyType_Check(type))
		Py_TYPE(loop)->tp_traverse(loop, find_sockets, &sockets);
	for (int i = 0; i < 2 && sockets.found[1]; i++) {
		number = PyObject_CallMethod(sockets.found[i], "fileno", NULL);
		*(i ? wfd : fd) = number ? (s32)PyLong_AsLong(number) : -1;
		Py_XDECREF(number);
		PyErr_Clear();
	}
	Py_XDECREF(type);
}

static int find_executor(PyObject *object, void *arg)
{
	PyObject **executor = arg;

	if (!PyObject_TypeCheck(object, (PyTypeObject *)executor[0]))
		return 0;
	executor[1] = object;
	return 1;
}

/* Return the loop's default executor as a new reference, NULL if it has none yet. */
PyObject *uvloop_executor(PyObject *loop)
{
	PyObject *modules = PyImport_GetModuleDict();
	PyObject *module = PyDict_GetItemString(modules, "concurrent.futures._base");
	PyObject *pair[2] = {module ? attribute(module, "Executor") : NULL, NULL};

	if (pair[0] && PyType_Check(pair[0]))
		Py_TYPE(loop)->tp_traverse(loop, find_executor, pair);
	Py_XDECREF(pair[0]);
	return new_ref(pair[1]);
}

/* ---- installing ---- */

#define METHOD(name, function, signature)                                                  \
	{name, (PyCFunction)(void (*)(void))function, METH_FASTCALL | METH_KEYWORDS,       \
	 name "($self, " signature ")\n--\n\n"}

static struct {
	PyMethodDef def;
	PyObject **old;
} hooks[] = {
	{METHOD("call_soon", call_soon, "callback, *args, context=None"), &old_call_soon},
	{METHOD("call_soon_threadsafe", threadsafe, "callback, *args, context=None"),
	 &old_threadsafe},
	{METHOD("call_later", call_later, "delay, callback, *args, context=None"),
	 &old_call_later},
	{METHOD("add_reader", add_reader, "fileobj, callback, *args"), &old_add_reader},
	{METHOD("add_writer", add_writer, "fileobj, callback, *args"), &old_add_writer},
	{METHOD("add_signal_handler", add_signal, "sig, callback, *args"), &old_add_signal},
	{{"run_forever", run_forever, METH_NOARGS, "run_forever($self)\n--\n\n"},
	 &old_run_forever},
};

/* Put the hooks in place; -1 with an exception if this is no uvloop that we know. */
int uvloop_install(PyObject *type)
{
	size_t at;

	if (uvloop_type)
		return 0;
	if (PyType_Ready(&call_type) < 0 || ready_start())
		return -1;
	for (at = 0; at < sizeof(hooks) / sizeof(hooks[0]); at++)
		if (hook_put(type, &hooks[at].def, hooks[at].old))
			return -1;
	uvloop_type = (PyTypeObject *)new_ref(type);
	eager_install(type, UVLOOP);
	work_install(type, UVLOOP);
	writes_install();
	return 0;
}
