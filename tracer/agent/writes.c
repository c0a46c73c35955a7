/* SPDX-License-Identifier: MIT
 *
 * Who gave uvloop's streams the bytes that they send later. Before 0.23 a stream sends all with the
 * loop's iteration, after the steps that wrote it; since then, what its socket had no room for.
 * What leaves something in a stream's queue is told with the queue's length around it:
 * tracer/correlate/writes.py finds the calls that sent it. (uvloop/handles/stream.pyx)
 */
#include "agent.h"

static PyObject *old_write, *old_writelines, *queue_size;
static PyObject *name_get_extra_info, *name_socket;

/* Descriptors of streams that wrote lately: to ask a stream costs as much as all the rest. */
static struct known {
	const void *stream; /* compared, never followed */
	PyObject *alive;    /* weak reference to it: another one may get its address */
	s32 fd;
} known[256];

static u64 queued(PyObject *stream)
{
	PyObject *size = PyObject_CallOneArg(queue_size, stream);
	u64 bytes = size ? PyLong_AsUnsignedLongLong(size) : 0;

	Py_XDECREF(size);
	if (PyErr_Occurred()) {
		PyErr_Clear();
		return 0;
	}
	return bytes;
}

/* Return a stream's descriptor, -1 if it has none any more. */
static s32 ask_descriptor(PyObject *stream)
{
	return fileno_of(PyObject_CallMethodOneArg(stream, name_get_extra_info, name_socket));
}

static s32 descriptor(PyObject *stream)
{
	struct known *entry = &known[((uintptr_t)stream >> 4) % 256];
	PyObject *object = entry->stream == stream ? weak_get(entry->alive) : NULL;

	Py_XDECREF(object);
	if (object == stream)
		return entry->fd;
	entry->stream = NULL;
	Py_XSETREF(entry->alive, PyWeakref_NewRef(stream, NULL));
	if (!entry->alive) {
		PyErr_Clear();
		return ask_descriptor(stream);
	}
	entry->fd = ask_descriptor(stream);
	if (entry->fd >= 0)
		entry->stream = stream;
	return entry->fd;
}

static void tell(PyObject *stream, u64 begin_ns, u64 before, u64 after)
{
	u64 end_ns = now_ns();
	struct thread *thread = thread_self();
	s32 fd = descriptor(stream);
	struct ev_stream_write *record;

	native_begin();
	record = fd < 0 ? NULL : ring_reserve(KIND_STREAM_WRITE, begin_ns, thread->tid);
	if (!record)
		return;
	record->end_ns = end_ns;
	record->before_bytes = before;
	record->after_bytes = after;
	record->fd = fd;
	record->task = thread->task;
	ring_commit();
}

static PyObject *give(PyObject *old, PyObject *stream, PyObject *const *args, Py_ssize_t n,
		      PyObject *names)
{
	PyObject *result, *type, *value, *trace;
	u64 before, begin_ns, after;

	if (!ring_ready())
		return call_method(old, stream, args, n, names);
	before = queued(stream);
	begin_ns = now_ns();
	result = call_method(old, stream, args, n, names);
	PyErr_Fetch(&type, &value, &trace);
	after = queued(stream);
	if (after) /* else it sent all by itself */
		tell(stream, begin_ns, before, after);
	PyErr_Restore(type, value, trace);
	return result;
}

static PyObject *write_(PyObject *stream, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
	return give(old_write, stream, args, n, names);
}

static PyObject *writelines(PyObject *stream, PyObject *const *args, Py_ssize_t n,
			    PyObject *names)
{
	return give(old_writelines, stream, args, n, names);
}

/* ---- installing ---- */

static PyMethodDef write_def = {"write", (PyCFunction)(void (*)(void))write_,
				METH_FASTCALL | METH_KEYWORDS, "write($self, buf)\n--\n\n"};
static PyMethodDef writelines_def = {"writelines", (PyCFunction)(void (*)(void))writelines,
				     METH_FASTCALL | METH_KEYWORDS,
				     "writelines($self, bufs)\n--\n\n"};

/* Put the hooks in place; without them it is not known whose such bytes are, nothing else. */
void writes_install(void)
{
	PyObject *module = PyDict_GetItemString(PyImport_GetModuleDict(), "uvloop.loop");
	PyObject *type = module ? attribute(module, "UVStream") : NULL;

	name_get_extra_info = PyUnicode_InternFromString("get_extra_info");
	name_socket = PyUnicode_InternFromString("socket");
	queue_size = type ? attribute(type, "get_write_buffer_size") : NULL;
	if (queue_size && PyType_Check(type) && name_get_extra_info && name_socket &&
	    !hook_put_fixed((PyTypeObject *)type, &write_def, &old_write))
		hook_put_fixed((PyTypeObject *)type, &writelines_def, &old_writelines);
	PyErr_Clear();
	Py_XDECREF(type);
}
