/* SPDX-License-Identifier: MIT
 *
 * Loops: which one a thread runs, and its descriptors.
 */
#include "agent.h"

/* A loop's mark: an attribute of the loop object, which dies with it. */
struct loop {
	PyObject_HEAD
	u32 serial;
	u32 generation; /* ring generation that has its record */
	u32 unsaid;     /* ring generation that had no room for it */
};

static PyObject *loop_key;
static u32 loops, unseen_loops, unseen_generation;

static void loop_dealloc(PyObject *self)
{
	if (!((struct loop *)self)->generation && unseen_loops)
		unseen_loops--;
	PyObject_Free(self);
}

static PyTypeObject loop_state_type = {
	PyVarObject_HEAD_INIT(NULL, 0)
	.tp_name = "_awaitscope_agent.Loop",
	.tp_basicsize = sizeof(struct loop),
	.tp_dealloc = loop_dealloc,
	.tp_flags = Py_TPFLAGS_DEFAULT,
	.tp_doc = "What awaitscope knows of an event loop.",
};

int loop_start(void)
{
	if (PyType_Ready(&loop_state_type) < 0)
		return -1;
	loop_key = PyUnicode_InternFromString("_awaitscope_loop");
	unseen_generation = ring_generation;
	return loop_key ? 0 : -1;
}

static struct loop *loop_state(PyObject *loop)
{
	PyObject *state = PyObject_GetAttr(loop, loop_key);

	if (state && Py_TYPE(state) == &loop_state_type) {
		Py_DECREF(state);
		return (struct loop *)state;
	}
	PyErr_Clear();
	Py_XDECREF(state);
	state = (PyObject *)PyObject_New(struct loop, &loop_state_type);
	if (!state)
		goto failed;
	((struct loop *)state)->serial = ++loops;
	((struct loop *)state)->generation = ((struct loop *)state)->unsaid = 0;
	unseen_loops++;
	if (PyObject_SetAttr(loop, loop_key, state) < 0) {
		Py_DECREF(state);
		goto failed;
	}
	Py_DECREF(state);
	return (struct loop *)state;
failed:
	PyErr_Clear();
	return NULL;
}

/* Return the serial of a loop, 0 without memory. */
u32 loop_serial(PyObject *loop)
{
	struct loop *state = loop_state(loop);

	return state ? state->serial : 0;
}

s32 fileno_of(PyObject *object)
{
	PyObject *number = NULL;
	long fd = -1;

	if (object && object != Py_None)
		number = PyObject_CallMethod(object, "fileno", NULL);
	if (number)
		fd = PyLong_AsLong(number);
	Py_XDECREF(number);
	Py_XDECREF(object);
	PyErr_Clear();
	return (s32)fd;
}

static u32 type_string(PyObject *object)
{
	PyObject *module = attribute((PyObject *)Py_TYPE(object), "__module__");
	PyObject *name = attribute((PyObject *)Py_TYPE(object), "__qualname__");
	const char *m = module && PyUnicode_Check(module) ? PyUnicode_AsUTF8(module) : NULL;
	const char *n = name && PyUnicode_Check(name) ? PyUnicode_AsUTF8(name) : NULL;
	u32 id = string_format("%s.%s", m ? m : "?", n ? n : "?");

	PyErr_Clear();
	Py_XDECREF(module);
	Py_XDECREF(name);
	return id;
}

/* Describe the loop whose callback this thread is about to run, at its first one. */
void loop_see(PyObject *loop, struct thread *thread)
{
	struct ev_loop *record;
	struct loop *state;
	s32 self_fd, self_wfd;
	u32 type;

	if (unseen_generation != ring_generation) {
		unseen_generation = ring_generation;
		thread->loop = NULL;
	}
	if (thread->loop == loop && !unseen_loops)
		return;
	thread->loop = loop;
	state = loop_state(loop);
	if (!state || state->generation == ring_generation)
		return;
	thread->loop = NULL; /* look again while it is not written */
	if (state->unsaid == ring_generation && !ring_has_room())
		return;
	type = string_send(type_string(loop));
	if (loop_kind(loop) == UVLOOP) {
		uvloop_pipe(loop, &self_fd, &self_wfd);
	} else {
		self_fd = fileno_of(attribute(loop, "_ssock"));
		self_wfd = fileno_of(attribute(loop, "_csock"));
	}
	record = ring_reserve(KIND_LOOP, now_ns(), thread->tid);
	if (!record) {
		state->unsaid = ring_generation;
		return;
	}
	thread->loop = loop;
	if (!state->generation)
		unseen_loops--;
	state->generation = ring_generation;
	record->flags = loop_kind(loop) == UVLOOP ? LOOP_UVLOOP : 0;
	record->loop = state->serial;
	record->type_str = type;
	record->selector_fd = fileno_of(attribute(loop, "_selector"));
	record->self_fd = self_fd;
	record->self_wfd = self_wfd;
	ring_commit();
}
