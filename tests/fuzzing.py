"""Damage to trace folders, drawn by hypothesis, and what the commands make of it."""

from __future__ import annotations

import json
import os
import resource
import select
import shutil
import signal
import struct
import traceback
from typing import TYPE_CHECKING, Any

from click.testing import CliRunner
from hypothesis import strategies as st

from tracer.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path

COMMANDS: tuple[tuple[str, ...], ...] = (
    ("info",),
    ("tasks",),
    ("awaits", "--slowest", "5"),
    ("awaits", "--group", "where"),
    ("steps",),
    ("timeline",),
    ("blocking", "--over", "1"),
    ("schema",),
    ("query", 'SELECT sum(total_ns) FROM "await"'),
    ("export", "--to", "chrome", "-o", "-"),
)
# wrong usage: where the damage left no await to show, or another table in a table's place
USAGE = [(2, "steps"), (2, "timeline"), (2, "query")]
SECONDS = 25
MEMORY_BYTES = 3 << 30  # DuckDB's threads reserve address space
EXTREMES = (0, 1, (1 << 31) - 1, (1 << 32) - 1, 1 << 60, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
VALUES: tuple[Any, ...] = (None, -1, 1 << 70, 0.5, "x", "\udcff", [], {}, [None], {"x": 1}, True)


def files_of(folder: Path) -> list[str]:
    """Return the names of a trace's files, sorted."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@st.composite
def damages(draw: st.DrawFn, files: list[str]) -> list[tuple[Any, ...]]:
    """Draw a few things that go wrong with a folder of these files."""
    where = st.floats(0, 1, allow_nan=False)
    name = st.sampled_from(files)
    one = st.one_of(
        st.tuples(st.just("cut"), name, where),
        st.tuples(st.just("remove"), name),
        st.tuples(st.just("flip"), name, where, st.integers(1, 255)),
        st.tuples(st.just("number"), name, where, st.sampled_from(EXTREMES)),
        st.tuples(st.just("swap"), name, name),
        st.tuples(st.just("grow"), name, st.binary(min_size=1, max_size=200)),
        st.tuples(
            st.just("replace"), name, st.sampled_from(["folder", "pipe", "zeros", "nothing"])
        ),
        st.tuples(st.just("json"), where, st.sampled_from(["drop", *range(len(VALUES))])),
    )
    return draw(st.lists(one, min_size=1, max_size=4))


def apply(folder: Path, damage: tuple[Any, ...]) -> None:
    """Do one damage, as far as what came before left something to damage."""
    kind, *rest = damage
    if kind == "json":
        _damage_manifest(folder / "manifest.json", *rest)
        return
    path = folder / rest[0]
    if not path.is_file() or path.is_symlink():
        return
    if kind == "remove":
        path.unlink()
    elif kind == "swap":
        other = folder / rest[1]
        if other.is_file() and other != path:
            shutil.copyfile(other, folder / "aside")
            shutil.copyfile(path, other)
            (folder / "aside").replace(path)
    elif kind == "replace":
        path.unlink()
        {
            "folder": path.mkdir,
            "pipe": lambda: os.mkfifo(path),
            "zeros": lambda: path.symlink_to("/dev/zero"),
            "nothing": path.touch,
        }[rest[1]]()
    else:
        path.write_bytes(_damaged(bytearray(path.read_bytes()), kind, *rest[1:]))


def _damaged(data: bytearray, kind: str, where: Any, what: int = 0) -> bytearray:
    if kind == "grow":
        return data + where
    at = int(len(data) * where)
    if kind == "cut":
        return data[:at]
    if kind == "flip" and at < len(data):
        data[at] ^= what
    elif kind == "number" and len(data) >= 8:
        struct.pack_into("<Q", data, min(at, len(data) - 8) // 8 * 8, what)
    return data


def _damage_manifest(path: Path, where: float, what: str | int) -> None:
    if not path.is_file():
        return
    try:
        manifest = json.loads(path.read_text())
    except ValueError:
        return
    places: list[tuple[Any, Any]] = []

    def collect(node: Any) -> None:
        children = node.items() if isinstance(node, dict) else enumerate(node)
        for key, child in children:
            places.append((node, key))
            if isinstance(child, (dict, list)):
                collect(child)

    if not isinstance(manifest, dict):
        return
    collect(manifest)
    if places:
        node, key = places[min(int(where * len(places)), len(places) - 1)]
        if what == "drop":
            del node[key]
        else:
            node[key] = VALUES[int(what)]
        path.write_text(json.dumps(manifest))


def outcomes(folder: Path, commands: tuple[tuple[str, ...], ...] = COMMANDS) -> list[str]:
    """Return what went wrong with the commands on a damaged trace: nothing, it is hoped.

    They run in a child with little time and memory, which a crash does not leave.
    """
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        said = [text for words in commands if (text := _outcome(folder, words))]
        os.write(write, json.dumps(said).encode()[:60_000])
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        if not select.select([pipe], [], [], SECONDS)[0]:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return [f"not done after {SECONDS} s"]
        text = pipe.read()
    status = os.waitpid(child, 0)[1]
    if not text:
        return [f"the command ended with {os.waitstatus_to_exitcode(status)}"]
    return list(json.loads(text))


def _outcome(folder: Path, words: tuple[str, ...]) -> str | None:
    name, *more = words
    done = CliRunner().invoke(main, [name, str(folder), *more])
    if done.exception and not isinstance(done.exception, SystemExit):
        return f"{words}: " + "".join(traceback.format_exception(done.exception)[-6:])
    if done.exit_code not in (0, 6) and (done.exit_code, name) not in USAGE:
        return f"{words}: exit code {done.exit_code}: {done.stderr[-500:]}"
    lines = [line for line in done.stderr.splitlines() if line.startswith("awaitscope: ")]
    if done.exit_code and len(lines) != 1:
        return f"{words}: no clear error: {done.stderr[-500:]}"
    return None
