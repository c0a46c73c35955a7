"""Run the loads on every CPython and loop that this machine has, and count what traces have wrong.

    sudo make test-matrix          # all that there is
    sudo .venv/bin/python tests/matrix.py --python 3.13 --load redis_pool
    sudo .venv/bin/python tests/matrix.py --light           # the agent in Python

Interpreters: of AWAITSCOPE_TEST_PYTHONS (paths, separated by colons), on PATH, of pyenv; what is
lacking then is unpacked from Debian's archive. They and a virtual environment of each are kept in
.matrix. What could not be had is named, never passed over.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from coded_loads import LOADS, OTHER_LOADS, Load, Peers, peers
from tabulate import tabulate
from tracing import APPS, COMMAND, Traced, bare
from verdict import verdict

from tests.debian import BuildFailed
from tests.unpacked import PLACE, install, make_environment, unpacked

VERSIONS = [(3, minor) for minor in range(9, 16)]
LOOPS = ("asyncio", "uvloop")
ALL = {**LOADS, **OTHER_LOADS}
# of a cell: what the program told of and the trace has or not; its rows that moved bytes, how sure
COUNTS = ("right", "wrong", "missing", "rows", "inferred", "unattributed")
TELL = (
    "import sys; print(*sys.version_info[:2], sys.implementation.name, sys.abiflags or '-',"
    " sys.version.split()[0])"
)


def interpreters() -> dict[tuple[int, int], tuple[str, str]]:
    """Return (path, version) of a CPython of each version that the machine has."""
    told = os.environ.get("AWAITSCOPE_TEST_PYTHONS", "").split(":")
    names = [shutil.which(f"python{major}.{minor}") for major, minor in VERSIONS]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    known = [str(path) for path in sorted(pyenv.glob("*/bin/python"), reverse=True)]
    found: dict[tuple[int, int], tuple[str, str]] = {}
    for path in filter(None, [*told, "/usr/bin/python3", *names, *known]):
        version, full = look(path)
        if version:
            found.setdefault(version, (path, full))
    return found


def look(path: Path | str) -> tuple[tuple[int, int] | None, str]:
    """Return an interpreter's version; None if it is no CPython with a GIL, or does not run."""
    done = subprocess.run([path, "-I", "-c", TELL], capture_output=True, text=True, check=False)
    if done.returncode or len(done.stdout.split()) != 5:
        return None, "does not run"
    major, minor, implementation, flags, full = done.stdout.split()
    known = implementation == "cpython" and "t" not in flags
    return (int(major), int(minor)) if known else None, full


def lacking(
    wanted: list[tuple[int, int]], found: dict[tuple[int, int], tuple[str, str]]
) -> dict[tuple[int, int], str]:
    """Add what can be unpacked to `found`; return why the rest is lacking."""
    why = {}
    for version in wanted:
        if version in found:
            continue
        try:
            path = unpacked("python{}.{}".format(*version))
        except BuildFailed as error:
            why[version] = str(error)
            continue
        seen, full = look(path)
        if seen == version:
            found[version] = (str(path), full + " (Debian)")
        else:
            why[version] = f"{path}: {full}"
    return why


def environment(version: tuple[int, int], python: str) -> tuple[Path, set[str]]:
    """Return the interpreter of a virtual environment and the packages that it could not get."""
    folder = PLACE / ".".join(map(str, version))
    inside = folder / "bin" / "python"
    wanted = sorted({name for load in ALL.values() for name in load.packages} - {"h2"})
    wanted = ["httpx[http2]" if name == "httpx" else name for name in wanted]
    wanted += [loop for loop in LOOPS if loop != "asyncio"]
    stamp = folder / "packages.json"
    if stamp.exists():
        said = json.loads(stamp.read_text())
        if (said["python"], said["wanted"]) == (python, wanted):
            return inside, set(said["missing"])
    make_environment(python, folder)
    missing = set()
    for name in wanted:
        print(f"matrix: {folder.name}: pip install {name}", file=sys.stderr)
        if not install(inside, name):
            missing.add(name.partition("[")[0])
    stamp.write_text(json.dumps({"python": python, "wanted": wanted, "missing": sorted(missing)}))
    return inside, missing


def cell(command: list[str], trace: Path, env: dict[str, str], agent: str) -> dict[str, Any]:
    """Trace a load with an agent, "c" or "light", and judge the trace."""
    run = [str(COMMAND), "run", "--force", "-o", str(trace), "--", *command]
    done = subprocess.run(run, capture_output=True, text=True, timeout=120, check=False, env=env)
    if done.returncode:
        plain = subprocess.run(command, capture_output=True, timeout=120, check=False)
        if plain.returncode:
            return {"note": f"ends with {plain.returncode} without awaitscope, too"}
        last = (done.stderr.strip().splitlines() or ["?"])[-1]
        return {"note": f"ended with {done.returncode}: {last[:60]}", "failed": True}
    traced = Traced(trace, json.loads(done.stdout.splitlines()[-1]))
    agents = {t["tgid"]: t for t in traced.info["targets"]}
    mine = agents.get(traced.truth["tgid"], {})
    if mine.get("agent") != agent:
        found = mine.get("agent")
        return {"note": f"agent {found}, not {agent}: {mine.get('reason')}", "failed": True}
    said = verdict(traced)
    lost, missed = traced.info["lost_total"], len(said.missed)
    notes = [f"{lost} records lost"] if lost else []
    notes += [f"{missed} inferred though a wake edge was there"] if missed else []
    return {
        "right": said.right,
        "wrong": len(said.wrong),
        "missing": len(said.missing),
        "inferred": said.inferred,
        "unattributed": said.unattributed,
        "rows": said.moving,
        "note": ", ".join(notes),
        "failed": not said.good,
    }


def rows_of(
    version: tuple[int, int], python: str, options: argparse.Namespace, made: Peers, trace: Path
) -> list[dict[str, Any]]:
    """Return a row for each loop and load of an interpreter."""
    inside, missing = environment(version, python)
    env = bare(trace.parent) if options.light else dict(os.environ)
    agent, rows = "light" if options.light else "c", []
    loads = options.load or list(ALL)
    for loop in options.loop or LOOPS:
        for name in loads:
            load: Load = ALL[name]
            row: dict[str, Any] = {"loop": loop, "load": name}
            lacks = sorted({p.partition("[")[0] for p in (*load.packages, loop)} & missing)
            if version < load.since:
                row["note"] = "needs CPython {}.{}".format(*load.since)
            elif lacks:
                row["note"] = f"pip could not install {', '.join(lacks)}"
            else:
                app = str(APPS / f"{load.app or name}.py")
                given = [*load.arguments, *made.options(load)]
                given += ["--loop", loop] if loop != LOOPS[0] else []
                row |= cell([str(inside), app, *given], trace, env, agent)
            rows.append(row)
            print("matrix:", *version, *row.values(), file=sys.stderr)
    return rows


def main() -> int:
    """Print the table; 1 if a cell failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", action="append", help="such as 3.12; default: all")
    parser.add_argument("--load", action="append", choices=sorted(ALL), help="default: all")
    parser.add_argument("--loop", action="append", choices=LOOPS, help="default: both")
    parser.add_argument("--light", action="store_true", help="with the agent in Python")
    parser.add_argument("--json", action="store_true", help="print JSON instead of the table")
    options = parser.parse_args()
    found, rows = interpreters(), []
    wanted = [tuple(map(int, text.split("."))) for text in options.python or []] or VERSIONS
    absent = lacking(wanted, found)
    with (
        tempfile.TemporaryDirectory(prefix="awaitscope-matrix-") as folder,
        peers(Path(folder)) as made,
    ):
        for version in wanted:
            if version in found:
                python, full = found[version]
                new = rows_of(version, python, options, made, Path(folder) / "trace")
                rows += [{"python": full, **row} for row in new]
    bad = [row for row in rows if row.get("failed")]
    tell = tell_json if options.json else tell_table
    tell(rows, {"CPython {}.{}".format(*version): why for version, why in absent.items()})
    return 1 if bad or not rows else 0


def tell_json(rows: list[dict[str, Any]], absent: dict[str, str]) -> None:
    """Print the cells and why interpreters are not among them."""
    print(json.dumps({"cells": rows, "absent": absent}, indent=1))


def tell_table(rows: list[dict[str, Any]], absent: dict[str, str]) -> None:
    """Print a line for each cell, what is not among them, and sums."""
    names = ("python", "loop", "load", *COUNTS, "note")
    print(tabulate([[row.get(name) for name in names] for row in rows], names))
    print()
    for name, why in absent.items():
        print(f"not to be had here: {name}:", why)
    run = [row for row in rows if "failed" in row]
    bad = sum(row["failed"] for row in run)
    sums = ", ".join(f"{sum(row.get(name, 0) for row in run)} {name}" for name in COUNTS)
    print(f"{len(run)} cells run, {bad} failed, {len(rows) - len(run)} lack what the note names")
    print(f"all together: {sums}")


if __name__ == "__main__":
    sys.exit(main())
