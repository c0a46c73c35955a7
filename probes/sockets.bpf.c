/* SPDX-License-Identifier: MIT
 *
 * Hooks: tcp_probe, sk_data_ready (Linux 6.1: sock_def_readable), inet_sock_set_state,
 * tcp_retransmit_skb, tcp_destroy_sock.
 * Cost: one look-up per packet or change of any socket of the machine; a record for ours.
 * Cannot see: the way of a packet that waited in a socket's backlog and had no interrupt (lo,
 * veth); the data that came with the last packet of a handshake (TCP_DEFER_ACCEPT, Fast Open).
 *
 * sock_send_length and sock_recv_length are not hooked: the descriptor walk of syscalls.bpf.c
 * gives the socket, and the system call's result the length, on kernels without them too.
 */
int on_tcp_probe(struct bpf_raw_tracepoint_args *ctx)
{
	u64 sk = ctx->args[0], skb = ctx->args[1];
	if (!socks.lookup(&sk))
		return 0;
	struct cpu_state *p = this_cpu();
	if (!p)
		return 0;
	struct tcp_cb cb = RD(struct tcp_cb, skb, O_SKB_CB);
	u8 bits = *((u8 *)&cb + O_CB_FLAGS);
	p->probe_sk = sk;
	p->probe_skb = skb;
	p->seq = cb.seq;
	p->len = cb.end_seq - cb.seq - !!(bits & TCP_FIN) - !!(bits & TCP_SYN);
	p->iif = RD(u32, skb, O_SKB_IIF);
	return 0;
}

/* When this softirq handed a packet up (netif_receive_skb), 0 if it did not or is long past. */
static __always_inline u64 handed_up_ns(struct cpu_state *p, u64 skb)
{
	for (u32 k = 1; k <= RX_KEPT; k++) {
		u32 at = (p->rx_count - k) & (RX_KEPT - 1);
		if (p->rx_ns[at] < p->softirq_ns)
			return 0;
		if (!skb || p->rx_skb[at] == skb)
			return p->rx_ns[at];
	}
	return 0;
}

/* Whether a packet that came through `ifindex` can be the interrupt's of another device. */
static __always_inline int is_of(u32 irq_ifindex, u64 sk, u32 ifindex)
{
	if (!irq_ifindex || irq_ifindex == ifindex)
		return 1;
	u64 key = (u64)RD(u32, RD(u64, sk, O_SK_NET), O_NET_INUM) << 32 | ifindex;
	return !nics.lookup(&key); /* a bond, bridge or VLAN has no interrupt of its own */
}

/* The packet waited in the backlog of its locked socket, or a thread polled for it. */
static __always_inline void waited(struct ev_receive *e, struct cpu_state *p, u64 sk, u64 now)
{
	u64 skb = p->probe_skb;
	struct way *w = ways.lookup(&skb);
	if (!w || w->seq != p->seq || now - w->irq_ns >> 32 || !is_of(w->ifindex, sk, e->ifindex))
		return;
	e->flags |= FLAG_PACKET;
	e->irq = w->irq;
	e->irq_age_ns = now - w->irq_ns;
	e->raise_age_ns = now - w->raise_ns;
	e->softirq_age_ns = w->softirq_ns ? now - w->softirq_ns : 0;
	e->rx_age_ns = now - w->rx_ns;
}

static __always_inline void emit_state(struct sock_state *s, u64 now, u32 oldstate, u32 newstate)
{
	struct cpu_state *p = this_cpu();
	struct ev_socket_state *e = reserve(KIND_SOCKET_STATE, now, our_tid(), 0);
	if (!e)
		return;
	e->sock = s->id;
	e->oldstate = oldstate;
	e->newstate = newstate;
	if (p && p->softirq_ns) {
		e->flags = FLAG_SOFTIRQ;
		e->softirq_age_ns = now - p->softirq_ns;
		if (p->now.raise_ns)
			e->raise_age_ns = now - p->now.raise_ns;
		if (p->now.irq_ns) {
			e->irq_age_ns = now - p->now.irq_ns;
			e->irq = p->now.irq;
		}
		u64 rx = handed_up_ns(p, 0);
		if (rx) {
			e->flags |= FLAG_PACKET;
			e->rx_age_ns = now - rx;
			p->active = 1;
		}
	}
	submit(e);
}

/*
 * A connection is ours before it is accepted if its listener is. Nothing in the new socket names
 * that, but tcp_child_process wakes the listener right after the connection became established;
 * ports would not do: another process may listen on the same one (SO_REUSEPORT).
 */
static __always_inline void adopt_child(struct cpu_state *p, u64 listener)
{
	u64 sk = p->child_sk;
	p->child_sk = 0;
	if (RD(u8, listener, O_SK_STATE) != TCP_LISTEN || socks.lookup(&sk))
		return;
	struct sock_state *s = new_socket(sk, 0);
	if (s)
		emit_state(s, p->child_ns, TCP_SYN_RECV, TCP_ESTABLISHED);
}

static __always_inline int data_ready(u64 sk)
{
	struct cpu_state *p = this_cpu();
	if (!p)
		return 0;
	struct sock_state *s = our_socket(sk);
	if (!s) {
		if (p->child_sk != sk) /* its own first data may come with the handshake */
			p->child_sk = 0;
		return 0;
	}
	if (p->child_sk)
		adopt_child(p, sk);
	u64 now = bpf_ktime_get_ns();
	u32 tid = bpf_get_current_pid_tgid();
	u64 softirq = p->softirq_ns;
	p->ready_sock = s->id;
	p->ready_tid = tid;
	struct ev_receive *e = reserve(KIND_RECEIVE, now, our_tid(), softirq ? FLAG_SOFTIRQ : 0);
	if (!e)
		return 0;
	e->sock = s->id;
	if (p->probe_sk == sk) {
		e->flags |= FLAG_TCP;
		e->seq = p->seq;
		e->len_bytes = p->len;
		e->srtt_us = RD(u32, sk, O_TCP_SRTT) >> 3;
		e->ifindex = p->iif;
	}
	if (softirq) {
		p->active = 1;
		e->softirq_age_ns = now - softirq;
		if (p->now.raise_ns)
			e->raise_age_ns = now - p->now.raise_ns;
		if (p->now.irq_ns && is_of(p->now.ifindex, sk, e->ifindex)) {
			e->irq_age_ns = now - p->now.irq_ns;
			e->irq = p->now.irq;
		}
		u64 rx = handed_up_ns(p, p->probe_sk == sk ? p->probe_skb : 0);
		if (rx) {
			e->flags |= FLAG_PACKET;
			e->rx_age_ns = now - rx;
		}
	} else if (p->probe_sk == sk) {
		waited(e, p, sk, now);
	}
	p->probe_sk = 0;
	submit(e);
	return 0;
}

int on_sk_data_ready(struct bpf_raw_tracepoint_args *ctx)
{
	return data_ready(ctx->args[0]);
}

int FENTRY(sock_def_readable)(struct bpf_raw_tracepoint_args *ctx)
{
	return data_ready(ctx->args[0]);
}

int kprobe_sock_def_readable(struct pt_regs *ctx)
{
	return data_ready(ctx->di);
}

int on_inet_sock_set_state(struct bpf_raw_tracepoint_args *ctx)
{
	u64 sk = ctx->args[0];
	u32 oldstate = ctx->args[1], newstate = ctx->args[2];
	if (RD(u16, sk, O_SK_PROTOCOL) != IPPROTO_TCP)
		return 0;
	u64 now = bpf_ktime_get_ns();
	struct sock_state *s = socks.lookup(&sk);
	if (s) {
		if (newstate == TCP_ESTABLISHED)
			emit_socket(sk, s); /* its addresses are known now */
		emit_state(s, now, oldstate, newstate);
	} else if (oldstate == TCP_SYN_RECV && newstate == TCP_ESTABLISHED) {
		struct cpu_state *p = this_cpu();
		if (p) {
			p->child_sk = sk;
			p->child_ns = now;
		}
	}
	return 0;
}

int on_tcp_retransmit_skb(struct bpf_raw_tracepoint_args *ctx)
{
	u64 sk = ctx->args[0], skb = ctx->args[1];
	struct sock_state *s = socks.lookup(&sk);
	if (!s)
		return 0;
	struct ev_retransmit *e = reserve(KIND_RETRANSMIT, bpf_ktime_get_ns(),
					  our_tid(), FLAG_TCP);
	if (!e)
		return 0;
	e->sock = s->id;
	e->seq = RD(struct tcp_cb, skb, O_SKB_CB).seq;
	e->len_bytes = RD(u32, skb, O_SKB_LEN);
	submit(e);
	return 0;
}

int on_tcp_destroy_sock(struct bpf_raw_tracepoint_args *ctx)
{
	u64 sk = ctx->args[0];
	socks.delete(&sk);
	return 0;
}
