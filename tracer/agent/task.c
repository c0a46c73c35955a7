/* SPDX-License-Identifier: MIT
 *
 * Tasks and loops: who they are, when they are born, how they are parked after a step.
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

/* A loop's mark: an attribute of the loop object, which dies with it. */
struct loop {
	PyObject_HEAD
	u32 serial;
	u32 generation; /* ring generation that has its record */
	u32 unsaid;     /* ring generation that had no room for it */
};

static PyTypeObject *task_type, *future_type, *py_task_type, *gather_type;
static PyGetSetDef *task_getters[F_COUNT], *future_getters[F_COUNT];
static PyTypeObject *step_type, *wakeup_type;
static PyMethodDef *wakeup_method;
static PyObject *py_step, *py_wakeup;
static PyObject *task_key, *loop_key;
static u32 tasks, loops, unseen_loops, unseen_generation;

static void task_dealloc(PyObject *self)
{
	chain_clear(&((struct task *)self)->at);
	PyObject_Free(self);
}

static void loop_dealloc(PyObject *self)
{
	if (!((struct loop *)self)->generation && unseen_loops)
		unseen_loops--;
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

static PyTypeObject loop_state_type = {
	PyVarObject_HEAD_INIT(NULL, 0)
	.tp_name = "_awaitscope_agent.Loop",
	.tp_basicsize = sizeof(struct loop),
	.tp_dealloc = loop_dealloc,
	.tp_flags = Py_TPFLAGS_DEFAULT,
	.tp_doc = "What awaitscope knows of an event loop.",
};

int task_start(void)
{
	if (PyType_Ready(&task_state_type) < 0 || PyType_Ready(&loop_state_type) < 0)
		return -1;
	task_key = PyUnicode_InternFromString("_awaitscope_task");
	loop_key = PyUnicode_InternFromString("_awaitscope_loop");
	unseen_generation = ring_generation;
	return task_key && loop_key ? 0 : -1;
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
	gather_type = keep_type(gather);
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

static bool is_task(PyObject *object)
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
	if (!task || !is_task(task))
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
			if (!is_task(self))
				return NULL;
			wakeup_method = def;
		}
		return self && is_task(self) ? self : NULL;
	}
	if (PyMethod_Check(callback)) {
		PyObject *function = PyMethod_GET_FUNCTION(callback);
		PyObject *self = PyMethod_GET_SELF(callback);

		return (function == py_step || function == py_wakeup) && is_task(self) ? self : NULL;
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
static struct task *state_of(PyObject *task)
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
	struct task *state = state_of(task);
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

static s32 fileno_of(PyObject *loop, const char *name)
{
	PyObject *object = attribute(loop, name);
	PyObject *number = NULL;
	long fd = -1;

	if (object && object != Py_None)
		number = PyObject_CallMethod(object, "fileno", NULL);
	if (number)
		fd = PyLong_AsLong(number);
	if (PyErr_Occurred()) {
		PyErr_Clear();
		fd = -1;
	}
	Py_XDECREF(object);
	Py_XDECREF(number);
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
		self_fd = fileno_of(loop, "_ssock");
		self_wfd = fileno_of(loop, "_csock");
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
	record->loop = state->serial;
	record->type_str = type;
	record->selector_fd = fileno_of(loop, "_selector");
	record->self_fd = self_fd;
	record->self_wfd = self_wfd;
	ring_commit();
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
	struct loop *owner = loop ? loop_state(loop) : NULL;
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
	record->loop = owner ? owner->serial : 0;
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

/* Return the first letter of a future's state: P(ENDING), C(ANCELLED), F(INISHED); 0 unknown. */
static char state_letter(PyObject *future)
{
	PyObject *state = task_field(future, F_STATE);
	char letter = 0;

	if (state && PyUnicode_Check(state) && PyUnicode_GET_LENGTH(state) > 0)
		letter = (char)PyUnicode_READ_CHAR(state, 0);
	Py_XDECREF(state);
	return letter;
}

static bool has_exception(PyObject *future)
{
	PyObject *exception = task_field(future, F_EXCEPTION);
	bool some = exception && exception != Py_None;

	Py_XDECREF(exception);
	return some;
}

/* Return the RUN_* flags that can be known before a step: what is thrown into it and why. */
u8 task_resume_flags(PyObject *task, PyObject *future, bool thrown)
{
	PyObject *must = task_field(task, F_MUST_CANCEL);
	u8 flags = thrown ? RUN_THROWN : 0;

	if (must == Py_True)
		flags |= RUN_THROWN | RUN_CANCEL_REQUEST;
	Py_XDECREF(must);
	if (future) { /* a wakeup: it is its argument */
		char letter = state_letter(future);

		if (letter == 'C') /* Task.cancel() cancels the future it waits for */
			flags |= RUN_THROWN | RUN_CANCEL_REQUEST;
		else if (letter == 'F' && has_exception(future))
			flags |= RUN_THROWN | RUN_FUTURE_FAILED;
	}
	return flags;
}

static void park_on(PyObject *waiter, struct ev_step *step)
{
	struct task *other;

	if (is_task(waiter)) {
		other = state_of(waiter);
		step->how = HOW_TASK;
		step->awaited = other ? other->serial : 0;
	} else if (gather_type && PyObject_TypeCheck(waiter, gather_type)) {
		step->how = HOW_GATHER;
	} else {
		step->how = HOW_FUTURE;
	}
}

/* Fill in how a task is parked after a step, or how it ended. */
void task_park(struct task *task, PyObject *object, struct ev_step *step)
{
	char letter = state_letter(object);
	PyObject *waiter;

	if (letter != 'P') {
		step->how = letter == 'C' ? HOW_CANCELLED
			    : has_exception(object) ? HOW_FAILED : HOW_DONE;
		chain_clear(&task->at);
		task->coro = NULL;
		return;
	}
	waiter = task_field(object, F_WAITER);
	if (waiter && waiter != Py_None)
		park_on(waiter, step);
	else
		step->how = HOW_YIELD;
	Py_XDECREF(waiter);
	if (!task->coro)
		return;
	if (chain_update(&task->at, task->coro))
		step->flags |= RUN_RESUMED_SAME;
	step->where_str = task->at.where;
	step->leaf_str = task->at.leaf;
	step->row = task->at.row;
}
