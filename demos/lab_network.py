"""Make a second network namespace, joined to the present one by a veth pair.

The namespace has no name: a file descriptor of this process holds it, and every process put into
it. A named one would live in /run/netns until somebody deletes it; this one the kernel frees, and
its veth with it, when the last holder is gone, even if that was killed.
"""

from __future__ import annotations

import ctypes
import errno
import ipaddress
import os
import random
import secrets
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from lab_cleanup import undisturbed

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager, ExitStack

CLONE_NEWIPC = 0x08000000  # linux/sched.h
CLONE_NEWNET = 0x40000000
# 198.18.0.0/15 is set aside for benchmarks: it is free where a VPN routes all of 10.0.0.0/8.
_POOLS = ("10.0.0.0/8", "198.18.0.0/15")
_libc = ctypes.CDLL(None, use_errno=True)


class LabError(Exception):
    """The lab cannot be set up here; `fix` says what to do about it."""

    def __init__(self, message: str, fix: str) -> None:
        """Store one sentence for people and the way out."""
        super().__init__(f"{message}\n{fix}")
        self.message = message
        self.fix = fix


@dataclass(frozen=True)
class Link:
    """Name both ends of a way to a peer; `netns_fd` is None where both are in one namespace."""

    kind: Literal["veth", "lo"]
    device: str
    ip: str
    peer_device: str
    peer_ip: str
    netns_fd: int | None


LOOPBACK = Link("lo", "lo", "127.0.0.1", "lo", "127.0.0.1", None)


def second_namespace() -> AbstractContextManager[Link]:
    """Return a context manager that makes the namespace, both devices up, and removes it."""
    return undisturbed(join_namespace)


def join_namespace(stack: ExitStack) -> Link:
    """Make the namespace and the veth pair; register their removal on the stack."""
    try:
        from pyroute2 import IPRoute, NetlinkError  # noqa: PLC0415 - a loopback lab needs none
    except ImportError as error:
        raise LabError(
            "pyroute2, which makes the veth pair, is not installed.",
            "Install it (pip install pyroute2), or run the demo with --link lo.",
        ) from error
    try:
        netns_fd = _new_netns()
        stack.callback(os.close, netns_fd)
        with IPRoute() as ip:
            local, peer = (str(host) for host in _free_network(ip).hosts())
            tag = secrets.token_hex(3)
            way = Link("veth", f"as-{tag}-app", local, f"as-{tag}-db", peer, netns_fd)
            other_end = {"ifname": way.peer_device, "net_ns_fd": netns_fd}
            ip.link("add", ifname=way.device, kind="veth", peer=other_end)
            stack.callback(_unlink, IPRoute, way.device)
            _raise_device(ip, way.device, way.ip)
        _in_thread(lambda: _raise_peer(IPRoute, way))
    except (OSError, NetlinkError) as error:
        raise LabError(
            f"This machine allows no second network namespace with a veth pair ({error}).",
            "Run as root (a container: with --privileged), or run the demo with --link lo.",
        ) from error
    return way


def enter_namespace(flag: int, namespace_fd: int | None = None) -> None:
    """Move the calling thread into a namespace; without a descriptor, into a new one."""
    if namespace_fd is None:
        call_libc("unshare", flag)
    else:
        call_libc("setns", namespace_fd, flag)


def call_libc(name: str, *arguments: int) -> None:
    """Call a libc function that returns 0, or -1 and sets errno (os.setns is new in 3.12)."""
    if getattr(_libc, name)(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


def _new_netns() -> int:
    """Return a close-on-exec descriptor that is all that holds a new network namespace."""

    def unshare() -> int:
        enter_namespace(CLONE_NEWNET)
        return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    return int(_in_thread(unshare))


def _in_thread(work: Callable[[], Any]) -> Any:  # noqa: ANN401 - returns what `work` returns
    """Run `work` in a thread of its own, whose change of namespace ends with it."""
    results: list[Any] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - raised again where somebody waits
            errors.append(error)

    thread = threading.Thread(target=body, name="namespace")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _free_network(ip: Any) -> ipaddress.IPv4Network:  # noqa: ANN401 - pyroute2's IPRoute
    """Pick a /30 that overlaps no route of this namespace except the default one."""
    taken = []
    for route in ip.get_routes(family=socket.AF_INET):
        destination = route.get_attr("RTA_DST")
        if destination and route["dst_len"]:
            taken.append(ipaddress.ip_network(f"{destination}/{route['dst_len']}", strict=False))
    for pool in map(ipaddress.IPv4Network, _POOLS):
        for _ in range(64):
            offset = random.randrange(pool.num_addresses // 4) * 4
            network = ipaddress.IPv4Network((pool[offset], 30))
            if not any(network.overlaps(other) for other in taken):
                return network
    raise OSError(errno.EADDRNOTAVAIL, f"no free /30 in {' or '.join(_POOLS)}")


def _raise_peer(iproute: Any, way: Link) -> None:  # noqa: ANN401 - the class, imported late
    enter_namespace(CLONE_NEWNET, way.netns_fd)
    with iproute() as ip:
        _raise_device(ip, way.peer_device, way.peer_ip)
        ip.link("set", index=ip.link_lookup(ifname="lo")[0], state="up")


def _raise_device(ip: Any, device: str, address: str) -> None:  # noqa: ANN401
    index = ip.link_lookup(ifname=device)[0]
    ip.addr("add", index=index, address=address, prefixlen=30)
    ip.link("set", index=index, state="up")


def _unlink(iproute: Any, device: str) -> None:  # noqa: ANN401
    """Delete the veth pair now, rather than when the kernel gets to freeing the namespace."""
    with iproute() as ip:
        for index in ip.link_lookup(ifname=device):
            ip.link("del", index=index)
