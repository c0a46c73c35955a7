/* SPDX-License-Identifier: MIT
 *
 * TLS handshakes: calls of _ssl._SSLSocket.do_handshake, on which asyncio's and uvloop's TLS, that
 * of libraries which shake hands in memory (anyio) and ssl.SSLSocket all end (Modules/_ssl.c). The
 * SSLObject or SSLSocket that owns it is marked: its calls are one handshake.
 */
#include "agent.h"

static PyObject *old_do_handshake, *want_read, *want_write, *shake_key;

/* Return the serial of a handshake that is not over, 0 where there is none. */
static u32 serial_of(PyObject *owner)
{
	PyObject *dict = PyObject_GenericGetDict(owner, NULL);
	PyObject *known = dict ? PyDict_GetItemWithError(dict, shake_key) : NULL, *made = NULL;
	u32 serial = 0;

	if (known) {
		serial = (u32)PyLong_AsUnsignedLongMask(known);
	} else if (dict && !PyErr_Occurred()) {
		serial = run_serial();
		made = PyLong_FromUnsignedLong(serial);
		if (!made || PyDict_SetItem(dict, shake_key, made) < 0)
			serial = 0;
	}
	PyErr_Clear();
	Py_XDECREF(made);
	Py_XDECREF(dict);
	return serial;
}

/* What is called after its end is no handshake. */
static void forget(PyObject *owner)
{
	PyObject *dict = PyObject_GenericGetDict(owner, NULL), *none = PyLong_FromLong(0);

	if (!dict || !none || PyDict_SetItem(dict, shake_key, none) < 0)
		PyErr_Clear();
	Py_XDECREF(none);
	Py_XDECREF(dict);
}

static PyObject *do_handshake(PyObject *self, PyObject *Py_UNUSED(none))
{
	PyObject *owner = ring_ready() ? attribute(self, "owner") : NULL;
	PyObject *result, *type, *value, *trace;
	struct ev_handshake *record;
	u64 begin_ns, end_ns;
	u32 serial = 0, run = 0, tid = 0;
	u8 flags = HANDSHAKE_OVER;

	if (owner && owner != Py_None)
		serial = serial_of(owner);
	if (serial) {
		native_begin();
		tid = thread_self()->tid;
		run = thread_self()->run;
	}
	begin_ns = now_ns();
	result = PyObject_CallOneArg(old_do_handshake, self);
	end_ns = now_ns();
	if (serial) {
		PyErr_Fetch(&type, &value, &trace);
		if (!result)
			flags = PyErr_GivenExceptionMatches(type, want_read) ||
						PyErr_GivenExceptionMatches(type, want_write)
					? 0
					: HANDSHAKE_FAILED;
		if (flags)
			forget(owner);
		record = ring_ready() ? ring_reserve(KIND_HANDSHAKE, begin_ns, tid) : NULL;
		if (record) {
			record->flags = flags;
			record->end_ns = end_ns;
			record->tls = serial;
			record->run = run;
			ring_commit();
		}
		PyErr_Restore(type, value, trace);
	}
	Py_XDECREF(owner);
	return result;
}

static PyMethodDef do_handshake_def = {"do_handshake", do_handshake, METH_NOARGS, NULL};

/* Put the hook in place; without it no handshake is seen, nothing else. */
void handshake_install(void)
{
	PyObject *module = PyDict_GetItemString(PyImport_GetModuleDict(), "_ssl");
	PyObject *type = module ? attribute(module, "_SSLSocket") : NULL;

	shake_key = PyUnicode_InternFromString("_awaitscope_handshake");
	want_read = module ? attribute(module, "SSLWantReadError") : NULL;
	want_write = module ? attribute(module, "SSLWantWriteError") : NULL;
	if (shake_key && want_read && want_write && type && PyType_Check(type)) {
		PyObject *old = attribute(type, "do_handshake");

		if (old && Py_TYPE(old) == &PyMethodDescr_Type) {
			do_handshake_def.ml_doc = ((PyMethodDescrObject *)old)->d_method->ml_doc;
			hook_put_fixed((PyTypeObject *)type, &do_handshake_def, &old_do_handshake);
		}
		Py_XDECREF(old);
	}
	PyErr_Clear();
	Py_XDECREF(type);
}
