/* SPDX-License-Identifier: MIT
 *
 * asyncio.events._ThreadSafeHandle(callback, args, loop, context): what call_soon_threadsafe puts on
 * the ready queue from CPython 3.14 on, past BaseEventLoop._call_soon.
 */
#include "agent.h"

static PyObject *old_init;

static PyObject *init(PyObject *handle, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
	if (n >= 2 && ring_ready()) { /* it is not queued yet: the loop's thread may be quick */
		struct thread *thread = thread_self();
		struct wake wake = {now_ns(), thread->run, thread->tid};
		struct scheduled entry = {handle, args[0], args[1], wake};

		schedule_remember(&entry);
	}
	return call_method(old_init, handle, args, n, names);
}

static PyMethodDef init_def = {"__init__", (PyCFunction)(void (*)(void))init,
			       METH_FASTCALL | METH_KEYWORDS,
			       "__init__($self, callback, args, loop, context=None)\n--\n\n"};

/* Put the hook in place where there are such handles. */
void threadsafe_install(void)
{
	PyObject *events = PyImport_ImportModule("asyncio.events");
	PyObject *type = events ? attribute(events, "_ThreadSafeHandle") : NULL;

	if (!events || (type && hook_replace(type, &init_def, &old_init)))
		PyErr_Clear(); /* then such a callback has no waker, nothing else */
	Py_XDECREF(events);
	Py_XDECREF(type);
}
