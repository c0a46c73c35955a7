"""What a thread of a Python process is doing, read from its memory without stopping it.

It goes on meanwhile, so what is read may be torn: whatever does not look like a frame, a code
object or a text ends the reading, and the caller checks that the run was the same before and after.
Layouts are those that the agent told (internals.c).
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tracer.capture.calls import TAG_BITS, Calls
from tracer.capture.lines import line_at
from tracer.events.header import load as load_header

if TYPE_CHECKING:
    from tracer.store.ringfile import RingFile

_MOST_FRAMES = 200
_MOST_CHARACTERS = 4096
_MOST_TABLE_BYTES = 1 << 20
_WITHOUT_CODE = 3  # the first _frameowner whose frames have none (…_BY_CSTACK, …_BY_INTERPRETER)
_ASCII, _COMPACT = 1 << 6, 1 << 5  # PyASCIIObject.state: interned:2, kind:3, compact:1, ascii:1
_PTHREAD_TID = 720  # glibc's struct pthread on x86-64: tid
_ENCODING = {1: "latin-1", 2: "utf-16-le", 4: "utf-32-le"}


@dataclass(frozen=True)
class Frame:
    """A function that is running: its file, its qualified name (before 3.11 its name), its line.

    `calls` is the C function that the innermost one is calling, "" for none, None if not known.
    """

    file: str
    name: str
    line: int
    calls: str | None = None


class _Torn(Exception):
    """What was read is not what it should be."""


# the process may write anything into its memory: no address, no table of lines
_UNREADABLE = (_Torn, OSError, OverflowError, IndexError, ValueError, struct.error)


@dataclass(frozen=True)
class _Code:
    head: tuple[int, ...]  # what tells that the address was not reused
    file: str
    name: str
    table: bytes


class Interpreter:
    """A Python process whose agent has told its layout."""

    def __init__(self, ring: RingFile, tgid: int) -> None:
        """Open its memory; OSError if that is refused or it is gone.

        Args:
            ring: of its agent.
            tgid: process id in our pid namespace.

        """
        self._layout: dict[str, int] = ring.layout
        self._version = ring.hexversion >> 24, ring.hexversion >> 16 & 255
        self._memory = os.open(f"/proc/{tgid}/mem", os.O_RDONLY | os.O_CLOEXEC)
        self._codes: dict[int, _Code] = {}
        self._calls: Calls | None = None
        self._no_offset = load_header().constants["NO_OFFSET"]

    def close(self) -> None:
        """Close its memory."""
        os.close(self._memory)

    def chain(self, tstate: int, base: int = 0) -> tuple[list[Frame], bool]:
        """Return a thread's frames, the innermost first, down to but without the frame at `base`.

        Empty if they could not be read; shorter if that failed on the way. And whether it came to
        `base` (0: to the outermost).
        """
        at = self._layout
        frames: list[Frame] = []
        frame = -1
        try:
            frame = self._pointer(tstate + at["tstate_frame"])
            if at["cframe_frame"] != self._no_offset:
                frame = self._pointer(frame + at["cframe_frame"])
            innermost = frame
            while frame and frame != base and len(frames) < _MOST_FRAMES:
                found, frame = self._frame(frame, calls=frame == innermost)
                if found:
                    frames.append(found)
        except _UNREADABLE:
            pass
        return frames, frame == base

    def collecting(self) -> bool:
        """Say whether garbage is being collected right now, by whoever has the GIL."""
        return self._number("collecting", 0)

    def holder(self) -> int:
        """Return the thread state that has the GIL, 0 if none has."""
        try:
            if self._layout["gil_holder"] and self._number("gil_holder", 8):
                return self._pointer(self._layout["gil_holder"])
        except _UNREADABLE:
            pass
        return 0

    def tid(self, tstate: int) -> int:
        """Return a thread state's thread id as the process sees it, 0 if it is not known."""
        at = self._layout
        try:
            if at["tstate_tid"] != self._no_offset:
                return self._pointer(tstate + at["tstate_tid"])
            thread = self._pointer(tstate + at["tstate_thread"])
            return int.from_bytes(self._read(thread + _PTHREAD_TID, 4), "little")
        except _UNREADABLE:
            return 0

    def _number(self, what: str, behind: int) -> bool:
        place = self._layout[what]
        try:
            return bool(place) and self._read(place + behind, 4) == b"\1\0\0\0"
        except _UNREADABLE:
            return False

    def _read(self, address: int, size: int) -> bytes:
        if size > _MOST_TABLE_BYTES:
            raise _Torn
        data = os.pread(self._memory, size, address)
        if len(data) != size:
            raise _Torn
        return data

    def _pointer(self, address: int) -> int:
        return int.from_bytes(self._read(address, 8), "little")

    def _frame(self, address: int, *, calls: bool) -> tuple[Frame | None, int]:
        """Return a frame (None for one without code) and the address of the one around it."""
        at = self._layout
        names = ("frame_back", "frame_code", "frame_instr", "frame_owner")
        known = [at[name] for name in names if at[name] != self._no_offset]
        raw = self._read(address, max(known) + 8)

        def pointer(name: str) -> int:
            return int(struct.unpack_from("<Q", raw, at[name])[0])

        back, code = pointer("frame_back"), pointer("frame_code") & ~TAG_BITS
        if at["frame_owner"] != self._no_offset and raw[at["frame_owner"]] >= _WITHOUT_CODE:
            return None, back
        if self._pointer(code + at["type"]) != at["code_type"]:
            raise _Torn
        if at["code_start"] != self._no_offset:
            offset = pointer("frame_instr") - code - at["code_start"]
        else:
            offset = int(struct.unpack_from("<i", raw, at["frame_instr"])[0])
            offset *= 2 if self._version == (3, 10) else 1
        known_code = self._code(code)
        first_line = known_code.head[0]
        line = line_at(self._version, known_code.table, first_line, max(offset, 0))
        called = self._called(address, raw, code, offset) if calls else None
        return Frame(known_code.file, known_code.name, line, called), back

    def _called(self, frame: int, raw: bytes, code: int, offset: int) -> str | None:
        """Return the C function that a frame is calling at an instruction, if it is one."""
        at = self._layout
        try:
            if not at["calls"]:
                return None
            self._calls = self._calls or Calls(at, self._read, self._text)
            called = self._calls.at(frame, code, self._codes[code].head, offset // 2)
            return called if self._read(frame, len(raw)) == raw else None
        except _UNREADABLE:
            return None

    def _code(self, address: int) -> _Code:
        at = self._layout
        raw = self._read(address, max(at[n] for n in ("code_file", "code_name", "code_table")) + 8)
        first_line = struct.unpack("<i", self._read(address + at["code_line"], 4))[0]
        pointers = [
            int(struct.unpack_from("<Q", raw, at[name])[0])
            for name in ("code_file", "code_name", "code_table")
        ]
        head = (int(first_line), *pointers)
        found = self._codes.get(address)
        if found is None or found.head != head:
            file, name, table = pointers
            found = _Code(head, self._text(file), self._text(name), self._bytes(table))
            self._codes[address] = found
        return found

    def _text(self, address: int) -> str:
        at = self._layout
        length = self._pointer(address + at["str_length"])
        state = int.from_bytes(self._read(address + at["str_state"], 4), "little")
        kind = state >> 2 & 7
        if not state & _COMPACT or length > _MOST_CHARACTERS or kind not in _ENCODING:
            raise _Torn
        start = at["str_ascii"] if state & _ASCII else at["str_compact"]
        return self._read(address + start, length * kind).decode(_ENCODING[kind], "replace")

    def _bytes(self, address: int) -> bytes:
        at = self._layout
        size = self._pointer(address + at["bytes_size"])
        if size > _MOST_TABLE_BYTES:
            raise _Torn
        return self._read(address + at["bytes_data"], size)


def is_library(file: str, library: str) -> bool:
    """Say whether a file is no code of the user's: as the agent does (strings.c).

    Args:
        file: its path, as in co_filename.
        library: folder of the standard library.

    """
    return (
        "/site-packages/" in file
        or "/dist-packages/" in file
        or file.startswith("<frozen")
        or bool(library and file.startswith(library + "/"))
    )


def plain(frame: Frame) -> dict[str, Any]:
    """Return a frame for JSON."""
    return {"file": frame.file, "line": frame.line, "name": frame.name}
