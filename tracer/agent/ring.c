/* SPDX-License-Identifier: MIT
 *
 * The ring file that the agent writes, and what a thread tells the kernel. One writer (the
 * GIL), one reader in another process. A full ring counts what it loses and never blocks.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <unistd.h>

#define HEADER_BYTES 4096
#define RECORD_BYTES 64
#define MIN_SLOTS 64
#define MAX_SLOTS (1u << 22)
#define THREAD_SLOTS 4096
#define SLOT_WORDS 8 /* a cache line for each thread */

u32 ring_generation = 1;

static struct agent_ring *ring;
static u8 *records;
static u64 slots, head, tail_seen;
static bool recording, reopen;
static char live[PATH_MAX];

static struct {
	u64 first_ns, last_ns;
	u32 count, kinds;
} gap;

static u64 *thread_slots;
static u32 thread_slots_used;
static u32 thread_slots_free[THREAD_SLOTS];
static u32 thread_slots_freed;
static pthread_key_t thread_key;
static pthread_mutex_t thread_lock = PTHREAD_MUTEX_INITIALIZER;
static __thread struct thread self;

static u64 random_id(void)
{
	u64 id = 0;

	while (!id)
		if (getrandom(&id, sizeof(id), 0) != sizeof(id))
			id = now_ns() * 0x9E3779B97F4A7C15ull ^ (u64)getpid() << 32;
	return id;
}

static void describe(u64 id)
{
	const char *version = Py_GetVersion();
	size_t word = strcspn(version, " ");

	ring->schema = RECORD_SCHEMA;
	ring->pid = (u32)getpid();
	ring->agent = id;
	ring->start_ns = now_ns();
	ring->slots = slots;
	ring->hexversion = PY_VERSION_HEX;
	ring->mode = 1;
	internals_describe(ring);
	ring->calls = calls_describe();
	snprintf(ring->library, sizeof(ring->library), "%s", strings_library());
	snprintf(ring->python, sizeof(ring->python), "%.*s cpython", (int)(word > 32 ? 32 : word),
		 version);
	__atomic_store_n(&ring->magic, AGENT_MAGIC, __ATOMIC_RELEASE);
}

/* Make a new ring file; return NULL, or a reason code with errno and the detail filled in. */
static const char *ring_open(char *detail, size_t size)
{
	size_t bytes = HEADER_BYTES + slots * RECORD_BYTES;
	u64 id = random_id();
	char path[PATH_MAX + 32];
	void *area;
	int fd, error;

	snprintf(path, sizeof(path), "%s/%016llx.ring", live, (unsigned long long)id);
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0) {
		snprintf(detail, size, "%s", strerror(errno));
		return "live_unwritable";
	}
	/* Blocks are taken now: a full disk must not become a SIGBUS in the application later. */
	error = posix_fallocate(fd, 0, (off_t)bytes);
	area = error ? MAP_FAILED : mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (area == MAP_FAILED) {
		error = error ? error : errno;
		snprintf(detail, size, "%s", strerror(error));
		unlink(path);
		close(fd);
		errno = error;
		return "no_space";
	}
	close(fd);
	if (ring)
		munmap(ring, HEADER_BYTES + slots * RECORD_BYTES);
	ring = area;
	records = (u8 *)area + HEADER_BYTES;
	head = tail_seen = 0;
	memset(&gap, 0, sizeof(gap));
	describe(id);
	recording = true;
	return NULL;
}

/* A child must never write into its parent's ring; it opens its own at its first record. */
static void after_fork_in_child(void)
{
	if (!recording)
		return;
	recording = false;
	reopen = true;
	ring_generation++;
	self.run = self.task = 0; /* what it was forked in goes on in the parent only */
}

static void thread_ended(void *slot)
{
	struct thread ended = {.slot = slot};
	struct ev_step *open = ring_open_run(&ended);

	if (open)
		open->kind = 0;
	pthread_mutex_lock(&thread_lock);
	*(u64 *)slot = 0;
	thread_slots_free[thread_slots_freed++] = (u32)(((u64 *)slot - thread_slots) / SLOT_WORDS);
	pthread_mutex_unlock(&thread_lock);
}

const char *ring_start(const char *live_dir, u64 wanted, char *detail, size_t size)
{
	const char *reason;

	if (recording || reopen)
		return "already_started";
	for (slots = MIN_SLOTS; slots < wanted && slots < MAX_SLOTS;)
		slots <<= 1;
	if (snprintf(live, sizeof(live), "%s", live_dir) >= (int)sizeof(live))
		return "live_unwritable";
	if (!thread_slots) {
		thread_slots = mmap(NULL, THREAD_SLOTS * SLOT_WORDS * sizeof(u64),
				    PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (thread_slots == MAP_FAILED || pthread_key_create(&thread_key, thread_ended) ||
		    pthread_atfork(NULL, NULL, after_fork_in_child)) {
			thread_slots = NULL;
			return "no_memory";
		}
	}
	reason = ring_open(detail, size);
	return reason;
}

/* Say in the parent's ring that this child has none: nobody else would know why. */
static void orphaned(int error)
{
	u32 at = __atomic_fetch_add(&ring->orphans, 1, __ATOMIC_RELAXED);

	if (at >= sizeof(ring->orphan_pid) / sizeof(ring->orphan_pid[0]))
		return;
	ring->orphan_errno[at] = error;
	__atomic_store_n(&ring->orphan_pid[at], (s32)getpid(), __ATOMIC_RELEASE);
}

bool ring_ready(void)
{
	int saved = errno;
	char detail[64];

	if (recording)
		return true;
	if (!reopen)
		return false;
	reopen = false;
	if (ring_open(detail, sizeof(detail))) {
		orphaned(errno);
		munmap(ring, HEADER_BYTES + slots * RECORD_BYTES);
		ring = NULL;
	}
	errno = saved;
	return recording;
}

void ring_stop(void)
{
	if (recording)
		memset((u8 *)ring + AGENT_OPEN_AT, 0, AGENT_OPEN_RUNS * RECORD_BYTES);
	recording = reopen = false;
}

u64 ring_agent(void)
{
	return ring ? ring->agent : 0;
}

static u64 room(void)
{
	if (head - tail_seen >= slots / 2) {
		tail_seen = __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE);
		if (tail_seen > head) /* a broken reader: believe nothing of it */
			tail_seen = head;
	}
	return slots - (head - tail_seen);
}

/* Would a record fit? For what was lost once and is tried again: no second loss is counted. */
bool ring_has_room(void)
{
	return recording && room() >= (gap.count ? 2 : 1);
}

static void lose(u8 kind, u32 count)
{
	u64 now = now_ns();

	ring->lost[kind - KIND_LOOP] += count;
	if (!gap.count)
		gap.first_ns = now;
	gap.last_ns = now;
	gap.count += count;
	gap.kinds |= 1u << (kind - KIND_LOOP);
}

static void write_gap(void)
{
	struct ev_agent_gap *record = (void *)(records + (head & (slots - 1)) * RECORD_BYTES);

	memset(record, 0, RECORD_BYTES);
	record->ts_ns = gap.first_ns;
	record->kind = KIND_AGENT_GAP;
	record->end_ns = gap.last_ns;
	record->lost_count = gap.count;
	record->kinds = gap.kinds;
	memset(&gap, 0, sizeof(gap));
	ring_commit();
}

/* Is there room for so many records at once? If not, they count as lost. */
bool ring_room(u32 count, u8 kind)
{
	if (room() >= (u64)count + (gap.count ? 1 : 0))
		return true;
	lose(kind, count);
	return false;
}

/* Return the next record, zeroed but for its head, or NULL if the ring is full. */
void *ring_reserve(u8 kind, u64 ts_ns, u32 tid)
{
	struct ev_step *record;

	if (!ring_room(1, kind))
		return NULL;
	if (gap.count)
		write_gap();
	record = (void *)(records + (head & (slots - 1)) * RECORD_BYTES);
	memset(record, 0, RECORD_BYTES);
	record->ts_ns = ts_ns;
	record->tid = tid;
	record->kind = kind;
	return record;
}

void ring_commit(void)
{
	__atomic_store_n(&ring->head, ++head, __ATOMIC_RELEASE);
}

/* Return what we know of the calling thread. */
struct thread *thread_self(void)
{
	struct thread *thread = &self;

	if (thread->generation != ring_generation) {
		thread->generation = ring_generation;
		thread->tid = (u32)syscall(SYS_gettid);
	}
	return thread;
}

static size_t open_index(const struct thread *thread)
{
	size_t index = thread->slot ? (size_t)(thread->slot - thread_slots) / SLOT_WORDS
				    : AGENT_OPEN_RUNS;

	return recording && index < AGENT_OPEN_RUNS ? index : AGENT_OPEN_RUNS;
}

/* Return where a thread says which run it is in; NULL if there is no place for it. */
struct ev_step *ring_open_run(struct thread *thread)
{
	size_t index = open_index(thread);

	if (index == AGENT_OPEN_RUNS)
		return NULL;
	return (void *)((u8 *)ring + AGENT_OPEN_AT + index * RECORD_BYTES);
}

/* Say where that run began; the thread has such a place. */
void ring_show_spot(struct thread *thread, struct spot spot)
{
	size_t index = open_index(thread);

	ring->tstate[index] = spot.tstate;
	ring->base[index] = spot.frame;
}

/* Tell the kernel, once, where this thread publishes its running task. */
void thread_announce(struct thread *thread)
{
	int saved = errno;

	if (thread->announced == ring_generation)
		return;
	thread->announced = ring_generation;
	if (!thread->slot) {
		pthread_mutex_lock(&thread_lock);
		if (thread_slots_freed)
			thread->slot = thread_slots +
				       SLOT_WORDS * thread_slots_free[--thread_slots_freed];
		else if (thread_slots_used < THREAD_SLOTS)
			thread->slot = thread_slots + SLOT_WORDS * thread_slots_used++;
		pthread_mutex_unlock(&thread_lock);
		if (!thread->slot)
			return;
		pthread_setspecific(thread_key, thread->slot);
	}
	/* Written before it is announced: the kernel reads it where a page fault is not allowed. */
	*(volatile u64 *)thread->slot = 0;
	prctl(AGENT_PRCTL, (unsigned long)thread->slot, (unsigned long)ring->agent,
	      (unsigned long)thread->tid, (unsigned long)(ring->gil | ring->gil_bytes << 48));
	errno = saved;
}
