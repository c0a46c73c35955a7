/* SPDX-License-Identifier: MIT
 *
 * When callbacks that step no task were scheduled, and by whom, until they run.
 */
#include "agent.h"

#define WAYS 4
#define SETS 1024
#define IN_FLIGHT 16

static struct scheduled scheduled[SETS][WAYS], in_flight[IN_FLIGHT];
static u32 next_way, flying;

static struct scheduled *set_of(const void *handle)
{
	u64 hash = (u64)(uintptr_t)handle * 0x9E3779B97F4A7C15ull;

	return scheduled[hash >> 54];
}

void schedule_remember(const struct scheduled *entry)
{
	struct scheduled *set = set_of(entry->handle);
	int way;

	for (way = 0; way < WAYS; way++)
		if (!set[way].handle || set[way].handle == entry->handle)
			break;
	if (way == WAYS) /* handles cancelled before they ran stay here: any may go */
		way = (int)(next_way++ % WAYS);
	set[way] = *entry;
}

struct wake schedule_recall(const void *handle, const void *callback, const void *args)
{
	struct scheduled *set = set_of(handle);
	struct wake wake = {0};

	for (int way = 0; way < WAYS; way++) {
		if (set[way].handle != handle)
			continue;
		if (set[way].callback == callback && set[way].args == args)
			wake = set[way].wake;
		set[way].handle = NULL;
		return wake;
	}
	for (int i = 0; flying && i < IN_FLIGHT; i++) {
		if (in_flight[i].callback != callback || in_flight[i].args != args)
			continue;
		wake = in_flight[i].wake;
		in_flight[i].callback = NULL;
		return wake;
	}
	return wake;
}

/* The loop's thread may run a handle before the thread that made it gets to know it. */
struct scheduled *schedule_take_off(const struct scheduled *entry)
{
	for (int i = 0; i < IN_FLIGHT; i++) {
		if (in_flight[i].handle)
			continue;
		in_flight[i] = *entry;
		in_flight[i].handle = entry; /* taken */
		flying++;
		return &in_flight[i];
	}
	return NULL;
}

bool schedule_land(struct scheduled *flight)
{
	bool still = flight->callback != NULL;

	flight->handle = NULL;
	flight->callback = NULL;
	flying--;
	return still;
}
