"""What /proc tells about one process: is it Python, which one, and can it be traced.

Nothing of the process is executed: its interpreter's version is read from file names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tracer.errors import TargetGone
from tracer.system.checks import Check, Machine, python_headers
from tracer.system.invocation import sudo_line
from tracer.system.kernel import read_text, status_fields

if TYPE_CHECKING:
    from collections.abc import Iterable

OLDEST_PYTHON, NEWEST_PYTHON = (3, 9), (3, 15)  # that the agent knows (agent/build.py)
# python3.11, libpython3.11.so.1.0, /usr/lib/python3.11/…, _ssl.cpython-311-x86_64-linux-gnu.so
_NAMES = (
    re.compile(r"/(?:lib)?python(\d)\.(\d+)(t?)(?:$|/|\.so|d$)"),
    re.compile(r"\.cpython-(\d)(\d+)(t?)-"),
)


@dataclass(frozen=True)
class Process:
    """A process as seen from our pid namespace; `python` is None if it is no CPython.

    `free_threaded` says whether that CPython is built without a GIL.
    """

    tgid: int
    name: str
    executable: str
    uid: int
    python: tuple[int, int] | None
    pid_namespace: int
    inner_tgid: int
    free_threaded: bool = False


def python_version(paths: Iterable[str]) -> tuple[tuple[int, int] | None, bool]:
    """Return the version that the names of mapped files tell, the first that does.

    And whether it is that of a free-threaded build.
    """
    for pattern in _NAMES:
        for path in paths:
            match = pattern.search(path)
            if match:
                return (int(match[1]), int(match[2])), match[3] == "t"
    return None, False


def read_process(tgid: int, root: Path = Path("/")) -> Process:
    """Read a process; TargetGone if there is none (a thread's tid is none)."""
    folder = root / f"proc/{tgid}"
    fields = status_fields(read_text(folder / "status"))
    if not fields:
        raise TargetGone(f"there is no process {tgid}", "see `pgrep -af python`")
    if fields.get("Tgid") != str(tgid):
        raise TargetGone(
            f"{tgid} is a thread of process {fields.get('Tgid')}",
            f"name the process: {fields.get('Tgid')}",
        )
    try:
        executable = str((folder / "exe").readlink())
    except OSError:
        executable = ""
    mapped = [line.split(None, 5)[5] for line in _maps(folder) if line.count("/")]
    try:
        namespace = (folder / "ns/pid").stat().st_ino
    except OSError:
        namespace = 0
    python, free_threaded = python_version(dict.fromkeys([executable, *mapped]))
    return Process(
        tgid=tgid,
        name=fields.get("Name", ""),
        executable=executable,
        uid=int(fields["Uid"].split()[1]),
        python=python,
        pid_namespace=namespace,
        inner_tgid=int(fields.get("NSpid", str(tgid)).split()[-1]),
        free_threaded=free_threaded,
    )


def _maps(folder: Path) -> list[str]:
    return [line for line in read_text(folder / "maps").splitlines() if len(line.split()) > 5]


def check_process(tgid: int, machine: Machine | None = None) -> list[Check]:
    """Return the doctor's lines for one process; TargetGone if there is none."""
    here = machine or Machine()
    process = read_process(tgid, here.root)
    checks = [_readable(process, here)]
    if process.executable:
        checks.append(_is_python(process))
    if process.python:
        checks.append(_headers(process, here))
        checks.append(_namespace(process, here))
    return checks


def _readable(process: Process, machine: Machine) -> Check:
    why = "the interpreter's memory map is read (ptrace access mode of /proc)"
    seen = f"process {process.tgid} ({process.name}) of uid {process.uid}"
    if process.executable:
        return Check("process", "ok", required=True, seen=seen, why=why)
    seen = f"{seen} is closed to uid {machine.rights.uid}"
    fix = sudo_line()
    return Check("process", "fail", required=True, seen=seen, why=why, fix=fix)


def _is_python(process: Process) -> Check:
    known = "CPython {}.{} to {}.{}".format(*OLDEST_PYTHON, *NEWEST_PYTHON)
    why = f"awaits are seen in {known}; of other programs only the kernel's side"
    if process.python is None:
        return Check(
            "interpreter",
            "fail",
            required=True,
            seen=f"{process.executable or process.name} is no CPython that we know",
            why=why,
            fix="give the process id of the Python program itself (see `pgrep -af python`)",
        )
    seen = "CPython {}.{}".format(*process.python) + process.free_threaded * ", free-threaded"
    if process.free_threaded or not OLDEST_PYTHON <= process.python <= NEWEST_PYTHON:
        fix = f"run the program with {known}, built with a GIL"
        return Check("interpreter", "fail", required=True, seen=seen, why=why, fix=fix)
    seen = f"{seen}, {process.executable}"
    return Check("interpreter", "ok", required=True, seen=seen, why=why)


def _headers(process: Process, machine: Machine) -> Check:
    prefix = Path(process.executable).parent.parent
    include = "python{}.{}".format(*process.python or (3, 0))
    check = python_headers(machine, str(prefix / "include" / include))
    return replace(check, name=f"{check.name} of the process")


def _namespace(process: Process, machine: Machine) -> Check:
    why = "a process in a container has another number inside it"
    if process.pid_namespace == machine.rights.pid_namespace:
        seen = "the same pid namespace as ours"
    else:
        seen = f"in a container, where it is process {process.inner_tgid}"
    return Check("container", "ok", required=False, seen=seen, why=why)
