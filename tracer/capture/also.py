"""Peers named with --also: a process by PID or NAME, with its descendants."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tracer.errors import Usage

_INIT_PIDNS = 0xEFFFFFFC  # PROC_PID_INIT_INO, include/linux/proc_ns.h


@dataclass(frozen=True)
class Thread:
    """A thread that exists when recording starts."""

    tid: int
    tgid: int
    comm: str


def _processes() -> dict[int, tuple[str, int]]:
    """Return tgid -> (comm, parent tgid) of all processes."""
    found = {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            text = (folder / "stat").read_text(errors="replace")
        except OSError:
            continue
        comm, rest = text.split("(", 1)[1].rsplit(")", 1)
        found[int(folder.name)] = (comm, int(rest.split()[1]))
    return found


def _tree(root: int, processes: dict[int, tuple[str, int]]) -> set[int]:
    tree = {root}
    grown = True
    while grown:
        more = {t for t, (_c, parent) in processes.items() if parent in tree} - tree
        tree |= more
        grown = bool(more)
    return tree


def resolve(spec: str) -> int:
    """Return the root process (tgid) that --also names; Usage if none or several fit."""
    processes = _processes()
    if Path("/proc/self/ns/pid").stat().st_ino != _INIT_PIDNS:
        raise Usage(
            "--also needs the initial pid namespace", "run awaitscope outside of the container"
        )
    if spec.isdigit():
        if int(spec) not in processes:
            raise Usage(f"--also {spec}: there is no such process", "check the PID with ps")
        return _not_ours(int(spec), spec, processes)
    matching = {t for t, (comm, _p) in processes.items() if comm == spec and t != os.getpid()}
    roots = sorted(t for t in matching if processes[t][1] not in matching)
    if not roots:
        raise Usage(f"--also {spec}: no process has this name", "give its PID, or start it first")
    if len(roots) > 1:
        listing = ", ".join(f"{t} ({processes[t][0]})" for t in roots)
        raise Usage(
            f"--also {spec} fits several process trees: {listing}", "give the PID of one of them"
        )
    return _not_ours(roots[0], spec, processes)


def _not_ours(root: int, spec: str, processes: dict[int, tuple[str, int]]) -> int:
    if os.getpid() in _tree(root, processes):
        raise Usage(
            f"--also {spec}: this awaitscope is a descendant of it, and would trace itself",
            "name the server's own process",
        )
    return root


def threads_of(root: int) -> list[Thread]:
    """Return all threads of a process and its descendants, now."""
    processes = _processes()
    threads = []
    for tgid in sorted(_tree(root, processes)):
        try:
            tids = [task.name for task in Path(f"/proc/{tgid}/task").iterdir()]
        except OSError:
            continue
        comm = processes[tgid][0] if tgid in processes else ""
        threads += [Thread(int(tid), tgid, comm) for tid in tids]
    return threads
