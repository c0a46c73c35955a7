/* SPDX-License-Identifier: MIT
 *
 * The hooks on asyncio: BaseEventLoop._call_soon (who woke what), Handle._run (runs); further ones
 * are in eager.c and work.c. Each does what the function does that it replaces, whether or not
 * anything is recorded.
 */
#include "agent.h"

static PyObject *old_call_soon, *old_run, *report_exception;
static PyTypeObject *handle_type, *timer_type;
static Py_ssize_t callback_at, args_at, context_at, loop_at, when_at;

static PyObject *slot(PyObject *object, Py_ssize_t offset)
{
	return *(PyObject **)((char *)object + offset);
}

/* Call a method that was replaced, with the arguments that its replacement got. */
PyObject *call_method(PyObject *function, PyObject *self, PyObject *const *args, Py_ssize_t n,
		      PyObject *names)
{
	Py_ssize_t all = n + (names ? PyTuple_GET_SIZE(names) : 0);
	PyObject *few[8], **stack = few, *result;

	if (all + 2 > 8 && !(stack = PyMem_Malloc(((size_t)all + 2) * sizeof(*stack))))
		return PyErr_NoMemory();
	stack[1] = self;
	memcpy(stack + 2, args, (size_t)all * sizeof(*stack));
	result = PyObject_Vectorcall(function, stack + 1,
				     (size_t)(n + 1) | PY_VECTORCALL_ARGUMENTS_OFFSET, names);
	if (stack != few)
		PyMem_Free(stack);
	return result;
}

/* ---- BaseEventLoop._call_soon(callback, args, context) ---- */

static PyObject *call_soon_callback(PyObject *loop, PyObject *const *args, struct thread *thread)
{
	struct scheduled entry = {NULL, args[0], args[1], {now_ns(), thread->run, thread->tid}};
	struct scheduled *flight = thread->run ? NULL : schedule_take_off(&entry);
	PyObject *handle = soon(old_call_soon, loop, args);

	entry.handle = handle;
	if ((!flight || schedule_land(flight)) && handle)
		schedule_remember(&entry);
	return handle;
}

static PyObject *call_soon(PyObject *loop, PyObject *const *args, Py_ssize_t n)
{
	struct thread *thread;
	struct task *task;
	PyObject *object;
	bool thrown;

	if (n != 3 || !ring_ready())
		return call_method(old_call_soon, loop, args, n, NULL);
	thread = thread_self();
	object = task_of(args[0], &thrown);
	if (!object)
		return call_soon_callback(loop, args, thread);
	{
		u64 now = now_ns();

		task = task_see(object, loop, thread, now);
		if (task)
			task->wake = (struct wake){now, thread->run, thread->tid};
	}
	return soon(old_call_soon, loop, args);
}

/* ---- BaseEventLoop._add_callback_signalsafe(handle): a signal arrived ---- */

static PyObject *old_add_signalsafe;

static PyObject *add_signalsafe(PyObject *loop, PyObject *handle)
{
	if (ring_ready() && handle_type && PyObject_TypeCheck(handle, handle_type)) {
		struct thread *thread = thread_self();
		struct wake wake = {now_ns(), thread->run, thread->tid};
		struct scheduled entry = {handle, slot(handle, callback_at),
					  slot(handle, args_at), wake};

		schedule_remember(&entry);
	}
	return PyObject_CallFunctionObjArgs(old_add_signalsafe, loop, handle, NULL);
}

/* ---- Handle._run() ---- */

static void begin_callback(struct run *run, PyObject *handle, PyObject *callback, PyObject *args)
{
	PyObject *when;
	u32 told;

	if (timer_type && PyObject_TypeCheck(handle, timer_type)) {
		when = slot(handle, when_at);
		run->flags |= RUN_TIMER;
		if (when && PyFloat_Check(when) && PyFloat_AS_DOUBLE(when) > 0)
			run->wake.ns = (u64)(PyFloat_AS_DOUBLE(when) * 1e9);
		return;
	}
	run->wake = schedule_recall(handle, callback, args);
	told = work_told(callback, ((PyTupleObject *)args)->ob_item, PyTuple_GET_SIZE(args));
	if (told)
		run->wake.run = told;
}

static void begin(struct run *run, PyObject *handle, PyObject *callback, PyObject *args)
{
	if (!run_of(run, slot(handle, loop_at), callback, ((PyTupleObject *)args)->ob_item,
		    PyTuple_GET_SIZE(args)))
		begin_callback(run, handle, callback, args);
	run_begin(run);
}

/* Do what the except clauses of Handle._run do, with the exception as the one being handled. */
static PyObject *report(PyObject *handle)
{
	PyObject *type, *value, *trace, *old_type, *old_value, *old_trace, *result;

	if (PyErr_ExceptionMatches(PyExc_SystemExit) ||
	    PyErr_ExceptionMatches(PyExc_KeyboardInterrupt))
		return NULL;
	PyErr_Fetch(&type, &value, &trace);
	PyErr_NormalizeException(&type, &value, &trace);
	if (trace)
		PyException_SetTraceback(value, trace);
	PyErr_GetExcInfo(&old_type, &old_value, &old_trace);
	Py_INCREF(value);
	PyErr_SetExcInfo(type, new_ref(value), trace);
	result = PyObject_CallFunctionObjArgs(report_exception, handle, value, NULL);
	PyErr_SetExcInfo(old_type, old_value, old_trace);
	Py_DECREF(value);
	Py_DECREF(value);
	if (!result)
		return NULL;
	Py_DECREF(result);
	Py_RETURN_NONE;
}

static PyObject *call_in(PyObject *context, PyObject *callback, PyObject *args)
{
	PyObject *result;

	if (PyContext_Enter(context) < 0)
		return NULL;
	result = PyObject_Vectorcall(callback, ((PyTupleObject *)args)->ob_item,
				     (size_t)PyTuple_GET_SIZE(args), NULL);
	if (PyContext_Exit(context) < 0)
		Py_CLEAR(result);
	return result;
}

static PyObject *handle_run(PyObject *handle, PyObject *Py_UNUSED(none))
{
	PyObject *callback = slot(handle, callback_at), *args = slot(handle, args_at);
	PyObject *context = slot(handle, context_at), *result;
	PyObject *type, *value, *trace;
	bool recording = ring_ready();
	struct run run;

	if (!callback || !args || !context || !PyTuple_CheckExact(args) ||
	    !PyContext_CheckExact(context))
		return PyObject_CallOneArg(old_run, handle);
	Py_INCREF(callback);
	Py_INCREF(args);
	Py_INCREF(context);
	if (recording)
		begin(&run, handle, callback, args);
	result = call_in(context, callback, args);
	if (recording) {
		if (!result)
			PyErr_Fetch(&type, &value, &trace);
		run_end(&run, callback);
		if (!result)
			PyErr_Restore(type, value, trace);
	}
	if (result) {
		Py_DECREF(result);
		result = new_ref(Py_None);
	} else {
		result = report(handle);
	}
	Py_DECREF(callback);
	Py_DECREF(args);
	Py_DECREF(context);
	return result;
}

/* ---- installing ---- */

static PyMethodDef call_soon_def = {
	"_call_soon", (PyCFunction)(void (*)(void))call_soon, METH_FASTCALL,
	"_call_soon($self, callback, args, context)\n--\n\n"};
static PyMethodDef add_signalsafe_def = {
	"_add_callback_signalsafe", add_signalsafe, METH_O,
	"_add_callback_signalsafe($self, handle)\n--\n\n"};
static PyMethodDef run_def = {"_run", handle_run, METH_NOARGS, "_run($self)\n--\n\n"};

static int slot_offset(PyObject *type, const char *name, Py_ssize_t *offset)
{
	PyObject *member = attribute(type, name);
	int failed = !member || Py_TYPE(member) != &PyMemberDescr_Type;

	if (failed)
		PyErr_Format(PyExc_RuntimeError, "%s is no slot of the handle", name);
	else
		*offset = ((PyMemberDescrObject *)member)->d_member->offset;
	Py_XDECREF(member);
	return failed ? -1 : 0;
}

/* Put a C method into a class and keep the one that it had; -1 with an exception. */
int hook_put(PyObject *type, PyMethodDef *def, PyObject **old)
{
	PyObject *descriptor;
	int result = -1;

	*old = PyObject_GetAttrString(type, def->ml_name);
	if (!*old)
		return -1;
	descriptor = PyDescr_NewMethod((PyTypeObject *)type, def);
	if (descriptor)
		result = PyObject_SetAttrString(type, def->ml_name, descriptor);
	Py_XDECREF(descriptor);
	return result;
}

/* As hook_put, into a class written in C, which does not let its attributes be set. */
int hook_put_fixed(PyTypeObject *type, PyMethodDef *def, PyObject **old)
{
#if PY_VERSION_HEX >= 0x030C0000
	PyObject *dict = PyType_GetDict(type);
#else
	PyObject *dict = new_ref(type->tp_dict);
#endif
	PyObject *descriptor = PyDescr_NewMethod(type, def);
	int result = -1;

	*old = PyObject_GetAttrString((PyObject *)type, def->ml_name);
	if (*old && dict && descriptor)
		result = PyDict_SetItemString(dict, def->ml_name, descriptor);
	PyType_Modified(type);
	Py_XDECREF(descriptor);
	Py_XDECREF(dict);
	return result;
}

/* Put a C method in the place of a Python one; -1 with an exception if it is not asyncio's. */
int hook_replace(PyObject *type, PyMethodDef *def, PyObject **old)
{
	PyObject *found = PyObject_GetAttrString(type, def->ml_name);
	bool is = found && PyFunction_Check(found);

	Py_XDECREF(found);
	if (is)
		return hook_put(type, def, old);
	PyErr_Format(PyExc_RuntimeError, "%s is not asyncio's own", def->ml_name);
	return -1;
}

/* Put the hooks in place; -1 with an exception, and nothing changed, if that cannot be done. */
int hooks_install(PyObject *loop_type, PyObject *handle, PyObject *timer, PyObject *helper)
{
	if (slot_offset(handle, "_callback", &callback_at) ||
	    slot_offset(handle, "_args", &args_at) ||
	    slot_offset(handle, "_context", &context_at) ||
	    slot_offset(handle, "_loop", &loop_at) || slot_offset(timer, "_when", &when_at))
		return -1;
	handle_type = (PyTypeObject *)new_ref(handle);
	timer_type = (PyTypeObject *)new_ref(timer);
	report_exception = new_ref(helper);
	if (hook_replace(handle, &run_def, &old_run))
		return -1;
	if (hook_replace(loop_type, &call_soon_def, &old_call_soon)) {
		PyObject *type, *value, *trace;

		PyErr_Fetch(&type, &value, &trace);
		PyObject_SetAttrString(handle, "_run", old_run);
		PyErr_Restore(type, value, trace);
		return -1;
	}
	soon_install(handle, old_call_soon);
	eager_install(loop_type, ASYNCIO);
	if (hook_replace(loop_type, &add_signalsafe_def, &old_add_signalsafe))
		PyErr_Clear(); /* then it is not seen that a signal was the cause, nothing else */
	threadsafe_install();
	work_install(loop_type, ASYNCIO);
	handshake_install();
	return 0;
}
