"""Which C function a frame is calling: what its stack of values holds where its bytecode says.

A frame that runs does not say how deep its stack is. The depth at an instruction follows from the
bytecode before it (as the compiler computes it), and with it where a CALL has its callable. Facts:
Python/compile.c stackdepth(), Python/bytecodes.c CALL, Objects/exception_handling_notes.txt.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tracer.events.header import load as load_header

if TYPE_CHECKING:
    from collections.abc import Callable

TAG_BITS = 7  # _PyStackRef, from 3.14 on: a pointer with marks in its lowest bits

_MOST_UNITS = 1 << 16
_MOST_CHARACTERS = 80
_MOST_BASES = 20
_ALL = 255  # bits of an argument without EXTENDED_ARG
_HEAP_TYPE, _IS_TYPE = 1 << 9, 1 << 31  # Py_TPFLAGS_HEAPTYPE, Py_TPFLAGS_TYPE_SUBCLASS
# whatever their instances do: Python code, or any function of Cython's
_SAYS_NOTHING = ("function", "method", "generator", "cython_function_or_method")


class Instruction(NamedTuple):
    """What an opcode does: struct agent_instruction of record.h."""

    base: int
    caches: int
    flow: int
    calls: int
    below: int
    arguments: int
    spare: int
    effect: list[int]
    jump_effect: list[int]


class Call(NamedTuple):
    """A call in some code: which method of the object in which slot of the stack."""

    slot: int
    method: str


class Calls:
    """The calls in the code of one process."""

    def __init__(
        self,
        layout: dict[str, int],
        read: Callable[[int, int], bytes],
        text: Callable[[int], str],
    ) -> None:
        """Read what the agent tells of the interpreter (calls.c).

        Args:
            layout: what its ring tells; `calls` is the address of its agent_calls.
            read: returns so many bytes at an address.
            text: returns the characters of the str at an address.

        """
        records = load_header().records
        told = records["agent_calls"].dtype
        row = np.frombuffer(read(layout["calls"], told.itemsize), told)[0]
        self._at = layout | {name: int(row[name]) for name in told.names or ()}
        self._read, self._text = read, text
        each = records["agent_instruction"].dtype
        raw = read(layout["calls"] + self._at["instructions"], 256 * each.itemsize)
        self._instructions = [
            Instruction(*row[:-2], *(effect.tolist() for effect in row[-2:]))
            for row in np.frombuffer(raw, each).tolist()
        ]
        self._known: dict[tuple[int, ...], dict[int, Call]] = {}

    def at(self, frame: int, code: int, head: tuple[int, ...], unit: int) -> str | None:
        """Return the C function that a frame is calling, "" if it calls none; None: not known.

        Args:
            frame: address of the frame.
            code: address of its code object.
            head: what tells that the code object is the same as before.
            unit: index of the running instruction in code units.

        """
        at = self._at
        key = (code, *head)
        if key not in self._known:
            size = self._pointer(code + at["code_units"])
            units = self._read(code + at["code_start"], 2 * min(size, _MOST_UNITS))
            handlers = self._pointer(code + at["code_handlers"])
            length = self._pointer(handlers + at["bytes_size"])
            table = self._read(handlers + at["bytes_data"], length)
            self._known[key] = callees(units, table, self._instructions)
        call = self._known[key].get(unit)
        if call is None:
            return ""
        below = self._number(code + at["code_locals"])
        if not 0 <= call.slot < self._number(code + at["code_stack"]) or below < 0:
            return None
        place = frame + at["frame_locals"] + 8 * (below + call.slot)
        pair = struct.unpack("<QQ", self._read(place, 16))
        lower, upper = (pointer & ~TAG_BITS for pointer in pair)
        if call.method == "__call__":
            return self._callable(lower or upper)  # up to 3.12 a function has NULL below it
        if call.method == "__next__":
            return self._instance(self._pointer(lower + at["type"]), call.method, "type_next")
        return self._entered(lower)

    def _entered(self, manager: int) -> str | None:
        """Return whose __enter__ is called; in 3.11 its __exit__ has taken its place already."""
        at = self._at
        kind = self._pointer(manager + at["type"])
        if kind == at["function_type"]:
            kind = self._pointer(self._pointer(manager + at["function_self"]) + at["type"])
        return f"{self._type_name(kind)}.__enter__" if self._is_of_c(kind) else None

    def _callable(self, callee: int) -> str | None:
        """Return the name of a C callable, None for anything else."""
        at = self._at
        kind = self._pointer(callee + at["type"])
        if kind in (at["function_type"], at["bound_type"]):
            name = self._definition(callee + at["function_def"])
            module, owner = (
                self._pointer(callee + at[field]) for field in ("function_module", "function_self")
            )
            return f"{self._text(module) if module else self._class_of(owner)}.{name}"
        if kind == at["method_type"]:
            owner = self._pointer(callee + at["method_type_at"])
            return f"{self._type_name(owner)}.{self._definition(callee + at['method_def'])}"
        if self._flags(kind) & _IS_TYPE:
            return self._type_name(callee) if self._is_of_c(callee) else None
        return self._instance(kind, "__call__", "type_call")

    def _instance(self, kind: int, method: str, field: str) -> str | None:
        """Return a method of an object's C type, or of the one that the type inherits it from.

        Args:
            kind: the type.
            method: which one.
            field: where a type has a pointer to it.

        """
        at = self._at
        called = self._pointer(kind + at[field])
        if not called:  # the call is over, and this is what it returned
            return None
        for _ in range(_MOST_BASES):
            if self._is_of_c(kind):
                name = self._type_name(kind)
                return None if name.split(".")[-1] in _SAYS_NOTHING else f"{name}.{method}"
            kind = self._pointer(kind + at["type_base"])
            if not kind or self._pointer(kind + at[field]) != called:
                break
        return None

    def _is_of_c(self, kind: int) -> bool:
        """Say whether a type is made by C code: its name has its module in it, or it is static."""
        return not self._flags(kind) & _HEAP_TYPE or "." in self._type_name(kind)

    def _class_of(self, owner: int) -> str:
        """Return the name of a class, or of an object's class."""
        kind = self._pointer(owner + self._at["type"])
        return self._type_name(owner if self._flags(kind) & _IS_TYPE else kind)

    def _definition(self, place: int) -> str:
        return self._characters(self._pointer(self._pointer(place) + self._at["def_name"]))

    def _type_name(self, kind: int) -> str:
        return self._characters(self._pointer(kind + self._at["type_name"]))

    def _flags(self, kind: int) -> int:
        return self._pointer(kind + self._at["type_flags"])

    def _characters(self, address: int) -> str:
        """Return a C string; what is none is no name."""
        text = self._read(address, min(_MOST_CHARACTERS, 4096 - address % 4096))
        name = text.partition(b"\0")[0].decode("ascii")
        if not name.isprintable() or not name:
            raise ValueError(name)
        return name

    def _pointer(self, address: int) -> int:
        return int.from_bytes(self._read(address, 8), "little")

    def _number(self, address: int) -> int:
        return int(struct.unpack("<i", self._read(address, 4))[0])


def callees(units: bytes, handlers: bytes, instructions: list[Instruction]) -> dict[int, Call]:
    """Return the calls in some code, by the code unit that they are at.

    Args:
        units: the code, two bytes a unit.
        handlers: its co_exceptiontable.
        instructions: by opcode.

    """
    header = load_header().constants
    jumps, back = header["FLOW_JUMPS"], header["FLOW_JUMPS_BACK"]
    ends, extends = header["FLOW_ENDS"], header["FLOW_EXTENDS"]
    methods = {
        header["CALLS_CALL"]: "__call__",
        header["CALLS_ENTER"]: "__enter__",
        header["CALLS_NEXT"]: "__next__",
    }
    found: dict[int, Call] = {}
    seen: set[int] = set()
    to_do = [(0, 0), *_handlers(handlers)]
    while to_do:
        unit, depth = to_do.pop()
        above = 0  # higher part of the next argument
        while unit not in seen and 2 * unit + 1 < len(units):
            seen.add(unit)
            it = instructions[instructions[units[2 * unit]].base]
            arg, after = above << 8 | units[2 * unit + 1], unit + 1 + it.caches
            above = arg if it.flow & extends else 0
            if it.calls in methods:
                counted = arg if it.arguments == _ALL else arg & it.arguments
                found[unit] = Call(depth - it.below - counted, methods[it.calls])
            if it.flow & (jumps | back):
                target = after + (arg if it.flow & jumps else -arg)
                to_do.append((target, depth + _effect(it.jump_effect, arg)))
            if it.flow & ends:
                break
            depth += _effect(it.effect, arg)
            unit = after
    return found


def _effect(told: list[int], arg: int) -> int:
    """Return the change of depth by an argument: beyond those told it goes on in steps of four."""
    if arg < len(told):
        return told[arg]
    like = len(told) - 4 + arg % 4
    slope = told[like] - told[like - 4]
    if slope and arg > _ALL:  # UNPACK_EX has two numbers in its argument
        raise ValueError(arg)
    return told[like] + slope * ((arg - like) // 4)


def _handlers(table: bytes) -> list[tuple[int, int]]:
    """Return where the handlers of exceptions begin, in units, and how deep the stack is there."""
    found: list[tuple[int, int]] = []
    numbers: list[int] = []
    value = 0
    for byte in table:
        if byte & 128:  # the first of an entry: start, length, target, depth << 1 | lasti
            numbers = []
        value = value << 6 | byte & 63
        if not byte & 64:
            numbers.append(value)
            value = 0
            if len(numbers) == 4:
                found.append((numbers[2], (numbers[3] >> 1) + (numbers[3] & 1) + 1))
    return found
