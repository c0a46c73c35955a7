"""The agent's rings: what they lose is counted, and each process has one of its own."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

import numpy as np

from tracer.events import header

if TYPE_CHECKING:
    from tests.unit.agent_ring import Lab


C = header.load().constants


def test_a_full_ring_counts_what_it_loses(lab: Lab) -> None:
    """Written plus lost is what a large ring gets, and nothing unread is overwritten."""
    program = """
import asyncio
async def child():
    for _ in range(101):
        await asyncio.sleep(0)
async def main():
    await asyncio.gather(*[child() for _ in range(13)])
asyncio.run(main())
"""
    lab.run(program, slots=64)
    lab.run(program, slots=1 << 14)
    small, large = lab.rings()
    assert int(small.head["head"]) == 64
    assert int(large.head["lost"].sum()) == 0
    assert len(large.of("step")) > 13 * 101
    for name in ("loop", "task", "task_name", "step", "callback"):
        lost = int(small.head["lost"][C[f"KIND_{name.upper()}"] - C["KIND_LOOP"]])
        assert len(small.of(name)) + lost == len(large.of(name)), name


def test_what_was_lost_of_a_task_is_said_again(lab: Lab) -> None:
    """Births and names that found the ring full are written when there is room, once."""
    fields = header.load().records["agent_ring"].dtype.fields
    head, tail = (fields[name][1] for name in ("head", "tail"))
    lab.run(
        f"""
import asyncio, glob, os
async def worker():
    for _ in range(9):
        await asyncio.sleep(0)
def drain():
    with open(glob.glob(os.environ["AWAITSCOPE_LIVE"] + "/*.ring")[0], "r+b", buffering=0) as ring:
        ring.seek({head})
        written = ring.read(8)
        ring.seek({tail})
        ring.write(written)
async def main():
    for _ in range(90):
        await asyncio.sleep(0)
    tasks = [asyncio.create_task(worker(), name=f"w{{n}}") for n in range(3)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    drain()
    for _ in range(3):
        await asyncio.sleep(0)
    os._exit(0)
asyncio.run(main())
""",
        slots=64,
    )
    (path,) = lab.live.glob("*.ring")
    raw = path.read_bytes()
    known = header.load().records
    slots = np.frombuffer(raw, np.uint8, 64 * 64, 4096).reshape(64, 64)

    def records(name: str) -> Any:
        rows = slots[slots[:, 14] == known[name].kind]
        return np.ascontiguousarray(rows).view(known[name].dtype)[:, 0]

    head_now = np.frombuffer(raw, known["agent_ring"].dtype, 1)[0]
    assert head_now["head"] > 64, "the ring was full and drained"
    assert head_now["lost"][C["KIND_TASK"] - 32] == 3
    names, births = records("task_name"), records("task")
    assert {b"w0", b"w1", b"w2"} <= set(names["name"].tolist())
    again = names["task"][np.isin(names["name"], [b"w0", b"w1", b"w2"])]
    assert len(again) == len(set(again.tolist())) == 3
    assert set(again.tolist()) <= set(births["task"].tolist())
    (gap,) = records("agent_gap")
    assert (births["ts_ns"][np.isin(births["task"], again)] <= gap["end_ns"]).all()


def test_a_child_that_cannot_open_a_ring_is_named(lab: Lab) -> None:
    """A forked child out of reach of the live folder leaves its number and why in its parent's."""
    lab.run("""
import asyncio, os, shutil
asyncio.run(asyncio.sleep(0))
live = os.environ["AWAITSCOPE_LIVE"]
os.rename(live, live + ".gone")
pid = os.fork()
if not pid:
    asyncio.run(asyncio.sleep(0.001))
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
os.rename(live + ".gone", live)
print(pid)
""")
    (ring,) = lab.rings()
    assert int(ring.head["orphans"]) == 1
    assert int(ring.head["orphan_pid"][0]) > 0
    assert int(ring.head["orphan_errno"][0]) == errno.ENOENT


def test_a_forked_child_has_its_own_ring(lab: Lab) -> None:
    """A child that runs a loop writes a second ring, one that does not writes none."""
    lab.run("""
import asyncio, os
asyncio.run(asyncio.sleep(0))
for work in (True, False):
    pid = os.fork()
    if not pid:
        if work:
            asyncio.run(asyncio.sleep(0.001))
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
asyncio.run(asyncio.sleep(0))
""")
    parent, child = lab.rings()
    assert int(child.head["agent"]) != int(parent.head["agent"])
    assert int(child.head["pid"]) != int(parent.head["pid"])
    assert {r["tid"] for r in child.of("step")} == {int(child.head["pid"])}
    assert set(child.strings) >= {r["coro_str"] for r in child.of("task")}
    tasks = [r["task"] for r in parent.of("task")]
    assert tasks == list(range(1, len(tasks) + 1))
