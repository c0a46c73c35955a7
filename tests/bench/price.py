"""What awaitscope costs: one table, each number beside its bar.

    sudo .venv/bin/python tests/bench/price.py
    sudo .venv/bin/python tests/bench/price.py --part start --part finish

Parts: `throughput` (compare.py), `losses` (a paced load for half a minute), `finish` (recordings
of one and of ten million events of a real load, finalised and correlated), `start`. The bars are
the project's own aims for a machine of two cores.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tabulate import tabulate

sys.path.append(str(Path(__file__).parent))

import compare

if TYPE_CHECKING:
    from collections.abc import Callable

HERE = Path(__file__).parent
AWAITSCOPE = str(Path(sys.executable).with_name("awaitscope"))
GIB = 1 << 30
EVENTS_A_TRIP = 13  # of the echo at level 3
PACED_EVENTS, PACED_SECONDS = 150_000, 30
SMALL, LARGE = 1_000_000, 10_000_000  # events of the recordings that are finished
# measured at least / at most
RATIOS = {
    ("echo", "level 1"): 0.88,
    ("echo", "level 2"): 0.82,
    ("echo", "level 3"): 0.75,
    ("asyncpg pool", "level 1"): 0.93,
    ("asyncpg pool", "level 3"): 0.85,
}


@dataclass(frozen=True)
class Price:
    """One line: a number, its bar, and on which side of that it should be."""

    what: str
    measured: float
    unit: str
    bar: float | None = None
    least: bool = False

    @property
    def verdict(self) -> str:
        """Say whether the bar is met."""
        if self.bar is None:
            return "no bar"
        good = self.measured >= self.bar if self.least else self.measured <= self.bar
        return "met" if good else "missed"

    def cells(self) -> list[str]:
        """Return what the table shows."""
        sign = "≥" if self.least else "≤"
        bar = "" if self.bar is None else f"{sign} {self.bar:g}"
        return [self.what, f"{self.measured:.3g}", self.unit, bar, self.verdict]


def throughput(sizes: compare.Sizes) -> tuple[list[Price], str]:
    """Compare traced with untraced runs; return the ratios and compare.py's own table."""
    document = compare.measure(sizes)
    rows = [row for row in document["rows"] if row["variant"] in compare.LEVELS]
    prices = [
        Price(
            f"throughput: {row['workload']}, {row['variant']}",
            row["ratio"],
            "of untraced",
            RATIOS.get((row["workload"], row["variant"])),
            least=True,
        )
        for row in rows
    ]
    armed = max(row["armed_s"] for row in rows)
    lost = sum(row["lost"] for row in rows)
    prices += [
        Price("recording begins after the command (slowest median)", armed, "s", 2.5),
        Price("records lost in all these runs", lost, "", 0),
    ]
    return prices, compare.table(document)


def losses() -> list[Price]:
    """Trace a load of a known rate with the default rings."""
    trips = PACED_EVENTS // EVENTS_A_TRIP + 500
    load = ["--round-trips", str(trips * PACED_SECONDS), "--per-second", str(trips)]
    with tempfile.TemporaryDirectory(prefix="awaitscope-bench-") as folder:
        trace = str(Path(folder, "trace"))
        command = [AWAITSCOPE, "run", "-o", trace, "--", sys.executable, str(HERE / "echo_app.py")]
        compare.output([*command, *load])
        info = json.loads(compare.output([AWAITSCOPE, "info", trace, "--json"]))
    cost, seconds = info["overhead"], info["duration_ns"] / 1e9
    prices = [
        Price("paced load: events a second", cost["events_per_s"], "/s", PACED_EVENTS, least=True),
        Price("paced load: how long", seconds, "s", PACED_SECONDS, least=True),
        Price("paced load: records lost with the default rings", info["lost_total"], "", 0),
        Price(
            "reader's CPU for a million events",
            cost["reader_cpu_s_per_million_events"],
            "s",
            0.3,
        ),
    ]
    if cost["bpf"]:
        prices.append(
            Price("paced load: programs in the kernel", cost["bpf"]["cpu_share"], "of a CPU")
        )
    return prices


def finish() -> list[Price]:
    """Record one and ten million events of the echo, then finalise and correlate each."""
    prices, speeds = [], []
    for events in (SMALL, LARGE):
        with tempfile.TemporaryDirectory(prefix="awaitscope-bench-") as folder:
            trace, trips = str(Path(folder, "trace")), events * 10 // 11 // EVENTS_A_TRIP
            halves = [sys.executable, str(HERE / "halves.py")]
            load = [sys.executable, str(HERE / "echo_app.py"), "--round-trips", str(trips)]
            compare.output([*halves, "record", trace, "--", *load])
            done = json.loads(compare.output([*halves, "finish", trace]))
        millions = f"{done['events'] / 1e6:.1f} M events"
        speeds.append(done["events"] / done["seconds"])
        stored = done["stored_bytes"] / done["events"]
        prices += [
            Price(
                f"finalise and correlate {millions}", speeds[-1], "events/s", 400_000, least=True
            ),
            Price(f"its peak memory, {millions}", done["peak_bytes"] / GIB, "GiB", 1.5),
            Price(f"stored size, {millions}", stored, "bytes an event", 16),
        ]
    ratio = speeds[1] / speeds[0]
    prices.append(Price("speed at ten million / at one (linear: 1)", ratio, "", 0.8, least=True))
    return prices


def start() -> list[Price]:
    """Time `--help`, the best of five: the rest is the machine's noise."""

    def once() -> float:
        began = time.perf_counter()
        subprocess.run([AWAITSCOPE, "--help"], capture_output=True, check=True)
        return time.perf_counter() - began

    return [Price("`awaitscope --help`", min(once() for _ in range(5)), "s", 0.3)]


PARTS: dict[str, Callable[[], list[Price]]] = {"start": start, "losses": losses, "finish": finish}


def measure(sizes: compare.Sizes, parts: list[str]) -> tuple[list[Price], str]:
    """Measure these parts, or all; return the prices and what else is to be said."""
    prices: list[Price] = []
    notes = ""
    if not parts or "throughput" in parts:
        prices, notes = throughput(sizes)
    for name, part in PARTS.items():
        if not parts or name in parts:
            print(f"price: {name}", file=sys.stderr)
            prices += part()
    return prices, notes


def table(prices: list[Price]) -> str:
    """Return the price table as text for people."""
    heads = ["what", "measured", "", "bar", ""]
    align = ("left", "right", "left", "left", "left")
    return tabulate(
        [price.cells() for price in prices], heads, colalign=align, disable_numparse=True
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for option, default in vars(compare.Sizes()).items():
        parser.add_argument("--" + option.replace("_", "-"), type=int, default=default)
    parser.add_argument("--part", action="append", choices=["throughput", *PARTS], default=[])
    options: dict[str, Any] = vars(parser.parse_args())
    asked = options.pop("part")
    found, said = measure(compare.Sizes(**options), asked)
    print("\n\n".join(part for part in (said, table(found)) if part))
