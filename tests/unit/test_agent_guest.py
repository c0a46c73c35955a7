"""What a program can see of itself is the same with the agent as without."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.unit.agent_ring import Lab

PROGRAM = """
import asyncio, copy, gc, inspect, json, os, pickle, re, sys, traceback, warnings, weakref
from asyncio import base_events, events
from unittest import mock
warnings.simplefilter("always")
seen = {
    "modules": sorted(sys.modules), "path": sys.path, "environ": sorted(os.environ),
    "finders": [str(finder) for finder in sys.meta_path], "hooks": len(sys.path_hooks),
    "trace": [sys.gettrace(), sys.getprofile()], "flags": str(sys.flags),
    "importers": sorted(sys.path_importer_cache), "fds": len(os.listdir("/proc/self/fd")),
    "usercustomize": "usercustomize" in sys.modules,
}

async def fails():
    await asyncio.sleep(0)
    raise KeyError("mine")

async def short():
    await asyncio.sleep(0)

def told(error):
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))

async def main():
    loop = asyncio.get_running_loop()
    names = ("call_soon", "call_later", "call_soon_threadsafe", "create_task", "run_in_executor")
    seen["signatures"] = [str(inspect.signature(getattr(loop, name))) for name in names]
    hooked = (base_events.BaseEventLoop._call_soon, events.Handle._run)
    seen["hooked"] = [(len(inspect.signature(f).parameters), f.__qualname__) for f in hooked]
    seen["policy"] = type(asyncio.get_event_loop_policy()).__qualname__
    task = asyncio.create_task(fails(), name="told")
    seen["repr"] = [repr(task), repr(loop.call_soon(print)), repr(loop.call_later(9, print))]
    seen["stack"] = [frame.f_code.co_name for frame in task.get_stack()]
    try:
        await task
    except KeyError as error:
        seen["error"] = told(error)
    seen["done"] = repr(task)
    for name, do in (("pickle", pickle.dumps), ("copy", copy.copy)):
        try:
            do(task)
        except TypeError as error:
            seen[name] = str(error)
    with mock.patch.object(loop, "call_soon", wraps=loop.call_soon) as spy:
        loop.call_soon(len, ())
        await asyncio.sleep(0)
        seen["spy"] = [spy.call_count, str(spy.call_args_list[0])]
    seen["unpatched"] = "call_soon" in vars(loop)
    seen["refs"] = sys.getrefcount(task), sys.getrefcount(loop)
    del task
    gc.collect()
    gc.disable()
    born = [asyncio.create_task(short()) for _ in range(50)]
    refs = [weakref.ref(task) for task in born]
    while any(not task.done() for task in born):
        await asyncio.sleep(0)
    seen["held"] = sorted({sys.getrefcount(task) for task in born})
    del born
    seen["left"] = sum(ref() is not None for ref in refs)
    seen["tasks"] = sum(isinstance(x, asyncio.Task) for x in gc.get_objects())
    seen["handles"] = sum(isinstance(x, asyncio.Handle) for x in gc.get_objects())
    seen["garbage"] = gc.collect()

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    asyncio.run(main())
    short()
    gc.collect()
seen["warnings"] = [str(w.message) for w in caught]
print(re.sub("(0x|when=)[0-9a-f.]+", "", json.dumps(seen, default=str)))
"""
OPEN = """
import os
links = [f"/proc/self/fd/{n}" for n in os.listdir("/proc/self/fd")]
files = [os.path.basename(os.readlink(link)) for link in links if os.path.exists(link)]
print(sorted(name for name in files if "pipe:" not in name))
"""

# all that there is of us: what children need to be traced, the agent (whose builder's first line
# is an import), and who waits for the import of a loop
OURS = {
    "environ": "AWAITSCOPE_",
    "modules": ("_awaitscope_agent", "__future__"),
    "finders": "<sitecustomize._Finder ",
}


@pytest.mark.parametrize("flags", [(), ("-X", "dev")])
def test_a_program_sees_itself_as_ever(lab_in_c: Lab, flags: tuple[str, ...]) -> None:
    """Its modules, paths, signatures, texts, references and objects are as without us."""
    lab_in_c.write("own/usercustomize.py", "")
    own = {"PYTHONPATH": str(lab_in_c.folder / "own")}
    plain = json.loads(lab_in_c.run(PROGRAM, *flags, traced=False, **own).stdout)
    traced = json.loads(lab_in_c.run(PROGRAM, *flags, **own).stdout)
    assert len(lab_in_c.rings()) == 1
    for what, names in OURS.items():
        for seen in (plain, traced):
            seen[what] = [name for name in seen[what] if not name.startswith(names)]
    differs = {key: (plain[key], traced[key]) for key in plain if plain[key] != traced[key]}
    assert not differs


def test_no_descriptor_stays_open(lab: Lab) -> None:
    """Either agent leaves none; in light mode libffi may keep itself open, as for any ctypes."""
    plain = lab.run("import ctypes\n" + OPEN if lab.light else OPEN, traced=False).stdout
    assert lab.run(OPEN).stdout == plain
    assert len(lab.rings()) == 1
