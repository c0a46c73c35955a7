/* SPDX-License-Identifier: MIT
 *
 * How those who read a frame from outside find the C function that it is calling: the object lies
 * in the frame's stack of values, whose depth at each instruction follows from the bytecode. A
 * frame does not say the depth while it runs, so the interpreter's own tables are told here.
 */
#if __has_include("internal/pycore_frame.h")
#define Py_BUILD_CORE_MODULE 1
#endif
#include "agent.h"

#include <stddef.h>

#if defined(Py_BUILD_CORE_MODULE) && PY_VERSION_HEX >= 0x030B0000 && PY_VERSION_HEX < 0x03100000
#if PY_VERSION_HEX >= 0x030E0000
#include "internal/pycore_interpframe_structs.h"
#else
#include "internal/pycore_frame.h"
#endif
#if PY_VERSION_HEX >= 0x030D0000
#define NEED_OPCODE_METADATA
#include "internal/pycore_opcode_metadata.h"
#define JUMPS(op) OPCODE_HAS_JUMP(op)
#else
#define NEED_OPCODE_TABLES
#include "internal/pycore_opcode.h"
#define JUMPS(op) (_PyOpcode_Jump[(op) / 32] >> ((op) % 32) & 1)
#endif
#include "opcode.h"

static struct {
	struct agent_calls at;
	struct agent_instruction instructions[256];
} told;

static u8 flow_of(int op)
{
	switch (op) {
	case JUMP_BACKWARD:
	case JUMP_BACKWARD_NO_INTERRUPT:
		return FLOW_JUMPS_BACK | FLOW_ENDS;
#if PY_VERSION_HEX < 0x030C0000
	case POP_JUMP_BACKWARD_IF_TRUE:
	case POP_JUMP_BACKWARD_IF_FALSE:
	case POP_JUMP_BACKWARD_IF_NONE:
	case POP_JUMP_BACKWARD_IF_NOT_NONE:
		return FLOW_JUMPS_BACK;
#else
	case INTERPRETER_EXIT:
#endif
#ifdef RETURN_CONST /* up to 3.13 */
	case RETURN_CONST:
#endif
	case RETURN_VALUE:
	case RAISE_VARARGS:
	case RERAISE:
		return FLOW_ENDS;
	case JUMP_FORWARD:
		return FLOW_JUMPS | FLOW_ENDS;
	case EXTENDED_ARG:
		return FLOW_EXTENDS;
	default:
		return JUMPS(op) ? FLOW_JUMPS : 0;
	}
}

/* What it calls, and where on the stack that is (Python/ceval.c, Python/bytecodes.c). */
static void describe_call(int op, struct agent_instruction *it)
{
	switch (op) {
#if PY_VERSION_HEX < 0x030C0000
	case PRECALL:
#endif
	case CALL:
		it->calls = CALLS_CALL;
		it->below = 2;
		it->arguments = 255;
		break;
#if PY_VERSION_HEX >= 0x030D0000
	case CALL_KW:
		it->calls = CALLS_CALL;
		it->below = 3;
		it->arguments = 255;
		break;
#endif
	case CALL_FUNCTION_EX:
		it->calls = CALLS_CALL;
#if PY_VERSION_HEX >= 0x030E0000 /* always with a place for keyword arguments */
		it->below = 4;
#else
		it->below = PY_VERSION_HEX >= 0x030D0000 ? 3 : 2;
		it->arguments = 1;
#endif
		break;
#ifdef BEFORE_WITH /* up to 3.13; then LOAD_SPECIAL and CALL */
	case BEFORE_WITH:
		it->calls = CALLS_ENTER;
		it->below = 1;
		break;
#endif
	case FOR_ITER:
		it->calls = CALLS_NEXT;
		it->below = PY_VERSION_HEX >= 0x030F0000 ? 2 : 1; /* above it: an index or NULL */
		break;
	}
}

/* The change of depth; in 3.11 the compiler counts a CALL's arguments at its PRECALL. */
static s32 effect_of(int op, int arg, int jump)
{
#if PY_VERSION_HEX < 0x030C0000
	if (op == PRECALL)
		return 0;
	if (op == CALL)
		return -arg - 1;
#endif
#if PY_VERSION_HEX < 0x030D0000
	if (op == RETURN_GENERATOR) /* pushed here; the compiler counts it at the beginning */
		return 1;
#endif
	return PyCompile_OpcodeStackEffectWithJump(op, op >= HAVE_ARGUMENT ? arg : 0, jump);
}

static void describe_instructions(void)
{
	for (int op = 0; op < 256; op++) {
		struct agent_instruction *it = &told.instructions[op];

		it->base = _PyOpcode_Deopt[op];
		it->caches = _PyOpcode_Caches[it->base];
		it->flow = flow_of(op);
		describe_call(op, it);
		for (int arg = 0; arg < 16; arg++) {
			it->effect[arg] = effect_of(op, arg, 0);
			it->jump_effect[arg] = effect_of(op, arg, 1);
		}
	}
}

u64 calls_describe(void)
{
	told.at = (struct agent_calls){
		.function_type = (u64)(uintptr_t)&PyCFunction_Type,
		.bound_type = (u64)(uintptr_t)&PyCMethod_Type,
		.method_type = (u64)(uintptr_t)&PyMethodDescr_Type,
		.type_type = (u64)(uintptr_t)&PyType_Type,
		.module_type = (u64)(uintptr_t)&PyModule_Type,
		.frame_locals = offsetof(_PyInterpreterFrame, localsplus),
		.code_units = offsetof(PyVarObject, ob_size),
		.code_locals = offsetof(PyCodeObject, co_nlocalsplus),
		.code_stack = offsetof(PyCodeObject, co_stacksize),
		.code_handlers = offsetof(PyCodeObject, co_exceptiontable),
		.function_def = offsetof(PyCFunctionObject, m_ml),
		.function_self = offsetof(PyCFunctionObject, m_self),
		.function_module = offsetof(PyCFunctionObject, m_module),
		.method_def = offsetof(PyMethodDescrObject, d_method),
		.method_type_at = offsetof(PyMethodDescrObject, d_common.d_type),
		.def_name = offsetof(PyMethodDef, ml_name),
		.type_name = offsetof(PyTypeObject, tp_name),
		.type_base = offsetof(PyTypeObject, tp_base),
		.type_call = offsetof(PyTypeObject, tp_call),
		.type_next = offsetof(PyTypeObject, tp_iternext),
		.type_flags = offsetof(PyTypeObject, tp_flags),
		.instructions = offsetof(typeof(told), instructions),
	};
	describe_instructions();
	return (u64)(uintptr_t)&told;
}

#else

u64 calls_describe(void)
{
	return 0;
}
#endif
