"""One recording, from the held target to a folder of raw records.

The loop copies bytes and forwards signals; everything that can be done later is done later.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tracer import __version__, agent
from tracer.capture import also
from tracer.capture.cards import Cards
from tracer.capture.leftover import gap_records, open_records, seed_records
from tracer.capture.loader import Loader
from tracer.capture.named import maps, what_proc_says
from tracer.capture.ring import KernelRing
from tracer.capture.runtimes import RunTimes
from tracer.capture.sampler import Sampler
from tracer.capture.target import (
    Target,
    User,
    check_output_folder,
    environment_of,
    find_command,
    invoking_user,
)
from tracer.capture.watch import Watch
from tracer.errors import Prerequisite, TracerFailed
from tracer.events.header import load as load_header
from tracer.store.layout import (
    KERNEL_RAW,
    LOSSES,
    PROCESSES,
    SAMPLES,
    TraceFolder,
    is_trace,
)
from tracer.store.ringfile import RingFile, write_all
from tracer.store.stops import STOPS, is_nearly_full, stop_of
from tracer.system.checks import Machine, load, rights
from tracer.system.invocation import sudo_line
from tracer.system.kernel import INITIAL_PID_NAMESPACE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_RING_HEADER = 8
_KIND_OFFSET = _RING_HEADER + 14  # behind ts_ns, tid, cpu: see the head in record.h
_SCAN_S = 0.1
_POLL_S = (0.01, 0.1)
_MANIFEST_BYTES = 1 << 16  # more than its last state takes
_FILLED = 0.25  # of a ring: then it is emptied more often


@dataclass
class Options:
    """What to record and where; sizes in bytes, times in seconds."""

    command: list[str]
    output: Path | None = None
    level: int = 3
    also: list[str] = field(default_factory=list)
    duration_s: float | None = None
    force: bool = False
    watch_blocking_s: float | None = None
    ring_bytes: int | None = None
    agent_slots: int = 1 << 16


@dataclass(frozen=True)
class Recording:
    """A recording that ended, not yet finalised."""

    folder: TraceFolder
    user: User
    target: Target

    def exit_code(self) -> int:
        """Return the target's own exit code; waits for it if --duration ended the recording."""
        while (code := self.target.wait(1.0)) is None:
            pass
        self.target.restore_signals()
        return code


def record(options: Options, say: Callable[[str], None]) -> Recording:
    """Run the command under trace and leave raw records behind.

    Args:
        options: what and where.
        say: tells the user one line of progress (stderr).

    Raises:
        AwaitscopeError: before the command was released; it has not run then.

    """
    return _Session(options, say).run()


def _agent_cache(user: User, env: dict[str, str]) -> Path | None:
    """Return where the user's built agents are kept; None for a user without a home (nobody)."""
    asked = env.get("XDG_CACHE_HOME")
    folder = Path(asked or user.home)
    try:
        own = folder.stat().st_uid == user.uid
    except OSError:
        return None
    return (folder if asked else folder / ".cache") / "awaitscope" if own else None


def _try(action: Callable[[], None]) -> None:
    with contextlib.suppress(OSError):
        action()


def _require_root(here: Machine) -> None:
    if os.geteuid() != 0:
        raise Prerequisite("tracing needs root: it loads programs into the kernel", sudo_line())
    for check in (rights(here), load(here)):
        if check.status == "fail":
            raise Prerequisite(f"this root may not load programs: {check.seen}", check.fix)


def _refuse_to_nest() -> None:
    live = os.environ.get("AWAITSCOPE_LIVE")
    if live and Path(live).is_dir():
        raise TracerFailed(
            "this runs inside a program that awaitscope traces already: it is in that trace",
            "leave the inner `awaitscope run` out",
        )


@contextlib.contextmanager
def _storage_errors(path: Path, user: User) -> Iterator[None]:
    """Say in a sentence that recording failed."""
    try:
        yield
    except OSError as error:
        raise TracerFailed(
            f"recording to {path} failed: {error.strerror}",
            f"choose another -o, with room, where {user.name} may write",
        ) from error


class _Session:
    def __init__(self, options: Options, say: Callable[[str], None]) -> None:
        self._options = options
        self._say = say
        self._user = invoking_user()
        self._rings: dict[str, tuple[RingFile, int]] = {}
        self._tgids: dict[int, int] = {}  # by agent, as the kernel says
        self._watched: set[int] = set()
        # elsewhere the kernel's process ids are strangers' in /proc
        self._machine = Machine()
        self._at_home = self._machine.rights.pid_namespace == INITIAL_PID_NAMESPACE
        self._next_scan = self._next_loss = 0.0
        self._stopped: str | None = None
        self._began_ns = time.monotonic_ns()

    def run(self) -> Recording:
        options, user = self._options, self._user
        _require_root(self._machine)
        env = environment_of(user)
        self._roots = [also.resolve(spec) for spec in options.also]
        if options.output:
            check_output_folder(options.output, force=options.force)
        _refuse_to_nest()
        find_command(options.command[0], env)  # before there is a folder to clean up
        python = agent.python_of(options.command, env)
        path = options.output or Path(
            f"awaitscope-{Path(options.command[0]).name}-{os.getpid()}.trace"
        )
        with _storage_errors(path, user), contextlib.ExitStack() as undo:  # until the command runs
            folder = self._make_folder(path, user)
            cache = _agent_cache(user, env) or folder.live / "agent"
            undo.callback(_try, folder.remove)
            prebuilt = self._prebuild(python, cache) if python else None
            env = agent.environment(env, folder.live, cache, options.agent_slots)
            held = Target(options.command, env, user)
            undo.callback(held.abandon)
            self._loader = loader = Loader(options.level, options.ring_bytes)
            undo.callback(loader.close)
            self._arm(held)
            undo.callback(self._close_rings)
            manifest = self._manifest(held, prebuilt)
            folder.write_manifest(manifest)
            folder.reserve_manifest(_MANIFEST_BYTES)
            armed = (time.monotonic_ns() - self._began_ns) / 1e9
            self._say(f"recording {' '.join(options.command)} (armed in {armed:.1f} s)")
            if prebuilt and agent.is_light(prebuilt):
                self._say(agent.light_mode(prebuilt))
            released_ns = time.monotonic_ns()
            held.release()  # a command that the kernel refuses leaves no trace
            undo.pop_all()
        manifest["start_ns"] = self._whole_ns = released_ns
        try:
            samples = folder.new_file(folder.raw / SAMPLES, os.O_APPEND)
            over_s = options.watch_blocking_s
            watch = Watch(round(over_s * 1e9), self._say) if over_s else None
            with Sampler(samples, watch, loader.polled_ns) as self._sampler:
                manifest["exit_code"] = self._loop(held)
            self._finish(manifest)
        except OSError as error:
            self._break_off(manifest, error)
        finally:
            self._close_files()
            self._close_rings()
            loader.close()
        with contextlib.suppress(OSError):  # it then is a cut trace that does not say why
            folder.write_manifest(manifest)
        os.close(self._lock)
        return Recording(folder, user, held)

    def _arm(self, held: Target) -> None:
        """Attach the probes and tell them whom to trace."""
        self._loader.attach()
        pidns = Path("/proc/self/ns/pid").stat().st_ino
        self._loader.configure(seed_tid=held.tid, seed_pidns=pidns)
        self._cards = Cards()
        self._loader.name_cards(self._cards.devices, self._cards.netns)
        size = self._loader.ring_bytes
        self._kernel_rings = [KernelRing(fd, size) for fd in self._loader.ring_fds]
        self._run_times = RunTimes(self._loader.programs())
        self._raw = self._folder.new_file(self._folder.raw / KERNEL_RAW, os.O_EXCL)
        if is_nearly_full(self._folder.path, 0):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._seed()

    def _prebuild(self, python: Path, cache: Path) -> str | None:
        """Build the agent as the invoking user; return the reason if that cannot be done."""
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            reason: str | None = "build_failed: the builder ended early"
            with contextlib.suppress(Exception):
                self._user.become()
                os.environ["HOME"] = self._user.home
                reason = agent.prebuild(python, cache)
            os.write(write, (reason or "").encode()[:4000])
            os._exit(0)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            said = pipe.read().decode(errors="replace")
        os.waitpid(child, 0)
        return said or None

    def _make_folder(self, path: Path, user: User) -> TraceFolder:
        folder = TraceFolder(path, (user.uid, user.gid))
        with folder.as_owner():
            check_output_folder(path, force=self._options.force)
            if path.exists():
                if path.is_symlink() or not is_trace(path):
                    raise TracerFailed(f"{path} exists and is no trace", "choose another -o")
                folder.remove()
            folder.create()
        self._folder, self._lock = folder, folder.lock()
        return folder

    def _seed(self) -> None:
        """Trace the --also trees; twice, for what was forked between look and entry."""
        seen: dict[int, also.Thread] = {}
        for _ in range(2):
            for root in self._roots:
                for thread in also.threads_of(root):
                    if thread.tid not in seen:
                        self._loader.seed_thread(thread.tid, thread.tgid)
                        seen[thread.tid] = thread
        write_all(self._raw, memoryview(seed_records(list(seen.values()))))
        for tgid in {t.tgid for t in seen.values()}:
            self._note_process(tgid)

    def _loop(self, held: Target) -> int | None:
        deadline = time.monotonic() + self._options.duration_s if self._options.duration_s else None
        poll_s = _POLL_S[0]
        while True:
            code = held.wait(poll_s)
            drained_ns = time.monotonic_ns()
            self._run_times.turn(drained_ns)
            filled = self._drain()
            now = time.monotonic()
            if now >= self._next_scan or code is not None:
                self._scan_agents()
                self._next_scan = now + _SCAN_S
            for ring, fd in self._rings.values():
                filled = max(filled, ring.drain(fd) / ring.capacity)
            self._whole_ns = drained_ns
            if now >= self._next_loss:
                self._note_losses()
                self._next_loss = now + 1.0
            if is_nearly_full(self._folder.path, self._raw_bytes()):
                self._stop("disk_full")
            if deadline is not None and now >= deadline:
                self._stopped = self._stopped or "duration"
            if code is not None or self._stopped:
                return code
            # seldom, since each waking takes a CPU from the traced; often, where rings fill fast
            poll_s = min(max(poll_s * (0.5 if filled > _FILLED else 1.5), _POLL_S[0]), _POLL_S[1])

    def _raw_bytes(self) -> int:
        """Return how much was recorded so far."""
        fds = [self._raw, *(fd for _ring, fd in self._rings.values())]
        return sum(os.fstat(fd).st_size for fd in fds)

    def _stop(self, reason: str) -> None:
        """End the recording before the command."""
        self._stopped = reason
        self._say(f"the recording stops here, the command goes on: {STOPS[reason]}")

    def _break_off(self, manifest: dict[str, Any], error: OSError) -> None:
        """Leave what was written up to the last time that all was: a trace that was cut there."""
        reason = stop_of(error)
        if self._stopped != reason:
            self._stop(reason)
        self._run_times.end(time.monotonic_ns())
        self._loader.detach()
        manifest.update(stopped=self._stopped, end_ns=self._whole_ns, **self._costs())

    def _drain(self) -> float:
        """Write what the kernel's rings hold; return how full the fullest was, 0..1."""
        thread, agent_thread = (load_header().records[n] for n in ("thread", "agent_thread"))
        filled = 0.0
        for ring in self._kernel_rings:
            slots = ring.take()
            filled = max(filled, len(slots) / ring.capacity)
            while len(slots):
                births = slots[slots[:, _KIND_OFFSET] == thread.kind, _RING_HEADER:]
                tgids = np.ascontiguousarray(births).view(thread.dtype)["tgid"]
                for tgid in np.unique(tgids).tolist():
                    self._note_process(tgid)
                told = slots[slots[:, _KIND_OFFSET] == agent_thread.kind, _RING_HEADER:]
                for row in np.ascontiguousarray(told).view(agent_thread.dtype)[:, 0]:
                    self._tgids[int(row["agent"])] = int(row["tgid"])
                write_all(self._raw, slots.data.cast("B"))
                full = ring.is_full()
                ring.release(len(slots))
                if full:
                    self._note_losses()
                slots = ring.take()
        return filled

    def _close_files(self) -> None:
        for ring, fd in self._rings.values():
            os.close(fd)
            ring.close()
        os.close(self._raw)

    def _close_rings(self) -> None:
        while self._kernel_rings:
            self._kernel_rings.pop().close()

    def _scan_agents(self) -> None:
        """Open the rings of new agents, and look into their processes if the kernel named them."""
        with self._folder.as_owner():
            for path in self._folder.live.glob("*.ring"):
                if path.name in self._rings:
                    continue
                try:
                    ring = RingFile(path)
                except (OSError, ValueError):
                    continue
                raw = self._folder.raw / f"agent-{path.stem}.raw"
                self._rings[path.name] = (ring, self._folder.new_file(raw, os.O_APPEND))
        for name, (ring, _fd) in self._rings.items():
            if ring.agent in self._tgids and ring.agent not in self._watched:
                self._watched.add(ring.agent)
                self._sampler.watch(ring, self._tgids[ring.agent])
                if not self._at_home and maps(ring.ns_tgid, self._folder.live / name):
                    self._note_process(self._tgids[ring.agent], ring.ns_tgid)

    def _note_process(self, tgid: int, pid: int = 0) -> None:
        """Keep what /proc says of a process: it is gone when the trace is read.

        Args:
            tgid: the kernel's number, that of the first pid namespace.
            pid: its number in ours; 0: the same there, a stranger's elsewhere.

        """
        known = pid or (tgid if self._at_home else 0)
        said = what_proc_says(known, self._folder.live) if known else {}
        self._append(PROCESSES, {"tgid": tgid, "seen_ns": time.monotonic_ns(), **said})

    def _note_losses(self) -> None:
        self._append(
            LOSSES,
            {
                "ts_ns": time.monotonic_ns(),
                **self._loader.counters(),
                "agents": {Path(name).stem: ring.lost for name, (ring, _) in self._rings.items()},
            },
        )

    def _append(self, name: str, entry: dict[str, Any]) -> None:
        fd = self._folder.new_file(self._folder.raw / name, os.O_APPEND)
        with os.fdopen(fd, "a") as file:
            file.write(json.dumps(entry) + "\n")

    def _left_running(self, tgids: set[int]) -> list[int]:
        """Return those that the command left behind; --also processes are not its own."""
        others = {thread.tgid for root in self._roots for thread in also.threads_of(root)}
        return sorted(tgids - others)

    def _finish(self, manifest: dict[str, Any]) -> None:
        end_ns = time.monotonic_ns()  # the probes come off one after the other
        self._run_times.end(end_ns)
        self._loader.detach()
        manifest["devices"] = self._cards.manifest()
        self._drain()
        self._scan_agents()
        for ring, fd in self._rings.values():
            ring.drain(fd)
        self._note_losses()
        threads = self._loader.open_threads()
        write_all(self._raw, memoryview(open_records(threads, end_ns)))
        write_all(self._raw, memoryview(gap_records(self._loader.untold_gaps())))
        manifest.update(
            state="recorded",
            stopped=self._stopped,
            end_ns=end_ns,
            left_running=self._left_running({int(t.tgid) for t in threads.values()}),
            **self._costs(),
        )

    def _costs(self) -> dict[str, Any]:
        return {
            "reader_cpu_s": sum(resource.getrusage(resource.RUSAGE_SELF)[:2]),
            "run_times": self._run_times.document(),
        }

    def _manifest(self, held: Target, prebuilt: str | None) -> dict[str, Any]:
        uname = os.uname()
        return {
            "awaitscope": __version__,
            "record_schema": load_header().constants["RECORD_SCHEMA"],
            "state": "recording",
            "command": self._options.command,
            "root_tgid": held.tid,
            "uid": self._user.uid,
            "level": self._options.level,
            "also": self._options.also,
            "cwd": str(Path.cwd()),
            "host": {
                "kernel": uname.release,
                "machine": uname.machine,
                "cpus": os.cpu_count(),
                "clock": "CLOCK_MONOTONIC",
                "monotonic_ns": time.monotonic_ns(),
                "realtime_ns": time.time_ns(),
                "bcc": self._loader.bcc_version,
                "numpy": np.__version__,
            },
            "tells_throttled": self._loader.tells_throttled,
            "stolen_untold": self._loader.stolen_untold,
            "ring_bytes": self._loader.ring_bytes,
            "agent_slots": self._options.agent_slots,
            "agent_prebuild": prebuilt,
            "armed_ns": time.monotonic_ns() - self._began_ns,
            "start_ns": time.monotonic_ns(),
            "reader_cpu_at_start_s": sum(resource.getrusage(resource.RUSAGE_SELF)[:2]),
            "devices": self._cards.manifest(),
            "probes": [
                {"hook": p.hook, "rung": p.rung, **({"reason": p.reason} if p.reason else {})}
                for p in self._loader.probes
            ],
        }
