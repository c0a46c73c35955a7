"""What the guests do: the demo, queries in turn, and the pool whose bytes are known."""

from __future__ import annotations

import json
import socket
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from machine import Guest, Lab, Result, run_guests, two_guests
from tracing import APPS, Traced, facts

if TYPE_CHECKING:
    from collections.abc import Callable


TURNS = 97
INFERRED = (5, 6, 7)  # the other host is not traced
# The server's guest lives until the other one says that it is done.
GOODBYE = 5433
DB_JOB = f"""
set -eu
server
exec python3 -c 'import socket; socket.create_server(("", {GOODBYE})).accept()'
"""
APP_JOB = f"""
set -eu
trap 'python3 -c "import socket; socket.create_connection((\\"10.0.2.22\\", {GOODBYE}), 5)"' EXIT
python3 - <<'P'
import socket, time
for _ in range(300):
    try:
        socket.create_connection(("10.0.2.22", {GOODBYE - 1}), 5).close()
        break
    except OSError:
        time.sleep(0.5)
P
awaitscope demo --queries 40 -o /lab/out/demo.trace --json >/lab/out/demo.json
apps=src/tests/apps
awaitscope run -o /lab/out/load.trace -- sh -eu -c "
    python3 $apps/turns.py --dsn $AWAITSCOPE_DSN --turns {TURNS} >/lab/out/turns.json
    python3 $apps/pool.py --dsn $AWAITSCOPE_DSN --tasks 8 --calls 3 >/lab/out/pool.json"
"""


# A guest that asks itself: out through its card to the host's forwarded port, and back in.
ALONE_JOB = """
set -eu
server
export AWAITSCOPE_DSN="postgresql://demo:demo@10.0.2.2:{port}/postgres?sslmode=disable"
awaitscope demo --queries 30 -o /lab/out/demo.trace --json >/lab/out/demo.json
"""


@dataclass(frozen=True)
class Pair:
    """What came back from `app`."""

    result: Result
    demo: dict[str, Any]
    turns: dict[str, Any]
    load: Traced


def awaits_at(load: Traced, app: str, text: str) -> list[dict[str, Any]]:
    """Return the awaits at the lines of an app that contain `text`; it ran in another folder."""
    lines = (APPS / app).read_text().splitlines()
    places = {f"{app}:{n}" for n, line in enumerate(lines, 1) if text in line}
    assert places
    return [row for row in load.awaits if Path(row["where"] or "").name in places]


def run_pair(
    lab: Lab,
    folder: Path,
    say: Callable[[str], None],
    device: str = "virtio-net-pci",
    prepare: str = "",
) -> Pair:
    """Run both guests; return what the program's side recorded.

    `device` is QEMU's name of both network cards, `prepare` what `app` does to its own first.
    """
    job = f"{prepare}\n{APP_JOB}"
    done = run_guests(lab, two_guests(job, DB_JOB, device), folder, say)
    app = done["app"]
    assert app.code == 0, f"{app.stdout}\n{app.stderr}"
    assert done["db"].code == 0, done["db"].stderr

    def document(name: str) -> dict[str, Any]:
        read: dict[str, Any] = json.loads((app.folder / name).read_text().splitlines()[-1])
        return read

    load = Traced(app.folder / "load.trace", document("pool.json"))
    return Pair(app, demo_of(app), document("turns.json"), load)


def run_alone(lab: Lab, folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Run one guest whose own PostgreSQL it reaches over its card; return the demo's document."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    netdev = f"user,id=n0,hostfwd=tcp:127.0.0.1:{port}-:5432"
    guest = Guest("alone", "10.0.2.15/24", ALONE_JOB.format(port=port), netdev)
    done = run_guests(lab, [guest], folder, say)["alone"]
    assert done.code == 0, f"{done.stdout}\n{done.stderr}"
    return demo_of(done)


def demo_of(result: Result) -> dict[str, Any]:
    """Return the demo's document; before it stands what the program itself printed."""
    said = (result.folder / "demo.json").read_text()
    document: dict[str, Any] = json.loads(said[said.index("{") :])
    return document


def what_is_wrong(pair: Pair) -> list[str]:
    """Return what contradicts the ground truth, in words; nothing if all is right."""
    rows = awaits_at(pair.load, "pool.py", "await conn.fetch(")
    # what a cancelled query would have received came later: the app cannot know it
    rows = [row | {"recv_bytes": None} if row["outcome"] == "cancelled" else row for row in rows]
    found, truth = facts(rows), facts(pair.load.truth["rows"])
    wrong = [f"{n}x recorded: {row}" for row, n in (found - truth).items()]
    wrong += [f"{n}x not recorded: {row}" for row, n in (truth - found).items()]
    kinds = Counter(row["attribution"] for row in pair.load.awaits if row["kind"] == "socket")
    if kinds["inferred"] or kinds["unattributed"] >= 0.005 * kinds.total():
        wrong.append(f"attribution: {dict(kinds)}")
    if pair.load.info["lost_total"]:
        wrong.append(f"{pair.load.info['lost_total']} records were lost")
    return wrong + steps_missing(pair.demo)


def steps_missing(demo: dict[str, Any]) -> list[str]:
    """Return which of the 13 steps are not as they must be where only one host is traced."""
    status = {step["step"]: step["status"] for step in demo["steps"]}
    expected = {n: "inferred" if n in INFERRED else "observed" for n in range(1, 14)}
    return [f"step {n} is {status.get(n)}" for n in expected if status.get(n) != expected[n]]
