/* SPDX-License-Identifier: MIT
 *
 * Reserve a slot, count what does not fit, and say where it was lost.
 *
 * Each CPU has a ring of its own: the lock of a shared one, and its lines going from CPU to CPU,
 * cost more than the record. Nobody is woken (BPF_RB_NO_WAKEUP): the reader polls; a wakeup costs
 * 13 us here, a record 0.1.
 * Counts are added atomically: an interrupt's program may run in the middle of a thread's.
 */
#define RB_NO_WAKEUP 1
#define REC_BYTES 56

struct head {
	u64 ts_ns;
	u32 tid;
	u16 cpu;
	u8 kind;
	u8 flags;
};

/* What this CPU had to write, what it lost, and the losses that no GAP record tells yet. */
struct emit_state {
	u64 seen[KIND_MAX], lost[KIND_MAX];
	u64 first_ns, last_ns;
	u32 count, kinds;
};

BPF_RINGBUF_OUTPUT(ring_type, 1); /* only says what `rings` holds */
BPF_ARRAY_OF_MAPS(rings, "ring_type", MAX_CPUS);
BPF_PERCPU_ARRAY(emits, struct emit_state, 1);

static __always_inline void count_loss(struct emit_state *s, u32 kind)
{
	u64 now = bpf_ktime_get_ns();
	if (!s->count)
		s->first_ns = now;
	s->last_ns = now;
	s->kinds |= 1 << kind;
	__sync_fetch_and_add(&s->lost[kind], 1);
	__sync_fetch_and_add(&s->count, 1);
}

/* A record whose subject the full map of it has no room for: lost as if the ring were full. */
static __always_inline void count_unknown(u32 kind)
{
	u32 zero = 0;
	struct emit_state *s = emits.lookup(&zero);
	if (!s)
		return;
	__sync_fetch_and_add(&s->seen[kind], 1);
	count_loss(s, kind);
}

static __always_inline void tell_gap(struct emit_state *s, void *ring)
{
	struct ev_gap *e = bpf_ringbuf_reserve(ring, REC_BYTES, 0);
	if (!e)
		return;
	__builtin_memset(e, 0, sizeof(*e));
	u32 told = s->count;
	e->ts_ns = s->first_ns;
	e->end_ns = s->last_ns;
	e->lost_count = told;
	e->kinds = s->kinds;
	e->kind = KIND_GAP;
	e->cpu = bpf_get_smp_processor_id();
	s->kinds = 0;
	__sync_fetch_and_add(&s->count, -told);
	bpf_ringbuf_submit(e, RB_NO_WAKEUP);
}

/*
 * A zeroed slot with its head filled, or NULL and one more loss. Compare it with NULL at once:
 * Linux 6.1's verifier forgets the first comparison, and takes a second one for a slot kept.
 */
static __always_inline void *reserve(u32 kind, u64 ts_ns, u32 tid, u8 flags)
{
	u32 zero = 0, cpu = bpf_get_smp_processor_id();
	struct emit_state *s = emits.lookup(&zero);
	if (!s)
		return NULL;
	__sync_fetch_and_add(&s->seen[kind], 1);
	void *ring = rings.lookup(&cpu);
	if (!ring) { /* the CPU was not there when recording began */
		count_loss(s, kind);
		return NULL;
	}
	if (s->count)
		tell_gap(s, ring);
	struct head *h = bpf_ringbuf_reserve(ring, REC_BYTES, 0);
	if (!h) {
		count_loss(s, kind);
		return NULL;
	}
	__builtin_memset((void *)h + sizeof(*h), 0, REC_BYTES - sizeof(*h));
	h->ts_ns = ts_ns;
	h->tid = tid;
	h->cpu = cpu;
	h->kind = kind;
	h->flags = flags;
	return h;
}

static __always_inline void submit(void *e)
{
	bpf_ringbuf_submit(e, RB_NO_WAKEUP);
}
