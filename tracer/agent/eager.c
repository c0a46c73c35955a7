/* SPDX-License-Identifier: MIT
 *
 * BaseEventLoop.create_task(coro, ...), where tasks can start eagerly: their first step runs inside
 * it, and no callback tells of it.
 */
#include "agent.h"

#if PY_VERSION_HEX >= 0x030C0000
static PyObject *old_create_task[LOOP_KINDS];

static bool may_be_eager(PyObject *loop, PyObject *names)
{
	PyObject *factory = loop_kind(loop) == UVLOOP
				    ? PyObject_CallMethod(loop, "get_task_factory", NULL)
				    : attribute(loop, "_task_factory");
	bool may = factory && factory != Py_None;

	PyErr_Clear();
	Py_XDECREF(factory);
	for (Py_ssize_t i = 0; !may && names && i < PyTuple_GET_SIZE(names); i++)
		may = !PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, i), "eager_start");
	return may;
}

static bool coro_has_begun(PyObject *coro)
{
	PyObject *suspended = attribute(coro, "cr_suspended");
	PyObject *frame = suspended == Py_True ? NULL : attribute(coro, "cr_frame");
	bool begun = suspended == Py_True || frame == Py_None;

	Py_XDECREF(suspended);
	Py_XDECREF(frame);
	return begun;
}

static void end_eager(struct run *run, struct eager *eager, PyObject *object, PyObject *loop)
{
	u64 end_ns = now_ns();
	bool begun = coro_has_begun(eager->coro);
	struct task *task = eager->task;

	if (!task) {
		if (!begun)
			return;
		eager->object = object;
		run->thread->eager = eager;
		task = task_see(object, loop, run->thread, eager->begin_ns);
		run->thread->eager = eager->outer;
		if (!task || task != eager->task)
			return; /* a factory's own kind of task */
	}
	run->task = (struct task *)new_ref((PyObject *)task);
	run->object = object;
	if (begun)
		task->born_ns = eager->begin_ns;
	task->parent = eager->parent;
	task_born(task, object, loop, run->thread->tid, begun ? RUN_EAGER : 0);
	if (begun) {
		run->flags = RUN_EAGER;
		run->begin_ns = eager->begin_ns;
		run->wake = (struct wake){eager->begin_ns, eager->parent_run, run->thread->tid};
		task_name(task, object, run->thread->tid);
		task->named = 0; /* until 3.13 asyncio.create_task names it only now */
		write_step(run, end_ns);
	}
}

static PyObject *create_task(PyObject *loop, PyObject *const *args, Py_ssize_t n,
			     PyObject *names)
{
	struct eager eager = {0};
	struct run run = {0};
	PyObject *task;

	if (n < 1 || !may_be_eager(loop, names) || !ring_ready())
		return call_method(old_create_task[loop_kind(loop)], loop, args, n, names);
	native_begin();
	run.thread = thread_self();
	thread_announce(run.thread);
	eager.outer = run.thread->eager;
	eager.coro = new_ref(args[0]);
	eager.parent = run.thread->task;
	eager.parent_run = run.thread->run;
	eager.serial = task_reserve();
	eager.begin_ns = now_ns();
	run.thread->eager = &eager;
	run_enter(&run, run_serial(), eager.serial);
	task = call_method(old_create_task[loop_kind(loop)], loop, args, n, names);
	run.thread->eager = eager.outer;
	if (task && ring_ready())
		end_eager(&run, &eager, task, loop);
	run_leave(&run);
	Py_XDECREF(eager.task);
	Py_DECREF(eager.coro);
	return task;
}

static PyMethodDef create_task_def = {
	"create_task", (PyCFunction)(void (*)(void))create_task, METH_FASTCALL | METH_KEYWORDS,
#if PY_VERSION_HEX >= 0x030E0000
	"create_task($self, coro, **kwargs)\n--\n\n"
#else
	"create_task($self, coro, *, name=None, context=None)\n--\n\n"
#endif
	"Schedule or begin executing a coroutine object.\n\nReturn a task object."};

/* Put the hook in place; without it eager first steps go unseen, nothing else. */
void eager_install(PyObject *loop_type, enum loop_kind kind)
{
	if ((kind == ASYNCIO ? hook_replace : hook_put)(loop_type, &create_task_def,
							&old_create_task[kind]))
		PyErr_Clear();
}
#else
void eager_install(PyObject *Py_UNUSED(loop_type), enum loop_kind Py_UNUSED(kind))
{
}
#endif
