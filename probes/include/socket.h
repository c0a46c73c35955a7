/* SPDX-License-Identifier: MIT
 *
 * From a descriptor to its socket, and the socket's name in the trace.
 *
 * The walk task -> files -> fdtable -> file -> socket -> sock is done at every system call on
 * a descriptor: it survives dup, inheritance and descriptors passed between processes, needs
 * no tracepoint that older kernels lack, and costs seven reads. A socket is named by the time of
 * its first sight (unique, never reused); its inode tells when an address was given to another.
 */
static __always_inline void emit_socket(u64 sk, struct sock_state *s)
{
	u32 tid = our_tid();
	s->told = 0;
	struct ev_socket *e = reserve(KIND_SOCKET, bpf_ktime_get_ns(), tid, 0);
	if (!e)
		return;
	u16 family = RD(u16, sk, O_SK_FAMILY);
	e->sock = s->id;
	e->ino = s->ino;
	e->family = family;
	e->proto = RD(u16, sk, O_SK_PROTOCOL);
	e->netns = RD(u32, RD(u64, sk, O_SK_NET), O_NET_INUM);
	e->cookie = RD(u64, sk, O_SK_COOKIE);
	if (family == AF_INET || family == AF_INET6) {
		u16 dport = RD(u16, sk, O_SK_DPORT);
		e->lport = RD(u16, sk, O_SK_NUM);
		e->rport = (dport >> 8) | (dport << 8);
		e->laddr = RD(u32, sk, O_SK_RCV_SADDR);
		e->raddr = RD(u32, sk, O_SK_DADDR);
	}
	submit(e);
	s->told = family != AF_INET6;
	if (s->told)
		return;
	struct ev_socket_addr6 *a = reserve(KIND_SOCKET_ADDR6, bpf_ktime_get_ns(), tid, 0);
	if (!a)
		return;
	a->sock = s->id;
	bpf_probe_read_kernel(a->laddr, 16, (void *)(sk + O_SK_V6_RCV_SADDR));
	bpf_probe_read_kernel(a->raddr, 16, (void *)(sk + O_SK_V6_DADDR));
	submit(a);
	s->told = 1;
}

static __always_inline struct sock_state *new_socket(u64 sk, u32 ino)
{
	struct sock_state n = {};
	n.id = bpf_ktime_get_ns() << 6 | (bpf_get_smp_processor_id() & 63);
	n.ino = ino;
	n.tcp = RD(u16, sk, O_SK_PROTOCOL) == IPPROTO_TCP && RD(u16, sk, O_SK_FAMILY) != 1;
	socks.update(&sk, &n);
	struct sock_state *s = socks.lookup(&sk);
	if (s)
		emit_socket(sk, s);
	else
		count_unknown(KIND_SOCKET);
	return s;
}

/*
 * A socket of ours by its address. TCP sockets leave the table when they are destroyed; of others
 * nothing tells that, and the inode says whose the address is now.
 */
static __always_inline struct sock_state *our_socket(u64 sk)
{
	struct sock_state *s = socks.lookup(&sk);
	if (!s || s->tcp)
		return s;
	u64 inode = RD(u64, sk, O_SK_SOCKET) + O_SOCKET_INODE;
	return (u32)RD(u64, inode, O_INODE_INO) == s->ino ? s : NULL;
}

static __always_inline u64 file_of(s32 fd)
{
	u64 files = RD(u64, bpf_get_current_task(), O_TASK_FILES);
	u64 fdt = RD(u64, files, O_FILES_FDT);
	u64 open;
	u32 size;
	RD2(fdt, u64, open, O_FDT_FD, u32, size, O_FDT_MAX_FDS);
	if ((u32)fd >= size)
		return 0;
	return RD(u64, open, (u64)fd * 8);
}

/*
 * The socket behind a descriptor, made known if it was not; *mode is the inode's, 0 if closed.
 * *sk_out is its sock, and of what is no socket the number of its inode.
 */
static __always_inline struct sock_state *socket_of(s32 fd, u16 *mode, u64 *sk_out)
{
	u64 file = file_of(fd);
	*mode = 0;
	if (!file)
		return NULL;
	u64 inode, private;
	u32 ino; /* the low half of an u64 */
	RD2(file, u64, inode, O_FILE_INODE, u64, private, O_FILE_PRIVATE);
	RD2(inode, u16, *mode, O_INODE_MODE, u32, ino, O_INODE_INO);
	*sk_out = ino;
	if ((*mode & S_IFMT) != S_IFSOCK)
		return NULL;
	u64 sk = RD(u64, private, O_SOCKET_SK);
	if (!sk)
		return NULL;
	*sk_out = sk;
	struct sock_state *s = socks.lookup(&sk);
	if (!s)
		return new_socket(sk, ino);
	if (s->ino == ino && s->told)
		return s;
	if (s->ino && s->ino != ino)
		return new_socket(sk, ino);
	s->ino = ino; /* it may have been known before it was accepted */
	emit_socket(sk, s);
	return s;
}
