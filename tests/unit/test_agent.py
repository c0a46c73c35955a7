"""The agent against programs whose tasks, steps, rows and wakings are known."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tracer import agent
from tracer.agent import build
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


def test_the_interpreter_is_known(lab: Lab) -> None:
    """The agent in C tells where the GIL and the frames are, for each CPython."""
    lab.run("import asyncio; asyncio.run(asyncio.sleep(0))")
    (ring,) = lab.rings()
    head = ring.head
    if lab.light:
        assert head["gil"] == head["code_type"] == 0
        return
    assert head["gil"] < head["gil_holder"] < head["gil"] + head["gil_bytes"]
    assert head["gil_bytes"] < 1 << 16
    assert head["code_type"]
    assert head["base"].any()


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


def test_the_apps_sitecustomize_runs(lab: Lab) -> None:
    """The app's own sitecustomize runs under its name; without one there is no such module."""
    lab.write("own/sitecustomize.py", "import sys\nmine = sys.modules[__name__].__file__\n")
    program = """
import sys
own = sys.modules.get("sitecustomize")
print(getattr(own, "mine", None), [p for p in sys.path if "bootstrap" in p])
"""
    for own in ("own", "nothing"):
        path = str(lab.folder / own)
        plain = lab.run(program, traced=False, PYTHONPATH=path)
        traced = lab.run(program, PYTHONPATH=path)
        assert (traced.stdout, traced.stderr) == (plain.stdout, plain.stderr)


@pytest.mark.parametrize("flags", [(), ("-X", "dev")])
def test_exceptions_reach_the_handler_as_before(lab: Lab, flags: tuple[str, ...]) -> None:
    """A failing callback gives the handler what it gets without the agent."""
    program = """
import asyncio, sys
def bad(): raise KeyError(1)
def handler(loop, context):
    print(sorted(context), context["message"], repr(context["exception"]), sys.exc_info()[0])
async def main():
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(handler)
    loop.call_soon(bad)
    loop.call_later(0.001, bad)
    await asyncio.sleep(0.005)
asyncio.run(main())
print(sys.exc_info())
def leave(): raise SystemExit(0)
loop = asyncio.new_event_loop()
loop.call_soon(leave)
loop.run_forever()
"""
    plain = lab.run(program, *flags, traced=False)
    traced = lab.run(program, *flags)
    assert plain.stdout.count("KeyError(1)") == 2
    assert traced.stdout == plain.stdout
    assert len(lab.rings()) == 1


def test_unretrieved_exceptions_are_still_reported(lab: Lab) -> None:
    """Looking at a failed task does not mark its exception as retrieved."""
    done = lab.run("""
import asyncio
async def fails(): raise ValueError("nobody asked")
async def main():
    asyncio.create_task(fails())
    await asyncio.sleep(0.001)
asyncio.run(main())
""")
    assert "Task exception was never retrieved" in done.stderr


def test_objects_die_when_they_did(lab: Lab) -> None:
    """The agent keeps no coroutine, task or argument alive."""
    program = """
import asyncio, gc, weakref
gc.disable()
class Thing: pass
refs = []
async def inner(thing):
    await asyncio.sleep(0.0001)
async def outer():
    thing = Thing()
    refs.append(weakref.ref(thing))
    coro = inner(thing)
    refs.append(weakref.ref(coro))
    await coro
    del coro, thing
    print([ref() for ref in refs])
    await asyncio.sleep(0.0001)
async def main():
    task = asyncio.create_task(outer())
    refs.append(weakref.ref(task))
    await task
    del task
    await asyncio.sleep(0)
    print([ref() for ref in refs])
asyncio.run(main())
"""
    plain = lab.run(program, traced=False).stdout.split("]")[1:]
    assert lab.run(program).stdout.split("]")[1:] == plain


def test_a_process_without_asyncio_does_not_import_it(lab: Lab) -> None:
    """The bootstrap itself imports neither asyncio nor subprocess nor hashlib."""
    done = lab.run("""
import sys
print(sorted({"asyncio", "subprocess", "hashlib", "sysconfig"} & set(sys.modules)))
""")
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("lab_in_c", [sys.executable], indirect=True)
def test_a_process_that_builds_the_agent_does_not_show_it(lab_in_c: Lab) -> None:
    """The first process of an interpreter has the agent, and what it imported is its own."""
    program = """
import os, sys
print(sorted(set(sys.modules) - {"_awaitscope_agent", "__future__"}), os.listdir("/proc/self/fd"))
"""
    plain = lab_in_c.run(program, traced=False).stdout
    lab_in_c.cache = lab_in_c.folder / "empty"
    assert lab_in_c.run(program).stdout == plain
    assert [int(ring.head["mode"]) for ring in lab_in_c.rings()] == [1]


def test_failure_leaves_a_reason_and_the_app_alone(lab: Lab) -> None:
    """Where it cannot work the agent says why where it can, and the app runs on."""
    program = "import asyncio.base_events\nprint('fine')\n"
    assert lab.run(program, "-X", "importtime").stdout == "fine\n"
    assert lab.reasons() == []
    lab.write("own/asyncio/__init__.py", "")
    lab.write("own/asyncio/base_events.py", "")
    done = lab.run(program, PYTHONPATH=str(lab.folder / "own"))
    assert (done.stdout, done.stderr) == ("fine\n", "")
    assert [text.split(":")[0] for text in lab.reasons()] == ["hooks_failed"]
    lab.live = lab.folder / "nowhere"
    done = lab.run(program)
    assert (done.stdout, done.stderr) == ("fine\n", "")


def test_light_mode_says_why(lab: Lab) -> None:
    """The ring tells which agent wrote it, and why it is not the one in C."""
    program = "import asyncio\nasyncio.run(asyncio.sleep(0))\n"
    lab.run(program)
    lab.cache = lab.folder / "unsafe"
    lab.cache.mkdir()
    lab.cache.chmod(0o777)
    lab.run(program)
    why = [(int(ring.head["mode"]), int(ring.head["why"])) for ring in lab.rings()]
    first = (2, 1 + build.REASONS.index("no_compiler")) if lab.light else (1, 0)
    second = first if lab.light else (2, 1 + build.REASONS.index("unsafe_cache"))
    assert why == [first, second]


def test_a_built_agent_needs_no_compiler(lab: Lab, agent_cache: Path) -> None:
    """Where the agent was built before, it is used whether or not a compiler is there."""
    assert agent.prebuild(Path(lab.python), agent_cache) is None
    lab.cache, lab.light = agent_cache, True
    lab.run("import asyncio\nasyncio.run(asyncio.sleep(0))\n")
    (ring,) = lab.rings()
    assert int(ring.head["mode"]) == 1


def test_python_of_sees_through_scripts(tmp_path: Path) -> None:
    """A script's interpreter counts, also behind env; other commands have none."""
    env = {"PATH": f"{tmp_path}:/usr/bin:/bin"}
    lines = {"a": f"#!{sys.executable}", "b": "#!/usr/bin/env python3", "c": "#!/bin/sh"}
    for name, line in lines.items():
        script = tmp_path / name
        script.write_text(line + "\n")
        script.chmod(0o755)
    (tmp_path / "python3").symlink_to(sys.executable)
    assert str(agent.python_of(["a"], env)) == sys.executable
    assert str(agent.python_of(["b"], env)) == str(tmp_path / "python3")
    assert agent.python_of(["c"], env) is None
    assert agent.python_of(["no-such-command"], env) is None
