/* SPDX-License-Identifier: MIT
 *
 * Strings are sent once and named by a number. Code objects, places in them and callbacks are
 * looked up by address; each address in a table is held by a strong reference to a code object
 * or a name, whose longer life no application can notice.
 */
#include "agent.h"

#include <frameobject.h>
#include <stdarg.h>

#define PIECE_BYTES 40
#define MAX_TEXT 1000
#define MAX_ENTRIES (1u << 16)

struct text {
	char *bytes;
	u64 hash;
	u32 generation; /* ring generation that has it */
	u16 len;
};

struct place {
	const void *key;
	int instruction;
	u32 id;
};

static struct text *texts; /* by id - 1 */
static u32 texts_used, texts_size;
static u32 *text_index, text_mask;
static struct code_info **infos;
static u32 infos_used, infos_mask;
static struct place *places;
static u32 places_used, places_mask;
static char **library_dirs;

static u64 mix(u64 value)
{
	value *= 0x9E3779B97F4A7C15ull;
	return value ^ value >> 29;
}

static u64 text_hash(const char *text, size_t len)
{
	u64 hash = 14695981039346656037ull;

	for (size_t i = 0; i < len; i++)
		hash = (hash ^ (u8)text[i]) * 1099511628211ull;
	return mix(hash);
}

static bool texts_grow(void)
{
	u32 size = texts_size ? texts_size * 2 : 512;
	struct text *more = realloc(texts, size * sizeof(*texts));
	u32 *index = calloc(size * 2, sizeof(*index));

	if (more)
		texts = more;
	if (!more || !index) {
		free(index);
		return false;
	}
	free(text_index);
	text_index = index;
	texts_size = size;
	text_mask = size * 2 - 1;
	for (u32 id = 1; id <= texts_used; id++) {
		u32 at = (u32)texts[id - 1].hash & text_mask;

		while (text_index[at])
			at = (at + 1) & text_mask;
		text_index[at] = id;
	}
	return true;
}

/* Return the number of a text, 0 if there is no memory. A long text keeps its end. */
u32 string_id(const char *text, size_t len)
{
	u64 hash;
	u32 at;

	if (len > MAX_TEXT) {
		text += len - MAX_TEXT;
		len = MAX_TEXT;
		while (len && ((u8)*text & 0xC0) == 0x80) /* do not start inside a character */
			text++, len--;
	}
	if (texts_used >= texts_size && (texts_used >= 4 * MAX_ENTRIES || !texts_grow()))
		return 0;
	hash = text_hash(text, len);
	for (at = (u32)hash & text_mask; text_index[at]; at = (at + 1) & text_mask) {
		struct text *known = &texts[text_index[at] - 1];

		if (known->hash == hash && known->len == len && !memcmp(known->bytes, text, len))
			return text_index[at];
	}
	texts[texts_used].bytes = malloc(len + 1);
	if (!texts[texts_used].bytes)
		return 0;
	memcpy(texts[texts_used].bytes, text, len);
	texts[texts_used].hash = hash;
	texts[texts_used].len = (u16)len;
	texts[texts_used].generation = 0;
	return text_index[at] = ++texts_used;
}

u32 string_of(PyObject *unicode)
{
	Py_ssize_t len;
	const char *text = NULL;

	if (unicode && PyUnicode_Check(unicode))
		text = PyUnicode_AsUTF8AndSize(unicode, &len);
	if (!text) {
		PyErr_Clear();
		return string_id("?", 1);
	}
	return string_id(text, (size_t)len);
}

u32 string_format(const char *format, ...)
{
	char text[4096];
	va_list args;
	int len;

	va_start(args, format);
	len = vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (len >= (int)sizeof(text))
		len = sizeof(text) - 1;
	return string_id(text, (size_t)len);
}

/* Write the text into the ring unless this ring has it; a lost one is tried again. */
u32 string_send(u32 id)
{
	struct text *text;
	u32 pieces;

	if (!id || id > texts_used)
		return id;
	text = &texts[id - 1];
	if (text->generation == ring_generation)
		return id;
	pieces = text->len ? (text->len + PIECE_BYTES - 1u) / PIECE_BYTES : 1;
	if (!ring_room(pieces, KIND_STRING))
		return id;
	for (u32 i = 0; i < pieces; i++) {
		struct ev_string *record = ring_reserve(KIND_STRING, now_ns(), thread_self()->tid);
		u32 first = i * PIECE_BYTES, rest = text->len - first;

		if (!record)
			return id;
		record->len = text->len;
		record->id = id;
		record->first = (u16)first;
		memcpy(record->text, text->bytes + first, rest < PIECE_BYTES ? rest : PIECE_BYTES);
		ring_commit();
	}
	text->generation = ring_generation;
	return id;
}

static const char *utf8(PyObject *unicode)
{
	const char *text = unicode ? PyUnicode_AsUTF8(unicode) : NULL;

	if (!text)
		PyErr_Clear();
	return text ? text : "?";
}

static bool is_library(const char *file)
{
	if (strstr(file, "/site-packages/") || strstr(file, "/dist-packages/") ||
	    !strncmp(file, "<frozen", 7))
		return true;
	for (char **dir = library_dirs; *dir; dir++) {
		size_t len = strlen(*dir);

		if (!strncmp(file, *dir, len) && file[len] == '/')
			return true;
	}
	return false;
}

/* Return the name of a file of asyncio, NULL if it is another file. */
static const char *asyncio_part(const char *file)
{
	for (char **dir = library_dirs; *dir; dir++) {
		size_t len = strlen(*dir);

		if (!strncmp(file, *dir, len) && !strncmp(file + len, "/asyncio/", 9))
			return file + len + 9;
	}
	return NULL;
}

/* Take the directories of the standard library; -1 with an exception if that fails. */
int strings_start(PyObject *prefixes)
{
	Py_ssize_t n = PyTuple_GET_SIZE(prefixes);

	library_dirs = calloc((size_t)n + 1, sizeof(*library_dirs));
	infos_mask = places_mask = 1023;
	infos = calloc(infos_mask + 1, sizeof(*infos));
	places = calloc(places_mask + 1, sizeof(*places));
	if (!library_dirs || !infos || !places || !texts_grow()) {
		PyErr_NoMemory();
		return -1;
	}
	for (Py_ssize_t i = 0; i < n; i++) {
		const char *dir = PyUnicode_AsUTF8(PyTuple_GET_ITEM(prefixes, i));

		if (!dir || !(library_dirs[i] = strdup(dir)))
			return -1;
	}
	return 0;
}

/* Return the folder of the standard library. */
const char *strings_library(void)
{
	return library_dirs[0] ? library_dirs[0] : "";
}

static void fill_info(struct code_info *info, PyObject *key)
{
	memset(info, 0, sizeof(*info));
	info->key = key;
	if (PyCode_Check(key)) {
		PyCodeObject *code = (PyCodeObject *)key;
		const char *file = utf8(code->co_filename), *part;
#if PY_VERSION_HEX >= 0x030B0000
		PyObject *name = code->co_qualname;
#else
		PyObject *name = code->co_name;
#endif
		info->library = is_library(file);
		info->asyncio = (part = asyncio_part(file));
		info->primitive = part && (!strcmp(part, "locks.py") || !strcmp(part, "queues.py"));
		info->leaf = string_format("%s:%s", file, utf8(name));
		info->defined = string_format("%s:%d", file, code->co_firstlineno);
	} else {
		info->library = true;
		info->leaf = string_format("<compiled>:%s", utf8(key));
		info->defined = string_id("<compiled>", 10);
	}
}

static void infos_grow(void)
{
	u32 mask = infos_mask * 2 + 1;
	struct code_info **more = calloc(mask + 1, sizeof(*more));

	if (!more)
		return;
	for (u32 i = 0; i <= infos_mask; i++) {
		u32 at;

		if (!infos[i])
			continue;
		for (at = (u32)mix((u64)(uintptr_t)infos[i]->key) & mask; more[at];)
			at = (at + 1) & mask;
		more[at] = infos[i];
	}
	free(infos);
	infos = more;
	infos_mask = mask;
}

static struct code_info *info_of(PyObject *key)
{
	static struct code_info uncached;
	u32 at = (u32)mix((u64)(uintptr_t)key) & infos_mask;

	for (; infos[at]; at = (at + 1) & infos_mask)
		if (infos[at]->key == key)
			return infos[at];
	if (infos_used >= MAX_ENTRIES || infos_used >= infos_mask / 4 * 3 ||
	    !(infos[at] = malloc(sizeof(**infos)))) {
		Py_CLEAR(uncached.qualname);
		fill_info(&uncached, key);
		return &uncached;
	}
	fill_info(infos[at], new_ref(key));
	infos_used++;
	if (infos_used > infos_mask / 2) {
		struct code_info *info = infos[at];

		infos_grow();
		return info;
	}
	return infos[at];
}

struct code_info *code_info(PyCodeObject *code)
{
	return info_of((PyObject *)code);
}

/* The same for a coroutine without a code object: compiled by Cython. */
struct code_info *name_info(PyObject *qualname)
{
	return info_of(qualname);
}

/* Look up, or make room for, the string of (key, instruction); NULL when the table is full. */
static struct place *place_of(const void *key, int instruction)
{
	u32 at;

	if (places_used > places_mask / 2 && places_used < MAX_ENTRIES) {
		u32 mask = places_mask * 2 + 1;
		struct place *more = calloc(mask + 1, sizeof(*more));

		if (!more)
			return NULL;
		for (u32 i = 0; i <= places_mask; i++) {
			if (!places[i].key)
				continue;
			at = (u32)mix((u64)(uintptr_t)places[i].key + (u32)places[i].instruction) & mask;
			while (more[at].key)
				at = (at + 1) & mask;
			more[at] = places[i];
		}
		free(places);
		places = more;
		places_mask = mask;
	}
	at = (u32)mix((u64)(uintptr_t)key + (u32)instruction) & places_mask;
	for (; places[at].key; at = (at + 1) & places_mask)
		if (places[at].key == key && places[at].instruction == instruction)
			return &places[at];
	return places_used < MAX_ENTRIES ? &places[at] : NULL;
}

static u32 place_set(struct place *place, const void *key, int instruction, u32 id)
{
	if (place && id) {
		place->key = key;
		place->instruction = instruction;
		place->id = id;
		places_used++;
	}
	return id;
}

/* Return the string "file:line" of the instruction at which a frame is suspended. */
u32 code_line(PyObject *frame, PyCodeObject *code)
{
#if PY_VERSION_HEX >= 0x030B0000
	int instruction = PyFrame_GetLasti((PyFrameObject *)frame);
#else
	int instruction = ((PyFrameObject *)frame)->f_lasti;
#endif
	bool held = code_info(code)->key == (PyObject *)code && infos_used < MAX_ENTRIES;
	struct place *place = held ? place_of(code, instruction) : NULL;

	if (place && place->key)
		return place->id;
	return place_set(place, code, instruction,
			 string_format("%s:%d", utf8(code->co_filename),
				       PyFrame_GetLineNumber((PyFrameObject *)frame)));
}

/* Return the string of a name that is looked up by `key`, an address that stays taken. */
static u32 known_name(const void *key, PyObject *name)
{
	struct place *place = place_of(key, -2);

	if (place && place->key)
		return place->id;
	return place_set(place, key, -2, string_of(name));
}

/* Return the string of a callback's qualified name; a partial has its function's. */
u32 callback_name(PyObject *callback)
{
	PyObject *name, *inner;
	u32 id;

	if (PyUnicode_Check(callback)) /* what has no callable of Python's has a name */
		return string_of(callback);
	if (PyMethod_Check(callback))
		callback = PyMethod_GET_FUNCTION(callback);
	if (PyFunction_Check(callback)) {
		name = ((PyFunctionObject *)callback)->func_qualname;
		if (name_info(name)->key == name && infos_used < MAX_ENTRIES)
			return known_name(name, name);
		return string_of(name);
	}
	if (PyCFunction_Check(callback)) {
		const void *key = ((PyCFunctionObject *)callback)->m_ml;
		struct place *place = place_of(key, -2);

		if (place && place->key)
			return place->id;
		name = attribute(callback, "__qualname__");
		id = string_of(name);
		Py_XDECREF(name);
		return place_set(place_of(key, -2), key, -2, id);
	}
	if (!strcmp(Py_TYPE(callback)->tp_name, "functools.partial") &&
	    (inner = attribute(callback, "func"))) {
		id = Py_TYPE(inner) == Py_TYPE(callback) ? string_id("functools.partial", 17)
							 : callback_name(inner);
		Py_DECREF(inner);
		return id;
	}
	return string_id(Py_TYPE(callback)->tp_name, strlen(Py_TYPE(callback)->tp_name));
}
