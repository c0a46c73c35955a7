"""The agent against programs whose tasks, steps, rows and wakings are known."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from tracer.events import header

if TYPE_CHECKING:
    from tests.unit.agent_ring import Lab


C = header.load().constants
LIBRARY = """
import asyncio
async def fetch(n):
    for _ in range(n):
        await asyncio.sleep(0.0001)
"""


def version(lab: Lab) -> tuple[int, ...]:
    """Return the (major, minor) of the lab's Python."""
    command = [lab.python, "-c", "import sys; print(*sys.version_info[:2])"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return tuple(map(int, done.stdout.split()))


def test_births_names_and_steps(lab: Lab) -> None:
    """Each task has one birth, its parent, its name and one step more than suspensions."""
    lab.run("""
import asyncio
async def child(n):
    for _ in range(n):
        await asyncio.sleep(0)
async def main():
    a = asyncio.ensure_future(child(23))
    a.set_name("late name")
    b = asyncio.create_task(child(7), name="b" * 50)
    await a
    await b
asyncio.run(main())
""")
    (ring,) = lab.rings()
    births = {r["task"]: r for r in ring.of("task")}
    assert len(births) == len(ring.of("task")) == len(ring.of("task_name"))
    late, long = ring.task("late name"), ring.task("b" * 40)
    assert len(ring.steps("late name")) == 24
    assert len(ring.steps("b" * 40)) == 8
    assert [r["how"] for r in ring.steps("b" * 40)] == [C["HOW_YIELD"]] * 7 + [C["HOW_DONE"]]
    main = births[births[late]["parent"]]
    assert births[long]["parent"] == main["task"]
    assert ring.strings[main["coro_str"]] == "main"
    assert ring.strings[births[late]["where_str"]].endswith("program.py:3")
    assert main["parent"] == 0
    steps = [r for r in ring.of("step") if r["task"] == main["task"]]
    assert steps[0]["how"] == C["HOW_TASK"]
    assert steps[0]["awaited"] == late
    assert [r["len"] for r in ring.of("task_name") if r["task"] == long] == [50]
    (loop,) = ring.of("loop")
    assert ring.strings[loop["type_str"]].startswith("asyncio.")
    assert min(loop["selector_fd"], loop["self_fd"], loop["self_wfd"]) > 2


def test_clocks_are_in_order(lab: Lab) -> None:
    """A run is put on the queue before it begins and begins before it ends."""
    lab.run("import asyncio\nasyncio.run(asyncio.sleep(0.002))\n")
    (ring,) = lab.rings()
    for run in ring.of("step") + ring.of("callback"):
        assert run["wake_ns"] <= run["ts_ns"] <= run["end_ns"]
        assert int(ring.head["start_ns"]) <= run["ts_ns"]


def test_rows_belong_to_the_users_await(lab: Lab) -> None:
    """Suspensions inside one await of the user's code are one row; each new await is another."""
    lab.write("site-packages/fakelib.py", LIBRARY)
    lab.run("""
import asyncio, os, sys
sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "site-packages"))
import fakelib
async def once():
    await fakelib.fetch(3)
async def loops():
    for _ in range(5):
        await fakelib.fetch(2)
async def numbers():
    for i in range(3):
        await fakelib.fetch(2)
        yield i
async def through():
    async for _ in numbers():
        pass
async def deep(n):
    if n:
        await deep(n - 1)
    else:
        for _ in range(3):
            await fakelib.fetch(2)
async def main():
    for coro in (once(), loops(), through(), deep(20)):
        await asyncio.create_task(coro, name=coro.__name__)
asyncio.run(main())
""")
    (ring,) = lab.rings()
    assert ring.rows("once") == [1, 1, 1]
    assert ring.rows("loops") == [row for row in range(1, 6) for _ in range(2)]
    assert ring.rows("through") == [1, 1, 2, 2, 3, 3]
    assert ring.rows("deep") == [1, 1, 2, 2, 3, 3]
    flags = [r["flags"] & C["RUN_RESUMED_SAME"] for r in ring.steps("once")]
    assert flags == [0, C["RUN_RESUMED_SAME"], C["RUN_RESUMED_SAME"], 0]
    step = ring.steps("once")[0]
    assert ring.strings[step["where_str"]].endswith("program.py:6")
    assert ring.strings[step["leaf_str"]].endswith("asyncio/tasks.py:sleep")
    assert ring.strings[ring.steps("deep")[0]["where_str"]].endswith("program.py:22")


def test_ends_are_told_apart(lab: Lab) -> None:
    """Returned, raised and cancelled differ; gather is no plain future; throws are marked."""
    lab.run("""
import asyncio
async def fails():
    await asyncio.sleep(0)
    raise ValueError
async def forever():
    await asyncio.sleep(100)
async def fine(f):
    await f
async def gathers():
    f = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_later(0.0005, f.set_exception, KeyError())
    a = asyncio.create_task(fails(), name="fails")
    b = asyncio.create_task(forever(), name="forever")
    c = asyncio.create_task(fine(f), name="woken by failure")
    await asyncio.sleep(0.005)
    b.cancel()
    await asyncio.gather(a, b, c, return_exceptions=True)
async def main():
    await asyncio.create_task(gathers(), name="gathers")
asyncio.run(main())
""")
    (ring,) = lab.rings()
    assert ring.steps("fails")[-1]["how"] == C["HOW_FAILED"]
    assert ring.steps("forever")[-1]["how"] == C["HOW_CANCELLED"]
    assert ring.steps("forever")[-1]["flags"] & C["RUN_THROWN"]
    woken = ring.steps("woken by failure")[-1]
    assert woken["flags"] & C["RUN_FUTURE_FAILED"]
    assert C["HOW_GATHER"] in [r["how"] for r in ring.steps("gathers")]
    assert ring.steps("gathers")[-1]["how"] == C["HOW_DONE"]


def test_the_waker_is_the_run_that_set_the_future(lab: Lab) -> None:
    """Steps of tasks woken by a reader task name the reader's step as waker, one by one."""
    lab.run("""
import asyncio
async def reader(futures):
    for future in futures:
        await asyncio.sleep(0)
        future.set_result(None)
async def waits(future):
    await future
async def main():
    futures = [asyncio.get_running_loop().create_future() for _ in range(11)]
    tasks = [asyncio.create_task(waits(f), name=f"w{i}") for i, f in enumerate(futures)]
    await asyncio.create_task(reader(futures), name="reader")
    for task in tasks:
        await task
asyncio.run(main())
""")
    (ring,) = lab.rings()
    sets = [r["run"] for r in ring.steps("reader")][1:]
    assert [ring.steps(f"w{i}")[1]["waker_run"] for i in range(11)] == sets


def test_other_threads_are_named(lab: Lab) -> None:
    """What a worker thread schedules is marked, with that thread and no run as waker."""
    lab.run("""
import asyncio, threading
async def main():
    loop = asyncio.get_running_loop()
    event = asyncio.Event()
    def here(): event.set()
    worker = threading.Thread(target=loop.call_soon_threadsafe, args=(here,))
    worker.start()
    await event.wait()
    worker.join()
asyncio.run(main())
""")
    (ring,) = lab.rings()
    here = [r for r in ring.of("callback") if ring.strings[r["name_str"]].endswith("here")]
    assert len(here) == 1
    assert here[0]["flags"] & C["RUN_FROM_THREAD"]
    assert here[0]["wake_tid"] not in (0, here[0]["tid"])
    assert here[0]["waker_run"] == 0
    assert here[0]["wake_ns"] <= here[0]["ts_ns"]


def test_eager_first_steps(lab: Lab) -> None:
    """An eager first step is a step of the new task, nested in its creator's."""
    if version(lab) < (3, 12):
        pytest.skip("no eager tasks before 3.12")
    lab.run("""
import asyncio
async def over():
    return 1
async def waits(future):
    await future
async def main():
    loop = asyncio.get_running_loop()
    loop.set_task_factory(asyncio.eager_task_factory)
    future = loop.create_future()
    a = loop.create_task(over())
    b = loop.create_task(waits(future))
    future.set_result(1)
    await b
asyncio.run(main())
""")
    (ring,) = lab.rings()
    eager = [r for r in ring.of("task") if r["flags"] & C["RUN_EAGER"]]
    assert [ring.strings[r["coro_str"]] for r in eager] == ["over", "waits"]
    steps = {r["task"]: [s for s in ring.of("step") if s["task"] == r["task"]] for r in eager}
    assert [len(own) for own in steps.values()] == [1, 2]
    for own in steps.values():
        assert own[0]["flags"] & C["RUN_EAGER"]
        (outer,) = [s for s in ring.of("step") if s["run"] == own[0]["waker_run"]]
        assert outer["ts_ns"] <= own[0]["ts_ns"] <= own[0]["end_ns"] <= outer["end_ns"]
