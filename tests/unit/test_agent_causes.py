"""The agent's evidence of causes outside the loop's own callbacks: threads, signals, forks."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from tracer.events import header

if TYPE_CHECKING:
    from tests.unit.agent_ring import Lab, Ring

C = header.load().constants


def test_work_in_threads(lab: Lab) -> None:
    """Each call has its giver, worker and times; the loop's callback names the call."""
    lab.run("""
import asyncio
from concurrent.futures import ThreadPoolExecutor
def work(n):
    if n == 2:
        raise KeyError(n)
async def main():
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as pool:
        calls = [loop.run_in_executor(pool, work, n) for n in range(3)]
        await asyncio.gather(*calls, return_exceptions=True)
asyncio.run(main())
""")
    (ring,) = lab.rings()
    works = ring.of("work")
    assert [ring.strings[r["name_str"]] for r in works] == ["work"] * 3
    assert {r["task"] for r in works} == {ring.of("task")[0]["task"]}
    first = min(ring.of("step"), key=lambda step: step["ts_ns"])
    assert {r["waker_run"] for r in works} == {first["run"]}
    assert {r["wake_tid"] for r in works} == {first["tid"]}
    for r in works:
        assert first["ts_ns"] <= r["wake_ns"] <= first["end_ns"]
    assert {r["tid"] for r in works}.isdisjoint({first["tid"]})
    for before, after in pairwise(works):
        assert before["end_ns"] <= after["ts_ns"]
    for r in works:
        assert r["wake_ns"] <= r["ts_ns"] <= r["end_ns"]
    # also of the first one, which is over before its giver has the future
    check_told(ring)


def check_told(ring: Ring) -> None:
    """Fail unless each work is the waker of one callback, in their order.

    From 3.14 on a future that is over when it gets wrapped is so at once, without a callback.
    """
    works = [r["run"] for r in ring.of("work")]
    told = [r["waker_run"] for r in ring.of("callback") if r["waker_run"] in works]
    early = ring.head["hexversion"] >= 0x030E0000 and told == works[1:]
    assert told == works or early


def test_only_its_future_names_the_work(lab: Lab) -> None:
    """What a worker schedules itself has no work as waker, whenever it does."""
    lab.run("""
import asyncio
from concurrent.futures import ThreadPoolExecutor
def here(): pass
async def main():
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as pool:
        await loop.run_in_executor(pool, int)  # over before its giver has the future
        for _ in range(2):
            await loop.run_in_executor(pool, loop.call_soon_threadsafe, here)
            call = pool.submit(loop.call_soon_threadsafe, here)
            await asyncio.wrap_future(call)
asyncio.run(main())
""")
    (ring,) = lab.rings()
    assert len(ring.of("work")) == 3
    heres = [r for r in ring.of("callback") if ring.strings[r["name_str"]].endswith("here")]
    assert [r["waker_run"] for r in heres] == [0] * 4
    check_told(ring)


@pytest.mark.parametrize("flags", [(), ("-X", "dev")])
def test_pools_see_what_they_saw(lab: Lab, flags: tuple[str, ...]) -> None:
    """Results, errors, tracebacks and what other kinds of executors get are as without us."""
    program = """
import asyncio, functools, traceback, warnings
from concurrent.futures import Executor, Future, ThreadPoolExecutor
warnings.simplefilter("ignore")
def work(n, m=1):
    return n // m
async def coroutine(): pass
class Own(Executor):
    def submit(self, fn, *args, **kwargs):
        print("own", fn is work)
        done = Future()
        done.set_result(fn(*args, **kwargs))
        return done
class Kin(ThreadPoolExecutor):
    def submit(self, fn, *args):
        print("kin", fn is work)
        return super().submit(fn, *args)
async def main():
    loop = asyncio.get_running_loop()
    print(await loop.run_in_executor(None, work, 7))
    print(await loop.run_in_executor(None, functools.partial(work, 8, m=2)))
    print(await loop.run_in_executor(executor=None, func=functools.partial(work, 9)))
    with Kin(1) as kin:
        print(await loop.run_in_executor(Own(), work, 5), await loop.run_in_executor(kin, work, 6))
    try:
        await loop.run_in_executor(None, work, 1, 0)
    except ZeroDivisionError as error:
        print([frame.name for frame in traceback.extract_tb(error.__traceback__)])
    for bad in (coroutine, functools.partial(coroutine), 3):
        try:
            result = await loop.run_in_executor(None, bad)
            print(type(result))
            result.close()
        except TypeError as error:
            print(str(error).split(" at 0x")[0])
asyncio.run(main())
"""
    plain = lab.run(program, *flags, traced=False)
    assert plain.stdout.count("True") == 2
    assert lab.run(program, *flags).stdout == plain.stdout


def test_signals_are_scheduled_by_the_reader_of_the_self_pipe(lab: Lab) -> None:
    """A signal handler's callback names the run that read the signal, and when."""
    lab.run("""
import asyncio, os, signal
async def main():
    loop = asyncio.get_running_loop()
    event = asyncio.Event()
    def handler(): event.set()
    loop.add_signal_handler(signal.SIGUSR1, handler)
    os.kill(os.getpid(), signal.SIGUSR1)
    await event.wait()
asyncio.run(main())
""")
    (ring,) = lab.rings()
    runs = {r["run"]: r for r in ring.of("callback")}
    (handler,) = [r for r in runs.values() if ring.strings[r["name_str"]].endswith("handler")]
    reader = runs[handler["waker_run"]]
    assert ring.strings[reader["name_str"]].endswith("_read_from_self")
    assert reader["ts_ns"] <= handler["wake_ns"] <= reader["end_ns"]
    assert handler["flags"] == 0


def test_what_is_built_on_a_primitive_is_awaited(lab: Lab) -> None:
    """The innermost function is that of the queue or the condition, not of what it is made of."""
    lab.run("""
import asyncio
async def waits():
    await asyncio.Event().wait()
async def main():
    queue = asyncio.Queue()
    queue.put_nowait(1)
    done = asyncio.as_completed([asyncio.sleep(0.001)])
    tasks = [asyncio.create_task(queue.join(), name="join"),
             asyncio.create_task(waits(), name="event")]
    for first in done:
        await first
    queue.get_nowait()
    queue.task_done()
    await tasks[0]
    tasks[1].cancel()
asyncio.run(main())
""")
    (ring,) = lab.rings()
    leafs = {name: ring.strings[ring.steps(name)[0]["leaf_str"]] for name in ("join", "event")}
    assert leafs["join"].endswith(("queues.py:Queue.join", "queues.py:join"))
    assert leafs["event"].endswith(("locks.py:Event.wait", "locks.py:wait"))
    texts = [ring.strings.get(r["leaf_str"], "") for r in ring.of("step")]
    assert any("/asyncio/tasks.py:" in text and "_wait_for_one" in text for text in texts)


def test_a_child_forked_in_a_task_starts_anew(lab: Lab) -> None:
    """The child's first task has no parent and no creator, though a task's step forked it."""
    lab.run("""
import asyncio, os
async def main():
    pid = os.fork()
    if not pid:
        asyncio.run(asyncio.sleep(0))
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
asyncio.run(main())
""")
    _parent, child = lab.rings()
    first = min(child.of("task"), key=lambda task: task["ts_ns"])
    assert (first["parent"], first["run"]) == (0, 0)
