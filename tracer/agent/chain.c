/* SPDX-License-Identifier: MIT
 *
 * The await chain of a suspended task: coroutine, what it awaits, and so on down to the future.
 * Read with the getters behind cr_await, gi_yieldfrom and ag_await (Objects/genobject.c).
 */
#include "agent.h"

#include <frameobject.h>

#define MAX_DEPTH 400
#define DEEP 6 /* a user frame deeper than this is remembered, to skip the walk down to it */
#define MAX_TYPES 64

enum kind { K_END, K_CORO, K_GEN, K_AGEN, K_WRAP, K_FOREIGN };

static const char *const await_names[] = {
	[K_CORO] = "cr_await", [K_GEN] = "gi_yieldfrom", [K_AGEN] = "ag_await",
	[K_FOREIGN] = "cr_await",
};
static const char *const frame_names[] = {
	[K_CORO] = "cr_frame", [K_GEN] = "gi_frame", [K_AGEN] = "ag_frame",
	[K_FOREIGN] = "cr_frame",
};
static PyGetSetDef *await_getters[K_FOREIGN + 1];

static struct {
	PyTypeObject *type; /* strong reference */
	enum kind kind;
} types[MAX_TYPES];
static int types_used;

static PyGetSetDef *find_getter(PyTypeObject *type, const char *name)
{
	for (PyGetSetDef *def = type->tp_getset; def && def->name; def++)
		if (!strcmp(def->name, name))
			return def;
	return NULL;
}

int chain_start(void)
{
	await_getters[K_CORO] = find_getter(&PyCoro_Type, "cr_await");
	await_getters[K_GEN] = find_getter(&PyGen_Type, "gi_yieldfrom");
	await_getters[K_AGEN] = find_getter(&PyAsyncGen_Type, "ag_await");
	if (await_getters[K_CORO] && await_getters[K_GEN] && await_getters[K_AGEN])
		return 0;
	PyErr_SetString(PyExc_RuntimeError, "unsupported_python: cr_await is no getter");
	return -1;
}

/* Objects that stand for the coroutine or async generator that they hold. */
static bool is_wrapper(const char *name)
{
	return !strcmp(name, "async_generator_asend") || !strcmp(name, "async_generator_athrow") ||
	       !strcmp(name, "coroutine_wrapper") || !strcmp(name, "anext_awaitable");
}

static enum kind learn(PyObject *object)
{
	PyTypeObject *type = Py_TYPE(object);
	enum kind kind = K_END;
	PyObject *awaited;

	if (is_wrapper(type->tp_name)) {
		kind = K_WRAP;
	} else if ((awaited = attribute((PyObject *)type, "cr_await"))) {
		Py_DECREF(awaited);
		kind = K_FOREIGN;
	}
	if (types_used < MAX_TYPES) {
		types[types_used].type = (PyTypeObject *)new_ref((PyObject *)type);
		types[types_used++].kind = kind;
	}
	return kind;
}

static enum kind kind_of(PyObject *object)
{
	PyTypeObject *type = Py_TYPE(object);

	if (type == &PyCoro_Type)
		return K_CORO;
	if (type == &PyGen_Type)
		return K_GEN;
	if (type == &PyAsyncGen_Type)
		return K_AGEN;
	for (int i = 0; i < types_used; i++)
		if (types[i].type == type)
			return types[i].kind;
	return learn(object);
}

static int take_first(PyObject *object, void *found)
{
	if (kind_of(object) == K_END)
		return 0;
	*(PyObject **)found = object;
	return 1;
}

/* Return what a wrapper stands for. Its layout is private; its tp_traverse tells. */
static PyObject *unwrap(PyObject *wrapper)
{
	PyObject *found = NULL;

	if (Py_TYPE(wrapper)->tp_traverse)
		Py_TYPE(wrapper)->tp_traverse(wrapper, take_first, &found);
	return new_ref(found);
}

/* Return what an object awaits, as a new reference; NULL at the end of the chain. */
static PyObject *awaited_by(PyObject *object, enum kind kind)
{
	PyObject *next;

	if (kind == K_END)
		return NULL;
	if (kind == K_WRAP)
		return unwrap(object);
	if (kind == K_FOREIGN)
		next = attribute(object, await_names[kind]);
	else
		next = await_getters[kind]->get(object, await_getters[kind]->closure);
	if (!next) {
		PyErr_Clear();
		return NULL;
	}
	if (next == Py_None) {
		Py_DECREF(next);
		return NULL;
	}
	return next;
}

/* Return a coroutine's code object as a new reference, NULL if it has none. */
PyCodeObject *chain_code(PyObject *coro)
{
	enum kind kind = kind_of(coro);
	PyObject *code;

	if (kind == K_CORO || kind == K_GEN || kind == K_AGEN) {
#if PY_VERSION_HEX >= 0x030C0000
		return PyGen_GetCode((PyGenObject *)coro);
#else
		return (PyCodeObject *)new_ref((PyObject *)((PyGenObject *)coro)->gi_code);
#endif
	}
	if (kind != K_FOREIGN || !(code = attribute(coro, "cr_code")))
		return NULL;
	if (PyCode_Check(code))
		return (PyCodeObject *)code;
	Py_DECREF(code);
	return NULL;
}

static struct code_info *info_of_frame(PyObject *object, enum kind kind)
{
	struct code_info *info = NULL;
	PyCodeObject *code;
	PyObject *name;

	if (kind == K_END || kind == K_WRAP)
		return NULL;
	code = chain_code(object);
	if (code) {
		info = code_info(code);
		Py_DECREF(code);
	} else if ((name = attribute(object, "__qualname__"))) {
		if (PyUnicode_Check(name))
			info = name_info(name);
		Py_DECREF(name);
	}
	return info;
}

/* Return an object whose life is the life of the await, NULL if it has none to hold on to. */
static PyObject *identity(PyObject *awaited)
{
	PyObject *result = new_ref(awaited);

	for (int i = 0; result && i < MAX_DEPTH; i++) {
		enum kind kind = kind_of(result);
		PyObject *inner;

		if (kind == K_WRAP) {
			inner = unwrap(result);
			/* an async generator outlives its items: what it awaits does not */
			if (inner && kind_of(inner) == K_AGEN)
				Py_SETREF(inner, awaited_by(inner, K_AGEN));
		} else if (Py_TYPE(result)->tp_weaklistoffset != 0) {
			return result;
		} else {
			inner = NULL;
		}
		Py_DECREF(result);
		result = inner;
	}
	Py_XDECREF(result);
	return NULL;
}

static u32 line_of(PyObject *object)
{
	PyCodeObject *code = chain_code(object);
	PyObject *frame;
	u32 id = 0;

	if (!code)
		return 0;
	frame = attribute(object, frame_names[kind_of(object)]);
	id = frame && PyFrame_Check(frame) ? code_line(frame, code) : code_info(code)->defined;
	Py_XDECREF(frame);
	Py_DECREF(code);
	return id;
}

/* What one walk found; both objects are strong references. */
struct walk {
	PyObject *user, *awaited;
	struct code_info *leaf;
	int depth;
	bool found;
};

static void walk(struct walk *w, PyObject *from)
{
	PyObject *at = new_ref(from);

	memset(w, 0, sizeof(*w));
	for (int depth = 0; at && depth < MAX_DEPTH; depth++) {
		enum kind kind = kind_of(at);
		struct code_info *info = info_of_frame(at, kind);
		PyObject *next = awaited_by(at, kind);

		if (info) {
			/* what is built on a lock or a queue is awaited, not what it is built on */
			if (!w->leaf || !w->leaf->asyncio || !info->primitive)
				w->leaf = info;
			if (!info->library || !w->user) {
				w->found |= !info->library;
				w->depth = depth;
				Py_XSETREF(w->user, new_ref(at));
				Py_XSETREF(w->awaited, new_ref(next));
			}
		}
		Py_DECREF(at);
		at = next;
	}
	Py_XDECREF(at);
}

static void walk_clear(struct walk *w)
{
	Py_CLEAR(w->user);
	Py_CLEAR(w->awaited);
}

/* Is this coroutine suspended in an await? Then it is still part of its one chain. */
static bool is_awaiting(PyObject *object)
{
	PyObject *next;

	if (!object || Py_TYPE(object) != &PyCoro_Type)
		return false;
	next = awaited_by(object, K_CORO);
	Py_XDECREF(next);
	return next != NULL;
}

static bool set_weak(PyObject **ref, PyObject *object)
{
	PyObject *weak = object ? PyWeakref_NewRef(object, NULL) : NULL;

	if (object && !weak)
		PyErr_Clear();
	Py_XSETREF(*ref, weak);
	return weak != NULL;
}

/* Below what the user frame awaited last time nothing of the user's came in: the same row. */
static bool same_await(struct suspension *at)
{
	PyObject *awaited = weak_get(at->awaited);
	struct walk w;
	bool same = false;

	if (is_awaiting(awaited)) {
		walk(&w, awaited);
		same = w.leaf && !w.found;
		if (same)
			at->leaf = w.leaf->leaf;
		walk_clear(&w);
	}
	Py_XDECREF(awaited);
	return same;
}

static void new_await(struct suspension *at, struct walk *w, PyObject *known, bool from_root)
{
	at->row++;
	at->where = line_of(w->user);
	set_weak(&at->awaited, known);
	if (!from_root)
		return;
	if (w->depth > DEEP && w->found && Py_TYPE(w->user) == &PyCoro_Type)
		set_weak(&at->user, w->user);
	else
		Py_CLEAR(at->user);
}

/* Describe how the chain below `coro` is suspended; true if the row is the one before. */
bool chain_update(struct suspension *at, PyObject *coro)
{
	PyObject *user, *known, *before;
	struct walk w;
	bool same, from_root;

	if (at->awaited && same_await(at))
		return true;
	user = weak_get(at->user);
	from_root = !is_awaiting(user);
	walk(&w, from_root ? coro : user);
	Py_XDECREF(user);
	if (!w.user) {
		walk_clear(&w);
		at->row++;
		at->where = at->leaf = 0;
		return false;
	}
	at->leaf = w.leaf->leaf;
	known = identity(w.awaited);
	before = weak_get(at->awaited);
	same = known && known == before;
	if (!same)
		new_await(at, &w, known, from_root);
	Py_XDECREF(known);
	Py_XDECREF(before);
	walk_clear(&w);
	return same;
}

void chain_clear(struct suspension *at)
{
	Py_CLEAR(at->awaited);
	Py_CLEAR(at->user);
	at->where = at->leaf = 0;
}
