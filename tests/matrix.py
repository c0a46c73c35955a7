"""Run the loads on every CPython and loop that this machine has, and count what traces have wrong.

    sudo make test-matrix          # all that there is
    sudo .venv/bin/python tests/matrix.py --python 3.13 --load redis_pool

Interpreters: of AWAITSCOPE_TEST_PYTHONS (paths, separated by colons), on PATH, of pyenv, Debian's.
Each gets a virtual environment of its own in .matrix. What is missing is named, never passed over.
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

from coded_loads import LOADS, OTHER_LOADS, ROOT, Load, Peers, peers
from tabulate import tabulate
from tracing import APPS, COMMAND, Traced
from verdict import verdict

VERSIONS = [(3, minor) for minor in range(9, 16)]
LOOPS = ("asyncio",)
ALL = {**LOADS, **OTHER_LOADS}
PLACE = ROOT / ".matrix"
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
    for path in [*told, "/usr/bin/python3", *names, *known]:
        if not path:
            continue
        done = subprocess.run([path, "-I", "-c", TELL], capture_output=True, text=True, check=False)
        if done.returncode or len(done.stdout.split()) != 5:
            continue
        major, minor, implementation, flags, version = done.stdout.split()
        if implementation == "cpython" and "t" not in flags:
            found.setdefault((int(major), int(minor)), (path, version))
    return found


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
        if said["wanted"] == wanted:
            return inside, set(said["missing"])
    subprocess.run([python, "-m", "venv", "--clear", folder], check=True)
    missing = set()
    for name in wanted:
        print(f"matrix: {folder.name}: pip install {name}", file=sys.stderr)
        pip = [inside, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", name]
        if subprocess.run(pip, capture_output=True, check=False).returncode:
            missing.add(name.partition("[")[0])
    stamp.write_text(json.dumps({"wanted": wanted, "missing": sorted(missing)}))
    return inside, missing


def cell(command: list[str], trace: Path) -> dict[str, Any]:
    """Trace a load and judge the trace."""
    run = [str(COMMAND), "run", "--force", "-o", str(trace), "--", *command]
    done = subprocess.run(run, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["?"])[-1]
        return {"note": f"ended with {done.returncode}: {last[:60]}", "failed": True}
    traced = Traced(trace, json.loads(done.stdout.splitlines()[-1]))
    agents = {t["tgid"]: t for t in traced.info["targets"]}
    mine = agents.get(traced.truth["tgid"], {})
    if mine.get("agent") != "c":
        return {"note": f"no agent: {mine.get('reason')}", "failed": True}
    said = verdict(traced)
    counts = {name: getattr(said, name) for name in ("noted", "inferred", "unattributed")}
    lost = traced.info["lost_total"]
    note = f"{lost} records lost" if lost else ""
    return {**counts, "wrong": len(said.wrong), "note": note, "failed": not said.good}


def rows_of(
    version: tuple[int, int], python: str, loads: list[str], made: Peers, trace: Path
) -> list[dict[str, Any]]:
    """Return a row for each loop and load of an interpreter."""
    inside, missing = environment(version, python)
    rows = []
    for loop in LOOPS:
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
                options = [*load.arguments, *made.options(load)]
                options += ["--loop", loop] if loop != LOOPS[0] else []
                row |= cell([str(inside), app, *options], trace)
            rows.append(row)
            print("matrix:", *version, *row.values(), file=sys.stderr)
    return rows


def main() -> int:
    """Print the table; 1 if a cell is wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", action="append", help="such as 3.12; default: all")
    parser.add_argument("--load", action="append", choices=sorted(ALL), help="default: all")
    options = parser.parse_args()
    found, rows = interpreters(), []
    wanted = [tuple(map(int, text.split("."))) for text in options.python or []] or VERSIONS
    loads = options.load or list(ALL)
    with (
        tempfile.TemporaryDirectory(prefix="awaitscope-matrix-") as folder,
        peers(Path(folder)) as made,
    ):
        for version in wanted:
            if version in found:
                python, full = found[version]
                new = rows_of(version, python, loads, made, Path(folder) / "trace")
                rows += [{"python": full, **row} for row in new]
    heads = ("python", "loop", "load", "noted", "wrong", "inferred", "unattributed", "note")
    print(tabulate([[row.get(head) for head in heads] for row in rows], heads))
    absent = [".".join(map(str, version)) for version in wanted if version not in found]
    print(f"\nnot on this machine: CPython {', '.join(absent) or 'none'}")
    bad = [row for row in rows if row.get("failed")]
    print(f"{len(rows) - len(bad)} cells passed or named what they lack, {len(bad)} failed")
    return 1 if bad or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
