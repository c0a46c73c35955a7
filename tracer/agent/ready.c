/* SPDX-License-Identifier: MIT
 *
 * What uvloop schedules for itself (a connection was made, was lost). Such a handle passes nothing
 * of Python's but the loop's ready queue, a deque: ours in its place tells when it is put there and
 * when it is taken.
 */
#include "agent.h"

/* Handle._run holds its handle once more (uvloop/cbhandles.pyx) */
#define HELD_BY_LOOP_AND_US 2
#define UVLOOP_MODULE "uvloop.loop."
#define MADE "UVTransport._call_connection_made"

__thread struct now_running now_running;

static PyTypeObject *deque_type, *ready_type;
static PyCFunction deque_popleft, deque_append;

/* Its attributes are no code of the program's then. */
static bool is_uvloops(PyObject *object)
{
	return !strncmp(Py_TYPE(object)->tp_name, UVLOOP_MODULE, sizeof(UVLOOP_MODULE) - 1);
}

static int find_protocol(PyObject *object, void *found)
{
	if (!is_uvloops(object) || !PyObject_HasAttrString(object, "get_protocol"))
		return 0;
	*(PyObject **)found = PyObject_CallMethod(object, "get_protocol", NULL);
	return 1;
}

/* Does it tell uvloop's TLS that there is a connection now? That says hello then. */
static bool begins_tls(PyObject *handle, const char *name)
{
	traverseproc traverse = Py_TYPE(handle)->tp_traverse;
	PyObject *protocol = NULL;
	bool found;

	if (!traverse || strncmp(name, MADE, sizeof(MADE) - 1))
		return false;
	traverse(handle, find_protocol, &protocol);
	PyErr_Clear();
	found = protocol && !strcmp(Py_TYPE(protocol)->tp_name, UVLOOP_MODULE "SSLProtocol");
	Py_XDECREF(protocol);
	return found;
}

/* Return what the handle's repr calls it, "<Handle UVTransport._call_connection_made>"; its TLS is
 * called as asyncio's. */
static PyObject *handle_name(PyObject *handle)
{
	PyObject *repr = PyObject_Repr(handle), *name = NULL;
	const char *text = repr ? PyUnicode_AsUTF8(repr) : NULL;
	const char *space = text ? strchr(text, ' ') : NULL;

	if (space && begins_tls(handle, space + 1))
		name = PyUnicode_FromString("SSLProtocol.connection_made");
	else if (space)
		name = PyUnicode_FromStringAndSize(space + 1, (Py_ssize_t)strcspn(space + 1, " >"));
	if (!name) {
		PyErr_Clear();
		name = PyUnicode_FromString(Py_TYPE(handle)->tp_name);
	}
	Py_XDECREF(repr);
	return name;
}

/* What happens now happens in the handle that was taken last, unless in a callback: note its run. */
void native_begin(void)
{
	struct run *run = &now_running.run;
	struct thread *thread = thread_self();

	if (now_running.handle && Py_REFCNT(now_running.handle) <= HELD_BY_LOOP_AND_US)
		native_end(); /* it is over: uvloop sends what its streams kept back */
	if (thread->run || !now_running.handle || now_running.name)
		return;
	now_running.name = handle_name(now_running.handle);
	if (!now_running.name) {
		PyErr_Clear();
		return;
	}
	memset(run, 0, sizeof(*run));
	run->thread = thread;
	run->wake = schedule_recall(now_running.handle, NULL, NULL);
	thread_announce(thread);
	loop_see(now_running.loop, thread);
	run_begin(run);
	run->begin_ns = now_running.taken_ns;
}

void native_end(void)
{
	Py_CLEAR(now_running.handle);
	if (!now_running.name)
		return;
	run_end(&now_running.run, now_running.name);
	Py_CLEAR(now_running.name);
}

static PyObject *ready_popleft(PyObject *queue, PyObject *Py_UNUSED(none))
{
	PyObject *handle;

	native_end();
	handle = deque_popleft(queue, NULL);
	if (handle && now_running.loop && ring_ready()) {
		now_running.handle = new_ref(handle);
		now_running.taken_ns = now_ns();
	}
	return handle;
}

static PyObject *ready_append(PyObject *queue, PyObject *handle)
{
	if (!now_running.scheduling && ring_ready()) {
		struct thread *thread = thread_self();
		struct scheduled entry = {handle, NULL, NULL, {0}};

		native_begin();
		entry.wake = (struct wake){now_ns(), thread->run, thread->tid};
		schedule_remember(&entry);
	}
	return deque_append(queue, handle);
}

/* uvloop asks for the length after the last handle of a loop iteration. */
static Py_ssize_t ready_length(PyObject *queue)
{
	native_end();
	return deque_type->tp_as_sequence->sq_length(queue);
}

static PyMethodDef ready_methods[] = {
	{"popleft", ready_popleft, METH_NOARGS, NULL},
	{"append", ready_append, METH_O, NULL},
	{NULL, NULL, 0, NULL},
};

static PyType_Slot ready_slots[] = {
	{Py_tp_methods, ready_methods},
	{Py_sq_length, ready_length},
	{0, NULL},
};

static PyType_Spec ready_spec = {
	.name = "_awaitscope_agent.Ready",
	.flags = Py_TPFLAGS_DEFAULT,
	.slots = ready_slots,
};

static PyCFunction method_of(PyTypeObject *type, const char *name)
{
	for (PyMethodDef *def = type->tp_methods; def && def->ml_name; def++)
		if (!strcmp(def->ml_name, name))
			return def->ml_meth;
	return NULL;
}

int ready_start(void)
{
	PyObject *module = PyImport_ImportModule("collections");
	PyObject *bases = NULL;

	deque_type = module ? (PyTypeObject *)PyObject_GetAttrString(module, "deque") : NULL;
	Py_XDECREF(module);
	if (!deque_type)
		return -1;
	deque_popleft = method_of(deque_type, "popleft");
	deque_append = method_of(deque_type, "append");
	if (deque_popleft && deque_append)
		bases = PyTuple_Pack(1, deque_type);
	if (bases)
		ready_type = (PyTypeObject *)PyType_FromSpecWithBases(&ready_spec, bases);
	Py_XDECREF(bases);
	return ready_type ? 0 : -1;
}

struct place {
	PyObject **at, **end;
};

/* A loop's attributes may hold deques, too: ours is in its C struct. */
static int find_ready(PyObject *object, void *arg)
{
	struct place *place = arg;

	if (Py_TYPE(object) != deque_type)
		return 0;
	for (PyObject **at = place->at; at < place->end; at++)
		if (*at == object) {
			place->at = at;
			return 1;
		}
	return 0;
}

/* Put our deque in the place of the loop's own, which is the only one in the struct of its type. */
void ready_replace(PyObject *loop, PyTypeObject *type)
{
	char *end = (char *)loop + type->tp_basicsize;
	struct place place = {(PyObject **)loop + 2, (PyObject **)end};
	PyObject *queue, *ours;

	if (!Py_TYPE(loop)->tp_traverse(loop, find_ready, &place))
		return; /* it is ours already */
	queue = *place.at;
	ours = PyObject_CallFunctionObjArgs((PyObject *)ready_type, queue, NULL);
	if (!ours) {
		PyErr_Clear();
		return;
	}
	*place.at = ours;
	Py_DECREF(queue);
}
