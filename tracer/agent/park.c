/* SPDX-License-Identifier: MIT
 *
 * How tasks go on and how they are parked: what is thrown into a step, what a task awaits after it,
 * or how it ended.
 */
#include "agent.h"

static PyTypeObject *gather_type;

void park_install(PyObject *gather)
{
	gather_type = gather && PyType_Check(gather) ? (PyTypeObject *)new_ref(gather) : NULL;
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

	if (task_is(waiter)) {
		other = task_state(waiter);
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
