/* SPDX-License-Identifier: MIT
 *
 * Work that a loop gives to an executor: BaseEventLoop.run_in_executor, and to_thread with
 * it. The function goes to the pool in a wrapper that notes when a worker began and ended it; other
 * executors, which may pickle it, get it as it is. The future is marked: its end names the work.
 */
#include "agent.h"

struct work {
	PyObject_HEAD
	PyObject *function;
	u64 given_ns;
	u32 serial, giver_run, giver_tid, task;
};

static PyObject *old_run_in_executor[LOOP_KINDS], *work_key;
static PyCodeObject *set_state_code;

/* Write what became of the work; end_ns is 0 where that cannot be seen. */
static void write_work(const struct work *work, u32 tid, u64 begin_ns, u64 end_ns)
{
	u32 name = string_send(callback_name(work->function));
	struct ev_work *record = ring_reserve(KIND_WORK, begin_ns, tid);

	if (!record)
		return;
	record->end_ns = end_ns;
	record->wake_ns = work->given_ns;
	record->run = work->serial;
	record->waker_run = work->giver_run;
	record->name_str = name;
	record->wake_tid = work->giver_tid;
	record->task = work->task;
	ring_commit();
}

static PyObject *work_call(PyObject *self, PyObject *args, PyObject *kwargs)
{
	struct work *work = (struct work *)self;
	u64 begin_ns = now_ns(), end_ns;
	PyObject *result = PyObject_Call(work->function, args, kwargs);
	PyObject *type, *value, *trace;

	end_ns = now_ns();
	if (!ring_ready())
		return result;
	PyErr_Fetch(&type, &value, &trace);
	write_work(work, thread_self()->tid, begin_ns, end_ns);
	PyErr_Restore(type, value, trace);
	return result;
}

static PyObject *work_getattro(PyObject *self, PyObject *name)
{
	return PyObject_GetAttr(((struct work *)self)->function, name);
}

static PyObject *work_repr(PyObject *self)
{
	return PyObject_Repr(((struct work *)self)->function);
}

static int work_traverse(PyObject *self, visitproc visit, void *arg)
{
	Py_VISIT(((struct work *)self)->function);
	return 0;
}

static int work_clear(PyObject *self)
{
	Py_CLEAR(((struct work *)self)->function);
	return 0;
}

static void work_dealloc(PyObject *self)
{
	PyObject_GC_UnTrack(self);
	work_clear(self);
	PyObject_GC_Del(self);
}

static PyTypeObject work_type = {
	PyVarObject_HEAD_INIT(NULL, 0)
	.tp_name = "_awaitscope_agent.Work",
	.tp_basicsize = sizeof(struct work),
	.tp_dealloc = work_dealloc,
	.tp_repr = work_repr,
	.tp_call = work_call,
	.tp_getattro = work_getattro,
	.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC,
	.tp_traverse = work_traverse,
	.tp_clear = work_clear,
	.tp_doc = "A function on its way to a pool of threads.",
};

/* A function, or partials of one, whose call makes a coroutine. */
bool is_coroutine_function(PyObject *function)
{
	PyObject *inner = new_ref(function), *next;
	bool is = false;

	while (inner && !strcmp(Py_TYPE(inner)->tp_name, "functools.partial")) {
		next = attribute(inner, "func");
		Py_SETREF(inner, next);
	}
	if (inner && PyMethod_Check(inner))
		Py_SETREF(inner, new_ref(PyMethod_GET_FUNCTION(inner)));
	if (inner && PyFunction_Check(inner))
		is = ((PyCodeObject *)PyFunction_GET_CODE(inner))->co_flags & CO_COROUTINE;
	Py_XDECREF(inner);
	return is;
}

/* Does this executor call what it is given as it is? Others pickle it, or look at it. */
static bool is_thread_pool(PyObject *loop, PyObject *executor)
{
	PyObject *modules = PyImport_GetModuleDict(), *module, *pool = NULL;
	PyObject *given = executor != Py_None	     ? new_ref(executor)
			  : loop_kind(loop) == UVLOOP ? uvloop_executor(loop)
						      : attribute(loop, "_default_executor");
	bool is;

	if (!given || given == Py_None) { /* asyncio is about to make one */
		Py_XDECREF(given);
		return executor == Py_None;
	}
	module = PyDict_GetItemString(modules, "concurrent.futures.thread");
	if (module)
		pool = attribute(module, "ThreadPoolExecutor");
	is = pool && (PyObject *)Py_TYPE(given) == pool;
	Py_XDECREF(pool);
	Py_DECREF(given);
	return is;
}

static struct work *work_new(PyObject *function)
{
	struct work *work = PyObject_GC_New(struct work, &work_type);
	struct thread *thread = thread_self();

	if (!work) {
		PyErr_Clear();
		return NULL;
	}
	work->function = new_ref(function);
	work->given_ns = now_ns();
	work->serial = run_serial();
	work->giver_run = thread->run;
	work->giver_tid = thread->tid;
	work->task = thread->task;
	PyObject_GC_Track((PyObject *)work);
	return work;
}

/* Mark the future that the loop will resolve when the work is over. */
static void mark(PyObject *future, const struct work *work)
{
	PyObject *dict = PyObject_GenericGetDict(future, NULL);
	PyObject *serial = dict ? PyLong_FromUnsignedLong(work->serial) : NULL;

	if (!serial || PyDict_SetItem(dict, work_key, serial) < 0)
		PyErr_Clear();
	Py_XDECREF(serial);
	Py_XDECREF(dict);
}

/*
 * Return the serial of the work whose end a callback brings into the loop, 0 for none. That is
 * asyncio.futures._chain_future's _set_state(future, concurrent future), whoever scheduled it.
 */
u32 work_told(PyObject *callback, PyObject *const *args, Py_ssize_t n)
{
	PyObject *code, *dict, *serial;
	u32 told = 0;

	if (n != 2 || !PyFunction_Check(callback))
		return 0;
	code = PyFunction_GET_CODE(callback);
	if (!set_state_code &&
	    PyUnicode_CompareWithASCIIString(((PyFunctionObject *)callback)->func_qualname,
					     "_chain_future.<locals>._set_state") == 0)
		set_state_code = (PyCodeObject *)new_ref(code);
	if ((PyCodeObject *)code != set_state_code)
		return 0;
	dict = PyObject_GenericGetDict(args[0], NULL);
	serial = dict ? PyDict_GetItemWithError(dict, work_key) : NULL;
	if (serial && PyLong_Check(serial))
		told = (u32)PyLong_AsUnsignedLongMask(serial);
	PyErr_Clear();
	Py_XDECREF(dict);
	return told;
}

static PyObject *give(PyObject *loop, PyObject *const *args, Py_ssize_t n, struct work *work)
{
	/* debug mode refuses functions that make coroutines, and must see them to do so */
	bool seen = !is_coroutine_function(args[1]) && is_thread_pool(loop, args[0]);
	PyObject *pair[2] = {args[0], (PyObject *)work}, **all = NULL, *result;

	if (seen && n > 2 && (all = PyMem_Calloc((size_t)n, sizeof(*all)))) {
		memcpy(all, args, (size_t)n * sizeof(*all));
		all[1] = (PyObject *)work;
	}
	seen = seen && (n == 2 || all);
	result = call_method(old_run_in_executor[loop_kind(loop)], loop,
			     !seen ? args : all ? all : pair, n, NULL);
	PyMem_Free(all);
	if (result)
		mark(result, work);
	if (result && !seen && ring_ready())
		write_work(work, work->giver_tid, work->given_ns, 0);
	return result;
}

static PyObject *run_in_executor(PyObject *loop, PyObject *const *args, Py_ssize_t n,
				 PyObject *names)
{
	struct work *work = NULL;
	PyObject *result;

	native_begin();
	if (ring_ready() && !names && n >= 2 && PyCallable_Check(args[1]))
		work = work_new(args[1]);
	result = work ? give(loop, args, n, work)
		      : call_method(old_run_in_executor[loop_kind(loop)], loop, args, n, names);
	Py_XDECREF(work);
	return result;
}

static PyMethodDef run_in_executor_def = {
	"run_in_executor", (PyCFunction)(void (*)(void))run_in_executor,
	METH_FASTCALL | METH_KEYWORDS, "run_in_executor($self, executor, func, *args)\n--\n\n"};

/* Put the hook in place; without it the work in threads goes unseen, nothing else. */
void work_install(PyObject *loop_type, enum loop_kind kind)
{
	work_key = PyUnicode_InternFromString("_awaitscope_work");
	if (!work_key || PyType_Ready(&work_type) < 0 ||
	    (kind == ASYNCIO ? hook_replace : hook_put)(loop_type, &run_in_executor_def,
							&old_run_in_executor[kind]))
		PyErr_Clear();
}
