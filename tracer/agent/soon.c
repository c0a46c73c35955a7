/* SPDX-License-Identifier: MIT
 *
 * BaseEventLoop._call_soon(callback, args, context) without Python frames: asyncio's own goes
 * through two (itself and Handle.__init__), and to call it from C costs more than it did before.
 * What the hook adds is saved here again. Only where both are what we know (3.9 to 3.15 are);
 * otherwise, and in debug mode, asyncio's own is called.
 */
#include "agent.h"

enum { CALLBACK, ARGS, LOOP, CONTEXT, CANCELLED, REPR, SOURCE, SLOTS };

static const char *const slot_names[SLOTS] = {"_callback",  "_args", "_loop", "_context",
					      "_cancelled", "_repr", "_source_traceback"};
static Py_ssize_t slot_at[SLOTS];

/* All that the two functions refer to; one that refers to anything else does something else. */
static const char *const soon_names[] = {"events", "Handle", "_source_traceback", "_ready",
					 "append", NULL};
static const char *const init_names[] = {
	"contextvars", "copy_context", "_context",  "_loop",	      "_callback",
	"_args",       "_cancelled",   "_repr",	    "get_debug",      "format_helpers",
	"sys",	       "_getframe",    "extract_stack", "_source_traceback", NULL};

static PyTypeObject *handle_type;
static PyObject *handle_init, *events_dict;
static PyObject *name_handle, *name_init, *name_debug, *name_ready, *name_append;
static unsigned int known_version;

static bool refers_only_to(PyObject *function, const char *const *allowed)
{
	PyObject *code = attribute(function, "__code__");
	PyObject *names = code ? attribute(code, "co_names") : NULL;
	bool known = names && PyTuple_Check(names);

	for (Py_ssize_t i = 0; known && i < PyTuple_GET_SIZE(names); i++) {
		const char *const *name = allowed;

		while (*name && PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, i), *name))
			name++;
		known = *name != NULL;
	}
	Py_XDECREF(code);
	Py_XDECREF(names);
	return known;
}

static bool find_slots(PyObject *type)
{
	bool all = true;

	for (int i = 0; all && i < SLOTS; i++) {
		PyObject *member = attribute(type, slot_names[i]);

		all = member && Py_IS_TYPE(member, &PyMemberDescr_Type);
		if (all)
			slot_at[i] = ((PyMemberDescrObject *)member)->d_member->offset;
		Py_XDECREF(member);
	}
	return all;
}

/* Look whether handles can be made here; `old` is asyncio's own _call_soon. */
void soon_install(PyObject *type, PyObject *old)
{
	PyObject *init = attribute(type, "__init__");
	PyObject *globals = attribute(old, "__globals__");
	PyObject *events = globals ? PyDict_GetItemString(globals, "events") : NULL;
	PyObject *dict = events ? attribute(events, "__dict__") : NULL;

	name_handle = PyUnicode_InternFromString("Handle");
	name_init = PyUnicode_InternFromString("__init__");
	name_debug = PyUnicode_InternFromString("get_debug");
	name_ready = PyUnicode_InternFromString("_ready");
	name_append = PyUnicode_InternFromString("append");
	if (init && dict && name_handle && name_init && name_debug && name_ready && name_append &&
	    refers_only_to(old, soon_names) && refers_only_to(init, init_names) &&
	    find_slots(type)) {
		handle_init = new_ref(init);
		events_dict = new_ref(dict);
		handle_type = (PyTypeObject *)new_ref(type);
	}
	PyErr_Clear();
	Py_XDECREF(init);
	Py_XDECREF(globals);
	Py_XDECREF(dict);
}

/* Is the handle's type as it was when this was its version? */
static bool is_version(unsigned int version)
{
#if PY_VERSION_HEX < 0x030A0000 /* a tag outlives its validity */
	if (!PyType_HasFeature(handle_type, Py_TPFLAGS_VALID_VERSION_TAG))
		return false;
#endif
	return version && handle_type->tp_version_tag == version;
}

/* Has nobody put another class or another __init__ in the place of asyncio's? */
static bool as_it_was(void)
{
	PyObject *init;

	if (PyDict_GetItem(events_dict, name_handle) != (PyObject *)handle_type)
		return false;
	if (is_version(known_version))
		return true;
	init = PyObject_GetAttr((PyObject *)handle_type, name_init);
	if (!init)
		PyErr_Clear();
	Py_XDECREF(init);
	known_version = init == handle_init ? handle_type->tp_version_tag : 0;
	return init == handle_init;
}

static void fill(PyObject *handle, int slot, PyObject *value)
{
	*(PyObject **)((char *)handle + slot_at[slot]) = value; /* takes over the reference */
}

static PyObject *new_handle(PyObject *loop, PyObject *const *args)
{
	PyObject *context = args[2] == Py_None ? PyContext_CopyCurrent() : new_ref(args[2]);
	PyObject *handle = context ? handle_type->tp_alloc(handle_type, 0) : NULL;

	if (!handle) {
		Py_XDECREF(context);
		return NULL;
	}
	fill(handle, CALLBACK, new_ref(args[0]));
	fill(handle, ARGS, new_ref(args[1]));
	fill(handle, LOOP, new_ref(loop));
	fill(handle, CONTEXT, context);
	fill(handle, CANCELLED, new_ref(Py_False));
	fill(handle, REPR, new_ref(Py_None));
	fill(handle, SOURCE, new_ref(Py_None));
	return handle;
}

/* Do what _call_soon does: put a callback on the ready queue and return its handle. */
PyObject *soon(PyObject *old, PyObject *loop, PyObject *const *args)
{
	PyObject *debug, *handle, *ready, *done, *stack[2];
	int is_debug;

	if (!handle_type || !as_it_was())
		return call_method(old, loop, args, 3, NULL);
	debug = PyObject_CallMethodNoArgs(loop, name_debug);
	is_debug = debug ? PyObject_IsTrue(debug) : -1;
	Py_XDECREF(debug);
	if (is_debug < 0)
		return NULL;
	if (is_debug) /* the handle remembers where it was made */
		return call_method(old, loop, args, 3, NULL);
	handle = new_handle(loop, args);
	ready = handle ? PyObject_GetAttr(loop, name_ready) : NULL;
	if (ready) {
		stack[0] = ready;
		stack[1] = handle;
		done = PyObject_VectorcallMethod(name_append, stack, 2, NULL);
		Py_DECREF(ready);
		if (done) {
			Py_DECREF(done);
			return handle;
		}
	}
	Py_XDECREF(handle);
	return NULL;
}
