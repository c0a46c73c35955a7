"""record.h as Python reads it against record.h as the compiler does."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tracer.events.header import Header, load, parse
from tracer.paths import probes_dir

if TYPE_CHECKING:
    from pathlib import Path

HEADER = probes_dir() / "include" / "record.h"
TYPES = "".join(
    f"typedef {'unsigned ' * (letter == 'u')}{ctype} {letter}{bits};\n"
    for letter in "us"
    for ctype, bits in (("char", 8), ("short", 16), ("int", 32), ("long long", 64))
).replace("typedef char", "typedef signed char")


@pytest.fixture(scope="module")
def header() -> Header:
    """Return record.h."""
    return load()


def test_the_compiler_sees_the_same_layout(header: Header, tmp_path: Path) -> None:
    """Every struct and field has in numpy the size and offset that C gives it."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    lines = []
    for struct in re.findall(r"^struct (\w+) \{", HEADER.read_text(), re.MULTILINE):
        record = header.records[struct.removeprefix("ev_")]
        lines.append(f'printf("\\"{struct}\\": [%zu", sizeof(struct {struct}));')
        lines += [
            f'printf(", %zu, %zu", offsetof(struct {struct}, {c.name}),'
            f" sizeof(((struct {struct} *)0)->{c.name}));"
            for c in record.columns
        ]
        lines.append('printf("],\\n");')
    source = tmp_path / "layout.c"
    source.write_text(
        f"#include <stddef.h>\n#include <stdio.h>\n{TYPES}#include <record.h>\n"
        'int main(void) { printf("{");\n' + "\n".join(lines) + '\nprintf("\\"\\": []}"); }\n'
    )
    program = tmp_path / "layout"
    subprocess.run([compiler, "-I", HEADER.parent, "-o", program, source], check=True)
    said = json.loads(subprocess.run([program], capture_output=True, check=True).stdout)
    del said[""]
    assert len(said) == len(header.records) > 20
    for struct, numbers in said.items():
        dtype = header.records[struct.removeprefix("ev_")].dtype
        ours = [dtype.itemsize]
        for name in dtype.names or ():
            field = dtype.fields[name]
            ours += [field[1], field[0].itemsize]
        assert ours == numbers, struct


def test_records_fill_their_slots(header: Header) -> None:
    """Kernel records are 56 bytes and agent records 64, with the kind where the readers look."""
    for record in header.records.values():
        if record.kind is None:
            assert record.name in ("agent_ring", "agent_calls", "agent_instruction")
            continue
        assert record.dtype.itemsize == (56 if record.kind < 32 else 64), record.name
        assert record.dtype.fields["ts_ns"][1] == 0, record.name
        assert record.dtype.fields["tid"][1] == 8, record.name
        assert record.dtype.fields["kind"][1] == 14, record.name


def test_kinds_are_unique_and_each_has_its_record(header: Header) -> None:
    """A number names one record; the maxima are above all of theirs and fit the gap's bits."""
    kinds = {n: v for n, v in header.constants.items() if n.startswith("KIND_")}
    limits = {name: kinds.pop(name) for name in ("KIND_MAX", "KIND_AGENT_MAX")}
    assert len(set(kinds.values())) == len(kinds)
    for name, kind in kinds.items():
        assert header.by_kind(kind).name == name.removeprefix("KIND_").lower()
        assert kind < limits["KIND_MAX"] or 32 <= kind < limits["KIND_AGENT_MAX"]
    assert limits["KIND_MAX"] <= 32
    (counters,) = header.records["agent_ring"].dtype["lost"].shape
    assert limits["KIND_AGENT_MAX"] <= 32 + counters
    with pytest.raises(KeyError):
        header.by_kind(limits["KIND_MAX"])


@pytest.mark.parametrize("prefix", ["FLAG_", "RUN_"])
def test_flags_are_single_bits_of_a_byte(header: Header, prefix: str) -> None:
    """No flag shares a bit with another one of its set."""
    flags = [v for n, v in header.constants.items() if n.startswith(prefix)]
    assert len(flags) == len(set(flags)) > 6
    assert all(v.bit_count() == 1 and v < 256 for v in flags)


def test_everything_is_documented(header: Header) -> None:
    """Each field has a comment, and each event has one line above it."""
    for record in header.records.values():
        assert all(c.doc for c in record.columns), record.name
        if record.kind is not None:
            assert record.doc.endswith("."), record.name


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ("\tu64 ts_ns;        /* time */\n\tu32 tid;\n", "without a comment"),
        ("\tu32 tid;          /* thread */\n\tu64 ts_ns;        /* time */\n", "padding"),
    ],
)
def test_a_struct_that_breaks_the_rules_is_refused(body: str, complaint: str) -> None:
    """A field that cannot be a column, or a hole, is an error with the struct's name."""
    with pytest.raises(ValueError, match=f"ev_bad .*{complaint}"):
        parse(f"/* A bad one. */\nstruct ev_bad {{\n{body}}};\n")
