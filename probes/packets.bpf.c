/* SPDX-License-Identifier: MIT
 *
 * Hooks: tcp_sendmsg_locked (up to Linux 6.12 the function of that name),
 * net_dev_start_xmit, netif_receive_skb.
 * Cost: a few stores per packet of the machine; a look-up per packet handed to a device; three
 * reads and an update per packet that an interrupt brought.
 * Cannot see: pure acknowledgements (no table reads them).
 *
 * Not hooked: net_dev_queue (the way into the stack begins at tcp_sendmsg_locked), net_dev_xmit (on lo and veth it fires after the receiver has the packet; the
 * hand-over is net_dev_start_xmit) and netif_rx (same packet as netif_receive_skb; the peer's
 * packet is paired by socket and sequence number).
 */
static __always_inline int tcp_sends(u64 sk)
{
	struct cpu_state *p = this_cpu();
	if (!p)
		return 0;
	p->sendmsg_sk = sk;
	p->sendmsg_ns = bpf_ktime_get_ns();
	return 0;
}

int on_tcp_sendmsg_locked(struct bpf_raw_tracepoint_args *ctx)
{
	return tcp_sends(ctx->args[0]);
}

int FENTRY(tcp_sendmsg_locked)(struct bpf_raw_tracepoint_args *ctx)
{
	return tcp_sends(ctx->args[0]);
}

int kprobe_tcp_sendmsg_locked(struct pt_regs *ctx)
{
	return tcp_sends(ctx->di);
}

int on_net_dev_start_xmit(struct bpf_raw_tracepoint_args *ctx)
{
	u64 skb = ctx->args[0], dev = ctx->args[1];
	u64 sk = RD(u64, skb, O_SKB_SK);
	if (!sk)
		return 0;
	struct sock_state *s = our_socket(sk);
	if (!s)
		return 0;
	u32 seq = 0, len = RD(u32, skb, O_SKB_LEN);
	u8 flags = 0;
	if (s->tcp) {
		u64 head, data;
		RD2(skb, u64, head, O_SKB_HEAD, u64, data, O_SKB_DATA);
		u64 th = head + RD(u16, skb, O_SKB_TRANSPORT);
		struct tcp_head tcp = RD(struct tcp_head, th, 0);
		len = len - (u32)(th - data) - (tcp.offset >> 4) * 4;
		flags = FLAG_TCP;
		if (tcp.bits & TCP_SYN)
			flags |= FLAG_SYN;
		else if (!len)
			return 0;
		seq = bpf_ntohl(tcp.seq);
	}
	struct cpu_state *p = this_cpu();
	if (!p)
		return 0;
	if (p->softirq_ns)
		flags |= FLAG_SOFTIRQ;
	u64 now = bpf_ktime_get_ns();
	struct ev_transmit *e = reserve(KIND_TRANSMIT, now, our_tid(), flags);
	if (!e)
		return 0;
	e->sock = s->id;
	e->seq = seq;
	e->len_bytes = len;
	u32 ifindex;
	u64 net;
	RD2(dev, u32, ifindex, O_DEV_IFINDEX, u64, net, O_DEV_NET);
	e->ifindex = ifindex;
	e->netns = RD(u32, net, O_NET_INUM);
	if (p->sendmsg_sk == sk)
		e->sendmsg_age_ns = now - p->sendmsg_ns;
	u64 key = (u64)e->netns << 32 | e->ifindex;
	submit(e);
	struct nic_state *nic = nics.lookup(&key);
	if (nic) {
		if (!nic->first_ns)
			nic->first_ns = now;
		nic->last_ns = now;
	}
	return 0;
}

/* Remember how a packet came up; skb->data is its IP header here. */
static __always_inline void keep_way(u64 skb, struct way *w)
{
	u64 ip = RD(u64, skb, O_SKB_DATA);
	u8 first = RD(u8, ip, 0);
	w->seq = bpf_ntohl(RD(u32, ip, (first >> 4 == 4 ? (first & 15) * 4 : 40) + 4));
	ways.update(&skb, w);
}

/* Outside of a softirq only a thread that polls hands packets up. */
static __always_inline void keep_threads_way(u64 skb)
{
	u32 tid = bpf_get_current_pid_tgid();
	struct napi_thread *t = napi_threads.lookup(&tid);
	if (!t)
		return;
	t->used = 1;
	struct way w = {};
	w.irq_ns = t->irq_ns;
	w.raise_ns = t->wake_ns;
	w.rx_ns = bpf_ktime_get_ns();
	w.irq = t->irq;
	w.ifindex = t->ifindex;
	keep_way(skb, &w);
}

int on_netif_receive_skb(struct bpf_raw_tracepoint_args *ctx)
{
	struct cpu_state *p = this_cpu();
	u64 skb = ctx->args[0];
	if (!p)
		return 0;
	if (!p->softirq_ns) {
		keep_threads_way(skb);
		return 0;
	}
	u64 now = bpf_ktime_get_ns();
	u32 at = p->rx_count++ & (RX_KEPT - 1);
	p->rx_skb[at] = skb;
	p->rx_ns[at] = now;
	if (p->now.irq_ns) {
		struct way w = {};
		w.irq_ns = p->now.irq_ns;
		w.raise_ns = p->now.raise_ns;
		w.softirq_ns = p->softirq_ns;
		w.rx_ns = now;
		w.irq = p->now.irq;
		w.ifindex = p->now.ifindex;
		keep_way(skb, &w);
	}
	return 0;
}
