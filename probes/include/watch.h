/* SPDX-License-Identifier: MIT
 *
 * Which descriptors an event loop watches. An epoll is told of them one by one. A loop on poll or
 * select names all of them in each wait: its last one tells. What a step polls by itself (a
 * subprocess.run in a coroutine) is not its loop's, nor is it in a thread whose loop has an epoll.
 */

/* By epoll: key tgid << 32 | fd. */
BPF_HASH(watched, u64, u32, 65536);

#define POLLED_FDS 1024 /* FD_SETSIZE: numbers above are not found, nor what is further back in a poll */
struct polled { u64 bits[POLLED_FDS / 64]; };
BPF_HASH(polled, u32, struct polled, 1024);

/* The compiler knows that the mask changes nothing; the verifier does not. */
static __always_inline u64 *word_of(struct polled *p, u32 fd)
{
	u64 word = fd / 64;
	asm volatile("" : "+r"(word));
	return &p->bits[word & (POLLED_FDS / 64 - 1)];
}

/* `di`, `si`, `dx`: the call's first arguments; poll's array and length, select's length and sets. */
static __always_inline void note_polled(struct thread_state *t, u32 nr, struct regs3 *a)
{
	u64 task = 0;
	if (!t->slot || t->epfd || bpf_probe_read_user(&task, 8, (void *)t->slot) || task)
		return;
	u32 tid = bpf_get_current_pid_tgid();
	struct polled none = {};
	polled.update(&tid, &none);
	struct polled *p = polled.lookup(&tid);
	if (!p)
		return;
	if (nr == NR_SELECT || nr == NR_PSELECT6) {
		for (u32 i = 0; i < POLLED_FDS / 64; i++) {
			u64 reads = 0, writes = 0;
			if (i * 64 >= (u32)a->di)
				break;
			if (a->si)
				bpf_probe_read_user(&reads, 8, (void *)(a->si + i * 8));
			if (a->dx)
				bpf_probe_read_user(&writes, 8, (void *)(a->dx + i * 8));
			p->bits[i] = reads | writes;
		}
		return;
	}
	for (u32 i = 0; i < POLLED_FDS; i++) {
		u32 fd = 0;
		if (i >= (u32)a->si || bpf_probe_read_user(&fd, 4, (void *)(a->di + i * 8)))
			break;
		if (fd < POLLED_FDS)
			*word_of(p, fd) |= 1ULL << (fd & 63);
	}
}

static __always_inline int is_watched(struct thread_state *t, u32 fd)
{
	u64 w = (u64)t->tgid << 32 | fd;
	if (watched.lookup(&w))
		return 1;
	u32 tid = bpf_get_current_pid_tgid();
	struct polled *p = fd < POLLED_FDS ? polled.lookup(&tid) : NULL;
	return p && *word_of(p, fd) >> (fd & 63) & 1;
}

/* The number is free: what gets it next is another file. */
static __always_inline void forget_watched(struct thread_state *t, u32 fd)
{
	u64 w = (u64)t->tgid << 32 | fd;
	watched.delete(&w);
	if (t->epfd == fd + 1)
		t->epfd = 0;
	u32 tid = bpf_get_current_pid_tgid();
	struct polled *p = fd < POLLED_FDS ? polled.lookup(&tid) : NULL;
	if (p)
		*word_of(p, fd) &= ~(1ULL << (fd & 63));
}
