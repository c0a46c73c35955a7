/* SPDX-License-Identifier: MIT
 *
 * Hooks: irq_handler_entry, irq_handler_exit, softirq_raise, softirq_entry, softirq_exit, napi_poll.
 * Cost: a few stores per interrupt and softirq of the machine. They write no record of their
 * own: what they saw travels in the ages of RECEIVE and SOCKET_STATE, and only when a packet
 * for a tracked socket proves to be in it.
 * Cannot see: an interrupt counts only if the softirq was raised inside its handler.
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

int on_irq_handler_exit(struct bpf_raw_tracepoint_args *ctx)
{
	struct cpu_state *p = this_cpu();
	if (p)
		p->in_irq = 0;
	return 0;
}

int on_softirq_raise(struct bpf_raw_tracepoint_args *ctx)
{
	if (ctx->args[0] != NET_RX_SOFTIRQ)
		return 0;
	struct cpu_state *p = this_cpu();
	if (!p || p->raise_ns)
		return 0;
	p->raise_ns = bpf_ktime_get_ns();
	p->raise_irq_ns = p->in_irq ? p->irq_ns : 0;
	p->raise_irq = p->in_irq ? p->irq : 0;
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
	p->rx_skb = 0;
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
	p->raise_ns = 0;
	p->raise_irq_ns = 0;
	p->rx_skb = 0;
	p->ready_sock = 0;
	p->active = 0;
	return 0;
}

int on_napi_poll(struct bpf_raw_tracepoint_args *ctx)
{
	struct cpu_state *p = this_cpu();
	if (!p || !p->active)
		return 0;
	u64 napi = ctx->args[0];
	u64 dev = RD(u64, napi, O_NAPI_DEV);
	p->active = 0;
	if (!dev)
		return 0;
	u32 ifindex = RD(u32, dev, O_DEV_IFINDEX);
	if (!ifindex) /* the CPU's backlog (lo, veth) polls for no device */
		return 0;
	struct ev_napi_poll *e = reserve(KIND_NAPI_POLL, bpf_ktime_get_ns(),
					 our_tid(), 0);
	if (!e)
		return 0;
	e->ifindex = ifindex;
	e->napi_id = RD(u32, napi, O_NAPI_ID);
	e->work = ctx->args[1];
	e->budget = ctx->args[2];
	e->softirq_ns = p->softirq_ns;
	submit(e);
	return 0;
}
