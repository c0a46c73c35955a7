"""Lines of instructions, for the tables of every CPython that there is here."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.unit.agent_ring import PYTHONS, path_of
from tracer.capture.lines import line_at

# what an interpreter says of its own functions: table, first line, and the line of each instruction
TELL = """
import dis, json, sys, types
def walk(code):
    yield code
    for const in code.co_consts:
        if isinstance(const, types.CodeType):
            yield from walk(const)
said = []
for path in sys.argv[1:]:
    with open(path) as file:
        whole = compile(file.read(), path, "exec")
    for code in walk(whole):
        new = sys.version_info >= (3, 10)
        table = code.co_linetable if new else code.co_lnotab
        if new:
            lines = [[a, b, n] for a, b, n in code.co_lines() if b > a and n is not None]
        else:
            starts = [*dis.findlinestarts(code), (len(code.co_code), None)]
            lines = [[a, b, n] for (a, n), (b, _) in zip(starts, starts[1:])]
        said.append([table.hex(), code.co_firstlineno, lines])
print(json.dumps([list(sys.version_info[:2]), said]))
"""


@pytest.mark.parametrize("python", PYTHONS)
def test_lines_are_the_interpreters(python: str) -> None:
    """Each instruction has the line that its interpreter gives it."""
    some = [__file__, json.__file__, subprocess.__file__]
    done = subprocess.run(
        [path_of(python), "-c", TELL, *map(str, map(Path, some))],
        capture_output=True,
        text=True,
        check=True,
    )
    version, codes = json.loads(done.stdout)
    seen = 0
    for table, first_line, lines in codes:
        for start, end, line in lines:
            for offset in (start, end - 2):
                found = line_at(tuple(version), bytes.fromhex(table), first_line, offset)
                assert found == line, (table, first_line, offset)
                seen += 1
    assert seen > 1000
