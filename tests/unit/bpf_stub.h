/* SPDX-License-Identifier: MIT
 *
 * Enough of bcc and the kernel to run the probes' own code in a process: maps are small arrays,
 * the clock and the CPU are variables, and what a probe submits is kept in a log.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>
typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int32_t s32;
typedef int64_t s64;
typedef int8_t s8;
typedef int16_t s16;
#define __always_inline inline
#define MAX_CPUS 2
struct bpf_raw_tracepoint_args { u64 args[12]; };
struct pt_regs { u64 di, cx; };

u64 now_ns;
u32 cpu, current_tid;
static u8 log_slots[256][56];
int log_count;
u8 *log_at(int n) { return log_slots[n]; }

#define BPF_HASH(NAME, KEY, LEAF, SIZE)                                                       \
	static struct { int used; KEY key; LEAF leaf; } NAME##_at[16];                         \
	LEAF *NAME##_find(KEY *key)                                                            \
	{                                                                                      \
		for (int i = 0; i < 16; i++)                                                   \
			if (NAME##_at[i].used && !memcmp(&NAME##_at[i].key, key, sizeof(KEY))) \
				return &NAME##_at[i].leaf;                                     \
		return NULL;                                                                   \
	}                                                                                      \
	int NAME##_set(KEY *key, LEAF *leaf)                                                   \
	{                                                                                      \
		int i = 0;                                                                     \
		while (NAME##_at[i].used && memcmp(&NAME##_at[i].key, key, sizeof(KEY)))       \
			i++;                                                                   \
		NAME##_at[i].used = 1;                                                         \
		NAME##_at[i].key = *key;                                                       \
		NAME##_at[i].leaf = *leaf;                                                     \
		return 0;                                                                      \
	}                                                                                      \
	int NAME##_forget(KEY *key)                                                            \
	{                                                                                      \
		for (int i = 0; i < 16; i++)                                                   \
			if (NAME##_at[i].used && !memcmp(&NAME##_at[i].key, key, sizeof(KEY))) \
				NAME##_at[i].used = 0;                                         \
		return 0;                                                                      \
	}                                                                                      \
	static struct {                                                                        \
		LEAF *(*lookup)(KEY *);                                                        \
		int (*update)(KEY *, LEAF *);                                                  \
		int (*delete)(KEY *);                                                          \
	} NAME = { NAME##_find, NAME##_set, NAME##_forget };
#define BPF_TABLE(TYPE, KEY, LEAF, NAME, SIZE) BPF_HASH(NAME, KEY, LEAF, SIZE)
#define BPF_ARRAY(NAME, LEAF, SIZE)
#define BPF_PERCPU_ARRAY(NAME, LEAF, SIZE)                                                    \
	static LEAF NAME##_at[MAX_CPUS];                                                       \
	static LEAF *NAME##_mine(u32 *key) { return &NAME##_at[cpu]; }                         \
	static struct { LEAF *(*lookup)(u32 *); } NAME = { NAME##_mine };
#define BPF_RINGBUF_OUTPUT(NAME, PAGES)
static void *any_ring(u32 *key) { return &log_count; }
#define BPF_ARRAY_OF_MAPS(NAME, INNER, SIZE)                                                  \
	static struct { void *(*lookup)(u32 *); } NAME = { any_ring };

static u64 bpf_ktime_get_ns(void) { return now_ns; }
static u32 bpf_get_smp_processor_id(void) { return cpu; }
static u64 bpf_get_current_pid_tgid(void) { return current_tid; }
static u64 bpf_get_current_task(void) { return 0; }
static void *bpf_ringbuf_reserve(void *ring, u64 size, u64 flags) { return log_slots[log_count]; }
static void bpf_ringbuf_submit(void *e, u64 flags) { log_count++; }
static u32 bpf_ntohl(u32 x) { return __builtin_bswap32(x); }
static int bpf_probe_read_kernel(void *to, u32 size, const void *from)
{
	if ((u64)from < 4096)
		memset(to, 0, size);
	else
		memcpy(to, from, size);
	return 0;
}
