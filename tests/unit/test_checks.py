"""The doctor's list, with each prerequisite taken away in turn."""

from __future__ import annotations

import errno
import importlib
import json
import os
import shutil
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from tracer.agent import build
from tracer.cli.main import main
from tracer.errors import TargetGone
from tracer.system import checks
from tracer.system.checks import Machine, Tracepoint, first_failure, run_checks
from tracer.system.interrupts import Interrupt, NetDevice
from tracer.system.kernel import INITIAL_PID_NAMESPACE, Rights, try_raw_tracepoint
from tracer.system.process import (
    NEWEST_PYTHON,
    OLDEST_PYTHON,
    check_process,
    python_version,
    read_process,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WANTED = [Tracepoint("sk_data_ready", 1, required=False)]
IRQS = (Interrupt(37, "virtio2-input.0"), Interrupt(38, "virtio2-output.0"))
ETH0 = NetDevice(2, "eth0", "", "virtio_net", up=True, rx_queues=1, tx_queues=1, interrupts=IRQS)
ALL_CAPABILITIES = "000001ffffffffff"
BPF_AND_PERFMON = "000000c000000000"
NONE = (None, False)
REAL_BCC = '__version__ = "0.31.0"\nclass BPF:\n    pass\n'
LATTICE = '"""Boolean concept lattices."""\n'


def write(path: Path, text: str) -> None:
    """Write a file and its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def set_capabilities(root: Path, effective: str, uid: int = 0) -> None:
    """Say who we are in the tree's /proc."""
    uids = f"{uid}\t{uid}\t{uid}\t{uid}"
    write(root / "proc/self/status", f"Name:\tx\nUid:\t{uids}\nCapEff:\t{effective}\n")


class InRootNamespace(Machine):
    """A machine in the first pid namespace: an inode number cannot be put into a tree."""

    @property
    def rights(self) -> Rights:
        """Return the tree's rights with that number."""
        return replace(super().rights, pid_namespace=INITIAL_PID_NAMESPACE)


@pytest.fixture
def healthy(tmp_path: Path, tiny_btf: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """Give a tree in which every check is ok."""
    root = tmp_path / "root"
    set_capabilities(root, ALL_CAPABILITIES)
    write(root / "proc/sys/kernel/osrelease", "6.12.107+deb13-amd64\n")
    write(root / "sys/kernel/security/lockdown", "none [integrity] confidentiality\n")
    write(root / "sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc\n")
    write(root / "proc/cpuinfo", "processor\t: 0\nflags\t\t: fpu sse2\n")
    write(root / "proc/stat", "cpu  1 2 3 4 5 6 7 0 0 0\n")
    write(root / "proc/mounts", "tracefs /sys/kernel/tracing tracefs rw 0 0\n")
    write(root / "usr/lib/postgresql/15/bin/postgres", "")
    write(root / "usr/lib/python3/dist-packages/bcc/__init__.py", REAL_BCC)
    write(root / checks.sysconfig.get_path("include").lstrip("/") / "Python.h", "")
    write(root / "sys/kernel/btf/vmlinux", "")
    (root / "sys/kernel/btf/vmlinux").write_bytes(tiny_btf)
    without_bcc = [entry for entry in sys.path if not Path(entry, "bcc").exists()]
    monkeypatch.setattr(sys, "path", without_bcc)
    loaded = {n: m for n, m in sys.modules.items() if n == "bcc" or n.startswith("bcc.")}
    for name in loaded:
        del sys.modules[name]
    yield InRootNamespace(
        root=root,
        which=lambda name: f"/usr/bin/{name}",
        try_load=lambda: None,
        devices=lambda: [ETH0],
        free_bytes=lambda: 1 << 40,
    )
    sys.modules.pop("bcc", None)
    sys.modules.update(loaded)


def not_ok(machine: Machine) -> dict[str, checks.Check]:
    """Return the checks that are not ok, by name."""
    return {c.name: c for c in run_checks(machine, WANTED) if c.status != "ok"}


def test_a_healthy_machine_has_nothing_to_fix(healthy: Machine) -> None:
    """Where nothing is missing every check is ok and none has a fix."""
    found = run_checks(healthy, WANTED)
    assert not_ok(healthy) == {}
    assert all(c.fix is None and c.seen and c.why for c in found)
    assert len({c.name for c in found}) == len(found)


def remove(path: str) -> Callable[[Machine], Machine]:
    """Return what takes a file or folder out of the tree."""

    def apply(machine: Machine) -> Machine:
        target = machine.at(path)
        shutil.rmtree(target) if target.is_dir() else target.unlink()
        return machine

    return apply


def put(path: str, text: str) -> Callable[[Machine], Machine]:
    """Return what replaces a file of the tree."""

    def apply(machine: Machine) -> Machine:
        write(machine.at(path), text)
        return machine

    return apply


def refused() -> None:
    """Refuse a program as the kernel does."""
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


LOCKDOWN = "sys/kernel/security/lockdown"
TAKEN_AWAY: dict[str, tuple[Callable[[Machine], Machine], str, str, str]] = {
    "no BTF": (remove("/sys/kernel/btf/vmlinux"), "BTF", "fail", "CONFIG_DEBUG_INFO_BTF=y"),
    "no bcc": (
        remove("/usr/lib/python3/dist-packages/bcc"),
        "bcc",
        "fail",
        "sudo apt-get install python3-bpfcc",
    ),
    "old kernel": (put("/proc/sys/kernel/osrelease", "5.4.0\n"), "kernel", "fail", "5.8"),
    "locked down": (put(LOCKDOWN, "none integrity [confidentiality]"), "lockdown", "fail", "boot"),
    "load refused": (lambda m: replace(m, try_load=refused), "load", "fail", "container"),
    "time namespace": (
        put("/proc/self/timens_offsets", "monotonic  86400  0\nboottime 0 0\n"),
        "clock",
        "fail",
        "outside",
    ),
    "no compiler": (
        lambda m: replace(m, which=lambda _name: None),
        "compiler",
        "warn",
        "sudo apt-get install gcc",
    ),
    "no headers": (
        remove(checks.sysconfig.get_path("include") + "/Python.h"),
        "Python.h",
        "warn",
        "sudo apt-get install python3-dev",
    ),
    "a hypervisor that tells nothing": (
        put("/proc/cpuinfo", "processor\t: 0\nflags\t\t: fpu hypervisor\n"),
        "stolen time",
        "warn",
        "counts as the thread's",
    ),
    "no PostgreSQL": (remove("/usr/lib/postgresql"), "PostgreSQL", "warn", "--dsn"),
    "only loopback": (lambda m: replace(m, devices=list), "interrupts", "warn", "network card"),
    "full disk": (lambda m: replace(m, free_bytes=lambda: 1 << 20), "disk", "warn", "-o DIR"),
}


@pytest.mark.parametrize("case", TAKEN_AWAY)
def test_one_missing_prerequisite_is_one_line_with_its_fix(healthy: Machine, case: str) -> None:
    """Only the check of the missing thing is not ok, and its fix says what to do."""
    take_away, name, status, fix = TAKEN_AWAY[case]
    found = not_ok(take_away(healthy))
    if case == "no BTF":
        del found["tracepoints"]  # cannot be known without BTF
    assert list(found) == [name]
    assert found[name].status == status
    assert fix in (found[name].fix or "")
    assert "\n" not in found[name].seen + (found[name].fix or "")


def test_without_root_the_fix_is_a_sudo_line(healthy: Machine) -> None:
    """No capabilities: one required check fails, and nothing is loaded to find out."""
    set_capabilities(healthy.root, "0", uid=1000)
    machine = replace(healthy, try_load=refused)
    failure = first_failure(run_checks(machine, WANTED))
    assert failure is not None
    assert failure.name == "root"
    assert (failure.fix or "").startswith("sudo /")


def test_two_capabilities_are_enough(healthy: Machine) -> None:
    """CAP_BPF with CAP_PERFMON loads probes; only the demo's namespace needs more."""
    set_capabilities(healthy.root, BPF_AND_PERFMON, uid=1000)
    assert list(not_ok(healthy)) == ["netns"]


def test_the_wrong_bcc_is_told_from_a_missing_one(
    healthy: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PyPI's `bcc` has no BPF class: the fix removes it and installs Debian's."""
    shutil.rmtree(healthy.at("/usr/lib/python3/dist-packages/bcc"))
    write(tmp_path / "site/bcc/__init__.py", LATTICE)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path / "site")])
    found = not_ok(healthy)
    assert list(found) == ["bcc"]
    assert "not the BPF Compiler Collection" in found["bcc"].seen
    assert "pip uninstall bcc" in (found["bcc"].fix or "")


def test_a_bcc_that_breaks_on_import_is_told_each_time(healthy: Machine) -> None:
    """A broken copy is one failed check, and no half of it stays imported."""
    broken = REAL_BCC + "raise ValueError('libbcc.so.0 is damaged')\n"
    write(healthy.at("/usr/lib/python3/dist-packages/bcc/__init__.py"), broken)
    for _time in range(2):
        found = not_ok(healthy)
        assert list(found) == ["bcc"]
        assert "libbcc.so.0 is damaged" in found["bcc"].seen
    assert "bcc" not in sys.modules


def test_bccs_own_warnings_are_not_shown(healthy: Machine) -> None:
    """CPython 3.12 and later complain about escapes in bcc 0.26: not the user's business."""
    noisy = REAL_BCC + "import warnings\nwarnings.warn('escape', SyntaxWarning)\n"
    write(healthy.at("/usr/lib/python3/dist-packages/bcc/__init__.py"), noisy)
    assert not_ok(healthy) == {}


def test_debians_bcc_wins_over_the_wrong_one(
    healthy: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With both installed the right one is loaded, and its folder is not left on sys.path."""
    write(tmp_path / "site/bcc/__init__.py", LATTICE)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site"), *sys.path])
    before = list(sys.path)
    assert not_ok(healthy) == {}
    assert sys.path == before


def test_tracefs_is_not_needed(healthy: Machine) -> None:
    """Without tracefs all is well, and the line says that it is not needed."""
    write(healthy.at("/proc/mounts"), "proc /proc proc rw 0 0\n")
    check = checks.tracefs(healthy)
    assert (check.status, check.seen) == ("ok", "not mounted; not needed")


def test_a_missing_tracepoint_fails_only_if_it_is_required(healthy: Machine) -> None:
    """An optional hook that the kernel lacks is a warning with its name."""
    for required, status in ((False, "warn"), (True, "fail")):
        check = checks.tracepoints(healthy, [*WANTED, Tracepoint("tcp_x", 1, required=required)])
        assert (check.status, check.seen) == (status, "missing: tcp_x")


def test_too_few_arguments_count_as_missing(healthy: Machine) -> None:
    """A tracepoint of the right name with a shorter prototype is not used."""
    check = checks.tracepoints(healthy, [Tracepoint("sk_data_ready", 3, required=False)])
    assert check.status == "warn"


def test_a_container_is_recognised(healthy: Machine) -> None:
    """Another pid namespace is a warning, with what cannot be done there."""
    write(healthy.root / "proc/self/ns/pid", "")
    assert checks.pid_namespace(Machine(root=healthy.root)).status == "warn"


def with_machine(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command look at this machine."""
    module = importlib.import_module("tracer.cli.doctor")
    monkeypatch.setattr(module, "HOOKS", ())
    monkeypatch.setattr(module, "run_checks", partial(run_checks, machine))


def test_the_command_fails_with_4_and_says_the_fix(
    healthy: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed required check is exit code 4, with why and fix under its line."""
    shutil.rmtree(healthy.at("/usr/lib/python3/dist-packages/bcc"))
    with_machine(healthy, monkeypatch)
    result = CliRunner().invoke(main, ["doctor"])
    assert result.exit_code == 4
    assert result.stdout.count("fix: ") == 1
    assert "fix: sudo apt-get install python3-bpfcc" in result.stdout
    assert result.stdout.endswith("cannot trace yet: bcc\n")


def test_the_commands_json_has_every_check(
    healthy: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One document with name, status, required, seen, why and fix of each check."""
    with_machine(healthy, monkeypatch)
    result = CliRunner().invoke(main, ["doctor", "--json"])
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert document["version"] == 1
    keys = {"name", "status", "required", "seen", "why", "fix"}
    assert all(set(row) == keys for row in document["rows"])


def test_our_own_process_is_python() -> None:
    """This interpreter is recognised with its version."""
    process = read_process(os.getpid())
    assert process.python == sys.version_info[:2]
    by_name = {c.name: c.status for c in check_process(os.getpid())}
    assert by_name["interpreter"] == "ok"
    assert by_name["container"] == "ok"


def test_init_is_no_python(tmp_path: Path) -> None:
    """A process of another program fails one check: exit code 5 for the command."""
    folder = tmp_path / "proc/7"
    write(folder / "status", "Name:\tnginx\nTgid:\t7\nUid:\t0\t0\t0\t0\n")
    write(folder / "maps", "55-56 r-xp 00000000 fe:00 1    /usr/sbin/nginx\n")
    (folder / "exe").symlink_to("/usr/sbin/nginx")
    found = {c.name: c for c in check_process(7, Machine(root=tmp_path))}
    assert found["interpreter"].status == "fail"
    assert "nginx" in found["interpreter"].seen


def test_a_vanished_process_is_exit_5() -> None:
    """There is no process with the largest number."""
    result = CliRunner().invoke(main, ["doctor", str((1 << 22) + 1)])
    assert result.exit_code == 5
    assert "there is no process" in result.stderr


def test_a_thread_is_no_process(tmp_path: Path) -> None:
    """A tid that is no tgid is refused with the process to name instead."""
    write(tmp_path / "proc/8/status", "Name:\tx\nTgid:\t7\nUid:\t0\t0\t0\t0\n")
    with pytest.raises(TargetGone) as caught:
        read_process(8, tmp_path)
    assert "7" in (caught.value.fix or "")


@pytest.mark.parametrize(
    ("paths", "version"),
    [
        (["/usr/bin/python3.11"], ((3, 11), False)),
        (["/opt/py/bin/python3.13t"], ((3, 13), True)),
        (["/opt/app", "/usr/lib/x86_64-linux-gnu/libpython3.12.so.1.0"], ((3, 12), False)),
        (["/opt/python3", "/x/lib-dynload/_ssl.cpython-314t-x86_64-linux-gnu.so"], ((3, 14), True)),
        (["/opt/python3", "/x/lib-dynload/_ssl.cpython-310-x86_64-linux-gnu.so"], ((3, 10), False)),
        (["/usr/bin/python3", "/opt/lib/python3.14/x"], ((3, 14), False)),
        (["/usr/bin/pypy3.11", "/usr/lib/pypy3.11/_x.pypy311-pp80-x86_64-linux-gnu.so"], NONE),
        (["/usr/bin/pythonista", "/lib/x86_64-linux-gnu/libc.so.6"], NONE),
    ],
)
def test_a_version_is_read_from_file_names(
    paths: list[str], version: tuple[tuple[int, int] | None, bool]
) -> None:
    """Executable, shared library and extension modules name their version."""
    assert python_version(paths) == version


@pytest.mark.parametrize(
    ("executable", "status"),
    [
        ("python3.8", "fail"),
        ("python3.9", "ok"),
        ("python3.15", "ok"),
        ("python3.15t", "fail"),
        ("python3.16", "fail"),
    ],
)
def test_the_doctor_knows_which_interpreters_the_agent_knows(
    tmp_path: Path, executable: str, status: str
) -> None:
    """What the agent will not go into fails, with those that it does in the fix."""
    folder = tmp_path / "proc/7"
    write(folder / "status", "Name:\tpython\nTgid:\t7\nUid:\t0\t0\t0\t0\n")
    write(folder / "maps", "")
    (folder / "exe").symlink_to(f"/usr/bin/{executable}")
    found = {c.name: c for c in check_process(7, Machine(root=tmp_path))}["interpreter"]
    assert found.status == status
    assert (status == "ok") != ("CPython 3.9 to 3.15" in (found.fix or ""))
    assert (build.OLDEST, build.NEWEST) == (OLDEST_PYTHON, NEWEST_PYTHON)


@pytest.mark.bpf
def test_the_trial_program_is_gone_afterwards(bpf_left_clean: None) -> None:
    """Loading, attaching and removing the two instructions works and leaves nothing."""
    try_raw_tracepoint()
    with pytest.raises(OSError, match="No such"):
        try_raw_tracepoint("no_such_tracepoint")


@pytest.mark.bpf
def test_deep_tries_the_real_probes(bpf_left_clean: None) -> None:
    """All required probes attach and are taken out again."""
    result = CliRunner().invoke(main, ["doctor", "--deep"])
    assert result.exit_code == 0, result.output
    assert " attached in " in result.stdout
