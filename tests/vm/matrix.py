"""Run the demo and the ground truth on several kernels; write what each hook became on them.

    python tests/vm/matrix.py

Exit code 1 if a kernel of a release is wrong. sid's kernel only warns: its versions vanish.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

sys.path += [str(Path(__file__).parent), str(Path(__file__).resolve().parents[1])]
from images import ROOT, BuildFailed, kernel_of, root_of
from loads import run_pair, what_is_wrong
from machine import GuestFailed, Lab

README = ROOT / "probes" / "README.md"
BEGIN, END = "<!-- kernels: make vm-matrix -->", "<!-- kernels end -->"


@dataclass(frozen=True)
class Machine:
    """A kernel under a userland, each of a Debian suite; `must` says whether it may fail."""

    kernel: str
    userland: str
    must: bool = True


MACHINES = (
    Machine("bookworm", "bookworm"),
    Machine("bookworm-backports", "bookworm"),
    Machine("trixie", "trixie"),
    Machine("sid", "trixie", must=False),
)


def look_at(machine: Machine) -> tuple[str, dict[str, str]]:
    """Run both guests; return the kernel's release and the rung of each hook.

    Raises:
        BuildFailed, GuestFailed: there is no such machine, or it did not come to the end.
        AssertionError: what it recorded is wrong.

    """
    lab = Lab(kernel_of(machine.kernel, tell), root_of(machine.userland, tell))
    with tempfile.TemporaryDirectory(prefix="awaitscope-matrix-") as folder:
        pair = run_pair(lab, Path(folder), tell)
        wrong = what_is_wrong(pair)
        assert not wrong, "; ".join(wrong)
        return lab.kernel.release, {p["hook"]: p["rung"] for p in pair.load.info["probes"]}


def table(found: dict[str, dict[str, str]]) -> str:
    """Return the table of hooks and kernels in Markdown."""
    kernels = list(found)
    lines = [f"| hook | {' | '.join(kernels)} |", "|---" * (len(kernels) + 1) + "|"]
    hooks = dict.fromkeys(hook for rungs in found.values() for hook in rungs)
    for hook in hooks:
        rungs = [found[kernel].get(hook, "–").replace("_", " ") for kernel in kernels]
        lines.append(f"| {hook} | {' | '.join(rungs)} |")
    return "\n".join(lines)


def write(text: str) -> None:
    """Put the table between its marks in the README of the probes."""
    before, _, rest = README.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    README.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


def tell(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)


def main() -> int:
    """Look at each machine in turn."""
    argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0]).parse_args()
    found, failed = {}, False
    for machine in MACHINES:
        name = f"{machine.kernel}'s kernel, {machine.userland}'s userland"
        try:
            release, rungs = look_at(machine)
        except (BuildFailed, GuestFailed, AssertionError) as error:
            tell(f"{'FAILED' if machine.must else 'warning'}: {name}: {error}")
            failed = failed or machine.must
            continue
        count = sum(rung != "absent" for rung in rungs.values())
        tell(f"ok: {name} ({release}): 0 wrong, {count} of {len(rungs)} hooks")
        found[f"{release} ({machine.userland})"] = rungs
    if found and not failed:
        write(table(found))
        tell(f"written to {README.relative_to(ROOT)}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
