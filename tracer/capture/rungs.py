"""Attach a hook on the first rung that loads: raw tracepoint, fentry, kprobe, else absent.

Only loading tells: a kernel may have a function in its BTF and refuse fentry programs, or be
built without kprobes. A tracepoint comes first: its place in the kernel is a promise of its
maintainers, and a compiler may split or inline a function.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tracer.capture.quiet import captured_stderr

if TYPE_CHECKING:
    from collections.abc import Callable

    from tracer.capture.hooks import Hook
    from tracer.system.btf import Btf


_NO_PROGRAM = "this kernel's BTF lacks a struct that it reads"
_FENTRY = ("kfunc__vmlinux__", "kfunc__")  # FENTRY in kernel.h


@dataclass(frozen=True)
class Probe:
    """A hook and the rung that it was loaded on; `reason` only if that is `absent`."""

    hook: str
    rung: str
    reason: str | None = None


class Rungs:
    """What was attached of one loaded object."""

    def __init__(self, lib: Any, bpf: Any, btf: Btf) -> None:  # noqa: ANN401 (bcc is untyped)
        """Name bcc's C library, the object and the kernel's types; nothing is attached yet."""
        self._lib, self._bpf, self._btf = lib, bpf, btf
        self._undo: list[Callable[[], object]] = []
        self.programs: dict[str, int] = {}  # descriptors of what is attached, by hook

    def attach(self, hook: Hook) -> Probe:
        """Climb down the ladder until a program loads."""
        reasons = []
        for rung, attempt in (
            ("raw_tracepoint", self._tracepoint),
            ("fentry", self._fentry),
            ("kprobe", self._kprobe),
        ):
            reason = attempt(hook)
            if reason is None:
                return Probe(hook.name, rung)
            if reason:
                reasons.append(f"{rung}: {reason}")
        return Probe(hook.name, "absent", "; ".join(reasons))

    def detach(self) -> None:
        """Take the programs off their hooks."""
        self.programs.clear()
        while self._undo:
            self._undo.pop()()

    def _tracepoint(self, hook: Hook) -> str | None:
        """Return None if it is attached, "" if there is no such rung, else why it failed."""
        if not hook.program:
            return ""
        available = self._btf.raw_tracepoint_args(hook.name)
        if available is None:
            return "this kernel has no such tracepoint"
        if available < hook.args:
            return f"the tracepoint has {available} arguments, {hook.args} are needed"
        name, program = hook.name.encode(), hook.program.encode()
        if not self._has(program):
            return _NO_PROGRAM
        return self._try(
            hook,
            program,
            lambda: self._bpf.attach_raw_tracepoint(tp=name, fn_name=program),
            lambda: self._bpf.detach_raw_tracepoint(tp=name),
        )

    def _fentry(self, hook: Hook) -> str | None:
        if not hook.function:
            return ""
        if not self._btf.has_func(hook.function):
            return f"this kernel has no function {hook.function}"
        names = [f"{prefix}{hook.function}".encode() for prefix in _FENTRY]
        program = next((name for name in names if self._has(name)), None)
        if program is None:
            return _NO_PROGRAM
        return self._try(
            hook,
            program,
            lambda: self._bpf.attach_kfunc(fn_name=program),
            lambda: self._bpf.detach_kfunc(fn_name=program),
        )

    def _has(self, program: bytes) -> bool:
        return bool(self._lib.bpf_function_start(self._bpf.module, program))

    def _kprobe(self, hook: Hook) -> str | None:
        if not hook.function:
            return ""
        event, program = hook.function.encode(), f"kprobe_{hook.function}".encode()
        if not self._has(program):
            return _NO_PROGRAM
        return self._try(
            hook,
            program,
            lambda: self._bpf.attach_kprobe(event=event, fn_name=program),
            lambda: self._bpf.detach_kprobe(event=event, fn_name=program),
        )

    def _try(
        self,
        hook: Hook,
        program: bytes,
        attach: Callable[[], object],
        detach: Callable[[], object],
    ) -> str | None:
        with captured_stderr() as said:
            try:
                attach()
            except Exception as error:  # noqa: BLE001 (bcc raises bare Exception)
                failure = error
            else:
                self._undo.append(detach)
                self.programs[hook.name] = self._bpf.funcs[program].fd
                return None
        # the verifier's reason stands before its statistics
        why = [line for line in said if line and not line.startswith("processed ")]
        return f"{failure} {' '.join(why[-2:])}".strip()
