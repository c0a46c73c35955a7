/* SPDX-License-Identifier: MIT
 *
 * Reserve a slot, count what does not fit, and say where it was lost.
 *
 * Nobody is woken (BPF_RB_NO_WAKEUP): the reader polls; a wakeup costs 13 us here, a record 0.1.
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

struct gap_state { u64 first_ns, last_ns; u32 count, kinds; };

BPF_RINGBUF_OUTPUT(ring, RING_PAGES);
BPF_PERCPU_ARRAY(seen, u64, KIND_MAX);
BPF_PERCPU_ARRAY(lost, u64, KIND_MAX);
BPF_PERCPU_ARRAY(gaps, struct gap_state, 1);

static __always_inline void count_loss(struct gap_state *g, u32 kind)
{
	u64 now = bpf_ktime_get_ns();
	u64 *c = lost.lookup(&kind);
	if (c)
		*c += 1;
	if (!g)
		return;
	if (!g->count)
		g->first_ns = now;
	g->last_ns = now;
	g->count += 1;
	g->kinds |= 1 << kind;
}

static __always_inline void tell_gap(struct gap_state *g)
{
	struct ev_gap *e = ring.ringbuf_reserve(REC_BYTES);
	if (!e)
		return;
	__builtin_memset(e, 0, sizeof(*e));
	e->ts_ns = g->first_ns;
	e->end_ns = g->last_ns;
	e->lost_count = g->count;
	e->kinds = g->kinds;
	e->kind = KIND_GAP;
	e->cpu = bpf_get_smp_processor_id();
	g->count = 0;
	g->kinds = 0;
	ring.ringbuf_submit(e, RB_NO_WAKEUP);
}

/* A zeroed slot with its head filled, or NULL and one more loss. */
static __always_inline void *reserve(u32 kind, u64 ts_ns, u32 tid, u8 flags)
{
	u32 zero = 0;
	struct gap_state *g = gaps.lookup(&zero);
	u64 *c = seen.lookup(&kind);
	if (c)
		*c += 1;
	if (g && g->count)
		tell_gap(g);
	struct head *h = ring.ringbuf_reserve(REC_BYTES);
	if (!h) {
		count_loss(g, kind);
		return NULL;
	}
	__builtin_memset((void *)h + sizeof(*h), 0, REC_BYTES - sizeof(*h));
	h->ts_ns = ts_ns;
	h->tid = tid;
	h->cpu = bpf_get_smp_processor_id();
	h->kind = kind;
	h->flags = flags;
	return h;
}

static __always_inline void submit(void *e)
{
	ring.ringbuf_submit(e, RB_NO_WAKEUP);
}
