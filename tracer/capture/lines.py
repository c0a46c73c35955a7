"""From a place in bytecode to its line: CPython's line tables.

Facts: Objects/lnotab_notes.txt (3.9, 3.10), Objects/locations.md (3.11 and later).
"""

from __future__ import annotations

_NO_LINE = -128


def line_at(version: tuple[int, int], table: bytes, first_line: int, offset: int) -> int:
    """Return the line of the instruction at an offset in bytes; first_line if it has none."""
    if version >= (3, 11):
        return _locations(table, first_line, offset)
    return _pairs(table, first_line, offset, of_3_10=version == (3, 10))


def _signed(byte: int) -> int:
    return byte - 256 if byte > 127 else byte


def _pairs(table: bytes, first_line: int, offset: int, *, of_3_10: bool) -> int:
    """Add up pairs of increments of the address and of the line.

    Up to 3.9 a line begins at the address of its pair, in 3.10 it ends there.
    """
    address, line = 0, first_line
    for at in range(0, len(table) - 1, 2):
        step, delta = table[at], _signed(table[at + 1])
        if of_3_10:
            if delta != _NO_LINE:
                line += delta
            address += step
            if offset < address:
                return line if delta != _NO_LINE else first_line
        else:
            address += step
            if offset < address:
                return line
            line += delta
    return line


def _locations(table: bytes, first_line: int, offset: int) -> int:
    """Walk the entries; each is for one to eight code units of two bytes."""
    line, end, at = first_line, 0, 0
    while at < len(table):
        code, units = (table[at] >> 3) & 15, (table[at] & 7) + 1
        at += 1
        if code in (13, 14):
            delta, at = _varint(table, at)
            line += -(delta >> 1) if delta & 1 else delta >> 1
        elif 10 <= code <= 12:
            line += code - 10
        while at < len(table) and not table[at] & 128:
            at += 1  # the rest of this entry: columns
        end += 2 * units
        if offset < end:
            return line if code != 15 else first_line
    return line


def _varint(table: bytes, at: int) -> tuple[int, int]:
    """Return a number in pieces of six bits, the least first, and where the next thing begins."""
    value = shift = 0
    while at < len(table):
        byte = table[at]
        at += 1
        value |= (byte & 63) << shift
        shift += 6
        if not byte & 64:
            break
    return value, at
