"""Compare how fast two programs run untraced, at each level, and (the echo) under strace.

    sudo .venv/bin/python tests/bench/compare.py --rounds 8

A machine's speed drifts, so only runs of the same round are compared: each round runs every
variant once, in another order, and gives one ratio per variant. Shown is the median over rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tabulate import tabulate

sys.path.append(str(Path(__file__).parents[2] / "demos"))

from lab import private_postgres

HERE = Path(__file__).parent

# asyncio asks for 256 KiB at each receive. By default glibc learns from the first frees whether
# that is an mmap each time, and an agent's allocations change what it learns: another program.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(1 << 20), "MALLOC_TRIM_THRESHOLD_": str(64 << 20)}
UNTRACED, STRACE = "untraced", "strace"
LEVELS = {f"level {level}": level for level in (1, 2, 3)}
STRACE_SHARE = 10  # strace gets a tenth of the round trips: it is that slow


@dataclass(frozen=True)
class Sizes:
    """Say how much to run; the defaults take some four minutes."""

    rounds: int = 4
    round_trips: int = 48_000
    queries: int = 12_000


@dataclass(frozen=True)
class Workload:
    """Name a program, what it counts, and the process at its other end."""

    name: str
    unit: str
    arguments: tuple[str, ...]
    count: int
    also: tuple[str, ...] = ()

    def command(self, variant: str) -> list[str]:
        """Return the untraced command."""
        count = self.count // STRACE_SHARE if variant == STRACE else self.count
        option = "--" + self.unit.replace("_", "-")
        return [sys.executable, *self.arguments, option, str(count)]


@dataclass(frozen=True)
class Sample:
    """Hold one run: operations a second, and what `info --json` says of its trace."""

    per_second: float
    operations: int  # with the warm-up, which is in the trace too
    info: dict[str, Any] | None = None


def run(workload: Workload, variant: str, trace: Path) -> Sample:
    """Run a workload once."""
    awaitscope = str(Path(sys.executable).with_name("awaitscope"))
    before: list[str] = []
    if variant == STRACE:
        before = ["strace", "-f", "-o", os.devnull, "--"]
    elif variant in LEVELS:
        before = [awaitscope, "run", "-o", str(trace), "--force", "--level", str(LEVELS[variant])]
        before += [part for process in workload.also for part in ("--also", process)] + ["--"]
    said = json.loads(output([*before, *workload.command(variant)]).splitlines()[-1])
    per_second = said[workload.unit] / said["seconds"]
    operations = said[workload.unit] + said["warm_up"]
    if variant not in LEVELS:
        return Sample(per_second, operations)
    return Sample(
        per_second, operations, json.loads(output([awaitscope, "info", str(trace), "--json"]))
    )


def output(command: list[str]) -> str:
    """Return what a command prints; one that fails ends the comparison."""
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **MALLOC}, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{command} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout


def compare(workload: Workload, variants: list[str], rounds: int) -> list[dict[str, Any]]:
    """Run all rounds of a workload and return a row for each variant."""
    samples: dict[str, list[Sample]] = {variant: [] for variant in variants}
    with tempfile.TemporaryDirectory(prefix="awaitscope-bench-") as folder:
        for number in range(rounds):
            turn = number % len(variants)
            for variant in variants[turn:] + variants[:turn]:
                print(
                    f"{workload.name}: round {number + 1} of {rounds}, {variant}", file=sys.stderr
                )
                samples[variant].append(run(workload, variant, Path(folder, "trace")))
    return [
        {"workload": workload.name, "variant": variant, **summary(samples, variant)}
        for variant in variants
    ]


def summary(samples: dict[str, list[Sample]], variant: str) -> dict[str, Any]:
    """Return the medians over a variant's rounds; `lost` is the sum."""
    pairs = zip(samples[variant], samples[UNTRACED], strict=True)
    ratios = [mine.per_second / untraced.per_second for mine, untraced in pairs]
    row: dict[str, Any] = {
        "per_second": median(sample.per_second for sample in samples[variant]),
        "per_second_rounds": [sample.per_second for sample in samples[variant]],
        "ratios": ratios,
        "ratio": median(ratios),
    }
    traced = [(sample.info, sample.operations) for sample in samples[variant] if sample.info]
    if not traced:
        return row
    return row | {
        "events_per_operation": median(
            sum(kind["written"] for kind in info["events"].values()) / operations
            for info, operations in traced
        ),
        "lost": sum(info["lost_total"] for info, _ in traced),
        "reader_cpu_s_per_million_events": median(
            info["overhead"]["reader_cpu_s_per_million_events"] for info, _ in traced
        ),
        "armed_s": median(info["armed_ns"] for info, _ in traced) / 1e9,
    }


def measure(sizes: Sizes) -> dict[str, Any]:
    """Compare both workloads; the document says where and under which conditions."""
    load = os.getloadavg()[0]
    variants = [UNTRACED, *LEVELS]
    strace = [STRACE] if shutil.which(STRACE) else []
    echo = Workload("echo", "round_trips", (str(HERE / "echo_app.py"),), sizes.round_trips)
    rows = compare(echo, variants + strace, sizes.rounds)
    with ExitStack() as stack:
        lab = stack.enter_context(private_postgres("lo"))
        script = (str(HERE / "pool_app.py"), "--dsn", lab.dsn)
        also = (str(lab.postmaster_pid),)
        pool = Workload("asyncpg pool", "queries", script, sizes.queries, also)
        rows += compare(pool, variants, sizes.rounds)
    host = {"kernel": platform.release(), "cpus": os.cpu_count(), "load_before": round(load, 2)}
    host |= {"python": platform.python_version(), "postgres": lab.server_version}
    return {"host": host, "sizes": vars(sizes), "malloc": MALLOC, "rows": rows}


def table(document: dict[str, Any]) -> str:
    """Return the comparison as text for people."""
    heads = ["", "", "per s", "ratio", "min–max", "events/op", "lost", "CPU s/M events", "armed s"]
    keys = ("events_per_operation", "lost", "reader_cpu_s_per_million_events", "armed_s")
    lines = [
        [
            *(row[key] for key in ("workload", "variant", "per_second", "ratio")),
            f"{min(row['ratios']):.2f}–{max(row['ratios']):.2f}",
            *map(row.get, keys),
        ]
        for row in document["rows"]
    ]
    formats = ("", "", ".0f", ".2f", "", ".1f", ".0f", ".2f", ".2f")
    notes = [
        ", ".join(f"{name} {value}" for name, value in part.items())
        for part in (document["host"], document["sizes"])
    ]
    fixed = " ".join(f"{name}={value}" for name, value in document["malloc"].items())
    notes.append(f"each process runs with {fixed}")
    if not shutil.which(STRACE):
        notes.append("strace is not installed: left out")
    return "\n".join([tabulate(lines, heads, floatfmt=formats), "", *notes])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name, default in vars(Sizes()).items():
        parser.add_argument("--" + name.replace("_", "-"), type=int, default=default)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = vars(parser.parse_args())
    as_json = options.pop("json")
    result = measure(Sizes(**options))
    print(json.dumps(result) if as_json else table(result))
