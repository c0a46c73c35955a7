/* SPDX-License-Identifier: MIT
 *
 * Where this interpreter keeps its GIL and its frames, for those who read them from outside: the
 * kernel (who waits for the GIL) and the tracer (what a long step is doing). The offsets are those
 * of the interpreter's own private headers; what does not look as they say is left out.
 */
#if __has_include("internal/pycore_interp.h")
#define Py_BUILD_CORE_MODULE 1
#endif
#include "agent.h"

#include <stddef.h>

#if defined(Py_BUILD_CORE_MODULE) && PY_VERSION_HEX >= 0x03090000 && PY_VERSION_HEX < 0x03100000
#include "internal/pycore_interp.h"
#include "internal/pycore_runtime.h"
#if PY_VERSION_HEX >= 0x030E0000
#include "internal/pycore_interpframe_structs.h"
#elif PY_VERSION_HEX >= 0x030B0000
#include "internal/pycore_frame.h"
#endif

#if PY_VERSION_HEX >= 0x030C0000
#define GIL (PyInterpreterState_Main()->ceval.gil)
#else
#define GIL (&_PyRuntime.ceval.gil)
#endif

static void *current_frame(PyThreadState *tstate)
{
#if PY_VERSION_HEX >= 0x030D0000
	return tstate->current_frame;
#elif PY_VERSION_HEX >= 0x030B0000
	return tstate->cframe->current_frame;
#else
	return tstate->frame;
#endif
}

static void describe_gil(struct agent_ring *ring, PyThreadState *tstate)
{
	struct _gil_runtime_state *gil = GIL;
	void *holder;
	int locked;

	memcpy(&holder, &gil->last_holder, sizeof(holder));
	memcpy(&locked, &gil->locked, sizeof(locked));
	if (holder != tstate || locked != 1) /* we have it: it must say so */
		return;
	ring->gil = (u64)(uintptr_t)gil;
	ring->gil_holder = (u64)(uintptr_t)&gil->last_holder;
	ring->gil_bytes = sizeof(*gil);
	ring->collecting = (u64)(uintptr_t)&tstate->interp->gc.collecting;
}

static void describe_frames(struct agent_ring *ring)
{
	ring->cframe_frame = ring->tstate_tid = ring->frame_owner = ring->code_start = NO_OFFSET;
	ring->tstate_thread = offsetof(PyThreadState, thread_id);
#if PY_VERSION_HEX >= 0x030B0000
	ring->tstate_tid = offsetof(PyThreadState, native_thread_id);
	ring->frame_back = offsetof(_PyInterpreterFrame, previous);
	ring->frame_owner = offsetof(_PyInterpreterFrame, owner);
	ring->code_start = offsetof(PyCodeObject, co_code_adaptive);
	ring->code_name = offsetof(PyCodeObject, co_qualname);
#else
	ring->tstate_frame = offsetof(PyThreadState, frame);
	ring->frame_back = offsetof(PyFrameObject, f_back);
	ring->frame_code = offsetof(PyFrameObject, f_code);
	ring->frame_instr = offsetof(PyFrameObject, f_lasti);
	ring->code_name = offsetof(PyCodeObject, co_name);
#endif
#if PY_VERSION_HEX >= 0x030D0000
	ring->tstate_frame = offsetof(PyThreadState, current_frame);
	ring->frame_code = offsetof(_PyInterpreterFrame, f_executable);
	ring->frame_instr = offsetof(_PyInterpreterFrame, instr_ptr);
#elif PY_VERSION_HEX >= 0x030B0000
	ring->tstate_frame = offsetof(PyThreadState, cframe);
	ring->cframe_frame = offsetof(_PyCFrame, current_frame);
	ring->frame_code = offsetof(_PyInterpreterFrame, f_code);
	ring->frame_instr = offsetof(_PyInterpreterFrame, prev_instr);
#endif
	ring->code_file = offsetof(PyCodeObject, co_filename);
	ring->code_line = offsetof(PyCodeObject, co_firstlineno);
#if PY_VERSION_HEX >= 0x030A0000
	ring->code_table = offsetof(PyCodeObject, co_linetable);
#else
	ring->code_table = offsetof(PyCodeObject, co_lnotab);
#endif
	ring->str_length = offsetof(PyASCIIObject, length);
	ring->str_state = offsetof(PyASCIIObject, state);
	ring->str_ascii = sizeof(PyASCIIObject);
	ring->str_compact = sizeof(PyCompactUnicodeObject);
	ring->bytes_size = offsetof(PyVarObject, ob_size);
	ring->bytes_data = offsetof(PyBytesObject, ob_sval);
	ring->type = offsetof(PyObject, ob_type);
	ring->code_type = (u64)(uintptr_t)&PyCode_Type;
}

void internals_describe(struct agent_ring *ring)
{
	PyThreadState *tstate = PyThreadState_Get();

	describe_gil(ring, tstate);
	describe_frames(ring);
}

struct spot internals_spot(void)
{
	PyThreadState *tstate = PyThreadState_Get();

	return (struct spot){(u64)(uintptr_t)tstate, (u64)(uintptr_t)current_frame(tstate)};
}

#else /* its private headers are missing, or not known */

void internals_describe(struct agent_ring *ring)
{
	(void)ring;
}

struct spot internals_spot(void)
{
	return (struct spot){0};
}
#endif
