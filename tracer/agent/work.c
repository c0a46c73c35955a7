/* SPDX-License-Identifier: MIT
 *
 * Work that a loop gives to a pool of threads: BaseEventLoop.run_in_executor, and to_thread with
 * it. The function goes to the pool in a wrapper that notes when a worker began and ended it.
 */
#include "agent.h"

struct work {
	PyObject_HEAD
	PyObject *function;
	u64 given_ns;
	u32 giver_run, giver_tid, task;
	u32 ended; /* serial of its run once that is over */
};

static PyObject *old_run_in_executor;

static void write_work(struct work *work, struct thread *thread, u32 serial, u64 begin_ns)
{
	u64 end_ns = now_ns();
	u32 name = string_send(callback_name(work->function));
	struct ev_work *record = ring_reserve(KIND_WORK, begin_ns, thread->tid);

	if (!record)
		return;
	record->end_ns = end_ns;
	record->wake_ns = work->given_ns;
	record->run = serial;
	record->waker_run = work->giver_run;
	record->name_str = name;
	record->wake_tid = work->giver_tid;
	record->task = work->task;
	ring_commit();
	thread->work = work->ended = serial;
}

u32 work_ended(const struct work *work)
{
	return work->ended;
}

static PyObject *work_call(PyObject *self, PyObject *args, PyObject *kwargs)
{
	struct work *work = (struct work *)self;
	struct thread *thread = thread_self();
	u64 begin_ns = now_ns();
	PyObject *result, *type, *value, *trace;

	thread->work = 0;
	result = PyObject_Call(work->function, args, kwargs);

	if (!ring_ready())
		return result;
	PyErr_Fetch(&type, &value, &trace);
	write_work(work, thread, run_serial(), begin_ns);
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
static bool is_coroutine_function(PyObject *function)
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
	PyObject *given = executor == Py_None ? attribute(loop, "_default_executor")
					      : new_ref(executor);
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

static PyObject *wrap(PyObject *function)
{
	struct work *work = PyObject_GC_New(struct work, &work_type);
	struct thread *thread = thread_self();

	if (!work)
		return NULL;
	work->function = new_ref(function);
	work->given_ns = now_ns();
	work->giver_run = thread->run;
	work->giver_tid = thread->tid;
	work->task = thread->task;
	work->ended = 0;
	PyObject_GC_Track((PyObject *)work);
	return (PyObject *)work;
}

static PyObject *run_in_executor(PyObject *loop, PyObject *const *args, Py_ssize_t n,
				 PyObject *names)
{
	Py_ssize_t all = n + (names ? PyTuple_GET_SIZE(names) : 0);
	PyObject **stack = PyMem_Calloc((size_t)all + 2, sizeof(*stack)), *wrapped = NULL, *result;
	struct thread *thread = thread_self();
	struct work *outer;

	if (!stack)
		return PyErr_NoMemory();
	stack[1] = loop;
	memcpy(stack + 2, args, (size_t)all * sizeof(*stack));
	/* only plain functions and the like: debug mode refuses some, and must see them to do so */
	if (ring_ready() && n >= 2 && PyCallable_Check(args[1]) && !is_coroutine_function(args[1]) &&
	    is_thread_pool(loop, args[0]) && !(wrapped = wrap(args[1])))
		PyErr_Clear();
	if (wrapped)
		stack[3] = wrapped;
	outer = thread->giving;
	thread->giving = (struct work *)wrapped;
	result = PyObject_Vectorcall(old_run_in_executor, stack + 1,
				     (size_t)(n + 1) | PY_VECTORCALL_ARGUMENTS_OFFSET, names);
	thread->giving = outer;
	Py_XDECREF(wrapped);
	PyMem_Free(stack);
	return result;
}

static PyMethodDef run_in_executor_def = {
	"run_in_executor", (PyCFunction)(void (*)(void))run_in_executor,
	METH_FASTCALL | METH_KEYWORDS, "run_in_executor($self, executor, func, *args)\n--\n\n"};

/* Put the hook in place; without it the work in threads goes unseen, nothing else. */
void work_install(PyObject *loop_type)
{
	if (PyType_Ready(&work_type) < 0 ||
	    hook_replace(loop_type, &run_in_executor_def, &old_run_in_executor))
		PyErr_Clear();
}
