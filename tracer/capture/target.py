"""The traced command: held until the probes are armed, run as the invoking user.

The child waits on a pipe. If the tracer dies, the pipe closes and the child goes on by itself.
A second, close-on-exec pipe brings back the errno of a failed exec.
"""

from __future__ import annotations

import errno
import os
import pwd
import shutil
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from tracer.errors import CannotExecute, CommandNotFound, TracerFailed

_FORWARDED = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGCONT,
    signal.SIGWINCH,
)
WATCHED = (signal.SIGCHLD, *_FORWARDED)
_SI_KERNEL = 0x80


@dataclass(frozen=True)
class User:
    """Who the target runs as and who owns the trace."""

    uid: int
    gid: int
    name: str
    home: str
    shell: str
    dropped: bool

    def become(self) -> None:
        """Give up root for good in this process, if the user is another."""
        if self.dropped:
            os.initgroups(self.name, self.gid)
            os.setgid(self.gid)
            os.setuid(self.uid)


def invoking_user() -> User:
    """Return the user behind sudo, else the present one."""
    uid, gid = os.getuid(), os.getgid()
    dropped = False
    if uid == 0 and os.environ.get("SUDO_UID", "").isdigit():
        uid = int(os.environ["SUDO_UID"])
        gid = int(os.environ.get("SUDO_GID", "-1"))
        dropped = uid != 0
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return User(uid, max(gid, 0), str(uid), "/", "/bin/sh", dropped)
    return User(
        uid, entry.pw_gid if gid < 0 else gid, entry.pw_name, entry.pw_dir, entry.pw_shell, dropped
    )


def _sudo_environment() -> dict[str, str]:
    """Return the environment that sudo itself was started with, {} if it cannot be read."""
    tid = os.getppid()
    for _ in range(8):
        stat = Path(f"/proc/{tid}/stat")
        try:
            comm, rest = stat.read_text().split("(", 1)[1].rsplit(")", 1)
            if comm == "sudo":
                raw = Path(f"/proc/{tid}/environ").read_bytes()
                pairs = (item.partition(b"=") for item in raw.split(b"\0") if b"=" in item)
                return {os.fsdecode(k): os.fsdecode(v) for k, _eq, v in pairs}
            tid = int(rest.split()[1])
        except (OSError, ValueError, IndexError):
            break
    return {}


def environment_of(user: User) -> dict[str, str]:
    """Return the environment that the target would have had without sudo and awaitscope."""
    if not user.dropped:
        return dict(os.environ)
    mine = {k: v for k, v in os.environ.items() if not k.startswith("SUDO_")}
    theirs = _sudo_environment()
    merged = {**theirs, **{k: v for k, v in mine.items() if k not in ("PATH", "MAIL")}}
    merged["PATH"] = theirs.get("PATH", mine.get("PATH", os.defpath))
    merged.update(HOME=user.home, USER=user.name, LOGNAME=user.name, SHELL=user.shell)
    return merged


def find_command(name: str, env: dict[str, str]) -> str:
    """Return the path that exec will use; raises the contract's 126 and 127."""
    found = shutil.which(name, path=env.get("PATH", os.defpath))
    if found:
        return found
    candidates = [Path(name)] if "/" in name else []
    if any(path.is_dir() for path in candidates):
        raise CannotExecute(f"{name} is a folder", "name the program in it")
    if any(path.exists() for path in candidates):
        raise CannotExecute(
            f"{name} cannot be executed", f"chmod +x {name}, or name its interpreter"
        )
    fix = "check the spelling and PATH"
    if name == "python" and shutil.which("python3", path=env.get("PATH", os.defpath)):
        fix = "say python3: Debian has no `python` of its own"
    raise CommandNotFound(f"there is no command {name}", fix)


class Target:
    """A command started but held; `tid` is its process id in our pid namespace."""

    def __init__(self, argv: list[str], env: dict[str, str], user: User) -> None:
        """Fork the held child; find_command() has checked argv[0] already."""
        path = find_command(argv[0], env)
        go_read, self._go = os.pipe2(os.O_CLOEXEC)
        self._error, error_write = os.pipe2(os.O_CLOEXEC)
        self._user = user
        sys.stdout.flush()
        sys.stderr.flush()
        signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
        self.tid = os.fork()
        if self.tid == 0:
            self._child(path, argv, env, go_read, error_write)
        os.close(go_read)
        os.close(error_write)
        self.command = Path(path).name
        self._status: int | None = None

    def _child(
        self, path: str, argv: list[str], env: dict[str, str], go_read: int, error_write: int
    ) -> None:
        try:
            os.close(self._go)
            for number in (*_FORWARDED, signal.SIGPIPE, signal.SIGXFSZ):
                if signal.getsignal(number) is not signal.SIG_IGN or number == signal.SIGPIPE:
                    signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, WATCHED)
            self._user.become()
            os.read(go_read, 1)  # b"" when the tracer died: go on without it
            os.execve(path, argv, env)  # noqa: S606 (a shell is what the user may run)
        except OSError as error:
            os.write(error_write, str(error.errno).encode())
        finally:
            os._exit(127)

    def release(self) -> None:
        """Let the command start; raises CannotExecute if exec fails."""
        os.write(self._go, b"g")
        os.close(self._go)
        said = os.read(self._error, 16)
        os.close(self._error)
        if said:
            os.waitpid(self.tid, 0)
            self._status = 126
            number = int(said)
            fix = (
                "add a #! line or name its interpreter"
                if number == errno.ENOEXEC
                else "check its permissions and its interpreter"
            )
            raise CannotExecute(f"{self.command}: {os.strerror(number)}", fix)

    def abandon(self) -> None:
        """End the held child before it ran: tracing could not be armed."""
        if self._status is None:
            os.kill(self.tid, signal.SIGKILL)
            os.waitpid(self.tid, 0)
            self._status = 125
            os.close(self._go)
            os.close(self._error)

    def wait(self, timeout_s: float) -> int | None:
        """Wait at most `timeout_s`, forwarding signals; return the exit code once it ended.

        128 + signal if a signal ended it. A Ctrl-C of the terminal has reached the target by
        itself and is not sent again.
        """
        if self._status is not None:
            return self._status
        info = signal.sigtimedwait(WATCHED, timeout_s)
        if info is not None and info.si_signo in _FORWARDED and info.si_code != _SI_KERNEL:
            os.kill(self.tid, info.si_signo)
        done, status = os.waitpid(self.tid, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            self._status = code if code >= 0 else 128 - code
        return self._status

    def restore_signals(self) -> None:
        """Let signals reach awaitscope itself again, once the command has ended."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, WATCHED)


def check_output_folder(path: Path, *, force: bool) -> None:
    """Refuse an output that exists, before anything is started."""
    if path.exists() and not force:
        raise TracerFailed(f"{path} exists already", "choose another -o, or overwrite with --force")
