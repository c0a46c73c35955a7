"""The awaitscope command as a user calls it, for the tests in this folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

COMMAND = str(Path(sys.executable).with_name("awaitscope"))
# other users cannot always reach the virtual environment
PYTHON = str(Path(sys.executable).resolve())


def own_environment(**more: str) -> dict[str, str]:
    """Return this process's environment without sudo's marks, so that root stays root."""
    return {k: v for k, v in os.environ.items() if not k.startswith("SUDO_")} | more


def until(true: Callable[[], Any], what: str, seconds: float = 20) -> Any:
    """Wait for a condition and return its value; an AssertionError names what did not come."""
    deadline = time.monotonic() + seconds
    while not (value := true()):
        assert time.monotonic() < deadline, f"waited {seconds} s in vain for {what}"
        time.sleep(0.005)
    return value


@dataclass(frozen=True)
class Done:
    """What a finished call left behind."""

    code: int
    out: bytes
    err: str


class Scope:
    """Calls in one folder, with one trace in it named `t`."""

    def __init__(self, folder: Path) -> None:
        """Remember the folder and what is started in it."""
        self.folder = folder
        self.trace = folder / "t"
        self._started: list[subprocess.Popen[bytes]] = []

    def call(self, *words: str, stdin: bytes = b"", env: dict[str, str] | None = None) -> Done:
        """Call `awaitscope WORDS…` and wait for its end."""
        done = subprocess.run(
            [COMMAND, *words],
            input=stdin,
            capture_output=True,
            cwd=self.folder,
            env=own_environment() if env is None else env,
            timeout=60,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr.decode())

    def _name(self) -> str:
        return str(self.trace.relative_to(self.folder))

    def run(
        self,
        *command: str,
        options: tuple[str, ...] = (),
        stdin: bytes = b"",
        env: dict[str, str] | None = None,
    ) -> Done:
        """Trace a command to its end."""
        return self.call("run", "-o", self._name(), *options, "--", *command, stdin=stdin, env=env)

    def start(
        self,
        *command: str,
        before: tuple[str, ...] = (),
        options: tuple[str, ...] = (),
        **popen: Any,
    ) -> Any:
        """Start to trace a command; it is killed at the test's end."""
        popen = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "env": own_environment(),
            **popen,
        }
        process = subprocess.Popen(
            [*before, COMMAND, "run", "-o", self._name(), *options, "--", *command],
            cwd=self.folder,
            **popen,
        )
        self._started.append(process)
        return process

    def document(self, command: str, *words: str) -> Any:
        """Return the JSON that a command prints about the trace."""
        done = self.call(command, self._name(), *words, "--json")
        assert done.code == 0, done.err
        return json.loads(done.out)

    def script(self, name: str, text: str, mode: int = 0o644) -> str:
        """Write a file and return its path."""
        path = self.folder / name
        path.write_text(text)
        path.chmod(mode)
        return str(path)

    def close(self) -> None:
        """End what is still there."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
            process.wait()
            for pipe in (process.stdout, process.stderr):
                if pipe:
                    pipe.close()
