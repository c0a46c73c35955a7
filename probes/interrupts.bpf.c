/* SPDX-License-Identifier: MIT
 *
 * Hooks: irq_handler_entry, irq_handler_exit, softirq_raise, softirq_entry, softirq_exit, napi_poll.
 * Cost: a few stores per interrupt and softirq of the machine. What they saw travels in the ages
 * of RECEIVE and SOCKET_STATE and in NAPI_POLL, and only when a packet for a tracked socket
 * proves to be in it; TX_INTERRUPT only after a tracked packet was handed to that card.
 * Cannot see: which of several queues of one card brought a packet if both interrupted before one
 * softirq: the first counts. One that only tells of sent packets, or of another card, never does.
 */
int on_irq_handler_entry(struct bpf_raw_tracepoint_args *ctx)
{
	struct cpu_state *p = this_cpu();
	if (!p)
		return 0;
	p->irq_ns = bpf_ktime_get_ns();
	p->irq = ctx->args[0];
	p->in_irq = 1;
	return 0;
}

/* The interrupt whose handler runs asked for a softirq; `nic` is NULL if it is not in the list. */
static __always_inline void note_interrupt(struct cpu_state *p, struct raised *r,
					   struct nic_irq *nic, u64 now)
{
	/* what raises NET_RX and is not in the list belongs to a card that came later */
	u32 tells = nic ? nic->tells : IRQ_BRINGS;
	if ((tells & IRQ_SENT) && !r->tx_irq_ns) {
		r->tx_irq = p->irq;
		r->tx_irq_ns = p->irq_ns;
	}
	if ((tells & IRQ_BRINGS) && !r->irq_ns) {
		r->irq = p->irq;
		r->irq_ns = p->irq_ns;
		r->ifindex = nic ? nic->ifindex : 0;
		r->raise_ns = now;
	}
}

static __always_inline void note_exit(struct cpu_state *p, struct raised *r)
{
	if (r->irq_ns == p->irq_ns)
		r->handler_ns = bpf_ktime_get_ns() - p->irq_ns;
	if (r->tx_irq_ns == p->irq_ns)
		r->tx_handler_ns = bpf_ktime_get_ns() - p->irq_ns;
}

int on_irq_handler_exit(struct bpf_raw_tracepoint_args *ctx)
{
	struct cpu_state *p = this_cpu();
	if (!p)
		return 0;
	p->in_irq = 0;
	if (p->softirq_ns && !p->next.raise_ns) {
		/* since 6.4 no softirq is raised while net_rx_action runs: the poll joins this one */
		u32 irq = p->irq;
		struct nic_irq *nic = nic_irqs.lookup(&irq);
		if (nic)
			note_interrupt(p, &p->now, nic, p->irq_ns);
	}
	note_exit(p, &p->now);
	note_exit(p, &p->next);
	return 0;
}

int on_softirq_raise(struct bpf_raw_tracepoint_args *ctx)
{
	if (ctx->args[0] != NET_RX_SOFTIRQ)
		return 0;
	struct cpu_state *p = this_cpu();
	if (!p)
		return 0;
	struct raised *r = p->softirq_ns ? &p->next : &p->now;
	if (r->raise_ns && !p->in_irq)
		return 0;
	u64 now = bpf_ktime_get_ns();
	if (!r->raise_ns)
		r->raise_ns = now;
	if (p->in_irq) {
		u32 irq = p->irq;
		note_interrupt(p, r, nic_irqs.lookup(&irq), now);
	}
	return 0;
}

int on_softirq_entry(struct bpf_raw_tracepoint_args *ctx)
{
	if (ctx->args[0] != NET_RX_SOFTIRQ)
		return 0;
	struct cpu_state *p = this_cpu();
	if (!p)
		return 0;
	p->softirq_ns = bpf_ktime_get_ns();
	p->probe_sk = 0;
	p->ready_sock = 0;
	p->active = 0;
	return 0;
}

int on_softirq_exit(struct bpf_raw_tracepoint_args *ctx)
{
	if (ctx->args[0] != NET_RX_SOFTIRQ)
		return 0;
	struct cpu_state *p = this_cpu();
	if (!p)
		return 0;
	p->softirq_ns = 0;
	p->now = p->next; /* raised while this one ran */
	__builtin_memset(&p->next, 0, sizeof(p->next));
	p->ready_sock = 0;
	p->active = 0;
	return 0;
}

static __always_inline void tell_sent(struct cpu_state *p, u64 key, u64 now)
{
	struct nic_state *nic = nics.lookup(&key);
	u64 since = nic ? nic->first_ns : 0;
	if (!since || since > p->now.tx_irq_ns)
		return;
	nic->first_ns = nic->last_ns > p->now.tx_irq_ns ? nic->last_ns : 0;
	struct ev_tx_interrupt *e = reserve(KIND_TX_INTERRUPT, p->now.tx_irq_ns, our_tid(), 0);
	if (!e)
		return;
	e->ifindex = key;
	e->netns = key >> 32;
	e->irq = p->now.tx_irq;
	e->handler_ns = p->now.tx_handler_ns;
	e->softirq_ns = p->softirq_ns;
	e->poll_ns = now;
	e->since_ns = since;
	submit(e);
}

/* A thread's poll ended: the packets of the next one need an interrupt of their own. */
static __always_inline void forget_interrupt(void)
{
	u32 tid = bpf_get_current_pid_tgid();
	struct napi_thread *t = napi_threads.lookup(&tid);
	if (t && t->used) /* else it came after the poll had let interrupts in again */
		napi_threads.delete(&tid);
}

int on_napi_poll(struct bpf_raw_tracepoint_args *ctx)
{
	struct cpu_state *p = this_cpu();
	if (p && !p->softirq_ns)
		forget_interrupt();
	if (!p || !(p->active || p->now.tx_irq_ns))
		return 0;
	u64 napi = ctx->args[0];
	u64 dev = RD(u64, napi, O_NAPI_DEV);
	u32 active = p->active;
	p->active = 0;
	if (!dev)
		return 0;
	u32 ifindex = RD(u32, dev, O_DEV_IFINDEX);
	if (!ifindex) /* the CPU's backlog (lo, veth) polls for no device */
		return 0;
	u64 now = bpf_ktime_get_ns();
	if (p->now.tx_irq_ns)
		tell_sent(p, (u64)RD(u32, RD(u64, dev, O_DEV_NET), O_NET_INUM) << 32 | ifindex, now);
	if (!active)
		return 0;
	struct ev_napi_poll *e = reserve(KIND_NAPI_POLL, now, our_tid(), 0);
	if (!e)
		return 0;
	e->ifindex = ifindex;
	e->napi_id = RD(u32, napi, O_NAPI_ID);
	e->work = ctx->args[1];
	e->budget = ctx->args[2];
	e->softirq_ns = p->softirq_ns;
	e->irq_ns = p->now.irq_ns;
	e->irq = p->now.irq;
	e->handler_ns = p->now.handler_ns;
	submit(e);
	return 0;
}
