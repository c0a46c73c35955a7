"""Read `probes/include/record.h`: structs, columns, numpy dtypes and constants.

This is the Python side of the one definition of an event record. Nothing here knows a
particular event.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from tracer.paths import probes_dir

if TYPE_CHECKING:
    from pathlib import Path

_BASE = {
    "u8": "<u1",
    "u16": "<u2",
    "u32": "<u4",
    "u64": "<u8",
    "s8": "<i1",
    "s16": "<i2",
    "s32": "<i4",
    "s64": "<i8",
}
_STRUCT = re.compile(r"^struct (\w+) \{\n(.*?)^\};", re.MULTILINE | re.DOTALL)
_FIELD = re.compile(r"^\t(\w+) (\w+)(?:\[(\d+)\])?;\s*/\* (.*?) \*/$", re.MULTILINE)
_DEFINE = re.compile(r"^#define (\w+) (0x[0-9A-Fa-f]+|\d+)(?:ULL)?\b", re.MULTILINE)


@dataclass(frozen=True)
class Column:
    """One field of a record: its C type, its array length (0: scalar) and its description."""

    name: str
    ctype: str
    count: int
    doc: str


@dataclass(frozen=True)
class Record:
    """One `struct` of record.h.

    `dtype` has the C layout (natural alignment, no padding: checked). `kind` is its number,
    None for a struct that is no event (`agent_ring`).
    """

    name: str
    doc: str
    columns: tuple[Column, ...]
    kind: int | None
    dtype: np.dtype[np.void]


@dataclass(frozen=True)
class Header:
    """All of record.h: records by name without `ev_`, and its numeric constants."""

    records: dict[str, Record]
    constants: dict[str, int]

    def by_kind(self, kind: int) -> Record:
        """Return the record with this number; KeyError if record.h has none."""
        for record in self.records.values():
            if record.kind == kind:
                return record
        raise KeyError(kind)


def parse(text: str) -> Header:
    """Parse the text of record.h; ValueError names a struct that breaks its rules."""
    constants = {name: int(value, 0) for name, value in _DEFINE.findall(text)}
    records = {}
    for match in _STRUCT.finditer(text):
        struct = match.group(1)
        columns = tuple(
            Column(name, ctype, int(count or 0), doc)
            for ctype, name, count, doc in _FIELD.findall(match.group(2))
        )
        if len(columns) != len(match.group(2).splitlines()):
            raise ValueError(f"record.h: struct {struct} has a field without a comment")
        name = struct.removeprefix("ev_")
        records[name] = Record(
            name=name,
            doc=_doc_above(text, match.start()),
            columns=columns,
            kind=constants.get("KIND_" + name.upper()) if struct.startswith("ev_") else None,
            dtype=_dtype(struct, columns),
        )
    return Header(records, constants)


def _doc_above(text: str, start: int) -> str:
    line = text[:start].rstrip("\n").rsplit("\n", 1)[-1].strip()
    return line[2:-2].strip() if line.startswith("/*") and line.endswith("*/") else ""


def _dtype(struct: str, columns: tuple[Column, ...]) -> np.dtype[np.void]:
    fields: list[tuple[str, str] | tuple[str, str, tuple[int]]] = []
    for column in columns:
        if column.ctype == "char":
            fields.append((column.name, f"S{column.count}"))
        elif column.count:
            fields.append((column.name, _BASE[column.ctype], (column.count,)))
        else:
            fields.append((column.name, _BASE[column.ctype]))
    dtype = np.dtype(fields, align=True)
    if dtype.itemsize != np.dtype(fields).itemsize:
        raise ValueError(f"record.h: struct {struct} has padding")
    return dtype


@cache
def load(path: Path | None = None) -> Header:
    """Parse record.h (by default the one that the probes are compiled with), once."""
    return parse((path or probes_dir() / "include" / "record.h").read_text())
