/* SPDX-License-Identifier: MIT
 *
 * What the agent's parts share. The agent runs inside the traced process under the GIL, which
 * is the lock of everything here. It never raises into the application: a failure inside it
 * leaves a record out or ends the recording.
 */
#ifndef AWAITSCOPE_AGENT_H
#define AWAITSCOPE_AGENT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#if PY_VERSION_HEX < 0x030C0000
#include <structmember.h> /* PyMemberDef */
#endif
#include <frameobject.h> /* PyFrame_Check before 3.11 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int16_t s16;
typedef int32_t s32;
typedef int64_t s64;

#include "record.h"

/* ---- time: CLOCK_MONOTONIC, as bpf_ktime_get_ns ---- */
static inline u64 now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (u64)ts.tv_sec * 1000000000u + (u64)ts.tv_nsec;
}

/* ---- internals.c ---- */

/* Where a thread is, for those who look from outside; 0 if the layout is not known. */
struct spot {
	u64 tstate;
	u64 frame;
};

void internals_describe(struct agent_ring *ring);
struct spot internals_spot(void);

/* ---- calls.c ---- */
u64 calls_describe(void);

/* ---- ring.c ---- */

/* One thread of the process. */
struct thread {
	u64 *slot;           /* where the kernel reads the running task's serial; NULL: none left */
	u32 generation;      /* ring generation in which tid was read */
	u32 announced;       /* ring generation in which the slot was announced */
	u32 tid;             /* as the process sees it */
	u32 run;             /* serial of the run current on this thread, 0 none */
	u32 task;            /* serial of the task current on this thread, 0 none */
	PyObject *loop;      /* loop of the last run: compared, never followed */
	struct eager *eager; /* innermost create_task call that may start its task eagerly */
	struct run *open;    /* innermost run that Handle._run began */
};

extern u32 ring_generation; /* grows with each ring: what was said in an old one is said again */

const char *ring_start(const char *live_dir, u64 slots, char *detail, size_t size);
bool ring_ready(void);
void ring_stop(void);
u64 ring_agent(void);
void *ring_reserve(u8 kind, u64 ts_ns, u32 tid);
void ring_commit(void);
bool ring_room(u32 records, u8 kind);
bool ring_has_room(void);
struct ev_step *ring_open_run(struct thread *thread);
void ring_show_spot(struct thread *thread, struct spot spot);
struct thread *thread_self(void);
void thread_announce(struct thread *thread);

/* ---- strings.c ---- */

/* What is known of a code object, or of a name that stands for code without one. */
struct code_info {
	PyObject *key;      /* strong reference: the address stays taken */
	bool library;       /* of the standard library or an installed package */
	bool asyncio;       /* of asyncio itself */
	bool primitive;     /* of asyncio's locks and queues, which other parts of it are built on */
	u32 leaf;           /* string "file:qualname" */
	u32 defined;        /* string "file:line" of the definition */
	PyObject *qualname; /* strong reference to the coroutine's name that `name` was made of */
	u32 name;           /* string: qualified name of the coroutine */
};

int strings_start(PyObject *prefixes);
const char *strings_library(void);
u32 string_id(const char *text, size_t len);
u32 string_of(PyObject *unicode);
u32 string_send(u32 id);
u32 string_format(const char *format, ...) __attribute__((format(printf, 1, 2)));
struct code_info *code_info(PyCodeObject *code);
struct code_info *name_info(PyObject *qualname);
u32 code_line(PyObject *frame, PyCodeObject *code);
u32 callback_name(PyObject *callback);

/* ---- chain.c ---- */

/* How a task is suspended, and what it remembers to recognise the same await again. */
struct suspension {
	PyObject *awaited; /* weak reference to what the user frame awaits, NULL if it has no identity */
	PyObject *user;    /* weak reference to a user frame deep in the chain, else NULL */
	u32 where;         /* string "file:line" of the await in the user frame */
	u32 leaf;          /* string "file:qualname" of the innermost frame */
	u32 row;           /* serial of the await */
};

int chain_start(void);
bool chain_update(struct suspension *at, PyObject *coro);
void chain_clear(struct suspension *at);
PyCodeObject *chain_code(PyObject *coro);

/* ---- task.c ---- */

enum field { F_CORO, F_WAITER, F_STATE, F_MUST_CANCEL, F_EXCEPTION, F_COUNT };

/* Who put something on the ready queue, and when. */
struct wake {
	u64 ns;
	u32 run;
	u32 tid;
};

/* Our knowledge of one task; lives in the task's __dict__ and dies with it. */
struct task {
	PyObject_HEAD
	PyObject *coro; /* borrowed: the task holds it while it is pending */
	u64 born_ns;
	u32 serial;
	u32 parent;
	u32 run;        /* run that created it */
	u32 generation; /* ring generation that has its birth, 0 while it is held back */
	u32 unborn;     /* ring generation that had no room for its birth */
	u32 named;      /* ring generation that has its name */
	u32 unnamed;    /* ring generation that had no room for its name */
	struct wake wake;
	struct suspension at;
};

/* A create_task call whose task may start eagerly; its serial is reserved beforehand. */
struct eager {
	struct eager *outer;
	PyObject *coro;
	PyObject *object;  /* the Task, once create_task returned it */
	struct task *task; /* strong; set when the new task is first seen within the call */
	u64 begin_ns;
	u32 serial;
	u32 parent;
	u32 parent_run;
};

int task_start(void);
int task_install(PyObject *c_task, PyObject *c_future, PyObject *py_task, PyObject *gather);
u32 task_reserve(void);
PyObject *task_of(PyObject *callback, bool *thrown);
bool task_is(PyObject *object);
struct task *task_state(PyObject *task);
struct task *task_see(PyObject *task, PyObject *loop, struct thread *thread, u64 ts_ns);
void task_born(struct task *task, PyObject *object, PyObject *loop, u32 tid, u8 flags);
void task_name(struct task *task, PyObject *object, u32 tid);
PyObject *task_field(PyObject *object, enum field field);

/* ---- park.c ---- */
void park_install(PyObject *gather);
u8 task_resume_flags(PyObject *task, PyObject *future, bool thrown);
void task_park(struct task *task, PyObject *object, struct ev_step *step);

/* ---- loop.c ---- */
int loop_start(void);
u32 loop_serial(PyObject *loop);
/* Takes the reference; returns what its fileno() does, -1 if it is none (NULL, None, closed). */
s32 fileno_of(PyObject *object);
void loop_see(PyObject *loop, struct thread *thread);

/* ---- scheduled.c ---- */

/* When a callback that is no task's step was scheduled, until it runs. */
struct scheduled {
	const void *handle, *callback, *args; /* compared, never followed */
	struct wake wake;
};

void schedule_remember(const struct scheduled *entry);
struct wake schedule_recall(const void *handle, const void *callback, const void *args);
struct scheduled *schedule_take_off(const struct scheduled *entry);
bool schedule_land(struct scheduled *flight);

/* ---- run.c ---- */

/* One run: a step or a callback, from begin to end. Runs nest. */
struct run {
	struct thread *thread;
	struct task *task; /* strong; NULL for a callback */
	PyObject *object;  /* the Task */
	struct run *outer; /* the run that Handle._run had begun around this one */
	struct wake wake;
	struct spot spot; /* where it began */
	u64 begin_ns;
	u32 serial, outer_run, outer_task;
	u8 flags;
};

bool run_of(struct run *run, PyObject *loop, PyObject *callback, PyObject *const *args,
	    Py_ssize_t n);
void run_begin(struct run *run);
void run_end(struct run *run, PyObject *callback);
void run_enter(struct run *run, u32 serial, u32 task);
void run_leave(struct run *run);
void write_step(struct run *run, u64 end_ns);
u32 run_serial(void);

/* ---- hooks.c ---- */
int hooks_install(PyObject *loop_type, PyObject *handle_type, PyObject *timer_type,
		  PyObject *report);
int hook_put(PyObject *type, PyMethodDef *def, PyObject **old);
int hook_put_fixed(PyTypeObject *type, PyMethodDef *def, PyObject **old);
int hook_replace(PyObject *type, PyMethodDef *def, PyObject **old);
PyObject *call_method(PyObject *function, PyObject *self, PyObject *const *args, Py_ssize_t n,
		      PyObject *names);

/* ---- soon.c ---- */
void soon_install(PyObject *handle, PyObject *old);
PyObject *soon(PyObject *old, PyObject *loop, PyObject *const *args);

/* ---- threadsafe.c ---- */
void threadsafe_install(void);

/* ---- ready.c ---- */

/* What this thread's uvloop is doing. */
struct now_running {
	PyObject *loop;   /* that runs on this thread, borrowed */
	PyObject *handle; /* taken from the ready queue, unless its callback is one of ours */
	PyObject *name;   /* of a handle of uvloop's own, if its run is recorded */
	u64 taken_ns;
	struct run run;
	bool scheduling;  /* one of our methods is putting a handle on the ready queue */
};

extern __thread struct now_running now_running;

int ready_start(void);
void ready_replace(PyObject *loop, PyTypeObject *type);
void native_begin(void);
void native_end(void);

/* ---- uvloop.c ---- */
enum loop_kind { ASYNCIO, UVLOOP, LOOP_KINDS };

int uvloop_install(PyObject *type);
enum loop_kind loop_kind(PyObject *loop);
void uvloop_pipe(PyObject *loop, s32 *fd, s32 *wfd);
PyObject *uvloop_executor(PyObject *loop);

/* ---- writes.c ---- */
void writes_install(void);

/* ---- handshake.c ---- */
void handshake_install(void);

/* ---- eager.c ---- */
void eager_install(PyObject *loop_type, enum loop_kind kind);

/* ---- work.c ---- */
bool is_coroutine_function(PyObject *function);
u32 work_told(PyObject *callback, PyObject *const *args, Py_ssize_t n);
void work_install(PyObject *loop_type, enum loop_kind kind);

/* ---- differences between CPython versions ---- */
static inline PyObject *new_ref(PyObject *object)
{
	Py_XINCREF(object);
	return object;
}

/* Return a new reference to what a weak reference means, NULL if that is gone. */
static inline PyObject *weak_get(PyObject *ref)
{
	PyObject *object = NULL;

	if (!ref)
		return NULL;
#if PY_VERSION_HEX >= 0x030D0000
	if (PyWeakref_GetRef(ref, &object) < 0)
		PyErr_Clear();
	return object;
#else
	object = PyWeakref_GetObject(ref);
	return object == Py_None ? NULL : new_ref(object);
#endif
}

/* Return object.name as a new reference, NULL without an exception if there is none. */
static inline PyObject *attribute(PyObject *object, const char *name)
{
	PyObject *value = PyObject_GetAttrString(object, name);

	if (!value)
		PyErr_Clear();
	return value;
}

#endif
