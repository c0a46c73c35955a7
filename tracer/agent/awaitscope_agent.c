/* SPDX-License-Identifier: MIT
 *
 * The module _awaitscope_agent: start() opens the ring, install() puts the hooks into asyncio.
 * Both raise RuntimeError("reason_code: detail"); only the bootstrap calls them.
 */
#include "agent.h"

static bool installed;

static PyObject *fail(const char *reason, const char *detail)
{
	return PyErr_Format(PyExc_RuntimeError, "%s: %s", reason, detail);
}

static PyObject *start(PyObject *Py_UNUSED(module), PyObject *args)
{
	PyObject *live, *prefixes;
	unsigned long long slots;
	const char *reason;
	char detail[128] = "";

	if (!PyArg_ParseTuple(args, "O&KO!", PyUnicode_FSConverter, &live, &slots, &PyTuple_Type,
			      &prefixes))
		return NULL;
#ifdef Py_GIL_DISABLED
	Py_DECREF(live);
	return fail("unsupported_python", "free-threaded build");
#endif
	if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
		Py_DECREF(live);
		return fail("unsupported_python", "not the main interpreter");
	}
	if (strings_start(prefixes) || chain_start() || task_start() || loop_start()) {
		Py_DECREF(live);
		return NULL;
	}
	reason = ring_start(PyBytes_AS_STRING(live), slots, detail, sizeof(detail));
	Py_DECREF(live);
	if (reason)
		return fail(reason, detail);
	return PyLong_FromUnsignedLongLong(ring_agent());
}

static PyObject *install(PyObject *Py_UNUSED(module), PyObject *args)
{
	PyObject *loop, *handle, *timer, *c_task, *c_future, *py_task, *gather, *report;

	if (!PyArg_ParseTuple(args, "O!O!O!OOOOO", &PyType_Type, &loop, &PyType_Type, &handle,
			      &PyType_Type, &timer, &c_task, &c_future, &py_task, &gather,
			      &report))
		return NULL;
	if (installed)
		Py_RETURN_NONE;
	if (task_install(c_task, c_future, py_task, gather) ||
	    hooks_install(loop, handle, timer, report))
		return NULL;
	installed = true;
	Py_RETURN_NONE;
}

static PyObject *install_uvloop(PyObject *Py_UNUSED(module), PyObject *type)
{
	if (!PyType_Check(type) || uvloop_install(type))
		return PyErr_Occurred() ? NULL : fail("hooks_failed", "uvloop.Loop is no class");
	Py_RETURN_NONE;
}

static PyObject *stop(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(none))
{
	ring_stop();
	Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
	{"start", start, METH_VARARGS,
	 "start(live_dir, slots, library_dirs)\n--\n\nOpen the ring file; return the agent's id."},
	{"install", install, METH_VARARGS,
	 "install(loop, handle, timer, task, future, py_task, gather, report)\n--\n\n"
	 "Put the hooks into asyncio's classes."},
	{"install_uvloop", install_uvloop, METH_O,
	 "install_uvloop(loop)\n--\n\nPut the hooks into uvloop's class."},
	{"stop", stop, METH_NOARGS, "stop()\n--\n\nRecord nothing more."},
	{NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
	PyModuleDef_HEAD_INIT,
	.m_name = "_awaitscope_agent",
	.m_doc = "awaitscope's agent inside a traced process.",
	.m_size = -1,
	.m_methods = methods,
};

__attribute__((visibility("default"))) PyMODINIT_FUNC PyInit__awaitscope_agent(void);

PyMODINIT_FUNC PyInit__awaitscope_agent(void)
{
	return PyModule_Create(&definition);
}
