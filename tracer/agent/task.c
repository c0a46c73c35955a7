/* SPDX-License-Identifier: MIT
 *
 * Tasks: who they are, their names, when they are born.
 * Fields of C tasks are read with the getters behind their attributes (Modules/_asynciomodule.c);
 * reading `_exception` so does not mark it as retrieved.
 */
#include "agent.h"

static const char *const field_names[F_COUNT] = {
	[F_CORO] = "_coro",
	[F_WAITER] = "_fut_waiter",
	[F_STATE] = "_state",
	[F_MUST_CANCEL] = "_must_cancel",
	[F_EXCEPTION] = "_exception",
};

static PyTypeObject *task_type, *future_type, *py_task_type;
static PyGetSetDef *task_getters[F_COUNT], *future_getters[F_COUNT];
static PyTypeObject *step_type, *wakeup_type;
static PyMethodDef *wakeup_method;
static PyObject *py_step, *py_wakeup;
static PyObject *task_key;
static u32 tasks;

static void task_dealloc(PyObject *self)
{
	chain_clear(&((struct task *)self)->at);
	PyObject_Free(self);
}

static PyTypeObject task_state_type = {
	PyVarObject_HEAD_INIT(NULL, 0)
	.tp_name = "_awaitscope_agent.Task",
	.tp_basicsize = sizeof(struct task),
	.tp_dealloc = task_dealloc,
	.tp_flags = Py_TPFLAGS_DEFAULT,
	.tp_doc = "What awaitscope knows of a task.",
};

int task_start(void)
{
	if (PyType_Ready(&task_state_type) < 0)
		return -1;
	task_key = PyUnicode_InternFromString("_awaitscope_task");
	return task_key ? 0 : -1;
}

static PyGetSetDef *getter_of(PyTypeObject *type, const char *name)
{
	for (; type; type = type->tp_base)
		for (PyGetSetDef *def = type->tp_getset; def && def->name; def++)
			if (!strcmp(def->name, name))
				return def;
	return NULL;
}

static PyTypeObject *keep_type(PyObject *type)
{
	return type && PyType_Check(type) ? (PyTypeObject *)new_ref(type) : NULL;
}

int task_install(PyObject *c_task, PyObject *c_future, PyObject *py_task, PyObject *gather)
{
	task_type = keep_type(c_task);
	future_type = keep_type(c_future);
	py_task_type = keep_type(py_task);
	park_install(gather);
	for (int i = 0; i < F_COUNT; i++) {
		if (task_type)
			task_getters[i] = getter_of(task_type, field_names[i]);
		if (future_type)
			future_getters[i] = getter_of(future_type, field_names[i]);
	}
	if (py_task_type) {
		py_step = attribute((PyObject *)py_task_type, "_Task__step");
		py_wakeup = attribute((PyObject *)py_task_type, "_Task__wakeup");
	}
	return 0;
}

bool task_is(PyObject *object)
{
	return (task_type && PyObject_TypeCheck(object, task_type)) ||
	       (py_task_type && PyObject_TypeCheck(object, py_task_type));
}

static bool type_is_called(PyTypeObject *type, const char *name)
{
	const char *dot = strrchr(type->tp_name, '.');

	return !strcmp(dot ? dot + 1 : type->tp_name, name);
}

/* The private objects that step a C task: the task is the first field after the object head. */
static PyObject *step_field(PyObject *step, int index)
{
	return ((PyObject **)((char *)step + sizeof(PyObject)))[index];
}

static PyObject *task_of_wrapper(PyObject *callback, bool *thrown)
{
	PyTypeObject *type = Py_TYPE(callback);
	bool step = type == step_type, wakeup = type == wakeup_type;
	PyObject *task;

	if (!step && !wakeup) {
		size_t size = (size_t)type->tp_basicsize;

		if (!step_type && size >= sizeof(PyObject) + 2 * sizeof(void *))
			step = type_is_called(type, "TaskStepMethWrapper");
		if (!step && !wakeup_type && size >= sizeof(PyObject) + sizeof(void *))
			wakeup = type_is_called(type, "TaskWakeupMethWrapper");
		if (!step && !wakeup)
			return NULL;
		*(step ? &step_type : &wakeup_type) = (PyTypeObject *)new_ref((PyObject *)type);
	}
	task = step_field(callback, 0);
	if (!task || !task_is(task))
		return NULL;
	*thrown = step && step_field(callback, 1);
	return task;
}

/* Return the task that a callback steps, borrowed; NULL if it is something else. */
PyObject *task_of(PyObject *callback, bool *thrown)
{
	*thrown = false;
	if (PyCFunction_Check(callback)) {
		PyMethodDef *def = ((PyCFunctionObject *)callback)->m_ml;
		PyObject *self = ((PyCFunctionObject *)callback)->m_self;

		if (def != wakeup_method) {
			if (wakeup_method || !self || strcmp(def->ml_name, "task_wakeup"))
				return NULL;
			if (!task_is(self))
				return NULL;
			wakeup_method = def;
		}
		return self && task_is(self) ? self : NULL;
	}
	if (PyMethod_Check(callback)) {
		PyObject *function = PyMethod_GET_FUNCTION(callback);
		PyObject *self = PyMethod_GET_SELF(callback);

		return (function == py_step || function == py_wakeup) && task_is(self) ? self : NULL;
	}
	return task_of_wrapper(callback, thrown);
}

/* Return a field of a task or future as a new reference; NULL if it has none. */
PyObject *task_field(PyObject *object, enum field field)
{
	PyGetSetDef *getter = NULL;
	PyObject *value;

	if (task_type && PyObject_TypeCheck(object, task_type))
		getter = task_getters[field];
	else if (future_type && PyObject_TypeCheck(object, future_type))
		getter = future_getters[field];
	if (!getter)
		return attribute(object, field_names[field]);
	value = getter->get(object, getter->closure);
	if (!value)
		PyErr_Clear();
	return value;
}

/* Return the state stored in the task, borrowed from its __dict__; NULL if there is none. */
struct task *task_state(PyObject *task)
{
	PyObject *dict = PyObject_GenericGetDict(task, NULL);
	PyObject *state = dict ? PyDict_GetItemWithError(dict, task_key) : NULL;

	Py_XDECREF(dict);
	if (!state)
		PyErr_Clear();
	return state && Py_TYPE(state) == &task_state_type ? (struct task *)state : NULL;
}

static struct task *state_new(PyObject *task)
{
	struct task *state = PyObject_New(struct task, &task_state_type);
	PyObject *dict = NULL;

	if (state) {
		memset((char *)state + sizeof(PyObject), 0, sizeof(*state) - sizeof(PyObject));
		dict = PyObject_GenericGetDict(task, NULL);
	}
	if (!dict || PyDict_SetItem(dict, task_key, (PyObject *)state) < 0) {
		PyErr_Clear();
		Py_XDECREF(dict);
		Py_XDECREF(state);
		return NULL;
	}
	Py_DECREF(dict);
	Py_DECREF(state); /* the task's __dict__ has the reference that counts */
	state->coro = task_field(task, F_CORO);
	Py_XDECREF(state->coro);
	if (!state->coro || state->coro == Py_None)
		state->coro = NULL;
	return state;
}

/* Return the state of a task, borrowed; its first sight is its birth, at ts_ns or (0) now.
 * NULL without memory.
 */
struct task *task_see(PyObject *task, PyObject *loop, struct thread *thread, u64 ts_ns)
{
	struct task *state = task_state(task);
	struct eager *eager = thread->eager;

	if (state) {
		bool again = state->unborn == ring_generation && ring_has_room();

		if (again || (state->generation && state->generation != ring_generation))
			task_born(state, task, loop, thread->tid, 0);
		return state;
	}
	state = state_new(task);
	if (!state)
		return NULL;
	ts_ns = ts_ns ? ts_ns : now_ns();
	if (eager && !eager->task && (eager->object == task || eager->coro == state->coro)) {
		state->coro = eager->coro; /* a task that is over has none any more */
		eager->task = (struct task *)new_ref((PyObject *)state);
		state->serial = eager->serial;
		state->parent = eager->parent;
		state->run = eager->parent_run;
		state->born_ns = ts_ns;
		return state; /* create_task knows at its end whether it began eagerly */
	}
	state->serial = ++tasks;
	state->parent = thread->task;
	state->run = thread->run;
	state->born_ns = ts_ns;
	task_born(state, task, loop, thread->tid, 0);
	return state;
}

/* Reserve the serial of a task that does not exist yet. */
u32 task_reserve(void)
{
	return ++tasks;
}

static void describe_coro(PyObject *coro, u32 *name, u32 *defined)
{
	PyObject *qualname = attribute(coro, "__qualname__");
	PyCodeObject *code = chain_code(coro);
	struct code_info *info = NULL;

	if (code)
		info = code_info(code);
	else if (qualname && PyUnicode_Check(qualname))
		info = name_info(qualname);
	*defined = info ? info->defined : 0;
	if (info && qualname && info->qualname == qualname) {
		*name = info->name;
	} else {
		*name = qualname ? string_of(qualname) : string_of((PyObject *)NULL);
		if (info && qualname) {
			Py_XSETREF(info->qualname, new_ref(qualname));
			info->name = *name;
		}
	}
	Py_XDECREF(qualname);
	Py_XDECREF(code);
}

/* Write the birth of a task. */
void task_born(struct task *task, PyObject *object, PyObject *loop, u32 tid, u8 flags)
{
	struct ev_task *record;
	u32 name = 0, defined = 0;

	task->generation = ring_generation;
	if (task->coro)
		describe_coro(task->coro, &name, &defined);
	string_send(name);
	string_send(defined);
	record = ring_reserve(KIND_TASK, task->born_ns, tid);
	task->unborn = record ? 0 : ring_generation; /* said again when there is room */
	if (!record)
		return;
	record->flags = flags;
	record->task = task->serial;
	record->parent = task->parent;
	record->loop = loop ? loop_serial(loop) : 0;
	record->coro_str = name;
	record->where_str = defined;
	record->run = task->run;
	record->addr = (u64)(uintptr_t)object;
	ring_commit();
}

/* Write the name of a task before its first step. */
void task_name(struct task *task, PyObject *object, u32 tid)
{
	PyObject *name;
	const char *text = NULL;
	Py_ssize_t len = 0;
	struct ev_task_name *record;

	if (task->unnamed == ring_generation && !ring_has_room())
		return;
	task->named = ring_generation;
	name = PyObject_CallMethod(object, "get_name", NULL);
	if (name && PyUnicode_Check(name))
		text = PyUnicode_AsUTF8AndSize(name, &len);
	PyErr_Clear();
	record = text ? ring_reserve(KIND_TASK_NAME, now_ns(), tid) : NULL;
	if (text && !record) { /* said again when there is room */
		task->named = 0;
		task->unnamed = ring_generation;
	}
	if (record) {
		record->task = task->serial;
		record->len = (u16)(len > UINT16_MAX ? UINT16_MAX : len);
		if (len > (Py_ssize_t)sizeof(record->name))
			for (len = sizeof(record->name); len && ((u8)text[len] & 0xC0) == 0x80;)
				len--; /* cut between characters */
		memcpy(record->name, text, (size_t)len);
		ring_commit();
	}
	Py_XDECREF(name);
}
