"""Compare what FastAPI on uvicorn serves untraced and at each level, under wrk.

    sudo .venv/bin/python tests/bench/server.py --rounds 4

Each request asks PostgreSQL twice (tests/apps/fastapi_pg.py). As in compare.py, each round runs
every variant once, in another order; shown is the median over rounds.

uvloop serves from two workers, asyncio from one: the socket that workers inherit has no protocol
number in Python, so asyncio sets no TCP_NODELAY, and each answer's body, the second segment, waits
some 40 ms for the acknowledgement of its head (Nagle's algorithm).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

sys.path += [str(Path(__file__).parents[1]), str(Path(__file__).parents[2] / "demos")]

import uvicorns
from coded_loads import free_port
from compare import LEVELS, MALLOC, UNTRACED, Sample, output, summary
from lab import private_postgres
from tabulate import tabulate

WORKERS = {"asyncio": 1, "uvloop": uvicorns.WORKERS}


def run(loop: str, variant: str, trace: Path, dsn: str, seconds: int) -> Sample:
    """Serve and load once, after a warm-up of a second that is in the trace, too."""
    awaitscope = str(Path(sys.executable).with_name("awaitscope"))
    before: list[str] = []
    if variant != UNTRACED:
        before = [awaitscope, "run", "-o", str(trace), "--force", "--level", str(LEVELS[variant])]
        before.append("--")
    port = free_port()
    with uvicorns.serving(before, port, loop, {"DSN": dsn, **MALLOC}, WORKERS[loop]):
        warm_up = uvicorns.load(port, 1, path="/rows/1")
        per_second = uvicorns.load(port, seconds, path="/rows/1")
    requests = round(warm_up + per_second * seconds)
    if variant == UNTRACED:
        return Sample(per_second, requests)
    info = json.loads(output([awaitscope, "info", str(trace), "--json"]))
    return Sample(per_second, requests, info)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=4, help="of load, each")
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    options = parser.parse_args()
    variants = [UNTRACED, *LEVELS]
    samples: dict[str, list[Sample]] = {variant: [] for variant in variants}
    with (
        private_postgres("lo") as lab,
        tempfile.TemporaryDirectory(prefix="awaitscope-bench-") as folder,
    ):
        for number in range(options.rounds):
            turn = number % len(variants)
            for variant in variants[turn:] + variants[:turn]:
                trace = Path(folder, "trace")
                sample = run(options.loop, variant, trace, lab.dsn, options.seconds)
                samples[variant].append(sample)
                said = f"{variant}: {sample.per_second:.0f} requests/s"
                print(f"round {number + 1} of {options.rounds}, {said}", file=sys.stderr)
    rows = []
    for variant in variants:
        row = summary(samples, variant)
        ratio = f"{row['ratio']:.2f} ({min(row['ratios']):.2f}-{max(row['ratios']):.2f})"
        events = row.get("events_per_operation")
        rows.append((variant, row["per_second"], ratio, events, row.get("lost")))
    heads = ("", "requests/s", "traced / untraced (min-max)", "events/request", "lost")
    print(tabulate(rows, heads, floatfmt=".0f"))


if __name__ == "__main__":
    main()
